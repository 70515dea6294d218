"""Downloads from servers that interrupt, change or hide their files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gapforge.base.errors import FetchError
from gapforge.base.progress import Progress
from gapforge.store.store import Store
from gapforge.sync import download
from gapforge.sync.download import Downloader, Got, Want, _Answer, _key, _Part
from gapforge.sync.network import Network
from raised_errors import values_of
from servers import Behaviour, file_server

BODY = random.Random(7).randbytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


def downloader(tmp_path: Path, **network: object) -> Downloader:
    settings = {"retries": 2, **network}
    return Downloader(
        Store(tmp_path / "store"), Network(**settings), Progress("t", out=io.StringIO())
    )  # type: ignore[arg-type]


def fetch(
    tmp_path: Path,
    *urls: str,
    file: str = "x.tar.gz",
    sha: str = SHA,
    size: int = 0,
    **network: object,
) -> Got:
    return downloader(tmp_path, **network).fetch([Want(file, urls, sha, size)])[0]


def fault(error: pytest.ExceptionInfo[FetchError]) -> str:
    return "\n".join(f"{f.where}: {f.problem}" for f in error.value.faults)


def named_finally(tmp_path: Path) -> list[str]:
    return [p.name for p in (tmp_path / "store" / "sha256").rglob("*") if p.is_file()]


def test_downloaded_file_is_stored_read_only(tmp_path: Path) -> None:
    with file_server() as site:
        got = fetch(tmp_path, site.add("/x.tar.gz", BODY))
    store = Store(tmp_path / "store")
    assert (got.sha256, got.size) == (SHA, len(BODY))
    assert store.path(SHA).read_bytes() == BODY
    assert store.path(SHA).stat().st_mode & 0o777 == 0o444
    assert list((tmp_path / "store" / "partial").iterdir()) == []


def test_interrupted_connection_is_resumed(tmp_path: Path) -> None:
    with file_server() as site:
        # 300 kB in pieces of 20 kB: many more cuts than retries, because every one made progress.
        fetch(tmp_path, site.add("/x", BODY, cut_after=20_000, etag='"v1"'), retries=1)
        offsets = [int(r[6:-1] or 0) if r else 0 for _, r in site.log]
    assert len(offsets) == 15
    assert offsets == sorted(set(offsets)), "a byte was asked for twice"


def test_partial_file_of_killed_run_is_resumed(tmp_path: Path) -> None:
    loader = downloader(tmp_path)
    loader.store.partial(f"{SHA}.part").write_bytes(BODY[:123_456])
    with file_server() as site:
        loader.fetch([Want("x", (site.add("/x", BODY),), SHA)])
        assert [r for _, r in site.log] == ["bytes=123456-"]
        assert site.sent == len(BODY) - 123_456


@pytest.mark.parametrize("plant", [os.link, os.symlink])
def test_link_in_place_of_partial_file_is_not_written_through(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    loader, victim = downloader(tmp_path), tmp_path / "precious"
    victim.write_bytes(b"precious")
    plant(victim, loader.store.partial(f"{SHA}.part"))
    plant(victim, loader.store.partial(f"{SHA}.json"))
    with file_server() as site:
        loader.fetch([Want("x", (site.add("/x", BODY, cut_after=200_000, etag='"v1"'),), SHA)])
    assert victim.read_bytes() == b"precious"
    assert loader.store.path(SHA).read_bytes() == BODY and victim.stat().st_mode & 0o200


def test_complete_partial_needs_no_request(tmp_path: Path) -> None:
    loader = downloader(tmp_path)
    loader.store.partial(f"{SHA}.part").write_bytes(BODY)
    with file_server() as site:
        loader.fetch([Want("x", (site.add("/x", BODY),), SHA, len(BODY))])
        assert site.log == []


@pytest.mark.parametrize(
    "wreck", [b"rubbish" * 100, BODY[:1000] + b"x" + BODY[1001:200_000], BODY + b"more"]
)
def test_damaged_partial_file_starts_over_once(tmp_path: Path, wreck: bytes) -> None:
    loader = downloader(tmp_path)
    loader.store.partial(f"{SHA}.part").write_bytes(wreck)
    with file_server() as site:
        loader.fetch([Want("x", (site.add("/x", BODY),), SHA)])
    assert loader.store.path(SHA).read_bytes() == BODY


def test_server_without_ranges_starts_over(tmp_path: Path) -> None:
    with file_server() as site:
        fetch(tmp_path, site.add("/x", BODY, cut_after=100_000, cuts=1, ranges=False))
        assert len(site.log) == 2


def test_wrong_range_starts_over(tmp_path: Path) -> None:
    with file_server() as site:
        fetch(tmp_path, site.add("/x", BODY, cut_after=100_000, cuts=1, wrong_range=True))
    assert Store(tmp_path / "store").intact(SHA)


def test_changed_file_is_not_mixed(tmp_path: Path) -> None:
    loader = downloader(tmp_path)
    with file_server() as site:
        url = site.add("/x", BODY, etag='"new"')
        loader.store.partial(f"{SHA}.part").write_bytes(b"old" * 1000)
        version = {"url": hashlib.sha256(url.encode()).hexdigest(), "etag": '"old"'}
        loader.store.partial(f"{SHA}.json").write_text(json.dumps(version))
        loader.fetch([Want("x", (url,), SHA)])
        assert site.heads[0]["If-Range"] == '"old"'
        assert len(site.log) == 1


def test_note_of_a_partial_file_holds_no_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run leaves it, and artifacts/ may be copied whole."""
    loader = downloader(tmp_path)
    notes: list[tuple[int, str]] = []
    drain = Downloader._drain

    def look(self: Downloader, want: Want, stream: object, part: object) -> None:
        note = self.store.partial(f"{SHA}.json")
        notes.append((note.stat().st_mode & 0o777, note.read_text()))
        drain(self, want, stream, part)  # type: ignore[arg-type]

    monkeypatch.setattr(Downloader, "_drain", look)
    with file_server() as site:
        address = site.add("/x", BODY, etag='"v1"')
        url = address.replace("://", "://user:canary@") + "?token=canary"
        site.add("/x?token=canary", BODY, etag='"v1"')
        loader.fetch([Want("x", (url,), SHA)])
    assert [mode for mode, _text in notes] == [0o600]
    text = notes[0][1]
    assert '\\"v1\\"' in text and "canary" not in text and "user" not in text


