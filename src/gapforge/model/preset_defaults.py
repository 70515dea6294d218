"""Fill in what a preset leaves out: defaults, and what the catalog has for the versions it names.

A preset's own values always win. ``shortened`` is the reverse: it removes what would be filled in.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gapforge.model.catalog import Archive, Catalog, Download, best_archive
from gapforge.model.preset_rules import written_options
from gapforge.model.versions import local, public

DEFAULT, CATALOG = "default", "catalog"  # where a value that the preset leaves out comes from
_COSMETIC = ("licence", "homepage", "gated")  # of a source: changing them changes no file
_NOTHING: Mapping[str, Any] = {
    "practice": False,
    "platform": "linux/amd64",
    "cuda": None,
    "cudnn": None,
    "pytorch": None,
    "tensorrt": None,
    "apt": {},
    "sources": {},
    "application": None,
}
_LISTS = {"apt": ("builder", "runtime", "sources"), "python": ("packages",)}
# Options of FFmpeg's configure that need nv-codec-headers.
NVENC = ("--enable-nvenc", "--enable-nvdec", "--enable-cuvid", "--enable-ffnvcodec")
HEADERS_PACKAGE = "libffmpeg-nvenc-dev"  # Ubuntu's package of nv-codec-headers


@dataclass(frozen=True)
class Filled:
    """A complete document. ``origins`` maps the JSON path of each filled value to its origin."""

    document: dict[str, Any]
    origins: Mapping[str, str]

    def derived(self) -> dict[str, Any]:
        """Return the values of the catalog that decide what is locked, by JSON path."""
        found = {}
        for path, origin in self.origins.items():
            if origin == CATALOG:
                value = value_at(self.document, path)
                if isinstance(value, dict):
                    value = {k: v for k, v in value.items() if k not in _COSMETIC}
                found[path] = value
        return found


def value_at(document: Any, path: str) -> Any:
    """Return the value at a JSON path of keys, such as "$.sources.opencv"; a key has no dot."""
    for name in _keys(path):
        document = document[name]
    return document


def _keys(path: str) -> list[str]:
    """Return the keys of a path; what follows "$.sources." is one key, which may contain dots."""
    first, _dot, rest = path.removeprefix("$.").partition(".")
    return [first, rest] if rest else [first]


def fill(raw: Mapping[str, Any], catalog: Catalog | None = None) -> Filled:
    """Return the document with everything that it leaves out, as far as ``catalog`` knows it."""
    document = copy.deepcopy(dict(raw))
    origins: dict[str, str] = {}
    for name, value in _NOTHING.items():
        if name not in document:
            document[name] = copy.deepcopy(value)
            origins[f"$.{name}"] = DEFAULT
    for holder, names in _LISTS.items():
        for name in names:
            if name not in document[holder]:
                document[holder][name] = []
                origins[f"$.{holder}.{name}"] = DEFAULT
    if isinstance(document["summary"], str):
        document["summary"] = dict.fromkeys(("ko", "en"), document["summary"])
    application = document["application"]
    if application is not None and "name" not in application:
        application["name"] = name_of_folder(application["source"])
        origins["$.application.name"] = DEFAULT
    if catalog is not None:
        _fill_torch(document, catalog, origins)
        for name, source in list(_sources(document, catalog)):
            if name not in document["sources"]:
                document["sources"][name] = source
                origins[f"$.sources.{name}"] = CATALOG
    return Filled(document, origins)


def shortened(raw: Mapping[str, Any], catalog: Catalog | None) -> dict[str, Any]:
    """Return the document without each value that ``fill`` would give it."""
    complete = fill(raw, catalog).document
    document = copy.deepcopy(dict(raw))
    for path in list(_removable(document)):
        *parents, last = _keys(path)
        holder = document[parents[0]] if parents else document
        value = holder.pop(last)
        if fill(document, catalog).document != complete:
            holder[last] = value
    for holder_name in ("apt", "sources"):
        if document.get(holder_name) == {}:
            del document[holder_name]
    order = list(raw)
    return dict(sorted(document.items(), key=lambda item: order.index(item[0])))


def _removable(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the path of each value that ``fill`` may give, the index of PyTorch first.

    Without its index, PyTorch's packages follow from the version of torch.
    """
    for holder, names in (
        ("pytorch", ("index", "torchvision", "torchaudio")),
        ("sources", tuple(sorted(document.get("sources", ())))),
        ("application", ("name",)),
        *_LISTS.items(),
    ):
        for name in names:
            if name in (document.get(holder) or ()):
                yield f"$.{holder}.{name}"
    yield from (f"$.{name}" for name in _NOTHING if name in document)


