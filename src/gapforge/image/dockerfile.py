"""Fill the project's Dockerfile with the secrets of a preset."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gapforge.base.errors import Fault, LintError
from gapforge.base.i18n import _
from gapforge.model.preset import Secret

NAME = "Dockerfile"
BUILD_ARGS = "# gapforge:build-args"
SECRET_MOUNTS = "    # gapforge:secret-mounts"  # noqa: S105 - a marker line, no secret
_CACHE_ID = "id=gapforge-ccache-"
_COMMAND = 'CMD ["/usr/local/bin/application"]'
_NO_APPLICATION = 'CMD ["python3"]'  # every image has Python


def render(
    template: str, secrets: Sequence[Secret], preset: str, *, application: bool = True
) -> str:
    """Return the Dockerfile with an ``ARG`` or a secret mount for each secret.

    They replace the two marker lines. The compile caches get the name of the preset, so that no
    build takes objects that another preset's code put there. Without an ``application`` the runtime
    image runs Python. Raise LintError when a marker line is missing, repeated or unknown, since
    otherwise a secret could be left out without a word.
    """
    raise_faults(_("the secrets cannot be inserted into the Dockerfile"), _marker_faults(template))
    replaced = {
        BUILD_ARGS: [f"ARG {s.key}" for s in secrets if s.passed == "build-arg"],
        _COMMAND: [_COMMAND if application else _NO_APPLICATION],
        SECRET_MOUNTS: [_secret_mount(s) for s in secrets if s.passed == "secret"],
    }
    lines: list[str] = []
    for line in template.split("\n"):
        lines += replaced.get(line, [line.replace(_CACHE_ID, f"{_CACHE_ID}{preset}-")])
    return "\n".join(lines)


def raise_faults(message: str, faults: Sequence[Fault]) -> None:
    """Raise LintError with ``message`` and all faults of the Dockerfile, if there are any."""
    if faults:
        hint = _("correct Dockerfile; then run the same command again")
        raise LintError(message, faults=faults, hint=hint)


def at_line(line: int) -> str:
    """Return the place of a fault."""
    return _("{file}: line {number}", file=NAME, number=line)


def _marker_faults(template: str) -> list[Fault]:
    lines = template.split("\n")
    faults = [
        Fault(
            NAME,
            _('the line "{marker}" occurs {count} times', marker=marker, count=lines.count(marker)),
            _("exactly once"),
        )
        for marker in (BUILD_ARGS, SECRET_MOUNTS)
        if lines.count(marker) != 1
    ]
    expected = _(
        '"{build_args}" or "{secret_mounts}"', build_args=BUILD_ARGS, secret_mounts=SECRET_MOUNTS
    )
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*#\s*gapforge\s*:", line) and line not in (BUILD_ARGS, SECRET_MOUNTS):
            problem = _('unknown marker line "{line}"', line=line.strip())
            faults.append(Fault(at_line(number), problem, expected))
    return faults


def _secret_mount(secret: Secret) -> str:
    required = ",required=true" if secret.required else ""
    return f"    --mount=type=secret,id={secret.key}{required} \\"
