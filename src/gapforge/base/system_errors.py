"""What the operating system and Python's own parsers say is wrong with a file, in the reader's language.

They know English only: the C library is never told the reader's language, and a site may lack its translations.
"""

from __future__ import annotations

import json

from gapforge.base.i18n import N_, _, language

_SYSTEM = (
    N_("No such file or directory"),
    N_("Permission denied"),
    N_("Operation not permitted"),
    N_("File exists"),
    N_("Not a directory"),
    N_("Is a directory"),
    N_("Directory not empty"),
    N_("Too many levels of symbolic links"),
    N_("File name too long"),
    N_("No space left on device"),
    N_("Disk quota exceeded"),
    N_("Read-only file system"),
    N_("File too large"),
    N_("Input/output error"),
    N_("Device or resource busy"),
    N_("Text file busy"),
    N_("Invalid cross-device link"),
    N_("Too many open files"),
    N_("Too many open files in system"),
    N_("Too many links"),
    N_("Cannot allocate memory"),
    N_("Invalid argument"),
    N_("Operation not supported"),
    N_("Exec format error"),
    N_("No such device"),
    N_("No such device or address"),
    N_("No medium found"),
    N_("Stale file handle"),
    N_("Connection refused"),
    N_("Connection reset by peer"),
    N_("Connection timed out"),
)
# Of a text that is no JSON, without what it quotes after a colon.
_JSON = (
    N_("Expecting value"),
    N_("Expecting property name enclosed in double quotes"),
    N_("Expecting ':' delimiter"),
    N_("Expecting ',' delimiter"),
    N_("Illegal trailing comma before end of object"),
    N_("Illegal trailing comma before end of array"),
    N_("Extra data"),
    N_("Unterminated string starting at"),
    N_("Invalid control character at"),
    N_("Invalid \\escape"),
    N_("Invalid \\uXXXX escape"),
    N_("Unexpected UTF-8 BOM (decode using utf-8-sig)"),
)


def os_says(error: OSError) -> str:
    """What the operating system says, without the file's name."""
    return _(error.strerror or str(error))


def unreadable(error: OSError) -> str:
    """What is wrong with a file that the system does not let us read."""
    return _("cannot be read: {why}", why=os_says(error))


def unlistable(error: OSError) -> str:
    """What is wrong with a folder whose content the system does not tell."""
    return _("cannot be listed: {why}", why=os_says(error))


def unexaminable(error: OSError) -> str:
    """What is wrong with something of which the system does not even tell what it is."""
    return _("cannot be examined: {why}", why=os_says(error))


def json_says(error: json.JSONDecodeError) -> str:
    """What is wrong with the text, without where."""
    known = error.msg.partition(": ")[0]
    said = _(known)
    return said if said != known else error.msg


def says(error: Exception) -> str:
    """The whole of what an error of the system or of a parser says; any other speaks for itself."""
    if language() == "en":
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {os_says(error)}" if error.filename else os_says(error)
    if isinstance(error, json.JSONDecodeError):
        why = json_says(error)
        return _(
            "line {lineno}, column {colno}: {why}", lineno=error.lineno, colno=error.colno, why=why
        )
    if isinstance(error, UnicodeDecodeError):
        encoding = error.encoding.upper()
        return _("is not {encoding} text (byte {start})", encoding=encoding, start=error.start)
    return str(error)
