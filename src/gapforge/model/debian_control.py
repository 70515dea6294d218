"""Read and write Debian control data: stanzas, and the index of a flat APT repository.

The online half writes the index of all .debs; the offline half reduces it to those that a stage
needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gapforge.base.errors import Fault, VerifyError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _

_FIELD = re.compile(r"([!-9;-~]+):(.*)")


def split_stanzas(text: str) -> list[str]:
    """Return the stanzas of ``text``, without blank lines and newlines around them."""
    return [
        part.strip("\n")
        for part in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))
        if part.strip()
    ]


def fields(stanza: str) -> dict[str, str]:
    """Return the fields of a stanza, names in lower case.

    Continuation lines are joined by newlines, without their first column. Comments and lines that
    are not a field are skipped.
    """
    result: dict[str, list[str]] = {}
    name = ""
    for line in stanza.split("\n"):
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            if name:
                result[name].append(line[1:])
        elif match := _FIELD.fullmatch(line.rstrip()):
            name = match[1].lower()
            result[name] = [match[2].lstrip(" \t")]
        else:
            name = ""
    return {name: "\n".join(lines) for name, lines in result.items()}


def parse(text: str) -> list[dict[str, str]]:
    """Return the fields of every stanza of ``text``."""
    return [fields(stanza) for stanza in split_stanzas(text)]


def is_installed(stanza: Mapping[str, str]) -> bool:
    """Return whether dpkg has the package of a stanza. One of an index counts as installed."""
    return stanza.get("status", " installed").endswith(" installed")


def names(relations: str) -> list[str]:
    """Return the names of the packages in a field such as ``Depends`` or ``Provides``."""
    words = re.split(r"\s*[,|]\s*", relations.strip())
    return [re.split(r"[\s:(]", word)[0] for word in words if word]


def absent(wanted: Iterable[str], stanzas: Iterable[Mapping[str, str]]) -> list[str]:
    """Return what of ``wanted`` ("name", "name:arch" or "name=version") no stanza is or provides.

    The stanzas are parsed entries of an index or of dpkg's status; of the latter, only installed
    packages count. A version must be equal, and is not provided.
    """
    versions: dict[str, set[str]] = {}
    provided: set[str] = set()
    for stanza in stanzas:
        if not is_installed(stanza):
            continue
        versions.setdefault(stanza.get("package", ""), set()).add(stanza.get("version", ""))
        provided.update(names(stanza.get("provides", "")))
    result = []
    for item in wanted:
        qualified, pinned, version = item.partition("=")
        name = qualified.split(":", 1)[0]
        found = versions.get(name)
        if not (
            version in found if pinned and found else found or (not pinned and name in provided)
        ):
            result.append(item)
    return result


def join_stanzas(stanzas: Iterable[str]) -> str:
    """Return stanzas as one text that APT reads, "" for none."""
    return "".join(f"{stanza.strip(chr(10))}\n\n" for stanza in stanzas)


def file_of(stanza: str) -> str:
    """Return the last part of a stanza's ``Filename``, "" if it has none."""
    return fields(stanza).get("filename", "").rsplit("/", 1)[-1]


def filter_index(packages_text: str, files: set[str]) -> str:
    """Return the index ``packages_text`` with only the .debs called ``files``, in the same order.

    Raise VerifyError with every file that the index does not describe: APT would not find it.
    """
    kept = [stanza for stanza in split_stanzas(packages_text) if file_of(stanza) in files]
    missing = files - {file_of(stanza) for stanza in kept}
    if missing:
        raise VerifyError(
            _("the package index does not describe every .deb"),
            faults=[
                Fault(name, _("has no entry in debs/Packages"), _("one entry for each .deb"))
                for name in sorted(missing)
            ],
            hint=_("online: sync the preset again, then carry its artifacts here"),
        )
    return join_stanzas(kept)


def stanza_for(control: str, *, file: str, size: int, sha256: str) -> str:
    """Return the index entry of a .deb: its control data, file name, size in bytes and checksum."""
    own = {"filename", "size", "sha256", "md5sum", "sha1", "sha512"}
    kept: list[str] = []
    dropped = False
    for line in control.strip("\n").split("\n"):
        if line[:1] not in (" ", "\t"):
            dropped = line.split(":", 1)[0].strip().lower() in own
        if not dropped and line.strip():
            kept.append(line.rstrip())
    return "\n".join([*kept, f"Filename: ./{file}", f"Size: {size}", f"SHA256: {sha256}"])


def release_text(packages: bytes) -> str:
    """Return the ``Release`` file of a flat repository that contains only ``Packages``.

    Its date is fixed, so that the same packages give the same bytes. APT warns if there is none.
    """
    return (
        "Origin: gapforge\n"
        "Label: gapforge\n"
        "Suite: artifacts\n"
        "Date: Thu, 01 Jan 1970 00:00:00 UTC\n"
        "Architectures: all amd64\n"
        "Description: packages of one preset\n"
        "SHA256:\n"
        f" {sha256_bytes(packages)} {len(packages)} Packages\n"
    )
