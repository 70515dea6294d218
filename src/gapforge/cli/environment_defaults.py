"""Use GAPFORGE_* variables as defaults of flags. Flags override them, and they override presets."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from gapforge.base.errors import UsageError
from gapforge.base.i18n import _
from gapforge.model.preset import Preset
from gapforge.model.schema import nearest
from gapforge.model.text_shapes import PYTHON, VERSION
from gapforge.model.versions import NONE

_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE_NAME = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
)
_MOST_OF_NAME = 255
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def variable(flag: str) -> str:
    """Return the variable of a flag: GAPFORGE_APP_SOURCE for ``--app-source``."""
    return "GAPFORGE_" + flag.removeprefix("--").upper().replace("-", "_")


def text_default(args: argparse.Namespace, *flags: str) -> None:
    """Set each flag that was not given to its variable. An empty variable counts as unset."""
    for flag in flags:
        name = _attribute(flag)
        if getattr(args, name) is None:
            setattr(args, name, os.environ.get(variable(flag)) or None)


def source_default(args: argparse.Namespace, preset: Preset) -> None:
    """Set ``--app-source`` to its variable, which does not concern a preset without an application.

    The flag itself is refused for such a preset.
    """
    if preset.application is not None:
        text_default(args, "--app-source")


def switch_default(args: argparse.Namespace, *flags: str) -> None:
    """Set each switch whose variable says yes. Raise UsageError for a value that is neither."""
    for flag in flags:
        key = variable(flag)
        value = os.environ.get(key, "").strip().lower()
        if value not in _TRUE + _FALSE:
            raise UsageError(
                _('{key} is "{value}"; expected 1 or 0', key=key, value=value),
                hint=_("export {key}=1, or unset {key}", key=key),
            )
        if value in _TRUE:
            setattr(args, _attribute(flag), True)


def sign_key(given: str | None) -> str | None:
    """Return the signing key of a flag or of GAPFORGE_SIGN_KEY, or None."""
    return given if given is not None else os.environ.get("GAPFORGE_SIGN_KEY") or None


def one_of(value: str | None, allowed: Sequence[str], flag: str, verb: str) -> None:
    """Raise UsageError unless ``value`` is None or allowed."""
    if value is not None and value not in allowed:
        raise UsageError(
            _(
                '{flag} (or {variable}) is "{value}"; expected {choices}',
                flag=flag,
                variable=variable(flag),
                value=value,
                choices=", ".join(allowed),
            )
            + nearest(value, allowed),
            hint=f"./gapforge {verb} --help",
        )


def versions(args: argparse.Namespace) -> None:
    """Raise UsageError for a flag of ``add_versions`` whose value is no version.

    Whether versions fit together is another question, which CompatibilityError answers.
    """
    for flag, shape, words in (
        ("--python", PYTHON, ()),
        ("--torch", VERSION, (NONE,)),
        ("--tensorrt", VERSION, (NONE,)),
    ):
        value = getattr(args, _attribute(flag))
        if value is not None and value not in words and not shape.matches(value):
            raise UsageError(
                _('{flag} "{value}" is not a version', flag=flag, value=value),
                hint=_(
                    "expected {expected}; ./gapforge list shows the presets and their versions",
                    expected=", ".join([shape.wanted(), *words]),
                ),
            )


def image_name(value: str | None, flag: str, verb: str) -> None:
    """Raise UsageError unless ``value`` is None or what an engine accepts as NAME:TAG.

    The grammar is that of the Docker distribution project's references, without a digest.
    """
    if value is not None and (not _IMAGE_NAME.fullmatch(value) or len(value) > _MOST_OF_NAME):
        raise UsageError(
            _(
                '{flag} (or {variable}) is "{value}", which is not the name of an image',
                flag=flag,
                variable=variable(flag),
                value=value,
            ),
            hint=_(
                "lower-case letters and digits, then ':' and a tag, such as ./gapforge {verb} "
                "{flag} my-app:1.0",
                verb=verb,
                flag=flag,
            ),
        )


def _attribute(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
