"""The custody page: what was carried, from where, by whom and under which licences, on paper for a security desk.

``render`` is a pure function: the same facts, the moment among them, give the same bytes. All that came with a bundle
is escaped, so that no name in it can forge a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path

from gapforge.base.files import storage_errors, write_text
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import pad, printable, tr, width
from gapforge.model.lock import KINDS

COLUMNS = 100
PACK, IMPORT = "pack", "import"
CARRIED, HELD, LACKING = "+", "=", "-"
_LONGEST = 200  # characters of one fact
_NAMED = 12  # names in one line of what needs attention
_LABEL = 18  # columns
# Terms of a vendor's own, by the licence's name; SPDX calls a licence that it does not know LicenseRef-.
_VENDOR = re.compile(
    r"licenseref|nvidia|proprietary|commercial|eula|\bsla\b|all rights reserved|non-?free", re.IGNORECASE
)


@dataclass(frozen=True)
class Item:
    """One file of a preset. ``state`` is CARRIED by this bundle, HELD by the site before, or LACKING."""

    kind: str
    name: str
    version: str
    licence: str
    size: int
    sha256: str
    origin: str
    state: str
    first_use: bool = False
    gated: bool = False


@dataclass(frozen=True)
class PresetFacts:
    """``practice`` and ``redistributable`` are None where the preset itself is not here to tell; ``items`` is None
    where its lock is not."""

    name: str
    lock: str
    items: tuple[Item, ...] | None
    practice: bool | None = None
    redistributable: bool | None = None


@dataclass(frozen=True)
class VolumeFacts:
    """``sha256`` is that of the volume's own index; ``trouble`` says what is wrong with it."""

    file: str
    size: int = 0
    sha256: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Custody:
    """Everything that a page says. ``action`` is "pack" or "import", ``moment`` a time in UTC.

    ``indexes`` and ``receivers`` are the SHA-256 of those files, several where copies differ. ``tool`` is gapforge's
    own archive and ``tool_state`` what became of it. ``request`` is a repair request's name and SHA-256;
    ``notes`` are further lines on the import.
    """

    action: str
    bundle: str
    moment: str
    version: str
    presets: tuple[PresetFacts, ...]
    volumes: tuple[VolumeFacts, ...]
    operator: str = ""
    signer: str = ""
    repairs: str = ""
    indexes: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    tool: str = ""
    tool_state: str = ""
    imported: int = 0
    imported_bytes: int = 0
    already: int = 0
    request: tuple[str, str] = ("", "")
    notes: tuple[str, ...] = field(default_factory=tuple)


def page_name(bundle: str) -> str:
    """The name of the page beside a bundle's volumes."""
    return f"{bundle}.custody.txt"


def keep_page(project: Project, action: str, bundle: str, moment: str, text: str) -> Path:
    """Write the page of one pack or import into dist/custody, never over another one; gives where."""
    stem = f"{action}-{bundle}-{re.sub('[^0-9TZ]', '', moment)}"
    folder = project.root / "dist" / "custody"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            target = folder / (f"{stem}.txt" if number == 1 else f"{stem}-{number}.txt")
            try:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            except FileExistsError:
                continue
            write_text(target, text)
            break
    return target


