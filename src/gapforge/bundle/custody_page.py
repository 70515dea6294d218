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
from gapforge.base.i18n import _, ngettext
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import pad, printable, width
from gapforge.model.lock import KINDS

COLUMNS = 100
PACK, IMPORT = "pack", "import"
CARRIED, HELD, LACKING = "+", "=", "-"
_LONGEST = 200  # characters of one fact
_NAMED = 12  # names in one line of what needs attention
_LABEL = 18  # columns
# Terms of a vendor's own, by the licence's name; SPDX calls a licence that it does not know LicenseRef-.
_VENDOR = re.compile(
    r"licenseref|nvidia|proprietary|commercial|eula|\bsla\b|all rights reserved|non-?free",
    re.IGNORECASE,
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
                os.close(
                    os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                )
            except FileExistsError:
                continue
            write_text(target, text)
            break
    return target


def render(facts: Custody) -> str:
    """The page, in the reader's language."""
    lines = [_("gapforge custody page"), "=" * COLUMNS, *_head(facts)]
    for title, body in (
        (_("PRESETS"), _presets(facts)),
        (_("VOLUMES ({count})", count=len(facts.volumes)), _volumes(facts)),
        (_("IMPORT"), _import(facts) if facts.action == IMPORT else []),
        (_("NEEDS ATTENTION"), _attention(facts)),
        (_("TOTALS BY LICENCE"), _licences(facts)),
        (_("CONTENTS"), _contents(facts)),
    ):
        if body:
            lines += ["", title, "-" * COLUMNS, *body]
    lines += [
        "",
        "=" * COLUMNS,
        pad(_("handed over by (signature, date)"), 36) + "_" * 60,
        "",
        pad(_("received by (signature, date)"), 36) + "_" * 60,
    ]
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
    action = _("packed for carrying") if facts.action == PACK else _("imported at a site")
    absent = _("not here")
    lines = [
        _fact(_("action"), action),
        _fact(_("bundle"), facts.bundle),
        *([_fact(_("repairs bundle"), facts.repairs)] if facts.repairs else []),
        _fact(_("when (UTC)"), facts.moment),
        _fact(_("operator"), _safe(facts.operator) or _("not stated")),
        _fact("gapforge", _safe(facts.version)),
        _fact(_("signer"), _safe(facts.signer) or _("unsigned")),
    ]
    for label, name, found in (
        (_("bundle's index"), f"{facts.bundle}.json", facts.indexes),
        (_("receiver"), "gapforge-receive.pyz", facts.receivers),
    ):
        lines.append(_fact(label, name if found else f"{name}  {absent}"))
        lines += [_fact("", f"sha256 {sha256}") for sha256 in found]
    if facts.tool:
        lines += [
            _fact(_("gapforge itself"), _safe(facts.tool_state)),
            _fact("", f"sha256 {facts.tool}"),
        ]
    else:
        lines.append(_fact(_("gapforge itself"), _("not in this bundle")))
    return lines


def _presets(facts: Custody) -> list[str]:
    lines = []
    for preset in facts.presets:
        kind = {
            True: _("practice, not for delivery"),
            False: _("for delivery"),
            None: _("its use is not known here"),
        }[preset.practice]
        lines += [f"{_safe(preset.name)}  ({kind})", _("    lock sha256 ") + preset.lock]
    return lines or [_("not known")]


def _volumes(facts: Custody) -> list[str]:
    lines = _wrapped(
        _(
            "The sha256 is that of the index inside the volume. The index holds the hash "
            "of every piece, so it stands for every byte of the volume; unpack checks it."
        ),
        "",
        "",
    )
    for volume in facts.volumes:
        size = _("{size} bytes", size=_number(volume.size)) if volume.size else ""
        lines.append(f"{pad(_safe(volume.file), 48)}  {size:>24}")
        if volume.sha256:
            lines.append(f"    sha256 {volume.sha256}")
        if volume.trouble:
            lines += _wrapped(f"! {_safe(volume.trouble)}", "      ", "    ")
    return lines


def _import(facts: Custody) -> list[str]:
    lines = [
        _(
            "imported {imported} objects, {imported_bytes} bytes; {already} were here already",
            imported=facts.imported,
            imported_bytes=_number(facts.imported_bytes),
            already=facts.already,
        )
    ]
    lines += [f"  {_safe(note)}" for note in facts.notes]
    if facts.request[0]:
        lines += [
            _("repair request: {request}", request=_safe(facts.request[0])),
            f"    sha256 {facts.request[1]}",
        ]
    return lines


def _licence(item: Item) -> str:
    """The licence, or where it is written when the lock does not say."""
    if item.licence:
        return _safe(item.licence)
    if item.kind == "deb":
        return _("see copyright in the package")
    if item.kind == "image":
        return _("see notices in the image")
    if item.kind == "index":
        return _("list made by gapforge")
    return _("not stated")


def _contents(facts: Custody) -> list[str]:
    legend = (
        _("+ carried by this bundle   = the site has it already")
        if facts.action == PACK
        else _("+ imported now   = was here already   - missing")
    )
    lines = [legend]
    for preset in facts.presets:
        lines += ["", f"{_safe(preset.name)}: {_sum(preset.items)}"]
        for kind, group in groupby(_sorted(preset.items or ()), key=lambda item: item.kind):
            items = list(group)
            lines += ["", f"  {kind}: {_sum(items)}"]
            for item in items:
                name = f"{_safe(item.name)} {_safe(item.version)}".rstrip()
                lines.append(
                    f"  {item.state} {pad(name, 46)}  {pad(_licence(item), 30)}  {_number(item.size):>15}"
                )
                marks = _("  trusted on first use") if item.first_use else ""
                origin = f"{_safe(item.origin)}{marks}"
                fits = 4 + len(item.sha256) + 2 + width(origin) <= COLUMNS
                lines += (
                    [f"    {item.sha256}  {origin}"]
                    if fits
                    else [f"    {item.sha256}", f"    {origin}"]
                )
    return lines


def _sorted(items: Iterable[Item]) -> list[Item]:
    return sorted(
        items,
        key=lambda item: (KINDS.index(item.kind), item.name.casefold(), item.version, item.sha256),
    )


def _sum(items: Sequence[Item] | None) -> str:
    if items is None:
        return _("its lock is not here, so its contents are not known")
    shown = ngettext(
        "{count} file, {total}",
        "{count} files, {total}",
        len(items),
        total=human_bytes(sum(i.size for i in items)),
    )
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
        for licence, sizes in sorted(
            totals.items(), key=lambda pair: (-sum(pair[1].values()), pair[0])
        )
    ]


