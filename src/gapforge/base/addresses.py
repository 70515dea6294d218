"""Handle network addresses."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def without_credentials(address: str) -> str:
    """Return a URL for messages, locks and documents, without what may hold a password or token.

    User, password, query and fragment are removed. Of a text that is no URL, all up to the last "@"
    is removed, for it may hold a password all the same.
    """
    try:
        parts = urlsplit(address)
        is_url = re.fullmatch(
            r"[A-Za-z][A-Za-z0-9+.-]*://(?!.*://)\S*", re.split("[?#]", address)[0]
        )
    except ValueError:
        is_url = None
    if not is_url:
        before, _at, after = address.rpartition("@")
        return "***" if re.search("[?#]", before) else re.split("[?#]", after)[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def registry_of(image: str) -> str:
    """Return the registry that an image reference names, "docker.io" if it names none."""
    return image.split("/", 1)[0] if names_registry(image) else "docker.io"


def names_registry(image: str) -> bool:
    """Return whether an image reference begins with a host with a dot or port, or localhost."""
    first = image.split("/", 1)[0]
    return "/" in image and ("." in first or ":" in first or first == "localhost")
