"""Addresses in messages hold no secrets."""

from __future__ import annotations

import pytest

from gapforge.base.addresses import without_credentials


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://user:pw@host:8/p/f.tar?token=x#y", "https://host:8/p/f.tar"),
        ("https://u:p@h.example:8443/a/b?q=1#f", "https://h.example:8443/a/b"),
        ("https://user:p@w@host/a", "https://host/a"),
        ("https://u:p@ss@host:8/a", "https://host:8/a"),
        ("https://host/a@b", "https://host/a@b"),
        ("no address", "no address"),
        ("https://user:pw@[broken/a?token=x", "[broken/a"),
        ("https://u:pw@host/simple ", "host/simple "),
        ("u:pw@host/simple", "host/simple"),
        ("//u:pw@host/simple?token=x", "host/simple"),
        ("=https://u:pw@m/", "m/"),
        ("https://a/=https://u:pw@m/", "m/"),
        ("u:p?w@host/", "***"),
        ("file:///srv/a@b", "file:///srv/a@b"),
    ],
)
def test_credentials_are_removed(address: str, expected: str) -> None:
    assert without_credentials(address) == expected
