"""Private files are recognised by their names and by their first bytes."""

from __future__ import annotations

import pytest

from gapforge.base.secret_file_patterns import holds_private_key, may_hold_secrets


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".ENV", ".Env.", ".env ", ".env..", "..env", ".env~", ".env-old", ".env.local"),
        *("#.env#", ".#.env", ".env.swp", ".env~\nx", ".envrc", ".envrc.bak", ".env.example.bak"),
        *(
            ".env_1",
            ".env.template~",
            ".netrc",
            "_netrc",
            ".NETRC.",
            ".netrc ",
            ".git-credentials",
            ".pypirc",
        ),
    ],
)
def test_private_name_is_recognised(name: str) -> None:
    assert may_hold_secrets(name)


@pytest.mark.parametrize(
    "name",
    [
        *("env", ".environment", ".env1", "my.env", ".envrcx", "netrc", ".netrc.py", "pypirc"),
        *(".env.template", ".env.example", ".env.sample", ".env.dist", ".ENV.Example", ""),
    ],
)
def test_other_name_is_not_private(name: str) -> None:
    assert not may_hold_secrets(name)


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_private_key_is_recognised_behind_a_certificate(kind: str) -> None:
    key = f"-----BEGIN {kind}PRIVATE KEY-----\n".encode()
    assert holds_private_key(key)
    assert holds_private_key(b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n" + key)


def test_private_key_of_putty_is_recognised() -> None:
    assert holds_private_key(b"PuTTY-User-Key-File-3: ssh-ed25519\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"x = '-----BEGIN PRIVATE KEY-----'\n",
        b"# PuTTY-User-Key-File-3\n",
    ],
)
def test_other_content_is_no_private_key(data: bytes) -> None:
    assert not holds_private_key(data)