OTHER = random.Random(8).randbytes(len(BODY))  # another version of the same size


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_file_without_checksum_is_not_resumed_without_validator(tmp_path: Path, etag: str) -> None:
    with file_server() as site:
        url = site.add("/x", BODY, cut_after=100_000, cuts=1, etag=etag)
        assert fetch(tmp_path, url, sha="").sha256 == SHA
        assert [r for _, r in site.log] == ["", ""]


def test_file_with_checksum_is_resumed_without_a_weak_validator(tmp_path: Path) -> None:
    with file_server() as site:
        url = site.add("/x", BODY, cut_after=100_000, cuts=1, etag='W/"v1"')
        fetch(tmp_path, url)
        assert [r for _, r in site.log] == ["", "bytes=100000-"]
        assert [head.get("If-Range") for head in site.heads] == [None, None]


def test_file_without_checksum_is_resumed_if_it_is_the_same(tmp_path: Path) -> None:
    with file_server() as site:
        url = site.add("/x", BODY, cut_after=100_000, cuts=1, etag='"v1"')
        assert fetch(tmp_path, url, sha="").sha256 == SHA
        assert [r for _, r in site.log] == ["", "bytes=100000-"]


@pytest.mark.parametrize(
    ("etag", "body"), [('"v2"', OTHER), ("", OTHER), ('"v1"', OTHER + b"longer")]
)
def test_changed_file_without_checksum_is_not_spliced(
    tmp_path: Path, etag: str, body: bytes
) -> None:
    """A run was killed after the first bytes; the server ignores If-Range."""
    loader = downloader(tmp_path)
    with file_server() as site:
        want = Want("x", (site.add("/x", body, etag=etag, ignores_if_range=True),))
        loader.store.partial(f"{_key(want)}.part").write_bytes(BODY[:1000])
        url = hashlib.sha256(want.urls[0].encode()).hexdigest()
        version = {"url": url, "etag": '"v1"', "total": str(len(BODY))}
        loader.store.partial(f"{_key(want)}.json").write_text(json.dumps(version))
        assert loader.fetch([want])[0].sha256 == hashlib.sha256(body).hexdigest()
        assert site.log[0][1] == "bytes=1000-"


