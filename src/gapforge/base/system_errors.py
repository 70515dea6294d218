"""Translate the error texts of the operating system and of Python's parsers.

The C library and Python report them in English, because gapforge sets no locale and a site may have
no translations.
"""

from __future__ import annotations

import json

from gapforge.base.i18n import N_, _, language

# Texts of OSError that a user of gapforge can meet.
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
# Texts of JSONDecodeError, up to a colon.
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


def os_reason(error: OSError) -> str:
    """Return the reason of a system error, without the file's name."""
    return _(error.strerror or str(error))


def unreadable(error: OSError) -> str:
    """Return the problem of a file that cannot be read."""
    return _("cannot be read: {why}", why=os_reason(error))


def unlistable(error: OSError) -> str:
    """Return the problem of a folder that cannot be listed."""
    return _("cannot be listed: {why}", why=os_reason(error))


def unexaminable(error: OSError) -> str:
    """Return the problem of a path whose type cannot be determined."""
    return _("cannot be examined: {why}", why=os_reason(error))


def json_reason(error: json.JSONDecodeError) -> str:
    """Return what is wrong with a JSON text, without the position."""
    known = error.msg.partition(": ")[0]
    translated = _(known)
    return translated if translated != known else error.msg


def error_text(error: Exception) -> str:
    """Return the full text of an error, translated if the system or a parser raised it."""
    if language() == "en":
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {os_reason(error)}" if error.filename else os_reason(error)
    if isinstance(error, json.JSONDecodeError):
        why = json_reason(error)
        return _(
            "line {line}, column {column}: {why}", line=error.lineno, column=error.colno, why=why
        )
    if isinstance(error, UnicodeDecodeError):
        encoding = error.encoding.upper()
        return _("is not {encoding} text (byte {offset})", encoding=encoding, offset=error.start)
    return str(error)
