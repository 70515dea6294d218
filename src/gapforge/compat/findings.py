"""One incompatibility, said in Korean and English."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gapforge.base.text import josa, tr
from gapforge.compat.versions import key


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


def unknown(path: str, what: str, known: str, ko: str, en: str) -> Problem:
    """A version that the catalog does not know; ``ko`` and ``en`` say what therefore cannot be checked."""
    near_ko, near_en = (
        (f"; 카탈로그에 있는 가까운 것은 {known}입니다", f"; the nearest it knows is {known}") if known else ("", "")
    )
    return warning(
        "unknown",
        path,
        f"{josa(what, '은', '는')} 카탈로그에 없어 {ko} 확인할 수 없습니다{near_ko}",
        f"{what} is not in the catalog, so {en} cannot be checked{near_en}",
    )


def nearest_version(version: str, known: Iterable[str]) -> str:
    """The known version next to ``version``: the newest that is not newer, else the oldest; "" for none."""
    ordered = sorted(known, key=key)
    older = [v for v in ordered if key(v) <= key(version)]
    return (older or ordered[:1] or [""])[-1]
