"""What a base image says about itself: chosen files out of its layers, and the facts that they hold.

Layers are streamed once, in order, with whiteouts applied; nothing is unpacked to disk. Files live in a
dictionary, so no name or link in a layer can lead to a file of this machine.
"""

from __future__ import annotations

import re
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from gapforge.base.errors import FetchError
from gapforge.base.i18n import _
from gapforge.model import debian_control
from gapforge.sync.oci_layout import Layout, OnBytes, open_layer

WANTED = (
    "etc/os-release",
    "usr/lib/os-release",
    "etc/apt/",
    "usr/share/keyrings/",
    "var/lib/dpkg/status",
    "var/lib/dpkg/arch",
)
LARGEST = 64 << 20  # bytes; a dpkg status of 3000 packages is about 4 MB
HOPS = 40  # symbolic links followed before we call it a loop, as Linux does

_CUDNN = re.compile(r"libcudnn[0-9]+(-cuda-[0-9]+)?")
_REVISION = re.compile(r"-[0-9]+(\+cuda.*)?$")


@dataclass(frozen=True)
class Node:
    """A regular file (``data``) or a symbolic link (``target``)."""

    data: bytes = b""
    target: str | None = None


class ImageFiles:
    """The wanted regular files of an image, and all its symbolic links, by path without leading '/'."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = dict(nodes)

    def resolve(self, path: str) -> str:
        """``path`` with every symbolic link followed inside the image; '..' stops at its root."""
        todo = [part for part in path.split("/") if part not in ("", ".")]
        done: list[str] = []
        hops = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            done.append(part)
            node = self._nodes.get("/".join(done))
            if node is None or node.target is None:
                continue
            hops += 1
            if hops > HOPS:
                raise FetchError(_("the image's /{path} is a loop of symbolic links", path=path))
            done = [] if node.target.startswith("/") else done[:-1]
            todo = [p for p in node.target.split("/") if p not in ("", ".")] + todo
        return "/".join(done)

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None when the image has no such file (or it is not among the wanted ones)."""
        node = self._nodes.get(self.resolve(path))
        return None if node is None or node.target is not None else node.data

    def text(self, path: str) -> str:
        """The file as text, "" when it is not there."""
        return (self.read(path) or b"").decode("utf-8", "replace")

    def names(self, folder: str) -> list[str]:
        """The names of files and links directly in ``folder``, sorted."""
        start = self.resolve(folder) + "/"
        return sorted(
            p[len(start) :]
            for p in self._nodes
            if p.startswith(start) and "/" not in p[len(start) :]
        )


@dataclass(frozen=True)
class Facts:
    """What the image is: os-release's ID and VERSION_ID, CUDA such as "11.8.0" and cuDNN such as
    "8.9.6.50"; "" for what it does not have."""

    os_id: str
    os_version: str
    cuda: str
    cudnn: str


# What was read, by manifest digest. The digest covers every byte, so it cannot go stale; a CUDA image of
# 8 GB takes a minute to read, and both the lock and the APT root of the same run want it.
_seen: dict[str, ImageFiles] = {}


def read_files(layout: Layout, on_bytes: OnBytes | None = None) -> ImageFiles:
    """The files named in WANTED and every symbolic link, as the finished image has them.

    Reads and checks every layer, once per process. Raises FetchError for damaged or unsafe layers.
    """
    if layout.manifest.digest not in _seen:
        nodes: dict[str, Node] = {}
        for number in range(len(layout.layers)):
            _apply(layout, number, nodes, on_bytes)
        _seen[layout.manifest.digest] = ImageFiles(nodes)
    return _seen[layout.manifest.digest]


def facts(layout: Layout, files: ImageFiles) -> Facts:
    """Operating system, CUDA and cuDNN of the image; the package list wins over environment variables."""
    release: dict[str, str] = {}
    for line in files.text("etc/os-release").splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.startswith("#"):
            try:
                release[key.strip()] = " ".join(shlex.split(value))
            except ValueError:
                continue  # an unfinished quote; not a line that we need
    env = layout.env
    cudnn = cudnn_version(env)
    for package in debian_control.parse(files.text("var/lib/dpkg/status")):
        if _CUDNN.fullmatch(package.get("package", "")) and package.get("status", "").endswith(
            " installed"
        ):
            cudnn = _REVISION.sub("", package.get("version", cudnn))
    return Facts(
        release.get("ID", "unknown"),
        release.get("VERSION_ID", "unknown"),
        env.get("CUDA_VERSION", ""),
        cudnn,
    )


def cudnn_version(env: Mapping[str, str]) -> str:
    """What the environment variables of NVIDIA's images say of cuDNN, such as "8.9.6.50"; "" for nothing."""
    return _REVISION.sub("", env.get("NV_CUDNN_VERSION", ""))


def _wanted(path: str) -> bool:
    return any(path == root or (root.endswith("/") and path.startswith(root)) for root in WANTED)


def _clean(name: str, number: int) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        layer = number + 1
        raise FetchError(
            _("layer {layer} of the image holds the unsafe name {name!r}", layer=layer, name=name),
            hint=_("this image was not made by an honest tool; choose another one"),
        )
    return "/".join(parts)


def _apply(layout: Layout, number: int, nodes: dict[str, Node], on_bytes: OnBytes | None) -> None:
    """Lay layer ``number`` over ``nodes``. A layer's whiteouts concern the layers below it only."""
    new: dict[str, Node] = {}
    gone: set[str] = set()  # paths that hide what is below, with everything under them
    emptied: set[str] = set()  # folders whose lower content is hidden
    folders: set[str] = set()
    with (
        open_layer(layout, number, on_bytes) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else a large layer's members pile up in memory
            path = _clean(member.name, number)
            folder, _separator, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                emptied.add(folder)
            elif name.startswith(".wh."):
                gone.add(f"{folder}/{name[4:]}".lstrip("/"))
            elif member.isdir():
                folders.add(path)
                new.pop(path, None)
            else:
                gone.add(path)
                new.pop(path, None)
                node = _node(archive, member, path, number, new, nodes)
                if node is not None:
                    new[path] = node
    for path in folders & nodes.keys():  # a folder replaces a file or link
        del nodes[path]
    parents = {
        "/".join(parts[:i]) for p in nodes for parts in [p.split("/")] for i in range(1, len(parts))
    }
    for path in gone:
        nodes.pop(path, None)
    hidden = (gone & parents) | (emptied & (parents | {""}))
    if hidden:
        for path in list(nodes):
            parts = path.split("/")
            if "" in hidden or any("/".join(parts[:i]) in hidden for i in range(1, len(parts))):
                del nodes[path]
    nodes.update(new)


def _node(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    path: str,
    number: int,
    new: Mapping[str, Node],
    lower: Mapping[str, Node],
) -> Node | None:
    if member.issym():
        return Node(target=member.linkname)
    if not _wanted(path):
        return None
    if member.islnk():
        origin = _clean(member.linkname, number)
        return new.get(origin) or lower.get(origin)
    if not member.isfile():
        return None
    if member.size > LARGEST:
        layer, size = number + 1, member.size
        raise FetchError(
            _(
                "/{path} in layer {layer} of the image is {size} bytes long, which cannot be right",
                path=path,
                layer=layer,
                size=size,
            )
        )
    file = archive.extractfile(member)
    return Node(data=file.read() if file else b"")
