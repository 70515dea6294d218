"""Find newer releases of each item of a preset, and how each of them changes the preset."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import _
from gapforge.model.catalog import Archive, Catalog, best_archive
from gapforge.model.lock import Lock
from gapforge.model.names import ROLES, normalized, package_of
from gapforge.model.preset import TORCH_SET, Preset, PyTorch, TensorRT
from gapforge.model.preset_rules import written_options
from gapforge.model.versions import key, local, major, minor, public, within
from gapforge.sync import target_python
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver
from gapforge.updates import published_releases
from gapforge.updates.published_releases import Release, Upstream

Raw = dict[str, Any]
Change = Callable[[Raw], None]

_CUDA_TAG = re.compile(r"(.*:)([0-9]+\.[0-9]+\.[0-9]+)-(cudnn[0-9]*)-(devel|runtime)-([^:]*)")
_PINNED = re.compile(r"\s*([A-Za-z0-9._-]+)(\[[^\]]*\])?\s*==\s*([^\s,*]+)\s*")
_MAJORS_BACK = 3  # older major versions of a Python package to try if the newest does not fit


@dataclass(frozen=True, kw_only=True)
class Search:
    """A preset, and where to look for newer releases.

    ``same_line`` accepts only releases of the preset's series (FFmpeg 5.1.x, TensorRT 8.x).
    """

    preset: Preset
    catalog: Catalog
    upstreams: Mapping[str, Upstream]
    network: Network
    resolver: Resolver
    lock: Lock | None = None
    same_line: bool = False

    def accepts(self, version: str, current: str) -> bool:
        """Return whether a release is newer, and for ``same_line`` of the same series."""
        same_series = minor(public(version)) == minor(public(current))
        return key(version) > key(current) and (same_series or not self.same_line)

    @property
    def python(self) -> str:
        """Return the full version of the target's Python, "" if neither lock nor OS tells."""
        debs = self.lock.of("deb") if self.lock is not None else ()
        return target_python.expected(self.preset, {entry.name: entry.version for entry in debs})


@dataclass(frozen=True)
class Candidate:
    """A newer release: its version, and the change that puts it into a raw preset."""

    version: str
    apply: Change = field(compare=False, repr=False)


@dataclass(kw_only=True)
class ItemUpdates:
    """The newer releases of one item of a preset: the base image, a Python package or a source.

    ``candidates`` are the newer releases that can be used, newest first. ``newest`` is the newest
    of all, "" if it is unknown (``problem`` is the reason). ``fits`` is the newest that is
    compatible with the rest of the preset, ``why`` the reason why the newest is not.
    """

    name: str
    current: str
    newest: str = ""
    candidates: tuple[Candidate, ...] = ()
    problem: str = ""
    note: str = ""
    fits: str = ""
    why: str = ""

    @property
    def status(self) -> str:
        """Return "current", "outdated" (a newer one fits), "held" (none fits) or "unknown"."""
        if self.problem or not self.newest:
            return "unknown"
        if self.fits:
            return "outdated"
        return "held" if key(self.newest) > key(self.current) or self.why else "current"

    def to_json(self) -> dict[str, str]:
        """Return the status and all fields but the candidates."""
        names = ("name", "current", "newest", "fits", "status", "why", "note", "problem")
        return {name: getattr(self, name) for name in names}


def find_items(search: Search) -> list[ItemUpdates]:
    """Return the items of the preset that have an upstream, with their newer releases.

    If an upstream does not answer, its item has a ``problem``.
    """
    found = [
        _base_image(search),
        _torch(search),
        *_packages(search),
        _tensorrt(search),
        *_sources(search),
    ]
    return [item for item in found if item is not None]


def _releases(search: Search, item: ItemUpdates) -> list[Release]:
    """Return the item's releases; [] with a ``problem`` if they cannot be listed."""
    upstream = search.upstreams.get(item.name)
    if upstream is None:
        item.problem = _("catalog/upstreams.json has no entry for {name}", name=item.name)
        return []
    try:
        found = published_releases.releases(upstream, search.network)
    except GapforgeError as error:
        item.problem = error.message
        return []
    item.newest = found[0].version
    return found