def render(facts: Custody) -> str:
    """The page, in the reader's language."""
    lines = [tr("gapforge 반출입 확인서", "gapforge custody page"), "=" * COLUMNS, *_head(facts)]
    for title, body in (
        (tr("프리셋", "PRESETS"), _presets(facts)),
        (tr(f"볼륨 {len(facts.volumes)}개", f"VOLUMES ({len(facts.volumes)})"), _volumes(facts)),
        (tr("들여온 결과", "IMPORT"), _import(facts) if facts.action == IMPORT else []),
        (tr("확인할 것", "NEEDS ATTENTION"), _attention(facts)),
        (tr("라이선스별 합계", "TOTALS BY LICENCE"), _licences(facts)),
        (tr("내용", "CONTENTS"), _contents(facts)),
    ):
        if body:
            lines += ["", title, "-" * COLUMNS, *body]
    lines += ["", "=" * COLUMNS,
              pad(tr("인계자 (서명, 날짜)", "handed over by (signature, date)"), 36) + "_" * 60, "",
              pad(tr("인수자 (서명, 날짜)", "received by (signature, date)"), 36) + "_" * 60]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _safe(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _fact(label: str, value: str) -> str:
    return f"{pad(label, _LABEL)}{value}"


def _number(value: int) -> str:
    return f"{value:,}"


def _wrapped(text: str, indent: str = "  ", first: str = "  ") -> list[str]:
    """The text in lines of at most COLUMNS terminal columns, broken at blanks alone."""
    lines, line, start = [], first, True
    for word in text.split(" "):
        if not start and width(line) + 1 + width(word) > COLUMNS:
            lines.append(line)
            line, start = indent, True
        line += word if start else f" {word}"
        start = False
    return [*lines, line]


def _head(facts: Custody) -> list[str]:
    action = tr("반출용으로 포장", "packed for carrying") if facts.action == PACK else tr("반입", "imported at a site")
    absent = tr("여기 없음", "not here")
    lines = [
        _fact(tr("작업", "action"), action),
        _fact(tr("묶음", "bundle"), facts.bundle),
        *([_fact(tr("복구 대상 묶음", "repairs bundle"), facts.repairs)] if facts.repairs else []),
        _fact(tr("시각(UTC)", "when (UTC)"), facts.moment),
        _fact(tr("작업자", "operator"), _safe(facts.operator) or tr("밝히지 않음", "not stated")),
        _fact("gapforge", _safe(facts.version)),
        _fact(tr("서명자", "signer"), _safe(facts.signer) or tr("서명 없음", "unsigned")),
    ]
    for label, name, found in (
        (tr("묶음 색인", "bundle's index"), f"{facts.bundle}.json", facts.indexes),
        (tr("수신 프로그램", "receiver"), "gapforge-receive.pyz", facts.receivers),
    ):
        lines.append(_fact(label, name if found else f"{name}  {absent}"))
        lines += [_fact("", f"sha256 {sha256}") for sha256 in found]
    if facts.tool:
        lines += [
            _fact(tr("gapforge 저장소", "gapforge itself"), _safe(facts.tool_state)),
            _fact("", f"sha256 {facts.tool}"),
        ]
    else:
        lines.append(_fact(tr("gapforge 저장소", "gapforge itself"), tr("이 묶음에 없음", "not in this bundle")))
    return lines


def _presets(facts: Custody) -> list[str]:
    lines = []
    for preset in facts.presets:
        kind = {True: tr("연습용, 납품 금지", "practice, not for delivery"), False: tr("납품용", "for delivery"),
                None: tr("용도는 여기서 알 수 없음", "its use is not known here")}[preset.practice]  # fmt: skip
        lines += [f"{_safe(preset.name)}  ({kind})", tr("    잠금 sha256 ", "    lock sha256 ") + preset.lock]
    return lines or [tr("알 수 없음", "not known")]


def _volumes(facts: Custody) -> list[str]:
    lines = _wrapped(tr("sha256은 볼륨 안 색인의 해시입니다. 색인에 모든 조각의 해시가 있으므로 볼륨의 모든 바이트를 보증하며, "
                        "unpack이 확인합니다.",
                        "The sha256 is that of the index inside the volume. The index holds the hash of every piece, so it "
                        "stands for every byte of the volume; unpack checks it."), "", "")  # fmt: skip
    for volume in facts.volumes:
        size = tr(f"{_number(volume.size)}바이트", f"{_number(volume.size)} bytes") if volume.size else ""
        lines.append(f"{pad(_safe(volume.file), 48)}  {size:>24}")
        if volume.sha256:
            lines.append(f"    sha256 {volume.sha256}")
        if volume.trouble:
            lines += _wrapped(f"! {_safe(volume.trouble)}", "      ", "    ")
    return lines


def _import(facts: Custody) -> list[str]:
    lines = [tr(f"들여온 객체 {facts.imported}개, {_number(facts.imported_bytes)}바이트; 이미 있던 객체 {facts.already}개",
                f"imported {facts.imported} objects, {_number(facts.imported_bytes)} bytes; "
                f"{facts.already} were here already")]  # fmt: skip
    lines += [f"  {_safe(note)}" for note in facts.notes]
    if facts.request[0]:
        lines += [tr(f"복구 요청: {_safe(facts.request[0])}", f"repair request: {_safe(facts.request[0])}"),
                  f"    sha256 {facts.request[1]}"]  # fmt: skip
    return lines


def _licence(item: Item) -> str:
    """The licence, or where it is written when the lock does not say."""
    if item.licence:
        return _safe(item.licence)
    if item.kind == "deb":
        return tr("패키지 안의 copyright", "see copyright in the package")
    if item.kind == "image":
        return tr("이미지 안의 고지", "see notices in the image")
    if item.kind == "index":
        return tr("gapforge가 만든 목록", "list made by gapforge")
    return tr("밝히지 않음", "not stated")


def _contents(facts: Custody) -> list[str]:
    legend = (tr("+ 이 묶음에 담음   = 현장에 이미 있음", "+ carried by this bundle   = the site has it already")
              if facts.action == PACK else
              tr("+ 이번에 들여옴   = 이미 있었음   - 모자람", "+ imported now   = was here already   - missing"))  # fmt: skip
    lines = [legend]
    for preset in facts.presets:
        lines += ["", f"{_safe(preset.name)}: {_sum(preset.items)}"]
        for kind, group in groupby(_sorted(preset.items or ()), key=lambda item: item.kind):
            items = list(group)
            lines += ["", f"  {kind}: {_sum(items)}"]
            for item in items:
                name = f"{_safe(item.name)} {_safe(item.version)}".rstrip()
                lines.append(f"  {item.state} {pad(name, 46)}  {pad(_licence(item), 30)}  {_number(item.size):>15}")
                marks = tr("  첫 다운로드를 신뢰함", "  trusted on first use") if item.first_use else ""
                origin = f"{_safe(item.origin)}{marks}"
                fits = 4 + len(item.sha256) + 2 + width(origin) <= COLUMNS
                lines += [f"    {item.sha256}  {origin}"] if fits else [f"    {item.sha256}", f"    {origin}"]
    return lines


def _sorted(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (KINDS.index(item.kind), item.name.casefold(), item.version, item.sha256))


def _sum(items: Sequence[Item] | None) -> str:
    if items is None:
        return tr("잠금이 여기 없어 내용을 알 수 없음", "its lock is not here, so its contents are not known")
    shown = tr(f"파일 {len(items)}개, {human_bytes(sum(i.size for i in items))}",
               f"{len(items)} file{'s' if len(items) != 1 else ''}, {human_bytes(sum(i.size for i in items))}")  # fmt: skip
    return shown + "".join(
        f", {state} {len(of)} ({human_bytes(sum(item.size for item in of))})"
        for state in (CARRIED, HELD, LACKING)
        if (of := [item for item in items if item.state == state])
    )


def _licences(facts: Custody) -> list[str]:
    """One line a licence over all presets; a file that several presets have counts once."""
    totals: dict[str, dict[str, int]] = {}
    for preset in facts.presets:
        for item in preset.items or ():
            totals.setdefault(_licence(item), {})[item.sha256] = item.size
    return [
        f"{len(sizes):>6}  {_number(sum(sizes.values())):>18}  {licence}"
        for licence, sizes in sorted(totals.items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))
    ]