def test_file_without_checksum_is_not_spliced_of_two_addresses(tmp_path: Path) -> None:
    with file_server() as site:
        first = site.add("/a", BODY, cut_after=100_000, etag='"v1"')
        second = site.add("/b", OTHER, etag='"v1"')
        got = fetch(tmp_path, first, second, sha="", retries=0)
    assert (got.url, got.sha256) == (second, hashlib.sha256(OTHER).hexdigest())


def test_local_file_without_checksum_is_read_from_the_start(tmp_path: Path) -> None:
    source = tmp_path / "x.bin"
    source.write_bytes(OTHER)
    loader = downloader(tmp_path)
    want = Want("x", (source.as_uri(),))
    loader.store.partial(f"{_key(want)}.part").write_bytes(BODY[:1000])
    assert loader.fetch([want])[0].sha256 == hashlib.sha256(OTHER).hexdigest()


def test_complete_partial_file_without_checksum_is_requested(tmp_path: Path) -> None:
    loader = downloader(tmp_path)
    with file_server() as site:
        want = Want("x", (site.add("/x", OTHER, etag='"v2"'),), "", len(BODY))
        loader.store.partial(f"{_key(want)}.part").write_bytes(BODY)
        assert loader.fetch([want])[0].sha256 == hashlib.sha256(OTHER).hexdigest()


def test_busy_server_is_retried(tmp_path: Path) -> None:
    with file_server() as site:
        fetch(tmp_path, site.add("/x", BODY, fail_times=2))
        assert len(site.log) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_final_status_is_not_retried(tmp_path: Path, status: int) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        fetch(tmp_path, site.add("/x", BODY, status=status))
    assert len(site.log) == 1
    assert str(status) in fault(error)


def test_next_address_after_failure(tmp_path: Path) -> None:
    with file_server() as site:
        gone, wrong = site.url + "/gone", site.add("/wrong", b"other bytes")
        got = fetch(tmp_path, gone, wrong, site.add("/x", BODY))
        assert got.url == site.url + "/x"


def test_wrong_checksum_is_neither_stored_nor_retried(tmp_path: Path) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        fetch(tmp_path, site.add("/x", BODY[:-1] + b"?"))
    assert len(site.log) == 1
    assert SHA in fault(error) and "expected" in fault(error)
    assert named_finally(tmp_path) == []
    assert list((tmp_path / "store" / "partial").iterdir()) == []


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><title>Sign in</title>",
        b"\n <html lang=en>",
        b"\xef\xbb\xbf<!doctype HTML>",
    ],
)
@pytest.mark.parametrize("size", [0, len(BODY)])
def test_web_page_instead_of_file(tmp_path: Path, page: bytes, size: int) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        fetch(tmp_path, site.add("/x", page, content_type="text/html"), size=size)
    assert "web page" in fault(error)


def test_wrong_size_is_rejected_before_transfer(tmp_path: Path) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        fetch(tmp_path, site.add("/x", BODY), size=10)
    assert "expected 10" in fault(error)
    assert not list((tmp_path / "store" / "partial").iterdir())


def test_endless_answer_stops_at_expected_size(tmp_path: Path) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        fetch(tmp_path, site.add("/x", BODY, no_length=True), size=1000)
    assert "more than the expected 1000" in fault(error)


