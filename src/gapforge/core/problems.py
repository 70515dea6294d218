"""One incompatibility, said in Korean and English."""

from __future__ import annotations

from dataclasses import dataclass

from gapforge.core.text import tr


@dataclass(frozen=True)
class Problem:
    """What cannot (error) or may not (warning) work together, in one sentence with what to take instead.

    ``rule`` names the rule for machines; ``path`` is the JSON path in the preset.
    """

    rule: str
    severity: str
    path: str
    ko: str
    en: str

    @property
    def text(self) -> str:
        """The sentence in the reader's language."""
        return tr(self.ko, self.en)

    def to_json(self) -> dict[str, str]:
        """All fields."""
        return dict(self.__dict__)


def error(rule: str, path: str, ko: str, en: str) -> Problem:
    """A combination that cannot work."""
    return Problem(rule, "error", path, ko, en)


def warning(rule: str, path: str, ko: str, en: str) -> Problem:
    """A combination that is unknown or has a price."""
    return Problem(rule, "warning", path, ko, en)
