"""What each part of a preset could be replaced by: newer releases upstream, and what taking one changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import _
from gapforge.compat.catalog import Catalog
from gapforge.compat.versions import key, local, major, minor, public, within
from gapforge.model.lock import Lock
from gapforge.model.names import ROLES, normalized, package_of
from gapforge.model.preset import Preset, PyTorch, written_options
from gapforge.sync.network import Network
from gapforge.sync.python_packages import TORCH_SET, Resolver
from gapforge.updates import published_releases
from gapforge.updates.published_releases import Release, Upstream

Raw = dict[str, Any]
CUDA_TAG = re.compile(r"(.*?)([0-9]+\.[0-9]+\.[0-9]+)-(cudnn[0-9]*)-(devel|runtime)-(.*)")
MAJORS_BACK = (
    3  # how many older major series of a Python package are asked for when the newest does not fit
)


@dataclass(frozen=True)
class Candidate:
    """A newer release: its version as shown, and what taking it does to a raw preset."""

    version: str
    apply: Callable[[Raw], None] = field(compare=False, repr=False)


@dataclass
class Component:
    """One part of a preset against its upstream.

    ``candidates`` are newer releases that can be taken, newest first. ``newest`` is the newest there is,
    "" when that could not be found out (``problem`` says why). ``fits`` is the newest that fits with the rest
    of the preset as it is, ``why`` what keeps the newest from fitting.
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
        """ "current", "outdated" (a newer one fits), "held" (newer ones do not fit), "unknown"."""
        if self.problem or not self.newest:
            return "unknown"
        if self.fits:
            return "outdated"
        return "held" if key(self.newest) > key(self.current) or self.why else "current"

    def to_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "current": self.current,
            "newest": self.newest,
            "fits": self.fits,
            "status": self.status,
            "why": self.why,
            "note": self.note,
            "problem": self.problem,
        }


def components(
    preset: Preset,
    catalog: Catalog,
    upstreams: Mapping[str, Upstream],
    network: Network,
    resolver: Resolver,
    lock: Lock | None,
    same_line: bool,
) -> list[Component]:
    """Every part of the preset that has an upstream, with its newer releases. What does not answer says so itself."""
    found = [
        _base(preset, upstreams, network, lock, same_line),
        _torch(preset, catalog, resolver, same_line),
        *_packages(preset, resolver, same_line),
        _tensorrt(preset, catalog, upstreams, network, same_line),
        *_sources(preset, catalog, upstreams, network, same_line),
    ]
    return [component for component in found if component is not None]


def _newer(found: Sequence[Release], current: str, line: int, same_line: bool) -> list[Release]:
    """Releases after ``current``; with ``same_line`` only those whose first ``line`` numbers are the same."""
    newer = [r for r in found if key(r.version) > key(current)]
    if same_line:
        newer = [r for r in newer if _numbers(r.version)[:line] == _numbers(current)[:line]]
    return newer


def _numbers(version: str) -> list[str]:
    return [*public(version).split("."), "0", "0", "0"][:4]


def _ask(
    component: Component, upstreams: Mapping[str, Upstream], network: Network, name: str = ""
) -> list[Release]:
    """The component's releases; [] and a ``problem`` when they cannot be had."""
    where = upstreams.get(name or component.name)
    if where is None:
        component.problem = _(
            "catalog/upstreams.json does not say where {name} is listed", name=component.name
        )
        return []
    try:
        found = published_releases.releases(where, network)
    except GapforgeError as error:
        component.problem = error.message
        return []
    component.newest = found[0].version
    return found


# --- base image -------------------------------------------------------------------------------------------