def _attention(facts: Custody) -> list[str]:
    lines: list[str] = []

    def say(text: str) -> None:
        lines.extend(_wrapped(text, "  ", "* "))

    if not facts.signer:
        say(tr("서명이 없습니다. 해시는 손상을 막아 줄 뿐, 누가 만들었는지는 말해 주지 않습니다.",
               "Nobody signed this bundle. Hashes protect against damage; who made it they cannot say."))  # fmt: skip
    for label, found in (
        (tr("묶음 색인", "the bundle's index"), facts.indexes),
        (tr("수신 프로그램", "the receiver"), facts.receivers),
    ):
        if len(found) > 1:
            say(tr(f"서로 다른 사본이 있습니다: {label}", f"there are copies that differ: {label}"))
    bad = [volume for volume in facts.volumes if volume.trouble]
    if bad:
        say(
            tr(
                f"온전하지 않은 볼륨 {len(bad)}개: 위 목록을 보십시오.",
                f"volumes that are not whole: {len(bad)}, see above.",
            )
        )
    for preset in facts.presets:
        _attention_of(preset, say)
    return lines or [tr("없음", "nothing")]


def _attention_of(preset: PresetFacts, say: Callable[[str], None]) -> None:
    name, items = _safe(preset.name), _sorted(preset.items or ())
    if preset.practice:
        say(tr(f"{name}: 연습용 프리셋입니다. 납품하지 않습니다.", f"{name}: is a practice preset, not for delivery."))
    if preset.redistributable is False:
        say(tr(f"{name}: FFmpeg를 nonfree로 빌드하므로 만들어진 이미지를 재배포할 수 없습니다.",
               f"{name}: builds FFmpeg as nonfree, so the image may not be redistributed."))  # fmt: skip
    vendor: dict[str, list[str]] = {}
    for item in items:
        if item.licence and _VENDOR.search(item.licence):
            vendor.setdefault(_safe(item.licence), []).append(item.name)
        elif item.kind == "image" and "nvidia" in item.origin.casefold():
            vendor.setdefault(_safe(item.origin), []).append("image")
    for licence, names in sorted(vendor.items()):
        say(tr(f"{name}: 재배포를 제한할 수 있는 공급자 조건 {licence}: {_names(names)}",
               f"{name}: terms of the vendor's own, which may restrict passing it on: {licence}: {_names(names)}"))  # fmt: skip
    for words, chosen in (
        (tr("사람이 조건에 동의하고 받은 파일", "files that a person fetched by accepting terms"), [i for i in items if i.gated]),
        (tr("해시를 미리 알지 못해 첫 다운로드를 신뢰한 파일", "files trusted on first use, with no hash known before"),
         [i for i in items if i.first_use]),
        (tr("라이선스를 밝히지 않은 파일", "files whose licence is not stated"),
         [i for i in items if not i.licence and i.kind in ("wheel", "source", "tensorrt")]),
    ):  # fmt: skip
        if chosen:
            say(f"{name}: {words}: {_names([item.name for item in chosen])}")


def _names(names: Sequence[str]) -> str:
    several = sorted({_safe(name) for name in names}, key=str.casefold)
    more = len(several) - _NAMED
    shown = ", ".join(several[:_NAMED])
    return shown + (tr(f" 외 {more}개", f" and {more} more") if more > 0 else "") + (
        f" ({len(names)})" if len(names) != len(several) else "")  # fmt: skip
