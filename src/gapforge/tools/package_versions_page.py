"""Generate docs/package-versions.md and .en.md from presets, locks, components and review date.

Nothing here reads a clock, the network or the engine: the same repository gives the same bytes, so
that CI can detect a stale document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gapforge.base.addresses import without_credentials
from gapforge.base.i18n import _, localized, ngettext, use_language
from gapforge.base.units import human_bytes
from gapforge.model import versions
from gapforge.model.component import Component
from gapforge.model.lock import Entry, Lock
from gapforge.model.names import ROLES, normalized
from gapforge.model.preset import Preset, SourceArchive
from gapforge.model.unresolved_item import Reason

COMMAND = "./gapforge generate"
IN_BASE = "base"  # instead of a version: the digest of the base image pins the package
SHORT = 12  # hex digits of a checksum in a table; the list below has all of them


@dataclass(frozen=True)
class Review:
    """The day when a person last reviewed all versions and licences, such as "2026-11-23"."""

    reviewed: str
    note_ko: str
    note_en: str


@dataclass(frozen=True)
class Stack:
    """A preset with its committed lock.

    ``lock`` is None if there is none, or if it belongs to another state of the preset (``stale``).
    """

    preset: Preset
    lock: Lock | None
    stale: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One package of a preset. "" means "not known". ``sha256`` is hex without a prefix."""

    kind: str
    name: str
    version: str
    licence: str = ""
    source: str
    sha256: str = ""
    used_by: str
    path: str = ""
    first_use: bool = False


def render(
    stacks: Sequence[Stack],
    components: Sequence[Component],
    drivers: Mapping[str, str],
    review: Review,
    language: str,
) -> str:
    """Return the document in "ko" or "en".

    ``drivers`` has the least NVIDIA driver by preset name, where it is known.
    """
    with use_language(language):
        return _Document(stacks, components, drivers, review).text()


def rows_of(stack: Stack, components: Sequence[Component]) -> list[Row]:
    """Return all packages of a preset except .debs: base images, wheels, sources, TensorRT."""
    preset, lock = stack.preset, stack.lock
    rows = _image_rows(preset, lock)
    rows += _wheel_rows(preset, lock, components)
    rows += [_source_row(source, lock, components) for source in preset.sources.values()]
    if preset.tensorrt is not None and "tensorrt" not in preset.sources:
        rows.append(
            Row(
                kind="tensorrt",
                name="tensorrt",
                version=preset.tensorrt.version,
                source="apt",
                used_by="tensorrt",
            )
        )
    return rows


def _image_rows(preset: Preset, lock: Lock | None) -> list[Row]:
    rows = []
    for role in ROLES:
        base = preset.base(role)
        locked = lock.images.get(role) if lock else None
        os = f"{locked.os_id} {locked.os_version}" if locked and locked.os_id else preset.os
        digest = locked.manifest_digest if locked else base.digest
        rows.append(
            Row(
                kind="image",
                name=f"{role}: {base.label}",
                version=os,
                source="registry" if base.image else "archive" if base.archive else "mmdebstrap",
                sha256=digest.removeprefix("sha256:") or base.archive_sha256,
                used_by=role,
            )
        )
    return rows


def _wheel_rows(preset: Preset, lock: Lock | None, components: Sequence[Component]) -> list[Row]:
    """Return the Python packages of the lock, and those of the preset that it does not resolve."""
    torch = preset.pytorch.requirements() if preset.pytorch else ()
    places = {_requirement(r)[0]: "$.pytorch" for r in torch}
    places |= {_requirement(r)[0]: "$.python.packages" for r in preset.packages}
    rows = []
    if lock is None or not lock.resolves("wheel"):
        default = preset.pytorch is None or preset.pytorch.index == "default"
        for name, version in map(_requirement, (*torch, *preset.packages)):
            of_torch = places[name] == "$.pytorch" and not default
            index = "index:torch" if of_torch else "index:default"
            rows.append(
                Row(kind="wheel", name=name, version=version, source=index, used_by=places[name])
            )
    if lock is not None:
        rows += _locked_wheel_rows(preset, lock, components, places)
    return rows


def _locked_wheel_rows(
    preset: Preset, lock: Lock, components: Sequence[Component], places: Mapping[str, str]
) -> list[Row]:
    """Return the wheels of a lock; ``places`` says where the preset names a package itself."""
    # A component that takes "*" depends on nothing in particular.
    users = [c for c in components if c.enabled(preset) and any(p != "*" for p in c.wheels)]
    rows = []
    for entry in sorted(lock.of("wheel"), key=lambda e: normalized(e.name)):
        name = normalized(entry.name)
        reasons = [places[name]] if name in places else []
        if "install-tool" in entry.roles:
            reasons.append("install-tool")
        else:
            reasons += [component.name for component in users if component.uses_wheel(entry)]
        rows.append(
            Row(
                kind="wheel",
                name=name,
                version=entry.version,
                licence=entry.licence,
                source=entry.origin,
                sha256=entry.sha256,
                used_by=", ".join(reasons) or "dependency",
                path=entry.path,
                first_use=bool(entry.trust),
            )
        )
    return rows