def name_of_folder(folder: str) -> str:
    """Return the last part of a folder's path as the name of an application, "" if unusable."""
    last = folder.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")


def _fill_torch(document: dict[str, Any], catalog: Catalog, origins: dict[str, str]) -> None:
    """Add PyTorch's other packages and its index, unless the document gives the index."""
    torch = document["pytorch"]
    if not torch or "index" in torch:
        return
    release, build = catalog.torch.get(public(torch["torch"])), local(torch["torch"])
    if release is None:
        return
    index = catalog.torch_index.format(build=build) if build else "default"
    for name, value in {**release.packages(build), "index": index}.items():
        if name not in torch:
            torch[name] = value
            origins[f"$.pytorch.{name}"] = CATALOG


def _sources(document: Mapping[str, Any], catalog: Catalog) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the source archives that the versions and options of the document need."""
    ffmpeg = written_options(document, "ffmpeg")
    if ffmpeg:
        version, configure = ffmpeg.get("version", ""), ffmpeg.get("configure", ())
        yield from _source(
            "ffmpeg", best_archive(catalog.ffmpeg.get(version, ())), version, catalog
        )
        packaged = any(p.startswith(HEADERS_PACKAGE) for p in document["apt"]["builder"])
        if any(option in NVENC for option in configure) and not packaged:
            headers = catalog.headers_choice(version)
            archive = best_archive(catalog.headers[headers].archives) if headers else None
            yield from _source("nv-codec-headers", archive, headers, catalog)
    opencv = written_options(document, "opencv")
    if opencv:
        version = opencv.get("version", "")
        main, contrib = catalog.opencv.get(version, (None, None))
        yield from _source("opencv", main, version, catalog)
        if opencv.get("contrib"):
            yield from _source("opencv-contrib", contrib, version, catalog)
        # A preset with an archive of its own names the files that OpenCV downloads, too.
        if "opencv" not in document["sources"]:
            yield from _downloads(opencv, version, catalog)
    tensorrt = document["tensorrt"]
    if tensorrt and tensorrt["form"] == "tar":
        release = catalog.tensorrt.get(tensorrt["version"])
        tar = release.tar_for(document["cuda"] or "") if release else None
        yield from _source("tensorrt", tar, tensorrt["version"], catalog)


def _source(
    name: str, archive: Archive | None, version: str, catalog: Catalog
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the source ``name`` with an archive of the catalog, if there is one."""
    if archive is not None:
        yield name, {**source_of(archive), "version": version, **catalog.about.get(name, {})}


def _downloads(
    opencv: Mapping[str, Any], version: str, catalog: Catalog
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a source for each file that OpenCV's configure step would download."""
    wanted = [d for d in catalog.downloads if version in d.opencv and _is_needed(d, opencv)]
    for download in wanted:
        alone = [d.id for d in wanted].count(download.id) == 1
        name = f"opencv-cache-{download.id if alone else download.file.lower()}"
        yield name, {**source_of(download), **catalog.about.get(name, {})}


def _is_needed(download: Download, opencv: Mapping[str, Any]) -> bool:
    cmake, modules = opencv.get("cmake", ()), opencv.get("modules", ())
    off = re.findall(r"-D\w+=(?:OFF|ON)", download.switch_off)
    return (
        not any(option in cmake for option in off)
        and all(opencv.get(flag) for flag in download.flags)
        and (not download.module or not modules or download.module in modules)
        and (not download.option or download.option in cmake)
    )


def source_of(archive: Archive) -> dict[str, Any]:
    """Return the part of a preset's source that describes an archive."""
    result: dict[str, Any] = {"urls": [archive.url], "sha256": archive.sha256 or None}
    if not archive.sha256:
        result["trust"] = "first-use"
    if archive.url.rsplit("/", 1)[-1] != archive.file:
        result["file"] = archive.file
    if archive.size:
        result["size"] = archive.size
    return result