def _base_image(search: Search) -> ItemUpdates | None:
    """Return the newer tags of the base image; the newest of another CUDA series is only a note."""
    image = search.preset.builder.image
    match = _CUDA_TAG.fullmatch(image)
    if match is None:
        if not image:
            return None  # made from packages or an archive, which have no upstream
        problem = _("the tag does not follow NVIDIA's pattern")
        return ItemUpdates(name="base", current=image, problem=problem)
    version, cudnn = match[2], match[3]
    item = ItemUpdates(name="base", current=f"{version}-{cudnn}")
    found = _releases(search, item)
    if item.problem:
        return item
    others = [r for r in found if minor(r.version) != minor(version)]
    series = [
        r for r in found if minor(r.version) == minor(version) and r.groups.get("cudnn") == cudnn
    ]
    item.newest = f"{series[0].version}-{cudnn}" if series else item.current
    if others and key(others[0].version) > key(version):
        item.note = _("newest of another CUDA series: {tag}", tag=others[0].tag)
    item.candidates = tuple(
        Candidate(f"{r.version}-{cudnn}", _set_base_image(version, r.version))
        for r in series
        if search.accepts(r.version, version)
    )
    _note_moved_tags(search, item)
    return item


def _set_base_image(old: str, new: str) -> Change:
    def apply(raw: Raw) -> None:
        for role in ROLES:
            base = raw["base"][role]
            if "image" in base and _CUDA_TAG.fullmatch(base["image"]):
                base["image"] = base["image"].replace(f":{old}-", f":{new}-")
                base.pop("digest", None)

    return apply


def _note_moved_tags(search: Search, item: ItemUpdates) -> None:
    """Add a note for each tag that refers to another image than the locked one."""
    notes = [item.note]
    for role in ROLES:
        base = search.preset.base(role)
        locked = search.lock.images.get(role) if search.lock else None
        pinned = base.digest or (locked.reference.partition("@")[2] if locked else "")
        if not pinned or not base.image:
            continue
        try:
            now = published_releases.image_digest(base.image, search.network)
        except GapforgeError as error:
            notes.append(error.message)
            continue
        if now != pinned:
            notes.append(
                _("the tag of the {role} image now refers to {digest}", role=role, digest=now)
            )
    item.note = "; ".join(filter(None, notes))


def _torch(search: Search) -> ItemUpdates | None:
    """Return the newest PyTorch in the preset's own index, and the older ones in the catalog."""
    preset, pytorch = search.preset, search.preset.pytorch
    if pytorch is None:
        return None
    item = ItemUpdates(name="torch", current=pytorch.torch)
    members = [name for name in TORCH_SET if getattr(pytorch, name)]
    try:
        # Without pins the index decides which versions go together.
        bare = replace(preset, packages=tuple(members), pytorch=PyTorch("", "", "", pytorch.index))
        newest = {
            w.name: w.version
            for w in search.resolver.wheels(bare, search.python)
            if w.name in members
        }
    except GapforgeError as error:
        item.problem = error.message
        return item
    item.newest = newest.get("torch", "")
    sets = [newest]
    for version in sorted(search.catalog.torch, key=key, reverse=True):
        release = search.catalog.torch[version]
        if preset.python in release.pythons and key(version) < key(item.newest):
            packages = release.packages(local(pytorch.torch))
            sets.append({name: packages[name] for name in members if name in packages})
    item.candidates = tuple(
        Candidate(packages["torch"], _set_torch(packages))
        for packages in sets
        if set(packages) == set(members) and search.accepts(packages["torch"], pytorch.torch)
    )
    return item


def _set_torch(packages: Mapping[str, str]) -> Change:
    return lambda raw: raw["pytorch"].update(packages)


