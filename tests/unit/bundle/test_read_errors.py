"""A file on a medium that cannot be read is reported as unreadable, not as damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bundles import carry, hashes, receive, sender, site_at
from gapforge.base.storage_errors import is_gone
from gapforge.bundle.volume_format import Damaged, describe_read_error
from raised_errors import values_of


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.ENOTCONN])
@pytest.mark.parametrize("reads", [4, 6])
def test_unpack_reports_unplugged_medium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reads: int
) -> None:
    carry(sender(tmp_path), tmp_path / "medium", size=40_000)
    site, real, calls = site_at(tmp_path / "site"), os.preadv, []

    def preadv(handle: int, buffers: Any, offset: int) -> int:
        calls.append(1)
        if len(calls) > reads:
            raise OSError(number, os.strerror(number))
        return real(handle, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        result = receive(site, tmp_path / "medium")
    assert not result.complete and result.broken
    begins = describe_read_error(OSError(number, os.strerror(number)))
    assert all(why.startswith(f"{begins}; ") for why in result.broken.values()), result.broken
    assert len(hashes(site)) == result.imported
    assert receive(site, tmp_path / "medium").complete


def test_read_error_names_its_cause() -> None:
    assert describe_read_error(Damaged("x")) == "x"
    denied = PermissionError(errno.EACCES, "Permission denied", "/x")
    assert values_of(describe_read_error(denied)) == {"why": "Permission denied"}
    assert values_of(describe_read_error(OSError("odd"))) == {"why": "odd"}
    for number in (errno.ENOMEDIUM, errno.ENODEV, errno.ENOTCONN):
        error = OSError(number, os.strerror(number), "/x")
        assert is_gone(error) and not values_of(describe_read_error(error))
