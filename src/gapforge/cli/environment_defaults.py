"""GAPFORGE_* variables as defaults of flags: a flag beats the environment, which beats the preset."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from gapforge.base.errors import UsageError
from gapforge.base.i18n import _

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def variable(flag: str) -> str:
    """``--app-source`` → ``GAPFORGE_APP_SOURCE``."""
    return "GAPFORGE_" + flag.removeprefix("--").upper().replace("-", "_")


def text_default(args: argparse.Namespace, *flags: str) -> None:
    """Fill every flag that was not given from its variable. An empty variable counts as not set."""
    for flag in flags:
        name = flag.removeprefix("--").replace("-", "_")
        if getattr(args, name) is None:
            setattr(args, name, os.environ.get(variable(flag)) or None)


def switch_default(args: argparse.Namespace, *flags: str) -> None:
    """The same for switches; UsageError for a value that is neither yes nor no."""
    for flag in flags:
        name = flag.removeprefix("--").replace("-", "_")
        value = os.environ.get(variable(flag), "").strip().lower()
        if value not in _TRUE + _FALSE:
            key = variable(flag)
            raise UsageError(
                _('{key}="{value}" is neither yes nor no', key=key, value=value),
                hint=_("export {key}=1, or unset it", key=key),
            )
        if value in _TRUE:
            setattr(args, name, True)


def one_of(value: str | None, allowed: Sequence[str], flag: str, verb: str) -> None:
    """UsageError unless ``value`` is None or allowed; names the variable too, since it may come from there."""
    if value is not None and value not in allowed:
        words = _(" or ").join(allowed)
        raise UsageError(
            _(
                '{flag} (or {variable}) is "{value}"; expected {words}',
                flag=flag,
                variable=variable(flag),
                value=value,
                words=words,
            ),
            hint=f"./gapforge {verb} --help",
        )
