"""Handle network addresses."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def without_credentials(address: str) -> str:
    """Return a URL for messages, locks and documents, without what may hold a password or token.

    User, password, query and fragment are removed.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # not a URL, but it may hold a password all the same
        return address.partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def registry_of(image: str) -> str:
    """Return the registry that an image reference names, "docker.io" if it names none."""
    return image.split("/", 1)[0] if names_registry(image) else "docker.io"


def names_registry(image: str) -> bool:
    """Return whether an image reference begins with a host with a dot or port, or localhost."""
    first = image.split("/", 1)[0]
    return "/" in image and ("." in first or ":" in first or first == "localhost")
