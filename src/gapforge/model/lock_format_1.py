"""Read locks of format 1, in which the reason of an unresolved item is an English sentence."""

from __future__ import annotations

import re

from gapforge.model import unresolved_item as items
from gapforge.model.unresolved_item import Reason

_SERVER = r"(?P<server>.+)"
_SIZE_UNKNOWN = "its hash is known, its size is not: "
_REASONS = (
    (rf"{_SIZE_UNKNOWN}nobody states it", items.SIZE_UNKNOWN),
    (rf"{_SIZE_UNKNOWN}(?P<hosts>.+) did not answer", items.SIZE_UNKNOWN),
    (rf"{_SERVER} did not answer", items.NO_ANSWER),
    (rf"{_SERVER} wants a login", items.LOGIN_REQUIRED),
    (rf"{_SERVER} tells no size of (?P<file>\S+\.whl)", items.SIZE_NOT_STATED),
    (rf"{_SERVER} tells no hash of (?P<file>\S+\.whl)", items.CHECKSUM_NOT_STATED),
    ("nobody published its hash: it is trusted as seen first", items.CHECKSUM_UNPUBLISHED),
    (
        "is pinned by its manifest; its operating system is read when it is fetched",
        items.MANIFEST_ONLY,
    ),
    ("is read from its archive when it is fetched", items.ARCHIVE_NOT_READ),
    ("is made from packages when it is fetched", items.IMAGE_NOT_MADE),
    ("is made when the packages are fetched", items.INDEX_NOT_MADE),
    ("needs the APT sources of the builder's base image", items.NEEDS_APT_SOURCES),
    ("needs the package lists of the base images", items.NEEDS_PACKAGE_LISTS),
)
_SERVERS = {
    "the default Python index": items.DEFAULT_INDEX,
    "an APT source of the base image or of the preset": items.APT_SOURCES,
}
_WITH_TORCH = "is resolved together with torch, and "


def reason_of(sentence: str) -> Reason:
    """Return the reason that ``sentence`` of a lock of format 1 stands for."""
    together = "torch" if sentence.startswith(_WITH_TORCH) else ""
    for pattern, code in _REASONS:
        if match := re.fullmatch(pattern, sentence.removeprefix(_WITH_TORCH)):
            found = match.groupdict(default="")
            return Reason(
                code=code,
                server=_server_of(found.get("server", "")),
                file=found.get("file", ""),
                hosts=tuple(found["hosts"].split(" and ")) if "hosts" in found else (),
                resolved_with=together,
            )
    return Reason(code=items.OTHER, text=sentence)


def _server_of(name: str) -> str:
    """Return the server that a lock of format 1 calls ``name``."""
    return _SERVERS.get(name) or re.sub(r"^(index|registry) ", r"\1:", name)
