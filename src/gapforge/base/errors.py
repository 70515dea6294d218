"""Every way gapforge can fail on purpose: a reason, what to do next, and an exit code no other cause has.

Modules raise these; only ``gapforge.cli`` prints them and exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gapforge.base.i18n import N_, _
from gapforge.base.text import printable

# What begins a message, what begins its next step, and what parts a fault from what would be right: Korean, English.
ERROR = N_("error: ")
NEXT = N_("next: ")
EXPECTED = N_("; expected ")


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong: where it is, what was found, and what would be right instead."""

    where: str
    problem: str
    expected: str = ""

    def lines(self) -> str:
        """The fault as two indented lines for a terminal. Its texts may come from a stick that anybody has touched."""
        tail = f"{_(EXPECTED)}{self.expected}" if self.expected else ""
        return f"  {printable(self.where)}\n      {printable(self.problem + tail)}"

    def to_json(self) -> dict[str, str]:
        return {"where": self.where, "problem": self.problem, "expected": self.expected}


class GapforgeError(Exception):
    """Base of all expected failures.

    ``hint`` is the next thing to do, preferably a command that works where the user is (often with no
    network). ``faults`` lists every fault found, never just the first.
    """

    exit_code = 1
    cause = "internal"

    def __init__(self, message: str, *, hint: str = "", faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.faults = tuple(faults)

    def render(self) -> str:
        """The whole message for a terminal."""
        parts = [f"{_(ERROR)}{self.message}"]
        parts += [fault.lines() for fault in self.faults]
        if self.hint:
            parts.append(f"{_(NEXT)}{self.hint}")
        return "\n".join(parts)

    def to_json(self) -> dict[str, object]:
        return {
            "error": self.cause,
            "exit_code": self.exit_code,
            "message": self.message,
            "faults": [fault.to_json() for fault in self.faults],
            "next": self.hint,
        }


class InternalError(GapforgeError):
    """A bug in gapforge. The traceback goes into a file, not to the user."""


class UsageError(GapforgeError):
    """A flag, argument or GAPFORGE_* variable is missing or means nothing."""

    exit_code, cause = 2, "usage"


class PresetError(GapforgeError):
    """A preset (or catalog) cannot be read or says something that is not allowed."""

    exit_code, cause = 3, "preset"


class LockError(GapforgeError):
    """The lock is missing, unreadable, or belongs to another state of the preset."""

    exit_code, cause = 4, "lock"


class VerifyError(GapforgeError):
    """Artifacts are missing, extra, changed or cut short."""

    exit_code, cause = 5, "verify"


class FetchError(GapforgeError):
    """A download failed: no server answered, or the bytes are not the expected ones."""

    exit_code, cause = 6, "fetch"


class ResolveError(GapforgeError):
    """No set of packages satisfies the preset (a wheel or .deb does not exist for the target)."""

    exit_code, cause = 7, "resolve"


class GatedError(GapforgeError):
    """A file must be downloaded by a person (login-gated); give it with ``--from DIR``."""

    exit_code, cause = 8, "gated"


class CompatibilityError(GapforgeError):
    """The chosen versions cannot work together."""

    exit_code, cause = 9, "compatibility"


class EngineError(GapforgeError):
    """No usable engine, or it cannot be reached."""

    exit_code, cause = 10, "engine"


class BuildError(GapforgeError):
    """The engine ran the Dockerfile and a step failed."""

    exit_code, cause = 11, "build"


class SmokeError(GapforgeError):
    """The finished image does not pass its components' checks; it was not tagged."""

    exit_code, cause = 12, "smoke"


class SourceError(GapforgeError):
    """The application's source folder is missing or unusable."""

    exit_code, cause = 13, "application-source"


class SecretError(GapforgeError):
    """``.env`` cannot be read, or a required key is missing."""

    exit_code, cause = 14, "secret"


class StorageError(GapforgeError):
    """The disk is full, read-only, or a folder is not ours to change."""

    exit_code, cause = 15, "storage"


class LintError(GapforgeError):
    """The Dockerfile would reach the network."""

    exit_code, cause = 16, "lint"


class ToolError(GapforgeError):
    """A program that this step needs is not installed or does not work."""

    exit_code, cause = 17, "tool"


class TargetError(GapforgeError):
    """The base image is not the target OS and the preset is not a practice preset."""

    exit_code, cause = 18, "target"


class BusyError(GapforgeError):
    """Another gapforge holds the same folder."""

    exit_code, cause = 19, "busy"


class NotReadyError(GapforgeError):
    """``doctor`` found something that would make a build here fail."""

    exit_code, cause = 20, "not-ready"


class BundleError(GapforgeError):
    """A bundle cannot be packed, or what was carried is not all of it, or not as it was packed."""

    exit_code, cause = 21, "bundle"


class TrustError(GapforgeError):
    """What was carried is not signed by a trusted signer, was altered after that, or is older than what is here."""

    exit_code, cause = 22, "trust"


class Interrupted(GapforgeError):
    """The user quit, or pressed Ctrl-C. Nothing half-written is left."""

    exit_code, cause = 130, "interrupted"


ERROR_CLASSES: tuple[type[GapforgeError], ...] = (
    InternalError,
    UsageError,
    PresetError,
    LockError,
    VerifyError,
    FetchError,
    ResolveError,
    GatedError,
    CompatibilityError,
    EngineError,
    BuildError,
    SmokeError,
    SourceError,
    SecretError,
    StorageError,
    LintError,
    ToolError,
    TargetError,
    BusyError,
    NotReadyError,
    BundleError,
    TrustError,
    Interrupted,
)
