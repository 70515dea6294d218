"""Hold the result of one check of this machine.

``fail`` means that a build, or the finished image on this machine, cannot work; ``warn`` that it
will be slower, or that something is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from gapforge.base.i18n import _

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check.

    ``check`` is its fixed name; ``title``, ``found``, ``needed`` and ``action`` (what to do next,
    "" for nothing) are in the reader's language. ``status`` is ok, warn or fail.
    """

    check: str
    title: str
    status: str
    found: str
    needed: str
    action: str = ""

    @property
    def summary(self) -> str:
        """Return the result as one line without the action."""
        return _(
            "{title}: {found}; needed: {needed}",
            title=self.title,
            found=self.found,
            needed=self.needed,
        )

    def to_json(self) -> dict[str, str]:
        return dict(vars(self))


@dataclass(frozen=True)
class Check:
    """A check whose result is still to be decided: name, title and what is needed."""

    name: str
    title: str
    needed: str

    def ok(self, found: str, action: str = "") -> CheckResult:
        return self.result(OK, found, action)

    def warn(self, found: str, action: str = "") -> CheckResult:
        return self.result(WARN, found, action)

    def fail(self, found: str, action: str = "") -> CheckResult:
        return self.result(FAIL, found, action)

    def result(self, status: str, found: str, action: str = "") -> CheckResult:
        return CheckResult(
            check=self.name,
            title=self.title,
            status=status,
            found=found,
            needed=self.needed,
            action=action,
        )