def _base(
    preset: Preset,
    upstreams: Mapping[str, Upstream],
    network: Network,
    lock: Lock | None,
    same_line: bool,
) -> Component | None:
    """Newer tags of the base image. Another CUDA line is named, not taken: everything hangs on it."""
    match = CUDA_TAG.fullmatch(preset.builder.image)
    if match is None:
        if not preset.builder.image:
            return None  # made from packages or an archive: nothing upstream to ask
        component = Component("base", preset.builder.image)
        component.problem = _("its tags follow no pattern that is known")
        return component
    component = Component("base", f"{match[2]}-{match[3]}")
    found = _ask(component, upstreams, network, "base")
    line = [
        r
        for r in found
        if minor(r.version) == minor(match[2]) and r.groups.get("cudnn") == match[3]
    ]
    if component.problem:
        return component
    others = [r for r in found if minor(r.version) != minor(match[2])]
    component.newest = f"{line[0].version}-{match[3]}" if line else component.current
    if others and key(others[0].version) > key(match[2]):
        component.note = _("newest of another CUDA line: {tag}", tag=others[0].tag)
    component.candidates = tuple(
        Candidate(f"{r.version}-{match[3]}", _take_base(match[2], r.version))
        for r in _newer(line, match[2], 2, same_line)
    )
    _moved(component, preset, network, lock)
    return component


def _take_base(old: str, new: str) -> Callable[[Raw], None]:
    def apply(raw: Raw) -> None:
        for role in ROLES:
            base = raw["base"][role]
            if "image" in base and CUDA_TAG.fullmatch(base["image"]):
                base["image"] = base["image"].replace(f":{old}-", f":{new}-")
                base.pop("digest", None)

    return apply


def _moved(component: Component, preset: Preset, network: Network, lock: Lock | None) -> None:
    """Say so when a tag stands for another image than the one that the lock has."""
    for role in ROLES:
        locked = lock.images.get(role) if lock else None
        pinned = preset.base(role).digest or (locked.reference.partition("@")[2] if locked else "")
        if not pinned or not preset.base(role).image:
            continue
        try:
            now = published_releases.image_digest(preset.base(role).image, network)
        except GapforgeError as error:
            component.note = "; ".join(filter(None, (component.note, error.message)))
            continue
        if now != pinned:
            moved = _("the {role}'s tag stands for another image now: {now}", role=role, now=now)
            component.note = "; ".join(filter(None, (component.note, moved)))


# --- Python packages and PyTorch --------------------------------------------------------------------------


def _torch(
    preset: Preset, catalog: Catalog, resolver: Resolver, same_line: bool
) -> Component | None:
    """Newer PyTorch sets on the preset's own index: the newest there, and the catalog's releases below it."""
    have = preset.pytorch
    if have is None:
        return None
    component = Component("torch", have.torch)
    members = {name: version for name in TORCH_SET if (version := getattr(have, name))}
    try:
        # The index decides which versions of the set go together; they are asked for without any pin.
        bare = replace(preset, packages=tuple(members), pytorch=PyTorch("", "", "", have.index))
        newest = {w.name: w.version for w in resolver.wheels(bare) if w.name in members}
    except GapforgeError as error:
        component.problem = error.message
        return component
    component.newest = newest.get("torch", "")
    suffix = f"+{local(have.torch)}" if local(have.torch) else ""
    sets = [newest]
    for version in sorted(catalog.torch, key=key, reverse=True):
        release = catalog.torch[version]
        pair = {
            "torch": release.torch,
            "torchvision": release.torchvision,
            "torchaudio": release.torchaudio,
        }
        if (
            preset.python in release.pythons
            and key(version) < key(component.newest)
            and all(pair[name] for name in members)
        ):
            sets.append({name: pair[name] + suffix for name in members})
    candidates = []
    for chosen in sets:
        version = chosen.get("torch", "")
        if key(public(version)) > key(public(have.torch)) and set(chosen) == set(members):
            if same_line and _numbers(version)[:2] != _numbers(have.torch)[:2]:
                continue
            candidates.append(Candidate(version, _take_torch(chosen)))
    component.candidates = tuple(candidates)
    return component


def _take_torch(chosen: Mapping[str, str]) -> Callable[[Raw], None]:
    return lambda raw: raw["pytorch"].update(chosen)


def _packages(preset: Preset, resolver: Resolver, same_line: bool) -> list[Component]:
    """Each pinned Python package, against the newest wheels for the target on the default index."""
    found = []
    for requirement in preset.packages:
        match = re.fullmatch(r"\s*([A-Za-z0-9._-]+)(\[[^\]]*\])?\s*==\s*([^\s,*]+)\s*", requirement)
        if match is None:
            continue  # not pinned: sync takes the newest anyway when asked to --update
        found.append(
            _package(
                preset, resolver, requirement, match[1] + (match[2] or ""), match[3], same_line
            )
        )
    return found


