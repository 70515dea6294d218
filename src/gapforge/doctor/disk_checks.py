"""Judge the disks: the artifacts, hard links, and the free space that a build needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.base.units import human_bytes
from gapforge.doctor.check_result import FAIL, OK, WARN, Check, CheckResult
from gapforge.doctor.machine_probes import Volume

# A need is an estimate, so a build is refused only below this share of it.
SLACK = 0.7
LEAST_FREE = 2 * 10**9  # bytes that any build takes, whatever the preset


@dataclass(frozen=True)
class Place:
    """What a build writes to one place: bytes and inodes.

    ``volume`` is None where the file system is unknown. ``unknown`` says in words what the size
    does not contain.
    """

    label: str
    volume: Volume | None
    size: int
    inodes: int = 0
    unknown: str = ""


def no_artifacts(preset: str, problem: str, hint: str) -> CheckResult:
    """Report why artifacts/NAME has no usable lock."""
    return _artifacts_check(preset).fail(problem, hint)


def artifacts(preset: str, total: int, size: int, wrong: Sequence[str]) -> CheckResult:
    """Judge artifacts/NAME by file sizes.

    ``wrong`` names the files that are missing or have another size; ``size`` is the bytes of all.
    """
    text = _(
        "{files} of {total} files, {size}",
        files=total - len(wrong),
        total=total,
        size=human_bytes(size),
    )
    if wrong:
        some = ", ".join(wrong[:3]) + (" …" if len(wrong) > 3 else "")
        return _artifacts_check(preset).fail(
            f"{text}: {some}",
            _("copy them again; list them: ./gapforge verify {name!q}", name=preset),
        )
    return _artifacts_check(preset).ok(
        text, _("only sizes were compared; content: ./gapforge verify {name!q}", name=preset)
    )


def _artifacts_check(preset: str) -> Check:
    needed = _("artifacts/{name} that belongs to the preset", name=preset)
    return Check("artifacts", _("artifacts"), needed)


def hard_links(possible: bool | None, copies: int) -> CheckResult:
    """Judge whether the context can link artifacts; else ``copies`` bytes are copied."""
    check = Check("links", _("hard links"), _("artifacts and .gapforge on one file system"))
    if possible is None:
        return check.warn(_("could not be tested"))
    if possible:
        return check.ok(_("possible"))
    return check.warn(
        _("not possible"), _("copies are made instead: {size}", size=human_bytes(copies))
    )


def disk(places: Sequence[Place]) -> list[CheckResult]:
    """Return one result for each file system, on which the needs of all its places add up."""
    results: list[CheckResult] = []
    by_device: dict[int, list[tuple[Place, Volume]]] = {}
    for place in places:
        if place.volume is None:
            title = _("disk ({places})", places=place.label)
            check = Check("disk", title, human_bytes(place.size))
            results.append(check.warn(_("unknown"), _("check on the engine's machine: df -h")))
        else:
            by_device.setdefault(place.volume.device, []).append((place, place.volume))
    for shares in by_device.values():
        results += _file_system([place for place, _volume in shares], shares[0][1])
    return results


def _file_system(places: Sequence[Place], volume: Volume) -> list[CheckResult]:
    size = max(sum(place.size for place in places), LEAST_FREE)
    shares = " + ".join(f"{p.label} {human_bytes(p.size)}" for p in places if p.size)
    detail = f" ({shares})" if len(places) > 1 and shares else ""
    unknown = next((place.unknown for place in places if place.unknown), "")
    shown = human_bytes(size)
    check = Check(
        "disk",
        _("disk ({places})", places=", ".join(place.label for place in places)),
        (_("at least {size}", size=shown) if unknown else _("about {size}", size=shown)) + detail,
    )
    status = _status(volume.free, size)
    action = _("free some space: df -h {path!q}; docker system df", path=volume.path)
    if status == OK:
        action = _("not counted, of unknown size: {items}", items=unknown) if unknown else ""
    text = _("{size} free", size=human_bytes(volume.free))
    results = [check.result(WARN if status == OK and unknown else status, text, action)]
    inodes = sum(place.inodes for place in places)
    if volume.inodes >= 0 and inodes and (status := _status(volume.inodes, inodes)) != OK:
        check = Check(
            "inodes",
            _("inodes ({places})", places=places[0].label),
            _("about {count}", count=inodes),
        )
        text = _("{count} free", count=volume.inodes)
        results.append(check.result(status, text, f"df -i {volume.path}"))
    return results


def _status(free: int, needed: int) -> str:
    return OK if free >= needed else WARN if free >= needed * SLACK else FAIL
