"""Render the custody page: what was packed or imported, by whom, from where, with which licences.

``render`` is a pure function: the same facts give the same bytes. Everything from a bundle is
escaped, so that no name in it can forge a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gapforge.base.i18n import _, ngettext
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.base.text_layout import first_names, pad, printable, width
from gapforge.base.units import human_bytes
from gapforge.base.write_files import write_text
from gapforge.model.lock import KINDS

COLUMNS = 100
PACK, IMPORT = "pack", "import"
TRANSFERRED, PRESENT, MISSING = "+", "=", "-"
_MAX_VALUE = 200  # characters of one value
_MAX_NAMES = 12  # names in one line of the section "needs attention"
_LABEL = 18  # columns
# Licences with a vendor's own terms, by name. SPDX calls an unknown licence LicenseRef-.
_VENDOR = re.compile(
    r"licenseref|nvidia|proprietary|commercial|eula|\bsla\b|all rights reserved|non-?free",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of a preset. ``size`` is in bytes.

    ``state`` is TRANSFERRED (packed or imported now), PRESENT (the site had it before) or MISSING.
    """

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


@dataclass(frozen=True, kw_only=True)
class PresetFacts:
    """A preset of the bundle, with the SHA-256 of its lock.

    ``practice`` and ``redistributable`` are None if the preset is not on this machine, ``items`` is
    None if its lock is not.
    """

    name: str
    lock: str
    items: tuple[Item, ...] | None
    practice: bool | None = None
    redistributable: bool | None = None