def _package(
    preset: Preset, resolver: Resolver, requirement: str, name: str, current: str, same_line: bool
) -> Component:
    component = Component(name, current)
    bound, candidates = "", []
    for _round in range(MAJORS_BACK):
        try:
            wheels = resolver.wheels(replace(preset, packages=(f"{name}{bound}",), pytorch=None))
        except GapforgeError as error:
            if not component.newest:
                component.problem = error.message
            break
        plain = package_of(name)
        version = next((w.version for w in wheels if normalized(w.name) == plain), "")
        component.newest = component.newest or version
        if key(version) <= key(current):
            break
        if not same_line or major(version) == major(current):
            candidates.append(Candidate(version, _take_package(requirement, f"{name}=={version}")))
        if major(version) == major(current):
            break
        bound = f"<{major(version)}"
    component.candidates = tuple(candidates)
    return component


def _take_package(old: str, new: str) -> Callable[[Raw], None]:
    def apply(raw: Raw) -> None:
        packages = raw["python"]["packages"]
        packages[packages.index(old)] = new

    return apply


# --- source archives --------------------------------------------------------------------------------------


def _tensorrt(
    preset: Preset,
    catalog: Catalog,
    upstreams: Mapping[str, Upstream],
    network: Network,
    same_line: bool,
) -> Component | None:
    """Newer TensorRT with a tar for this CUDA in the catalog; a release's tags have three numbers, a tar's four."""
    have = preset.tensorrt
    if have is None:
        return None
    component = Component("tensorrt", have.version)
    found = _ask(component, upstreams, network)
    known = sorted(
        (r for r in catalog.tensorrt.values() if key(r.version) > key(have.version)),
        key=lambda r: key(r.version),
        reverse=True,
    )
    if found and not any(
        within(r.version, "", found[0].version) and within(found[0].version, "", r.version)
        for r in catalog.tensorrt.values()
    ):
        component.note = _("the catalog does not know {version}'s tar", version=found[0].version)
    if have.form != "tar":
        component.note = _("packages are pinned by hand (form deb)")
        return component
    candidates = []
    for release in known:
        if same_line and major(release.version) != major(have.version):
            continue
        tar = next(
            (
                t
                for t in release.tars
                if t.cuda_from and within(minor(preset.cuda), t.cuda_from, t.cuda_to)
            ),
            next((t for t in release.tars if t.cuda == minor(preset.cuda)), None),
        )
        if tar is not None:
            change = _take_source(
                "tensorrt", release.version, tar.url, tar.file, tar.sha256, "tensorrt"
            )
            candidates.append(Candidate(release.version, change))
    component.candidates = tuple(candidates)
    if component.problem and candidates:  # the tags cannot be had, but the catalog knows newer ones
        component.note, component.problem = component.problem, ""
        component.newest = candidates[0].version
    return component


def _sources(
    preset: Preset,
    catalog: Catalog,
    upstreams: Mapping[str, Upstream],
    network: Network,
    same_line: bool,
) -> list[Component]:
    """Every other source archive. opencv-contrib and OpenCV's own downloads go with OpenCV."""
    found = []
    for name, source in preset.sources.items():
        if name in ("tensorrt", "opencv-contrib") or name.startswith("opencv-cache-"):
            continue
        built = preset.component(name)
        component = Component(name, source.version or (built.text("version") if built else ""))
        found.append(component)
        if not source.urls:
            component.newest = component.current
            component.note = _(
                "follows the base's APT sources or the index: ./deps_sync.sh --update"
            )
            continue
        listed = _ask(component, upstreams, network)
        newer = _newer(listed, component.current, 2, same_line)
        if name == "opencv":
            component.candidates = _opencv(preset, catalog, upstreams, network, component, newer)
        elif listed:
            component.candidates = tuple(
                Candidate(
                    r.version,
                    _take_release(name, r, upstreams[name], _known(catalog, name, r.version)),
                )
                for r in newer
            )
    return found


def _known(catalog: Catalog, name: str, version: str) -> tuple[str, str, str] | None:
    """(address, file, hash) that the catalog has for a release; None when it has none."""
    archives = (
        catalog.ffmpeg.get(version, ())
        if name == "ffmpeg"
        else catalog.headers[version].archives
        if name == "nv-codec-headers" and version in catalog.headers
        else ()
    )
    best = sorted(archives, key=lambda a: (not a.sha256, not a.file.endswith(".tar.xz")))
    return (best[0].url, best[0].file, best[0].sha256) if best else None


