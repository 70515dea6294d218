"""Sources in private GitHub repositories: the token goes to GitHub alone, and errors say why."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gapforge.base import process
from gapforge.base.errors import FetchError
from gapforge.base.progress import Progress
from gapforge.store.store import Store
from gapforge.sync.download import Downloader, Got, Want
from gapforge.sync.network import Network
from gapforge.sync.private_github_files import GitHub, RefusedError, asset_in
from github_site import REPOSITORY, SIGNATURE, TOKEN, GitHubSite, github_site

BODY = random.Random(11).randbytes(200_000)
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def site() -> Iterator[GitHubSite]:
    with github_site() as running:
        yield running


def fetch(tmp_path: Path, site: GitHubSite, url: str, token: str = TOKEN, sha: str = SHA) -> Got:
    network = Network(retries=1, github=site.service(token))
    out = io.StringIO()
    loader = Downloader(Store(tmp_path / "store"), network, Progress("t", out=out))
    try:
        return loader.fetch([Want("x.tar.gz", (url,), sha)])[0]
    finally:
        assert TOKEN not in out.getvalue() and SIGNATURE not in out.getvalue()


def refused(tmp_path: Path, site: GitHubSite, url: str, token: str = TOKEN, sha: str = SHA) -> str:
    """Return the problem that a failed download names."""
    with pytest.raises(FetchError) as caught:
        fetch(tmp_path, site, url, token, sha)
    (fault,) = caught.value.faults
    shown = caught.value.render()
    assert TOKEN not in shown and SIGNATURE not in shown
    return fault.problem


def addresses(site: GitHubSite) -> dict[str, str]:
    return {
        "archive": site.archive("refs/tags/v1.0", BODY),
        "asset": site.asset("v1.0", "x.tar.gz", BODY),
        "latest": f"{site.web}/{REPOSITORY}/releases/latest/download/x.tar.gz",
        "api archive": f"{site.web}/repos/{REPOSITORY}/tarball/refs/tags/v1.0",
        "api asset": f"{site.web}/repos/{REPOSITORY}/releases/assets/0",
    }


KINDS = ("archive", "asset", "latest", "api archive", "api asset")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streams", [False, True])
def test_private_file_is_downloaded_with_token(
    tmp_path: Path, site: GitHubSite, kind: str, streams: bool
) -> None:
    url = addresses(site)[kind]
    site.streams = streams
    got = fetch(tmp_path, site, url)
    assert (got.sha256, got.size, got.url) == (SHA, len(BODY), url)
    assert f"token {TOKEN}" in site.sent
    if kind in ("archive", "api archive") or not streams:
        assert site.storage.heads, "the archive's host was not asked"
    assert not [h for h in site.storage.heads if "Authorization" in h], "the token left GitHub"


def test_public_file_is_downloaded_without_token(tmp_path: Path, site: GitHubSite) -> None:
    url = site.storage.add("/acme/open/archive/v1.tar.gz", BODY)
    service = replace(site.service(TOKEN), web=site.storage.url)
    loader = Downloader(Store(tmp_path / "store"), Network(github=service), Progress("t"))
    loader.fetch([Want("x", (url,), SHA)])
    assert "Authorization" not in site.storage.heads[0] and site.sent == []


@pytest.mark.parametrize("kind", KINDS)
def test_missing_token_is_named(tmp_path: Path, site: GitHubSite, kind: str) -> None:
    problem = refused(tmp_path, site, addresses(site)[kind], token="")
    assert ".env" in problem and "GITHUB_TOKEN" in problem and REPOSITORY in problem
    assert site.sent == [""], "one request, without a token"


REFUSALS = {
    "wrong or expired": (401, {}, "expired"),
    "single sign-on": (403, {"X-GitHub-SSO": "required; url=https://x.invalid/?y=1"}, "SSO"),
    "used up": (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000000"}, "22:13"),
    "used up (429)": (429, {"X-RateLimit-Remaining": "0"}, "429"),
    "no permission": (403, {"X-RateLimit-Remaining": "4999"}, "Contents"),
    "no access": (404, {}, REPOSITORY),
}


@pytest.mark.parametrize("kind", ["archive", "asset"])
@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refused_token_is_named_with_its_reason(
    tmp_path: Path, site: GitHubSite, kind: str, case: str
) -> None:
    status, headers, word = REFUSALS[case]
    site.answers[TOKEN] = (status, headers)
    problem = refused(tmp_path, site, addresses(site)[kind])
    assert word in problem and "GITHUB_TOKEN" in problem
    assert site.sent.count(f"token {TOKEN}") == 1, "a refused token is not sent again"


def test_secondary_limit_is_waited_for(
    tmp_path: Path, site: GitHubSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        waits.append(timeout or 0)
        site.answers[TOKEN] = (0, {})
        return False

    site.answers[TOKEN] = (403, {"Retry-After": "7"})
    url = addresses(site)["asset"]
    network = Network(retries=1, github=site.service(TOKEN))
    loader = Downloader(Store(tmp_path / "store"), network, Progress("t", quiet=True))
    monkeypatch.setattr(loader._stop, "wait", wait.__get__(loader._stop))
    loader.fetch([Want("x.tar.gz", (url,), SHA)])
    assert waits == [7.0]


def test_absent_asset_names_those_that_exist(tmp_path: Path, site: GitHubSite) -> None:
    site.asset("v1.0", "other.tar.gz", BODY)
    url = f"{site.web}/{REPOSITORY}/releases/download/v1.0/x.tar.gz"
    assert "other.tar.gz" in refused(tmp_path, site, url)


def test_other_archive_of_the_api_is_explained(tmp_path: Path, site: GitHubSite) -> None:
    problem = refused(tmp_path, site, addresses(site)["archive"], sha="0" * 64)
    assert SHA in problem and "GitHub" in problem


def test_interrupted_private_download_is_resumed(tmp_path: Path, site: GitHubSite) -> None:
    url = addresses(site)["archive"]
    store = Store(tmp_path / "store")
    store.partial(f"{SHA}.part").write_bytes(BODY[:50_000])
    fetch(tmp_path, site, url)
    assert site.storage.sent == len(BODY) - 50_000


def test_token_is_in_no_command_line_and_no_environment(
    tmp_path: Path, site: GitHubSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []
    original = process.environment
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("REGISTRY_LOGINS", f"registry user {TOKEN}")

    def environment(changes: process.Environment | None = None) -> dict[str, str]:
        merged = original(changes)
        seen.append(([], merged))
        return merged

    started: list[list[str]] = []
    popen = process.subprocess.Popen

    class Recorded(popen):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, argv: list[str], **options: object) -> None:
            started.append(argv)
            assert options["env"] is not None
            super().__init__(argv, **options)

    monkeypatch.setattr(process, "environment", environment)
    monkeypatch.setattr(process.subprocess, "Popen", Recorded)
    fetch(tmp_path, site, addresses(site)["asset"])
    assert len(started) == 3 and len(seen) == 3
    assert TOKEN not in repr(started) and TOKEN not in repr(seen)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("https://github.com/a/b/archive/refs/tags/v1.tar.gz", "tarball/refs/tags/v1"),
        ("https://github.com/a/b/archive/v1%2B2.zip", "zipball/v1%2B2"),
        ("https://codeload.github.com/a/b/tar.gz/refs/tags/v1", "tarball/refs/tags/v1"),
        ("https://codeload.github.com/a/b/legacy.tar.gz/main", "tarball/main"),
        ("https://api.github.com/repos/a/b/zipball/main", "zipball/main"),
        ("https://api.github.com/repos/a/b/releases/assets/7", "releases/assets/7"),
    ],
)
def test_github_address_is_that_of_the_api(address: str, path: str) -> None:
    service = GitHub(token="t")
    file = service.find(address)
    assert file is not None and file.repository == "a/b"
    assert service.address(file) == f"https://api.github.com/repos/a/b/{path}"


@pytest.mark.parametrize(
    "address",
    [
        "http://github.com/a/b/archive/v1.tar.gz",  # no TLS
        "https://github.com.example.com/a/b/archive/v1.tar.gz",
        "https://github.com:8443/a/b/archive/v1.tar.gz",
        "https://github.com@example.com/a/b/archive/v1.tar.gz",
        "https://example.com/https://github.com/a/b/archive/v1.tar.gz",
        "https://github.com/a/b/blob/main/x",
        "https://github.com/a/archive/v1.tar.gz",
        "https://api.github.com/user",
        "https://[::1/a/b/archive/v1.tar.gz",
    ],
)
def test_no_other_host_or_path_gets_a_token(address: str) -> None:
    assert GitHub(token="t").find(address) is None


def test_mirror_gets_no_token(tmp_path: Path, site: GitHubSite) -> None:
    network = Network(
        url_mirrors=(("https://github.com/", f"{site.storage.url}/"),),
        github=GitHub(token=TOKEN),
        retries=0,
    )
    loader = Downloader(Store(tmp_path / "store"), network, Progress("t", quiet=True))
    with pytest.raises(FetchError):
        loader.fetch([Want("x", ("https://github.com/a/b/archive/v1.tar.gz",), SHA)])
    assert site.storage.heads and TOKEN not in repr(site.storage.heads)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"assets": 1}',
        b'{"assets": [1, {"name": "x", "id": "7"}]}',
        b"[" * 9999,
    ],
)
def test_odd_release_document_is_refused(document: bytes) -> None:
    file = GitHub().find("https://github.com/a/b/releases/download/v1/x")
    assert file is not None
    with pytest.raises(RefusedError):
        asset_in(document, file)


def test_token_is_not_in_a_repr() -> None:
    network = Network(github=GitHub(token=TOKEN))
    assert TOKEN not in repr(network)