@dataclass(frozen=True)
class VolumeFacts:
    """A volume. ``sha256`` is that of its index; ``trouble`` is why it cannot be used, or ""."""

    file: str
    size: int = 0
    sha256: str = ""
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Custody:
    """Everything on a page. ``action`` is PACK or IMPORT, ``moment`` its time in UTC.

    ``indexes`` and ``receivers`` are the SHA-256 of the index and of the receiver program, several
    if copies differ. ``tool`` is the SHA-256 of the archive of the repository, ``tool_state`` what
    was done with it. ``request`` is the name of a repair request. ``notes`` are further lines about
    the import.
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
    request: str = ""
    request_sha256: str = ""
    notes: tuple[str, ...] = ()


def keep_page(project: Project, action: str, bundle: str, moment: str, text: str) -> Path:
    """Write the page into dist/custody under a new name. Return the path."""
    stem = f"{action}-{bundle}-{re.sub('[^0-9TZ]', '', moment)}"
    folder = project.dist / "custody"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            target = folder / (f"{stem}.txt" if number == 1 else f"{stem}-{number}.txt")
            try:
                target.touch(0o644, exist_ok=False)
                break
            except FileExistsError:
                number += 1
        write_text(target, text)
    return target


def render(facts: Custody) -> str:
    """Return the page in the language of the environment."""
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
    return shown if len(shown) <= _MAX_VALUE else shown[: _MAX_VALUE - 1] + "…"


def _fact(label: str, value: str) -> str:
    return f"{pad(label, _LABEL)}{value}"


def _number(value: int) -> str:
    return f"{value:,}"


def _wrapped(text: str, indent: str = "  ", first: str = "  ") -> list[str]:
    """Return lines of at most COLUMNS terminal columns, broken only at spaces."""
    lines, line, start = [], first, True
    for word in text.split(" "):
        if not start and width(line) + 1 + width(word) > COLUMNS:
            lines.append(line)
            line, start = indent, True
        line += word if start else f" {word}"
        start = False
    return [*lines, line]


def _head(facts: Custody) -> list[str]:
    missing = _("missing")
    action = _("packed") if facts.action == PACK else _("imported at a site")
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
        (_("index of bundle"), f"{facts.bundle}.json", facts.indexes),
        (_("receiver program"), "gapforge-receive.pyz", facts.receivers),
    ):
        lines.append(_fact(label, name if found else f"{name}  {missing}"))
        lines += [_fact("", f"sha256 {sha256}") for sha256 in found]
    if facts.tool:
        lines += [
            _fact(_("repository"), _safe(facts.tool_state)),
            _fact("", f"sha256 {facts.tool}"),
        ]
    else:
        lines.append(_fact(_("repository"), _("not in this bundle")))
    return lines


def _presets(facts: Custody) -> list[str]:
    lines = []
    for preset in facts.presets:
        kind = {
            True: _("practice, not for delivery"),
            False: _("for delivery"),
            None: _("purpose unknown on this machine"),
        }[preset.practice]
        lock = _("lock sha256")
        lines += [f"{_safe(preset.name)}  ({kind})", f"    {lock} {preset.lock}"]
    return lines or [_("not known")]


def _volumes(facts: Custody) -> list[str]:
    lines = _wrapped(
        _(
            "The sha256 is that of the index in the volume. The index contains the checksum of "
            "every part, so it covers every byte of the volume; unpack verifies it."
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
            "imported {imported} objects, {imported_bytes} bytes; {already} were in the store",
            imported=facts.imported,
            imported_bytes=_number(facts.imported_bytes),
            already=facts.already,
        )
    ]
    lines += [f"  {_safe(note)}" for note in facts.notes]
    if facts.request:
        lines += [
            _("repair request: {request}", request=_safe(facts.request)),
            f"    sha256 {facts.request_sha256}",
        ]
    return lines


def _licence(item: Item) -> str:
    """Return the licence, or where it can be found if the lock does not contain it."""
    if item.licence:
        return _safe(item.licence)
    if item.kind == "deb":
        return _("see the copyright file in it")
    if item.kind == "image":
        return _("see the notices in the image")
    if item.kind == "index":
        return _("generated by gapforge")
    return _("not stated")


def _contents(facts: Custody) -> list[str]:
    legend = (
        _("+ in this bundle   = the site has it already")
        if facts.action == PACK
        else _("+ imported now   = was in the store already   - missing")
    )
    lines = [legend]
    for preset in facts.presets:
        lines += ["", f"{_safe(preset.name)}: {_sum(preset.items)}"]
        for kind, group in groupby(_sorted(preset.items or ()), key=lambda item: item.kind):
            items = list(group)
            lines += ["", f"  {kind}: {_sum(items)}"]
            for item in items:
                name = f"{_safe(item.name)} {_safe(item.version)}".rstrip()
                licence, size = pad(_licence(item), 30), f"{_number(item.size):>15}"
                lines.append(f"  {item.state} {pad(name, 46)}  {licence}  {size}")
                origin = _safe(item.origin)
                if item.first_use:
                    origin += "  " + _("trusted on first use")
                if 4 + len(item.sha256) + 2 + width(origin) <= COLUMNS:
                    lines.append(f"    {item.sha256}  {origin}")
                else:
                    lines += [f"    {item.sha256}", f"    {origin}"]
    return lines


def _sorted(items: Iterable[Item]) -> list[Item]:
    return sorted(
        items,
        key=lambda item: (KINDS.index(item.kind), item.name.casefold(), item.version, item.sha256),
    )


def _sum(items: Sequence[Item] | None) -> str:
    if items is None:
        return _("unknown contents, because the lock is missing")
    shown = ngettext(
        "{count} file, {total}",
        "{count} files, {total}",
        len(items),
        total=human_bytes(sum(i.size for i in items)),
    )
    return shown + "".join(
        f", {state} {len(of)} ({human_bytes(sum(item.size for item in of))})"
        for state in (TRANSFERRED, PRESENT, MISSING)
        if (of := [item for item in items if item.state == state])
    )


def _licences(facts: Custody) -> list[str]:
    """Return one line for each licence. A file that several presets use is counted once."""
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
                "This bundle is unsigned. Checksums protect against damage; they do not prove who "
                "made it."
            )
        )
    for label, found in (
        (_("index of bundle"), facts.indexes),
        (_("receiver program"), facts.receivers),
    ):
        if len(found) > 1:
            say(_("there are different copies: {label}", label=label))
    bad = [volume for volume in facts.volumes if volume.trouble]
    if bad:
        say(_("damaged or missing volumes: {count}, see above.", count=len(bad)))
    for preset in facts.presets:
        _attention_of(preset, say)
    return lines or [_("nothing")]


def _attention_of(preset: PresetFacts, say: Callable[[str], None]) -> None:
    name, items = _safe(preset.name), _sorted(preset.items or ())
    if preset.practice:
        say(_("{name}: practice preset, not for delivery.", name=name))
    if preset.redistributable is False:
        say(_("{name}: FFmpeg is built as nonfree; the image is not redistributable.", name=name))
    vendor: dict[str, list[str]] = {}
    for item in items:
        if item.licence and _VENDOR.search(item.licence):
            vendor.setdefault(_safe(item.licence), []).append(item.name)
        elif item.kind == "image" and "nvidia" in item.origin.casefold():
            vendor.setdefault(_safe(item.origin), []).append("image")
    for licence, names in sorted(vendor.items()):
        say(
            _(
                "{name}: the vendor's own terms, which may restrict redistribution: {licence}: "
                "{names}",
                name=name,
                licence=licence,
                names=_names(names),
            )
        )
    for title, chosen in (
        (_("files that a person downloaded after accepting terms"), [i for i in items if i.gated]),
        (
            _("files trusted on first use, without a published checksum"),
            [i for i in items if i.first_use],
        ),
        (
            _("files without a stated licence"),
            [i for i in items if not i.licence and i.kind in ("wheel", "source", "tensorrt")],
        ),
    ):
        if chosen:
            say(f"{name}: {title}: {_names([item.name for item in chosen])}")


def _names(names: Sequence[str]) -> str:
    unique = sorted({_safe(name) for name in names}, key=str.casefold)
    shown = first_names(unique, _MAX_NAMES)
    return shown if len(names) == len(unique) else f"{shown} ({len(names)})"