def _packages(search: Search) -> list[ItemUpdates]:
    """Return each pinned Python package; ``sync --update`` uses the newest of the others."""
    matches = map(_PINNED.fullmatch, search.preset.packages)
    return [_package(search, match) for match in matches if match]


def _package(search: Search, pin: re.Match[str]) -> ItemUpdates:
    """Return the newest wheels of a package for the target, of the newest major versions."""
    requirement, name, current = pin[0], pin[1] + (pin[2] or ""), pin[3]
    item = ItemUpdates(name=name, current=current)
    bound, candidates = "", []
    for _attempt in range(_MAJORS_BACK):
        wanted = replace(search.preset, packages=(f"{name}{bound}",), pytorch=None)
        try:
            wheels = search.resolver.wheels(wanted, search.python)
        except GapforgeError as error:
            if not item.newest:
                item.problem = error.message
            break
        package = package_of(name)
        version = next((w.version for w in wheels if normalized(w.name) == package), "")
        item.newest = item.newest or version
        if key(version) <= key(current):
            break
        if not search.same_line or major(version) == major(current):
            candidates.append(Candidate(version, _set_package(requirement, f"{name}=={version}")))
        if major(version) == major(current):
            break
        bound = f"<{major(version)}"
    item.candidates = tuple(candidates)
    return item


def _set_package(old: str, new: str) -> Change:
    def apply(raw: Raw) -> None:
        packages = raw["python"]["packages"]
        packages[packages.index(old)] = new

    return apply


def _tensorrt(search: Search) -> ItemUpdates | None:
    """Return the newer TensorRT releases that have a tar file for this CUDA in the catalog."""
    trt = search.preset.tensorrt
    if trt is None:
        return None
    item = ItemUpdates(name="tensorrt", current=trt.version)
    found = _releases(search, item)
    known = search.catalog.tensorrt
    if found and not any(_same_release(found[0].version, version) for version in known):
        item.note = _("the catalog has no tar file of {version}", version=found[0].version)
    if trt.form != "tar":
        item.note = _("packages (form deb) are updated by hand")
        return item
    item.candidates = tuple(_tensorrt_candidates(search, trt))
    if item.problem and item.candidates:  # no list of tags, but the catalog has newer releases
        item.note, item.problem = item.problem, ""
        item.newest = item.candidates[0].version
    return item


def _same_release(tag: str, version: str) -> bool:
    """Return whether a tag ("10.9.0") and a version ("10.9.0.34") are the same release."""
    return within(version, "", tag) and within(tag, "", version)


def _tensorrt_candidates(search: Search, trt: TensorRT) -> list[Candidate]:
    cuda, found = search.preset.cuda, []
    for version in sorted(search.catalog.tensorrt, key=key, reverse=True):
        if search.same_line and major(version) != major(trt.version):
            continue
        tar = search.catalog.tensorrt[version].tar_for(cuda)
        if key(version) > key(trt.version) and tar and tar.supports_cuda(cuda):
            found.append(Candidate(version, _set_source("tensorrt", version, tar)))
    return found


def _sources(search: Search) -> list[ItemUpdates]:
    """Return the other sources; opencv-contrib and OpenCV's downloads belong to OpenCV."""
    found = []
    for name, source in search.preset.sources.items():
        if name in ("tensorrt", "opencv-contrib") or name.startswith("opencv-cache-"):
            continue
        options = search.preset.component(name)
        current = source.version or (options.text("version") if options else "")
        item = ItemUpdates(name=name, current=current)
        found.append(item)
        if not source.urls:
            item.newest = current
            item.note = _("updated by ./deps_sync.sh --update from its APT source or Python index")
            continue
        newer = [r for r in _releases(search, item) if search.accepts(r.version, current)]
        if name == "opencv":
            item.candidates = _opencv_candidates(search, item, newer)
        else:
            item.candidates = tuple(
                Candidate(r.version, _set_release(search, name, r, _known(search, name, r)))
                for r in newer
            )
    return found


