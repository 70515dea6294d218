"""The errors that gapforge raises, each class with an exit code and a cause of its own.

Only ``gapforge.cli`` prints them and exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gapforge.base.i18n import N_, _
from gapforge.base.text_layout import printable

# A program that rehearse starts writes its error as JSON to the file that this variable names.
ERROR_FILE = "GAPFORGE_ERROR_FILE"


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong: the file or key, what was found, and the expected value or ""."""

    where: str
    problem: str
    expected: str = ""

    def lines(self) -> str:
        """Return the fault as two indented lines, with control characters escaped."""
        text = self.problem
        if self.expected:
            text = _("{problem}; expected {expected}", problem=text, expected=self.expected)
        return f"  {printable(self.where)}\n      {printable(text)}"

    def to_json(self) -> dict[str, str]:
        """Return the fault in JSON types."""
        return {"where": self.where, "problem": self.problem, "expected": self.expected}


class GapforgeError(Exception):
    """The base class of all expected failures.

    ``hint`` is the next step, preferably a command that works on this machine, often without a
    network. ``faults`` lists every fault that was found, not only the first. ``meaning`` explains
    the exit code in help.
    """

    exit_code = 1
    cause = "internal"
    meaning = ""

    def __init__(self, message: str, *, hint: str = "", faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.faults = tuple(faults)

    @property
    def problem(self) -> str:
        """Return the message and below it the faults, for a terminal."""
        return "\n".join([self.message, *(fault.lines() for fault in self.faults)])

    def render(self) -> str:
        """Return the problem and the hint for a terminal of any width."""
        hint = "\n" + _("next: ") + self.hint if self.hint else ""
        return _("error: ") + self.problem + hint

    def to_json(self) -> dict[str, object]:
        """Return the error in JSON types, under the keys that every verb with ``--json`` uses."""
        return {
            "error": self.cause,
            "exit_code": self.exit_code,
            "message": self.message,
            "faults": [fault.to_json() for fault in self.faults],
            "next": self.hint,
        }


class InternalError(GapforgeError):
    """A bug in gapforge. The traceback is written to a file."""

    meaning = N_("a bug in gapforge")


class UsageError(GapforgeError):
    """A flag, an argument or a GAPFORGE_* variable is missing or invalid."""

    exit_code, cause = 2, "usage"
    meaning = N_("a flag, an argument or a variable is missing or invalid")


class PresetError(GapforgeError):
    """A preset or the catalog is unreadable or invalid."""

    exit_code, cause = 3, "preset"
    meaning = N_("a preset or the catalog is unreadable or invalid")


class LockError(GapforgeError):
    """The lock is missing, unreadable, or was made from another version of the preset."""

    exit_code, cause = 4, "lock"
    meaning = N_("the lock is missing, unreadable or stale")


class VerifyError(GapforgeError):
    """Artifacts are missing, unexpected, changed or truncated."""

    exit_code, cause = 5, "verify"
    meaning = N_("artifacts are missing, unexpected, changed or truncated")


class FetchError(GapforgeError):
    """A download failed: no server answered, or the checksum does not match."""

    exit_code, cause = 6, "fetch"
    meaning = N_("a download failed")


class ResolveError(GapforgeError):
    """No set of packages satisfies the preset (a wheel or .deb does not exist for the target)."""

    exit_code, cause = 7, "resolve"
    meaning = N_("no set of packages satisfies the preset")


class GatedError(GapforgeError):
    """A file must be downloaded by a person, because it needs a login; see ``--from DIR``."""

    exit_code, cause = 8, "gated"
    meaning = N_("a file needs a login and must be downloaded by a person")


class CompatibilityError(GapforgeError):
    """The chosen versions are incompatible."""

    exit_code, cause = 9, "compatibility"
    meaning = N_("the chosen versions are incompatible")


class EngineError(GapforgeError):
    """There is no usable engine, or it cannot be reached."""

    exit_code, cause = 10, "engine"
    meaning = N_("there is no usable engine")


class BuildError(GapforgeError):
    """The engine ran the Dockerfile and a step failed."""

    exit_code, cause = 11, "build"
    meaning = N_("a step of the build failed")


class SmokeError(GapforgeError):
    """The finished image fails a smoke check. It was not tagged."""

    exit_code, cause = 12, "smoke"
    meaning = N_("the finished image failed a smoke check and was not tagged")


class SourceError(GapforgeError):
    """The application's source folder is missing or unusable."""

    exit_code, cause = 13, "application-source"
    meaning = N_("the application's source folder is missing or unusable")


class SecretError(GapforgeError):
    """``.env`` cannot be read, or a required key is missing."""

    exit_code, cause = 14, "secret"
    meaning = N_(".env is unreadable or a required key is missing")


class StorageError(GapforgeError):
    """The disk is full or read-only, or a folder was not made by gapforge."""

    exit_code, cause = 15, "storage"
    meaning = N_("the disk is full, read-only or not accessible")


class LintError(GapforgeError):
    """The Dockerfile would use the network."""

    exit_code, cause = 16, "lint"
    meaning = N_("the Dockerfile would use the network")


class ToolError(GapforgeError):
    """A program that this step needs is not installed or does not work."""

    exit_code, cause = 17, "tool"
    meaning = N_("a required program is missing or does not work")
    output = ""  # the last lines that the program printed
    is_missing = False  # whether the program is not installed


class TargetError(GapforgeError):
    """The base image is not of the preset's operating system, or not one that a build can use."""

    exit_code, cause = 18, "target"
    meaning = N_("the base image is not the target OS")


class BusyError(GapforgeError):
    """Another gapforge process holds the lock of the same folder."""

    exit_code, cause = 19, "busy"
    meaning = N_("another gapforge process is using the same folder")


class NotReadyError(GapforgeError):
    """``doctor`` found a reason why a build on this machine would fail."""

    exit_code, cause = 20, "not-ready"
    meaning = N_("doctor found a reason why a build would fail")


class BundleError(GapforgeError):
    """A bundle cannot be packed, or it is incomplete or damaged."""

    exit_code, cause = 21, "bundle"
    meaning = N_("the bundle is incomplete or damaged, or cannot be packed")


class TrustError(GapforgeError):
    """A trusted signature is missing or invalid, or rollback protection refuses a bundle."""

    exit_code, cause = 22, "trust"
    meaning = N_("a signature is missing or invalid, or the bundle is too old")


class Interrupted(GapforgeError):
    """The user quit or pressed Ctrl-C. No partly written file is left."""

    exit_code, cause = 130, "interrupted"
    meaning = N_("interrupted by the user")


ERROR_CLASSES: tuple[type[GapforgeError], ...] = tuple(GapforgeError.__subclasses__())
