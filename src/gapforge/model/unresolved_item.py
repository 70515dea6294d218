"""Why a part of a preset is not pinned: a code with arguments, shown as a sentence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from gapforge.base.i18n import N_, _
from gapforge.model.schema import Choice, Items, Record, Text

# A server is one of these two, or "index:ADDRESS", "registry:HOST" or a plain host name.
DEFAULT_INDEX = "index:default"
APT_SOURCES = "apt"

NO_ANSWER, LOGIN_REQUIRED = "no-answer", "login-required"
SIZE_NOT_STATED, CHECKSUM_NOT_STATED = "size-not-stated", "checksum-not-stated"
SIZE_UNKNOWN, CHECKSUM_UNPUBLISHED = "size-unknown", "checksum-unpublished"
MANIFEST_ONLY, ARCHIVE_NOT_READ = "manifest-only", "archive-not-read"
IMAGE_NOT_MADE, INDEX_NOT_MADE = "image-not-made", "index-not-made"
NEEDS_APT_SOURCES, NEEDS_PACKAGE_LISTS = "needs-apt-sources", "needs-package-lists"
OTHER = "other"

_TEXTS = {
    NO_ANSWER: N_("{server} did not answer"),
    LOGIN_REQUIRED: N_("{server} requires a login"),
    SIZE_NOT_STATED: N_("{server} does not state the size of {file}"),
    CHECKSUM_NOT_STATED: N_("{server} does not state the checksum of {file}"),
    SIZE_UNKNOWN: N_("the size is not published"),
    CHECKSUM_UNPUBLISHED: N_("no checksum is published: trust on first use"),
    MANIFEST_ONLY: N_(
        "only the manifest is pinned; the operating system is known after the download"
    ),
    ARCHIVE_NOT_READ: N_("the archive of the image is read by a full sync"),
    IMAGE_NOT_MADE: N_("the image is made from packages by a full sync"),
    NEEDS_APT_SOURCES: N_("the APT sources of the builder base image are needed"),
    NEEDS_PACKAGE_LISTS: N_("the package lists of the base images are needed"),
    INDEX_NOT_MADE: N_("the index is made when the packages are downloaded"),
    OTHER: "{text}",
}

REASON_SHAPE = Record(
    {"code": Choice(tuple(_TEXTS), "why it is not pinned yet")},
    {
        "server": Text('"index:ADDRESS", "index:default", "registry:HOST", "apt" or a host name'),
        "file": Text("name of the file in question"),
        "hosts": Items(Text(), "hosts that did not answer"),
        "resolved_with": Text(
            "the package that the item is resolved together with, if its index is at fault"
        ),
        "text": Text('the English sentence of a lock of format 1, for the code "other"'),
    },
)


@dataclass(frozen=True, order=True, kw_only=True)
class Reason:
    """Why an item is unresolved, independent of this machine and the day.

    ``code`` is one of the constants above; ``server`` did what the code says, about ``file``;
    ``hosts`` are hosts that did not answer. ``resolved_with`` names the package with which the item
    is resolved together and to which the code applies. ``text`` belongs to OTHER.
    """

    code: str
    server: str = ""
    file: str = ""
    hosts: tuple[str, ...] = ()
    resolved_with: str = ""
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the code and the arguments that it has."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if name == "hosts" else v for name, v in values.items() if v}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Reason:
        """Return the reason of a JSON object that has REASON_SHAPE."""
        return cls(**{**raw, "hosts": tuple(raw.get("hosts", ()))})

    def message(self) -> str:
        """Return the reason in the reader's language."""
        if self.code == SIZE_UNKNOWN and self.hosts:
            hosts = _(" and ").join(self.hosts)
            text = _("the size is unknown: {hosts} did not answer", hosts=hosts)
        else:
            server = server_name(self.server)
            text = _(_TEXTS[self.code], server=server, file=self.file, text=self.text)
        if not self.resolved_with:
            return text
        return _("resolved together with {package}: {text}", package=self.resolved_with, text=text)


@dataclass(frozen=True, order=True)
class UnresolvedItem:
    """One part of a preset that a lock does not pin.

    ``kind`` is one of the lock's kinds, ``name`` the requirement, package, source, image role or
    generated file.
    """

    kind: str
    name: str
    reason: Reason

    def to_json(self) -> dict[str, Any]:
        """Return all fields in JSON types."""
        return {"kind": self.kind, "name": self.name, "reason": self.reason.to_json()}


def server_name(server: str) -> str:
    """Return the name of ``server`` in the reader's language."""
    kind, _separator, address = server.partition(":")
    if server == DEFAULT_INDEX:
        return _("the default Python index")
    if server == APT_SOURCES:
        return _("an APT source of the base image or of the preset")
    if kind == "index":
        return _("the index {address}", address=address)
    if kind == "registry":
        return _("the registry {address}", address=address)
    return server