def _requirement(text: str) -> tuple[str, str]:
    """Return ("numpy", "1.26.4") for "numpy==1.26.4"; a constraint as it is."""
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?", text)
    assert match is not None, text  # the preset's shape allows nothing else
    return normalized(match[1]), text[match.end() :].strip().removeprefix("==").strip()


def _source_row(source: SourceArchive, lock: Lock | None, components: Sequence[Component]) -> Row:
    used_by = ", ".join(c.name for c in components if c.uses_source(source.name))
    entry = _entry_of(source.name, lock)
    place = (
        "sdist:" + source.sdist
        if source.sdist
        else "apt-source:" + source.apt_source
        if source.apt_source
        else without_credentials(source.urls[0])
    )
    return Row(
        kind="tensorrt" if source.name == "tensorrt" else "source",
        name=source.name,
        version=(entry.version if entry else "") or source.version,
        licence=(entry.licence if entry else "") or source.licence,
        source=place,
        sha256=entry.sha256 if entry else source.sha256,
        used_by=used_by,
        path=entry.path if entry else "",
        first_use=bool(entry.trust) if entry else bool(source.urls) and not source.sha256,
    )


def _entry_of(name: str, lock: Lock | None) -> Entry | None:
    if lock is None:
        return None
    return next((e for e in lock.of("source", "tensorrt") if e.name == name), None)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text}`" if text else "—"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return [*lines, ""]


class _Document:
    """The document while it is being written, in one language."""

    def __init__(
        self,
        stacks: Sequence[Stack],
        components: Sequence[Component],
        drivers: Mapping[str, str],
        review: Review,
    ) -> None:
        self.stacks = sorted(stacks, key=lambda s: (s.preset.practice, s.preset.name))
        self.components, self.drivers, self.review = components, drivers, review

    def text(self) -> str:
        lines = [
            "# " + _("Package versions"),
            "",
            "<!-- " + _("{command} writes this file. Do not edit it.", command=COMMAND) + " -->",
            "",
            _(
                "Generated from presets, locks, component descriptions and the catalog. "
                "After changing any of them, run `{command}` and commit the result. "
                "`./test` fails if this file is not up to date.",
                command=COMMAND,
            ),
            "",
            _(
                "Reviewed: **{reviewed}** — {note}",
                reviewed=self.review.reviewed,
                note=localized(ko=self.review.note_ko, en=self.review.note_en),
            ),
            "",
        ]
        lines += self._legend() + self._overview() + self._trust() + self._presets_by_package()
        for stack in self.stacks:
            lines += self._stack(stack)
        return "\n".join(lines).rstrip("\n") + "\n"

    def _legend(self) -> list[str]:
        items = [
            _(
                "`index:default`: the Python index that is configured on the machine; "
                "`index:torch`: the index in `$.pytorch.index` of the preset"
            ),
            _(
                "`apt:base`: the APT sources of the base image; `apt:NAME`: a source in "
                "`$.apt.sources` of the preset"
            ),
            _(
                "`sdist:` is a source distribution on the default Python index; "
                "`apt-source:` the upstream archive in the APT sources of the base image"
            ),
            _(
                "Checksums are the first {short} digits of the SHA-256; the lists below the "
                "tables contain all digits. For images, it is the manifest digest.",
                short=SHORT,
            ),
            _('"not resolved": not synced yet, so the version or checksum is not known.'),
        ]
        return ["## " + _("How to read this"), "", *[f"- {item}" for item in items], ""]

    def _overview(self) -> list[str]:
        built = [
            c
            for c in self.components
            if c.has_version and any(s.preset.component(c.asked_by) for s in self.stacks)
        ]
        rows = []
        for stack in self.stacks:
            p = stack.preset
            torch = p.pytorch and (p.pytorch.torch, p.pytorch.torchvision, p.pytorch.torchaudio)
            driver = self.drivers.get(p.name)
            cells = [
                f"[`{p.name}`](#{p.name.replace('.', '')})",
                p.os,
                p.cuda,
                p.cudnn,
                f"≥ {driver}" if driver else "",
                p.python,
                "/".join(filter(None, torch or ())),
                p.tensorrt.version if p.tensorrt else "",
                *(self._built_version(stack, component) for component in built),
                self._state(stack),
            ]
            rows.append([cell or "—" for cell in cells])
        head = [
            _("preset"),
            "OS",
            "CUDA",
            "cuDNN",
            _("minimum driver"),
            "Python",
            "torch/vision/audio",
            "TensorRT",
            *(component.title for component in built),
            _("lock"),
        ]
        return ["## " + _("Overview"), "", *_table(head, rows)]

    def _built_version(self, stack: Stack, component: Component) -> str:
        options = stack.preset.component(component.asked_by)
        entry = _entry_of(component.name, stack.lock)
        return (entry and entry.version) or options.text("version") if options else ""

    def _state(self, stack: Stack) -> str:
        if stack.stale:
            return _("of another state of the preset")
        if stack.lock is None:
            return _("not resolved")
        if count := len(stack.lock.unresolved):
            return _("partial ({count} unresolved)", count=count)
        return _("resolved")

    def _trust(self) -> list[str]:
        rows = []
        for stack in self.stacks:
            counts = [self._not_resolved()] * 3
            first_use = [row.name for row in rows_of(stack, self.components) if row.first_use]
            if stack.lock is not None:
                entries = stack.lock.entries
                first_use = [e.name for e in entries if e.trust]
                size = human_bytes(stack.lock.size)
                counts = [str(len(entries)), size, str(len(entries) - len(first_use))]
            names = ", ".join(map(_code, first_use)) or "0"
            rows.append([f"`{stack.preset.name}`", *counts, names])
        head = [
            _("preset"),
            _("files"),
            _("size"),
            _("pinned by checksum"),
            _("trusted on first use"),
        ]
        note = _(
            'No checksum is published for an entry that is "trusted on first use". The lock '
            "records the checksum of the first download ([checksum "
            "policy](decisions/0004-checksum-policy.en.md))."
        )
        return ["## " + _("Trust"), "", note, "", *_table(head, rows)]

    def _not_resolved(self) -> str:
        return _("not resolved")

    def _deb_version(self, version: str) -> str:
        if version == IN_BASE:
            return _("in the base image")
        return version or self._not_resolved()

    def _presets_by_package(self) -> list[str]:
        """Return which presets list each package; dependencies are left out."""
        found: dict[tuple[str, str], dict[str, list[str]]] = {}
        for stack in self.stacks:
            for row in rows_of(stack, self.components):
                if row.kind != "image" and row.used_by not in ("dependency", "install-tool"):
                    found.setdefault((row.name, row.kind), {}).setdefault(row.version, []).append(
                        stack.preset.name
                    )
            for name, roles, version in _listed_debs(stack):
                label = f"{self._deb_version(version)} ({roles})"
                found.setdefault((name, "deb"), {}).setdefault(label, []).append(stack.preset.name)
        rows = []
        for (name, kind), uses in sorted(found.items()):
            ordered = sorted(uses.items(), key=lambda use: (versions.key(use[0]), use[0]))
            shown = [f"{version or '—'}: {self._names(presets)}" for version, presets in ordered]
            rows.append([f"`{name}`", kind, "<br>".join(shown)])
        note = _(
            "Packages that presets list themselves. Their dependencies are in the tables of "
            "each preset."
        )
        table = _table([_("package"), _("kind"), _("version: presets")], rows)
        return ["## " + _("Presets by package"), "", note, "", *table]

    def _names(self, presets: Sequence[str]) -> str:
        if len(presets) == len(self.stacks) > 1:
            return _("all presets")
        delivered = [stack.preset.name for stack in self.stacks if not stack.preset.practice]
        if list(presets) == delivered and len(delivered) > 2:
            return _("all presets for delivery")
        return ", ".join(f"`{name}`" for name in presets)

    def _stack(self, stack: Stack) -> list[str]:
        p = stack.preset
        lines = [f"## {p.name}", "", localized(ko=p.summary_ko, en=p.summary_en), ""]
        if p.practice:
            lines += [_("**A practice preset: its image is not for delivery.**"), ""]
        lines += [_("checksum of the preset") + f": `{p.sha256}`", ""]
        if stack.lock is None:
            why = (
                _(
                    "The committed lock belongs to another state of the preset, so only what "
                    "the preset pins is shown."
                )
                if stack.stale
                else _("There is no committed lock, so only what the preset pins is shown.")
            )
            lines += [f"{why} `./deps_sync.sh {p.name}`", ""]
        elif stack.lock.unresolved:
            lines += self._unresolved_items(stack.lock)
        rows = rows_of(stack, self.components)
        groups = (
            ("image", _("Base images")),
            ("wheel", _("Python packages")),
            ("source", _("Sources")),
            ("tensorrt", "TensorRT"),
        )
        for kind, title in groups:
            if some := [row for row in rows if row.kind == kind]:
                lines += [f"### {p.name}: {title}", "", *self._rows(some)]
        lines += self._apt_packages(stack)
        return lines + self._checksums(rows)

    def _unresolved_items(self, lock: Lock) -> list[str]:
        """Return the unresolved items of a partial lock, by reason."""
        names_by_reason: dict[tuple[str, Reason], list[str]] = {}
        for item in lock.unresolved:
            names_by_reason.setdefault((item.kind, item.reason), []).append(item.name)
        intro = ngettext(
            "The lock is partial: {count} item is unresolved, so it cannot be built. "
            "`./deps_sync.sh {preset}` resolves it where the servers below can be reached.",
            "The lock is partial: {count} items are unresolved, so it cannot be built. "
            "`./deps_sync.sh {preset}` resolves them where the servers below can be reached.",
            len(lock.unresolved),
            preset=lock.preset,
        )
        rows = [
            [kind, ", ".join(_code(name) for name in names), reason.message()]
            for (kind, reason), names in names_by_reason.items()
        ]
        return [intro, "", *_table([_("kind"), _("name"), _("reason")], rows)]

    def _rows(self, rows: Sequence[Row]) -> list[str]:
        words = {"dependency": _("dependency"), "install-tool": _("installer")}
        unknown = {"wheel": _("see the wheel's METADATA")}
        inside = _("see the notices inside")
        head = [_("package"), _("version"), _("licence"), _("source"), _("checksum"), _("used by")]
        body = []
        for row in rows:
            short = _code(row.sha256[:SHORT]) if row.sha256 else self._not_resolved()
            if row.first_use:
                short += " " + _("(first use)")
            # A file at a fixed URL may have no version; other packages get one when resolved.
            version = row.version or (
                "—" if row.source.startswith("http") else self._not_resolved()
            )
            used_by = re.sub(r"\$\.[a-z.]+", r"`\g<0>`", words.get(row.used_by, row.used_by))
            licence = row.licence or unknown.get(row.kind, inside)
            source = row.source if row.source.startswith("http") else f"`{row.source}`"
            body.append([f"`{row.name}`", version, licence, source, short, used_by or "—"])
        return _table(head, body)

    def _apt_packages(self, stack: Stack) -> list[str]:
        p = stack.preset
        lines = [f"### {p.name}: " + _("APT packages"), ""]
        head = [_("package"), _("version"), _("used by")]
        rows = ([f"`{n}`", self._deb_version(v), roles] for n, roles, v in _listed_debs(stack))
        lines += _table(head, rows)
        lines += [_("Licences are in each package's `/usr/share/doc/PACKAGE/copyright`."), ""]
        if p.apt_sources:
            keys = (
                [f"`apt:{s.name}`", s.uri + " " + s.suite, _code(s.key_sha256[:SHORT])]
                for s in p.apt_sources
            )
            lines += _table(
                [_("additional APT source"), _("address"), _("checksum of its key")], keys
            )
        debs = stack.lock.of("deb") if stack.lock else ()
        if debs:
            size = f"{sum(e.size for e in debs) / 1e6:.1f} MB"
            title = _(
                "All .debs that are not in the base image: {count}, {size}",
                count=len(debs),
                size=size,
            )
            listed = [
                f"{e.sha256}  {e.file}  {e.origin}  {'+'.join(sorted(e.roles))}" for e in debs
            ]
            lines += _details(title, listed)
        return lines

    def _checksums(self, rows: Sequence[Row]) -> list[str]:
        listed = [f"{row.sha256}  {row.path or row.name}" for row in rows if row.sha256]
        return _details(_("Full checksums"), listed) if listed else []


def _details(title: str, lines: Sequence[str]) -> list[str]:
    head = ["<details>", f"<summary>{title}</summary>", "", "```text"]
    return [*head, *lines, "```", "", "</details>", ""]


def _listed_debs(stack: Stack) -> list[tuple[str, str, str]]:
    """Return (name, roles, version) of every .deb that the preset lists.

    The version is "" until it is resolved, and IN_BASE for a package of the base image.
    """
    locked = {e.name: e.version for e in stack.lock.of("deb")} if stack.lock else {}
    settled = stack.lock is not None and stack.lock.resolves("deb")
    result = []
    for package, roles in stack.preset.roles_of_debs.items():
        name, _separator, pinned = package.partition("=")
        name = name.partition(":")[0]
        version = pinned or locked.get(name, "") or (IN_BASE if settled else "")
        result.append((name, ", ".join(roles), version))
    return result