def test_truncated_answer_without_length_is_found(tmp_path: Path) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        fetch(tmp_path, site.add("/x", BODY[:1000], no_length=True), size=len(BODY))
    assert "1000" in fault(error)


def test_redirects_stay_on_http(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    with file_server() as site:
        target = site.add("/there", BODY)
        fetch(tmp_path, site.add("/a", b"", redirect=target))
        with pytest.raises(FetchError):
            fetch(tmp_path / "2", site.add("/b", b"", redirect=f"file://{secret}"))


def test_all_failures_are_reported_together(tmp_path: Path) -> None:
    loader = downloader(tmp_path)
    with file_server() as site:
        wants = [
            Want("a", (site.url + "/a",), "a" * 64),
            Want("b", (site.add("/b", BODY),), SHA),
            Want("c", (site.url + "/c",), "c" * 64),
        ]
        with pytest.raises(FetchError) as error:
            loader.fetch(wants)
    assert {f.where for f in error.value.faults} == {"a", "c"}
    assert loader.store.has(SHA)


def test_same_file_is_downloaded_once(tmp_path: Path) -> None:
    loader = downloader(tmp_path)
    with file_server() as site:
        url = site.add("/b", BODY)
        assert len(loader.fetch([Want("b", (url,), SHA), Want("b2", (url,), SHA)])) == 2
        assert len(site.log) == 1


def test_progress_counts_exact_bytes(tmp_path: Path) -> None:
    loader = downloader(tmp_path)
    with file_server() as site:
        loader.fetch(
            [Want("b", (site.add("/b", BODY, cut_after=70_000, ranges=False, cuts=2),), SHA)]
        )
    assert loader.progress.done == loader.progress.total == len(BODY)


def test_offline_makes_no_request(tmp_path: Path) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        fetch(tmp_path, site.add("/x", BODY), offline=True)
    assert "GAPFORGE_OFFLINE" in error.value.message
    assert site.log == []


def test_mirror_replaces_address(tmp_path: Path) -> None:
    with file_server() as site:
        site.add("/mirror/a/x", BODY)
        got = fetch(
            tmp_path,
            "https://upstream.invalid/a/x",
            url_mirrors=(("https://upstream.invalid/", site.url + "/mirror/"),),
        )
    assert got.url == "https://upstream.invalid/a/x", (
        "the lock names the upstream, not this machine's mirror"
    )


def test_proxy_is_used(tmp_path: Path) -> None:
    with file_server() as proxy:
        proxy.paths["http://upstream.invalid/x"] = Behaviour(body=BODY)
        fetch(
            tmp_path,
            "http://upstream.invalid/x",
            proxies=(("http_proxy", proxy.url), ("no_proxy", "")),
        )
        assert proxy.log[0][0] == "http://upstream.invalid/x"


def test_login_from_netrc(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password open-sesame\n")
    with file_server() as site:
        url = site.add("/x", BODY, needs_login="Basic c29tZW9uZTpvcGVuLXNlc2FtZQ==")
        with pytest.raises(FetchError) as error:
            fetch(tmp_path, url)
        assert "401" in fault(error) and "netrc" in fault(error)
        fetch(tmp_path, url, netrc=netrc)


def test_messages_contain_no_token(tmp_path: Path) -> None:
    with file_server() as site, pytest.raises(FetchError) as error:
        address = site.url.replace("http://", "http://user:hunter2@") + "/x?token=canary"
        fetch(tmp_path, address)
    assert "hunter2" not in fault(error) and "canary" not in fault(error)


def test_file_address_is_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(BODY)
    fetch(tmp_path, (tmp_path / "a b").as_uri())
    with pytest.raises(FetchError) as error:
        fetch(tmp_path / "2", (tmp_path / "none").as_uri())
    assert "does not exist" in fault(error)


def test_empty_file_is_downloaded(tmp_path: Path) -> None:
    with file_server() as site:
        got = fetch(tmp_path, site.add("/x", b""), sha=hashlib.sha256(b"").hexdigest())
    assert got.size == 0


def test_unknown_checksum_is_recorded(tmp_path: Path) -> None:
    with file_server() as site:
        assert fetch(tmp_path, site.add("/x", BODY), sha="").sha256 == SHA


def test_missing_curl_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gapforge.base.errors import ToolError

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as error:
        fetch(tmp_path, "http://127.0.0.1:9/x")
    assert "curl" in error.value.message


def test_partial_file_replaced_meanwhile_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = downloader(tmp_path)
    finish = place._finish
    times = []

    def linked(want: Want, url: str, part: _Part) -> Got:
        times.append(part.size)
        if len(times) == 1:
            part.path.unlink()
            part.path.write_bytes(BODY[:1000])
        elif len(times) == 2:
            os.link(part.path, tmp_path / "backup")
        return finish(want, url, part)

    monkeypatch.setattr(place, "_finish", linked)
    with file_server() as site, pytest.raises(FetchError):
        place.fetch([Want("x", (site.add("/x", BODY),), "", 0)])
    assert times == [len(BODY)] * 2 and not named_finally(tmp_path)


@pytest.mark.parametrize(
    ("status", "headers", "whole", "start"),
    [
        (200, {"content-length": "5"}, 5, 0),
        (200, {"content-length": "5", "content-encoding": "gzip"}, 0, 0),
        (200, {}, 0, 0),
        (206, {"content-range": "bytes 1-4/10", "content-length": "4"}, 10, 1),
        (206, {"content-range": "bytes 1-4/*"}, 0, 1),
        (206, {}, 0, -1),
        (416, {"content-range": "bytes */10"}, 0, 0),
    ],
)
def test_answer_tells_size_and_offset(
    status: int, headers: dict[str, str], whole: int, start: int
) -> None:
    answer = _Answer(status, headers)
    assert (answer.whole, answer.start) == (whole, start)


def test_temporary_failures_are_those_of_the_network() -> None:
    """By the numbers of "EXIT CODES" in curl's manual, and of HTTP (RFC 9110, 8470, 6585)."""
    names = {5: "proxy's name", 6: "name", 7: "connection", 28: "timeout", 35: "TLS", 52: "empty"}
    names |= {18: "cut", 55: "send", 56: "receive", 16: "HTTP/2", 92: "stream", 95: "HTTP/3"}
    assert {*names, 96} == download.TEMPORARY_CURL
    assert {408, 425, 429, 500, 502, 503, 504} == download.TEMPORARY_HTTP


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (400, {}, download._FinalError),
        (403, {}, download._FinalError),
        (403, {"retry-after": "5"}, download._TemporaryError),
        (404, {}, download._NotFoundError),
        (405, {}, download._FinalError),
        (429, {}, download._TemporaryError),
    ],
)
def test_status_is_temporary_missing_or_final(
    status: int, headers: dict[str, str], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        download._raise_for_status(_Answer(status, headers), "")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("head", "status", "redirected"),
    [
        ("HTTP/1.1 200 OK\r\nLocation: /y\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n", 200, False),
        ("HTTP/1.1 302 Found\r\nLocation: /y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, True),
        ("HTTP/1.1 300 Choices\r\nLocation: /y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, True),
        ("HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 304, False),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/2 200\r\n\r\n", 200, False),
    ],
)
def test_last_header_block_is_the_answer(head: str, status: int, redirected: bool) -> None:
    answer = download._read_headers(io.BytesIO(head.encode()))
    assert answer is not None
    assert (answer.status, answer.redirected) == (status, redirected)
    assert download._read_headers(io.BytesIO(b"")) is None


def test_error_of_curl_is_its_last_line() -> None:
    assert download._curl_error("a\ncurl: (6) Could not resolve host: x\n", 6) == (
        "Could not resolve host: x"
    )
    assert values_of(download._curl_error("", 6)) == {"code": 6}