def _take_release(
    name: str, release: Release, where: Upstream, known: tuple[str, str, str] | None
) -> Callable[[Raw], None]:
    url = where.archive.format(version=release.version, tag=release.tag)
    last = url.rsplit("/", 1)[-1]
    # Two archives called 4.12.0.tar.gz would be one file in artifacts/NAME/sources.
    plain = last if last.startswith(name.split("-")[0]) else f"{name}-{release.version}.tar.gz"
    address, file, sha256 = known or (url, plain, "")
    return _take_source(name, release.version, address, file, sha256, name)


def _take_source(
    name: str, version: str, url: str, file: str, sha256: str, part: str
) -> Callable[[Raw], None]:
    """Put another release into ``sources``, and its version into the preset's ``part``, "" for none.

    A hash that nobody published becomes null, and sync records what it sees first.
    """

    def apply(raw: Raw) -> None:
        source = raw["sources"][name]
        source.update(urls=[url], version=version, sha256=sha256 or None)
        for stale in ("size", "folder", "trust"):
            source.pop(stale, None)
        if not sha256:
            source["trust"] = "first-use"
        if file and file != url.rsplit("/", 1)[-1]:
            source["file"] = file
        else:
            source.pop("file", None)
        options = raw.get("tensorrt") if part == "tensorrt" else written_options(raw, part)
        if options and "version" in options:
            options["version"] = version

    return apply


def _opencv(
    preset: Preset,
    catalog: Catalog,
    upstreams: Mapping[str, Upstream],
    network: Network,
    component: Component,
    newer: Sequence[Release],
) -> tuple[Candidate, ...]:
    """OpenCV releases that have their contrib, and whose configure-time downloads the catalog knows."""
    contrib: dict[str, Release] = {}
    if "opencv-contrib" in preset.sources and newer:
        probe = Component("opencv-contrib", "")
        contrib = {r.version: r for r in _ask(probe, upstreams, network)}
        if probe.problem:
            component.note = probe.problem
            return ()
    caches = [name for name in preset.sources if name.startswith("opencv-cache-")]
    candidates = []
    for release in newer:
        known = catalog.opencv.get(release.version)
        steps = [
            _take_release(
                "opencv",
                release,
                upstreams["opencv"],
                (known[0].url, known[0].file, known[0].sha256) if known else None,
            )
        ]
        if "opencv-contrib" in preset.sources:
            if release.version not in contrib:
                component.note = _("{version} has no contrib yet", version=release.version)
                continue
            steps.append(
                _take_release(
                    "opencv-contrib",
                    contrib[release.version],
                    upstreams["opencv-contrib"],
                    (known[1].url, known[1].file, known[1].sha256) if known else None,
                )
            )
        if caches and known is None:
            component.note = _(
                "the catalog does not know what {version}'s configure step downloads",
                version=release.version,
            )
            continue
        steps += [_take_download(name, release.version, catalog) for name in caches]
        candidates.append(Candidate(release.version, _all(steps)))
    return tuple(candidates)


def _take_download(name: str, version: str, catalog: Catalog) -> Callable[[Raw], None]:
    """The same download for another OpenCV: found by the file it stands for today."""

    def apply(raw: Raw) -> None:
        urls = raw["sources"][name]["urls"]
        now = next((d for d in catalog.downloads if d.url in urls), None)
        stem = now.id if now else name.removeprefix("opencv-cache-").split("-")[0]
        options = [d for d in catalog.downloads if version in d.opencv and d.id == stem]
        same = [d for d in options if d.url in urls or (now is not None and d.file == now.file)]
        then = next(iter(same or options), None)
        if then is not None and then.url not in urls:
            _take_source(name, "", then.url, then.file, then.sha256, "")(raw)
            raw["sources"][name].pop("version", None)

    return apply


def _all(steps: Sequence[Callable[[Raw], None]]) -> Callable[[Raw], None]:
    def apply(raw: Raw) -> None:
        for step in steps:
            step(raw)

    return apply
