"""Read selected files from the layers of a base image, and the versions of OS, CUDA and cuDNN.

Layers are streamed once, in order, with whiteouts applied; nothing is unpacked to disk. Files are
kept in a dictionary, so no name or link in a layer can lead to a file of this machine.
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
from gapforge.model.usable_base_image import UNKNOWN_OS
from gapforge.sync.oci_layout import Layout, environment, open_layer

WANTED = (
    "etc/os-release",
    "usr/lib/os-release",
    "etc/apt/",
    "usr/share/keyrings/",
    "var/lib/dpkg/status",
    "var/lib/dpkg/arch",
)
# Files of which only the presence matters.
_PRESENT = re.compile(r"usr/bin/(apt-get|python3\.[0-9]+)|.*/pkgconfig/[^/]+\.pc")
LARGEST = 64 << 20  # bytes; a dpkg status of 3000 packages is about 4 MB
HOPS = 40  # more symbolic links are a loop, as in Linux

_CUDNN = re.compile(r"libcudnn[0-9]+(-cuda-[0-9]+)?")
_REVISION = re.compile(r"-[0-9]+(\+cuda.*)?$")


def only_presence_matters(path: str) -> bool:
    """Return whether nobody reads this file of an image, such as a header."""
    header = path.startswith(("usr/", "opt/")) and path.endswith((".h", ".hpp"))
    return (header and "/include/" in path) or bool(_PRESENT.fullmatch(path))


@dataclass(frozen=True)
class Node:
    """A regular file (``data``) or a symbolic link (``target``)."""

    data: bytes = b""
    target: str | None = None


class ImageFiles:
    """The regular files of an image that are in WANTED, and all its symbolic links.

    Files of which only the presence matters are empty. Paths have no leading "/".
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = dict(nodes)

    def resolve(self, path: str) -> str:
        """Return ``path`` with symbolic links followed inside the image; ".." stops at its root."""
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
                raise FetchError(_("/{path} in the image is a loop of symbolic links", path=path))
            done = [] if node.target.startswith("/") else done[:-1]
            todo = [p for p in node.target.split("/") if p not in ("", ".")] + todo
        return "/".join(done)

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, None if the image has no such file or it is not in WANTED."""
        node = self._nodes.get(self.resolve(path))
        return None if node is None or node.target is not None else node.data

    def has(self, path: str) -> bool:
        """Return whether a wanted path exists, be it a link that leads elsewhere."""
        folder, _separator, name = path.rpartition("/")
        return f"{self.resolve(folder)}/{name}".lstrip("/") in self._nodes

    def build_files(self) -> list[str]:
        """Return the paths of the pkg-config files, headers and symbolic links."""
        return [path for path, node in self._nodes.items() if node.target or not node.data]

    def text(self, path: str) -> str:
        """Return the file as text, "" if it is missing."""
        return (self.read(path) or b"").decode("utf-8", "replace")

    def installed(self) -> list[dict[str, str]]:
        """Return the entries of dpkg's status for the packages that the image has."""
        status = debian_control.parse(self.text("var/lib/dpkg/status"))
        return [stanza for stanza in status if debian_control.is_installed(stanza)]

    def names(self, folder: str) -> list[str]:
        """Return the names of files and links directly in ``folder``, sorted."""
        start = self.resolve(folder) + "/"
        return sorted(
            p[len(start) :]
            for p in self._nodes
            if p.startswith(start) and "/" not in p[len(start) :]
        )


@dataclass(frozen=True)
class Facts:
    """ID and VERSION_ID of os-release, CUDA such as "11.8.0", cuDNN such as "8.9.6.50", or ""."""

    os_id: str
    os_version: str
    cuda: str
    cudnn: str


# Images that were read, by manifest digest, which covers every byte. A CUDA image of 8 GB takes a
# minute to read, and both the lock and the APT root of a run need it.
_seen: dict[str, ImageFiles] = {}


def read_files(layout: Layout) -> ImageFiles:
    """Return the files in WANTED and every symbolic link, as the image has them.

    Every layer is read and verified, once per process. Raise FetchError for damaged or unsafe
    layers.
    """
    if layout.manifest.digest not in _seen:
        nodes: dict[str, Node] = {}
        for number in range(len(layout.layers)):
            _apply(layout, number, nodes)
        _seen[layout.manifest.digest] = ImageFiles(nodes)
    return _seen[layout.manifest.digest]


def facts(layout: Layout, files: ImageFiles) -> Facts:
    """Return OS, CUDA and cuDNN of the image.

    The package list has precedence over environment variables.
    """
    release: dict[str, str] = {}
    for line in files.text("etc/os-release").splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.startswith("#"):
            try:
                release[key.strip()] = " ".join(shlex.split(value))
            except ValueError:
                continue  # an unclosed quote; ID and VERSION_ID have none
    env = environment(layout.config)
    cudnn = cudnn_version(env)
    for package in files.installed():
        if _CUDNN.fullmatch(package.get("package", "")):
            cudnn = _REVISION.sub("", package.get("version", cudnn))
    return Facts(
        release.get("ID", UNKNOWN_OS),
        release.get("VERSION_ID", UNKNOWN_OS),
        env.get("CUDA_VERSION", ""),
        cudnn,
    )


def cudnn_version(env: Mapping[str, str]) -> str:
    """Return the cuDNN version of an NVIDIA image's environment, such as "8.9.6.50", or ""."""
    return _REVISION.sub("", env.get("NV_CUDNN_VERSION", ""))


def _wanted(path: str) -> bool:
    return any(path == root or (root.endswith("/") and path.startswith(root)) for root in WANTED)


def _clean(name: str, number: int) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        layer = number + 1
        raise FetchError(
            _(
                "layer {layer} of the image contains the unsafe name {name!r}",
                layer=layer,
                name=name,
            ),
            hint=_("choose another image: this one may be an attack"),
        )
    return "/".join(parts)


def _apply(layout: Layout, number: int, nodes: dict[str, Node]) -> None:
    """Apply layer ``number`` to ``nodes``.

    The whiteouts of a layer affect only the layers below it.
    """
    new: dict[str, Node] = {}
    gone: set[str] = set()  # paths that hide the lower ones, with everything inside
    emptied: set[str] = set()  # folders whose lower content is hidden
    folders: set[str] = set()
    with open_layer(layout, number) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else they pile up in memory
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
    if only_presence_matters(path):
        return Node()
    if not _wanted(path):
        return None
    if member.islnk():
        origin = _clean(member.linkname, number)
        return new.get(origin) or lower.get(origin)
    if not member.isfile():
        return None
    if member.size > LARGEST:
        raise FetchError(
            _(
                "/{path} in layer {layer} of the image is too large: {size} bytes",
                path=path,
                layer=number + 1,
                size=member.size,
            )
        )
    file = archive.extractfile(member)
    return Node(data=file.read() if file else b"")
