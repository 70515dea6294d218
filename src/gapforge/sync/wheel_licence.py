"""Read the licence of a wheel, for the lock and the table of packages."""

from __future__ import annotations

import email.policy
import re
import zipfile
from email.parser import BytesParser
from pathlib import Path

from gapforge.base.compression import damage_as
from gapforge.base.files import open_buffered

LONGEST = 80  # characters; some packages put the whole text of the licence into the field
_LARGEST = 16 << 20  # bytes of METADATA that are read; a description may be long
_NOTHING = re.compile(r"(unknown|none|see .*|)", re.IGNORECASE)
_REFERENCE = re.compile(r"\bfile\b", re.IGNORECASE)


def licence_of(wheel: Path) -> str:
    """Return the licence in a wheel's METADATA on one line, "" if it has none or is unreadable.

    The SPDX expression (PEP 639) has precedence, then a short License field, then the classifiers.
    """
    try:
        with (
            open_buffered(wheel) as opened,
            damage_as(lambda cause: ValueError(str(cause))),
            zipfile.ZipFile(opened) as archive,
        ):
            names = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
            if len(names) != 1:
                return ""
            with archive.open(names[0]) as file:
                return licence_in(file.read(_LARGEST))
    except (OSError, ValueError):
        return ""  # verify and pip report a damaged wheel; the licence is only information


def licence_in(metadata: bytes) -> str:
    """Return the licence in the bytes of a METADATA file, as ``licence_of`` does."""
    message = BytesParser(policy=email.policy.compat32).parsebytes(metadata, headersonly=True)
    expression, field = (
        _one_line(str(message.get(key, ""))) for key in ("License-Expression", "License")
    )
    if expression:
        return expression
    if not _NOTHING.fullmatch(field) and not _REFERENCE.search(field):
        return field
    found = [
        str(c).split("::")[-1].strip()
        for c in message.get_all("Classifier", [])
        if str(c).startswith("License ::")
    ]
    return _one_line(", ".join(name for name in dict.fromkeys(found) if name != "OSI Approved"))


def _one_line(text: str) -> str:
    """Return the text if it is a short single line of printable characters, else ""."""
    text = text.strip()
    return text if len(text) <= LONGEST and text.isprintable() else ""