def _known(search: Search, name: str, release: Release) -> Archive | None:
    """Return the catalog's best archive of a release of FFmpeg or nv-codec-headers, or None."""
    archives: Sequence[Archive] = ()
    if name == "ffmpeg":
        archives = search.catalog.ffmpeg.get(release.version, ())
    elif name == "nv-codec-headers" and release.version in search.catalog.headers:
        archives = search.catalog.headers[release.version].archives
    return best_archive(archives)


def _set_release(search: Search, name: str, release: Release, known: Archive | None) -> Change:
    """Return the change to a release, from the ``known`` archive or the upstream's address."""
    if known:
        return _set_source(name, release.version, known)
    address = search.upstreams[name].archive
    url = address.format(version=release.version, tag=release.tag)
    file = url.rsplit("/", 1)[-1]
    if not file.startswith(name.split("-")[0]):
        # Two archives called 4.12.0.tar.gz would be one file in artifacts/NAME/sources.
        file = f"{name}-{release.version}.tar.gz"
    return _set_source(name, release.version, Archive(file, url))


def _set_source(name: str, version: str, archive: Archive) -> Change:
    """Return the change that puts an archive into ``sources`` and sets the component's version.

    Without a published checksum, ``sync`` trusts the first download.
    """

    def apply(raw: Raw) -> None:
        source = raw["sources"][name]
        source.update(urls=[archive.url], version=version, sha256=archive.sha256 or None)
        for stale in ("size", "folder", "trust"):
            source.pop(stale, None)
        if not archive.sha256:
            source["trust"] = "first-use"
        if archive.file != archive.url.rsplit("/", 1)[-1]:
            source["file"] = archive.file
        else:
            source.pop("file", None)
        options = raw.get("tensorrt") if name == "tensorrt" else written_options(raw, name)
        if options and "version" in options:
            options["version"] = version

    return apply


def _opencv_candidates(
    search: Search, item: ItemUpdates, newer: Sequence[Release]
) -> tuple[Candidate, ...]:
    """Return the OpenCV releases that have their contrib, and whose downloads the catalog knows."""
    sources = search.preset.sources
    with_contrib = "opencv-contrib" in sources
    contrib: dict[str, Release] = {}
    if with_contrib and newer:
        contrib_item = ItemUpdates(name="opencv-contrib", current="")
        contrib = {r.version: r for r in _releases(search, contrib_item)}
        if contrib_item.problem:
            item.note = contrib_item.problem
            return ()
    downloads = [name for name in sources if name.startswith("opencv-cache-")]
    candidates = []
    for release in newer:
        version = release.version
        archive, contrib_archive = search.catalog.opencv.get(version, (None, None))
        if with_contrib and version not in contrib:
            item.note = _("opencv-contrib {version} is not published yet", version=version)
            continue
        if downloads and archive is None:
            item.note = _("the catalog does not know the downloads of {version}", version=version)
            continue
        steps = [_set_release(search, "opencv", release, archive)]
        if with_contrib:
            steps.append(_set_release(search, "opencv-contrib", contrib[version], contrib_archive))
        steps += [_set_download(name, version, search.catalog) for name in downloads]
        candidates.append(Candidate(version, _in_order(steps)))
    return tuple(candidates)


def _set_download(name: str, version: str, catalog: Catalog) -> Change:
    """Return the change of one of OpenCV's own downloads to that of another OpenCV."""

    def apply(raw: Raw) -> None:
        source = raw["sources"][name]
        now = next((d for d in catalog.downloads if d.url in source["urls"]), None)
        id_ = now.id if now else name.removeprefix("opencv-cache-").split("-")[0]
        options = [d for d in catalog.downloads if version in d.opencv and d.id == id_]
        same = [d for d in options if d.url in source["urls"] or (now and d.file == now.file)]
        new = next(iter(same or options), None)
        if new is not None and new.url not in source["urls"]:
            _set_source(name, "", new)(raw)
            source.pop("version", None)

    return apply


def _in_order(steps: Sequence[Change]) -> Change:
    def apply(raw: Raw) -> None:
        for step in steps:
            step(raw)

    return apply