def _attention(facts: Custody) -> list[str]:
    lines: list[str] = []

    def say(text: str) -> None:
        lines.extend(_wrapped(text, "  ", "* "))

    if not facts.signer:
        say(
            _(
                "Nobody signed this bundle. Hashes protect against damage; who made it "
                "they cannot say."
            )
        )
    for label, found in (
        (_("the bundle's index"), facts.indexes),
        (_("the receiver"), facts.receivers),
    ):
        if len(found) > 1:
            say(_("there are copies that differ: {label}", label=label))
    bad = [volume for volume in facts.volumes if volume.trouble]
    if bad:
        say(_("volumes that are not whole: {count}, see above.", count=len(bad)))
    for preset in facts.presets:
        _attention_of(preset, say)
    return lines or [_("nothing")]


def _attention_of(preset: PresetFacts, say: Callable[[str], None]) -> None:
    name, items = _safe(preset.name), _sorted(preset.items or ())
    if preset.practice:
        say(_("{name}: is a practice preset, not for delivery.", name=name))
    if preset.redistributable is False:
        say(
            _("{name}: builds FFmpeg as nonfree, so the image may not be redistributed.", name=name)
        )
    vendor: dict[str, list[str]] = {}
    for item in items:
        if item.licence and _VENDOR.search(item.licence):
            vendor.setdefault(_safe(item.licence), []).append(item.name)
        elif item.kind == "image" and "nvidia" in item.origin.casefold():
            vendor.setdefault(_safe(item.origin), []).append("image")
    for licence, names in sorted(vendor.items()):
        say(
            _(
                "{name}: terms of the vendor's own, which may restrict passing it on: "
                "{licence}: {names}",
                name=name,
                licence=licence,
                names=_names(names),
            )
        )
    for words, chosen in (
        (_("files that a person fetched by accepting terms"), [i for i in items if i.gated]),
        (
            _("files trusted on first use, with no hash known before"),
            [i for i in items if i.first_use],
        ),
        (
            _("files whose licence is not stated"),
            [i for i in items if not i.licence and i.kind in ("wheel", "source", "tensorrt")],
        ),
    ):
        if chosen:
            say(f"{name}: {words}: {_names([item.name for item in chosen])}")


def _names(names: Sequence[str]) -> str:
    several = sorted({_safe(name) for name in names}, key=str.casefold)
    more = len(several) - _NAMED
    shown = ", ".join(several[:_NAMED])
    return (
        shown
        + (_(" and {more} more", more=more) if more > 0 else "")
        + (f" ({len(names)})" if len(names) != len(several) else "")
    )
