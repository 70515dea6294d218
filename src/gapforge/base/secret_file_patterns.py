"""Tell which files may hold secrets. They are neither packed nor copied into an image."""

from __future__ import annotations

import re

# .env, direnv's .envrc, and the copies that editors and people make: .env~, .env-old, #.env#
_ENV = re.compile(r"[.#]*\.env(?:rc)?(?:[^a-z0-9].*)?", re.DOTALL)
_TEMPLATES = (".template", ".example", ".sample", ".dist")
_CREDENTIALS = frozenset((".netrc", "_netrc", ".git-credentials", ".pypirc"))
# A certificate may come before the key. PuTTY has a format of its own.
_PRIVATE_KEY = re.compile(rb"^(?:-----BEGIN [A-Z ]*PRIVATE KEY-----|PuTTY-User-Key-File-)", re.M)


def may_hold_secrets(name: str) -> bool:
    """Return whether a file or folder of this name is private, such as ``.env`` and ``.netrc``.

    Names are compared as on the least strict file system: without case, and without dots and spaces
    at the end.
    """
    plain = name.casefold().rstrip(". ")
    if plain in _CREDENTIALS:
        return True
    return _ENV.fullmatch(plain) is not None and not plain.endswith(_TEMPLATES)


def holds_private_key(data: bytes) -> bool:
    """Return whether a file with this content, or with this beginning, is a private key."""
    return _PRIVATE_KEY.search(data) is not None
