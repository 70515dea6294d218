"""Test ``outdated`` with upstreams on loopback servers, and the search for what fits together."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from gapforge.base.errors import FetchError, UsageError
from gapforge.base.project import Project
from gapforge.compat.rules import check_preset
from gapforge.model import catalog as catalogs
from gapforge.model import preset as presets
from gapforge.model import preset_writer
from gapforge.model.lock import Lock, LockedImage
from gapforge.model.preset import Preset, parse
from gapforge.model.versions import key
from gapforge.sync import small_requests, target_python
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver, Wheel
from gapforge.updates import candidates, compatible_updates, published_releases
from gapforge.updates.candidates import Candidate, ItemUpdates, Search
from gapforge.updates.compatible_updates import CompatibleUpdates
from gapforge.updates.published_releases import Upstream
from raised_errors import assert_error, values_of
from samples import ROOT

CATALOG = catalogs.load(ROOT / "catalog")
UPSTREAMS = published_releases.load(ROOT / "catalog")
REFERENCE = presets.load(ROOT / "presets" / "ubuntu22.04-cuda11.8-torch2.1.json")
NETWORK = Network(retries=0)
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

FFMPEG_PAGE = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html><head><title>Index of /releases</title></head><body>
<table><tr><th><a href="?C=N;O=D">Name</a></th></tr>
<tr><td><a href="/">Parent Directory</a></td></tr>
<tr><td><a href="ffmpeg-5.1.9.tar.xz">ffmpeg-5.1.9.tar.xz</a></td></tr>
<tr><td><a href="ffmpeg-5.1.10.tar.xz">ffmpeg-5.1.10.tar.xz</a></td></tr>
<tr><td><a href="ffmpeg-5.1.10.tar.xz.asc">ffmpeg-5.1.10.tar.xz.asc</a></td></tr>
<tr><td><a HREF='ffmpeg-6.0.1.tar.xz'>ffmpeg-6.0.1.tar.xz</a></td></tr>
<tr><td><a href="ffmpeg-99.0.tar.xz">x</a></td></tr>
<tr><td><a href="ffmpeg-snapshot.tar.bz2">x</a></td></tr></table></body></html>"""


@dataclass
class Web:
    """A loopback server: path with query -> (status, headers, body)."""

    port: int = 0
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            web.asked.append(self.path)
            status, headers, body = web.pages.get(self.path, (404, {}, b"not here"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as running:
        yield running


def tags(*names: str) -> bytes:
    return json.dumps([{"name": name, "commit": {"sha": "0" * 40}} for name in names]).encode()


@needs_curl
def test_tags_of_all_pages_are_read(web: Web) -> None:
    address = f"{web.url}/repos/o/r/tags"
    second = f"{address}?per_page=100&page=2"
    links = {"Link": f'<{second}>; rel="next", <{second}>; rel="last"'}
    web.pages["/repos/o/r/tags?per_page=100"] = (200, links, tags("n12.0.16.1", "n13.0.19.0"))
    last = tags("n11.1.5.3", "n8.1.24.10", "sdk-rc1")
    web.pages["/repos/o/r/tags?per_page=100&page=2"] = (200, {}, last)
    upstream = replace(UPSTREAMS["nv-codec-headers"], address=address)
    found = published_releases.releases(upstream, NETWORK)
    assert [r.version for r in found] == ["13.0.19.0", "12.0.16.1", "11.1.5.3", "8.1.24.10"]


@needs_curl
@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000000"}, "22:13 UTC"),
        (429, {"Retry-After": "60"}, "60 s"),
        (403, {"X-RateLimit-Remaining": "0"}, None),
        (429, {}, None),
    ],
)
def test_rate_limit_names_waiting_time(
    web: Web, status: int, headers: dict[str, str], wait: str | None
) -> None:
    web.pages["/tags?per_page=100"] = (status, headers, b'{"message": "rate limit exceeded"}')
    with pytest.raises(FetchError) as caught:
        published_releases.github_tags(f"{web.url}/tags", NETWORK)
    assert_error(caught.value, FetchError, host=f"127.0.0.1:{web.port}", hint={"wait": wait})
    assert "netrc" in caught.value.hint


@needs_curl
@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, {}, b""),
        (403, {}, b"forbidden"),
        (200, {}, b"<html>log in</html>"),
        (200, {}, b'{"message": "moved"}'),
        (200, {"Link": '<file:///etc/passwd>; rel="next"'}, b"[]"),
    ],
)
def test_other_answer_than_tags_is_refused(
    web: Web, status: int, headers: dict[str, str], body: bytes
) -> None:
    web.pages["/tags?per_page=100"] = (status, headers, body)
    with pytest.raises(FetchError) as caught:
        published_releases.github_tags(f"{web.url}/tags", NETWORK)
    assert_error(caught.value, FetchError, address=f"{web.url}/tags")
    assert values_of(caught.value.message).get("status") == (None if status == 200 else status)


@needs_curl
def test_listing_page_gives_versions(web: Web) -> None:
    web.pages["/releases/"] = (200, {"Content-Type": "text/html"}, FFMPEG_PAGE.encode())
    upstream = replace(UPSTREAMS["ffmpeg"], address=f"{web.url}/releases/")
    found = published_releases.releases(upstream, NETWORK)
    assert [r.version for r in found] == ["99.0", "6.0.1", "5.1.10", "5.1.9"]


@needs_curl
def test_listing_without_releases_is_refused(web: Web) -> None:
    web.pages["/releases/"] = (200, {}, b"<html><a href='login'>log in</a></html>")
    upstream = replace(UPSTREAMS["ffmpeg"], address=f"{web.url}/releases/")
    with pytest.raises(FetchError) as caught:
        published_releases.releases(upstream, NETWORK)
    assert_error(caught.value, FetchError, pattern=upstream.pattern, hint={"name": "ffmpeg"})


@needs_curl
def test_mirror_replaces_upstream(web: Web) -> None:
    web.pages["/mirror/"] = (200, {}, FFMPEG_PAGE.encode())
    mirrors = (("https://ffmpeg.org/releases/", f"{web.url}/mirror/"),)
    assert published_releases.releases(UPSTREAMS["ffmpeg"], Network(retries=0, url_mirrors=mirrors))
    assert web.asked == ["/mirror/"]


@needs_curl
def test_unreachable_server_is_an_error() -> None:
    with pytest.raises(FetchError) as caught:
        small_requests.get("http://127.0.0.1:1/", NETWORK)
    assert "127.0.0.1:1" in caught.value.message


def test_offline_machine_makes_no_request() -> None:
    offline = Network(offline=True)
    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        published_releases.releases(UPSTREAMS["ffmpeg"], offline)
    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        compatible_updates.find_updates(replace(search(UPSTREAMS), network=offline))


@needs_skopeo
def test_registry_tags_and_moved_digest(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media_type = "application/vnd.oci.image.index.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media_type, "manifests": []}
    names = [
        "11.8.0-cudnn8-devel-ubuntu22.04",
        "11.8.9-cudnn8-devel-ubuntu22.04",
        "11.8.0-cudnn8-devel-ubuntu20.04",
        "12.8.1-cudnn-devel-ubuntu22.04",
        "latest",
    ]
    listed = json.dumps({"name": "nvidia/cuda", "tags": names}).encode()
    web.pages["/v2/"] = (200, {}, b"{}")
    web.pages["/v2/nvidia/cuda/tags/list"] = (200, {"Content-Type": "application/json"}, listed)
    for role in ("devel", "runtime"):
        path = f"/v2/nvidia/cuda/manifests/11.8.0-cudnn8-{role}-ubuntu22.04"
        web.pages[path] = (200, {"Content-Type": media_type}, json.dumps(manifest).encode())
    registries = tmp_path / ".config" / "containers" / "registries.conf"
    registries.parent.mkdir(parents=True)
    registries.write_text(f'[[registry]]\nlocation = "127.0.0.1:{web.port}"\ninsecure = true\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    network = Network(retries=0, registry_mirrors=(("docker.io", f"127.0.0.1:{web.port}"),))
    image = LockedImage(
        reference=f"{REFERENCE.builder.image}@sha256:{'1' * 64}",
        manifest_digest=f"sha256:{'2' * 64}",
        config_digest=f"sha256:{'3' * 64}",
        os_id="ubuntu",
        os_version="22.04",
    )
    lock = Lock(
        preset=REFERENCE.name,
        preset_sha256=REFERENCE.sha256,
        images={"builder": image, "runtime": image},
        entries=(),
    )
    found = candidates._base_image(replace(search(UPSTREAMS), network=network, lock=lock))
    assert found is not None
    assert (found.problem, found.newest) == ("", "11.8.9-cudnn8")
    assert [c.version for c in found.candidates] == ["11.8.9-cudnn8"]
    assert "12.8.1-cudnn-devel-ubuntu22.04" in found.note  # another CUDA series is only named
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    assert found.note.count(f"sha256:{digest}") == 2  # of both tags
    raw = json.loads(json.dumps(REFERENCE.raw))
    found.candidates[0].apply(raw)
    assert raw["base"]["runtime"] == {"image": "nvidia/cuda:11.8.9-cudnn8-runtime-ubuntu22.04"}


class FakeResolver:
    """Resolve like uv; ``there`` has the existing versions of each package, newest first."""

    def __init__(self, there: Mapping[str, tuple[str, ...]]) -> None:
        self.there = there

    def wheels(self, preset: Preset, python: str = "") -> list[Wheel]:
        assert python == target_python.expected(preset)
        found = []
        for requirement in preset.packages:
            name, _, below = requirement.partition("<")
            fitting = (v for v in self.there.get(name, ()) if not below or key(v) < key(below))
            version = next(fitting, "")
            if not version:
                raise FetchError(f"{name}: the index does not answer")
            found.append(
                Wheel(
                    name=name,
                    version=version,
                    file="f.whl",
                    url="",
                    sha256="",
                    size=0,
                    index="default",
                )
            )
        return found


def resolver(**there: tuple[str, ...]) -> Resolver:
    default = {
        "torch": ("2.7.1+cu118",),
        "torchvision": ("0.22.1+cu118",),
        "torchaudio": ("2.7.1+cu118",),
        "numpy": ("2.2.6", "1.26.4"),
        "pillow": ("12.3.0", "11.3.0", "10.4.0"),
        "tqdm": ("4.66.5",),
        "PyYAML": ("6.0.2",),
    }
    return cast(Resolver, FakeResolver({**default, **there}))


def upstreams(web: Web, **versions: tuple[str, ...]) -> dict[str, Upstream]:
    """Return the upstreams of the reference preset, all on one server."""
    there = {
        "ffmpeg": ("5.1.9",),
        "nv-codec-headers": ("11.1.5.2",),
        "opencv": ("4.9.0",),
        "opencv-contrib": ("4.9.0",),
        "tensorrt": ("8.6.1",),
        **{name.replace("_", "-"): v for name, v in versions.items()},
    }
    prefix = {"nv-codec-headers": "n", "tensorrt": "v"}
    links = "".join(f'<a href="ffmpeg-{v}.tar.xz">x</a>' for v in there.pop("ffmpeg"))
    web.pages["/ffmpeg"] = (200, {}, links.encode())
    for name, found in there.items():
        body = tags(*(prefix.get(name, "") + version for version in found))
        web.pages[f"/{name}?per_page=100"] = (200, {}, body)
    return {
        name: replace(upstream, address=f"{web.url}/{name}")
        for name, upstream in UPSTREAMS.items()
        if name != "base"
    }


def search(there: Mapping[str, Upstream], answers: Resolver | None = None) -> Search:
    return Search(
        preset=REFERENCE,
        catalog=CATALOG,
        upstreams=there,
        network=NETWORK,
        resolver=answers or resolver(),
    )


def find(
    web: Web, *, same_line: bool = False, of: Preset = REFERENCE, **versions: tuple[str, ...]
) -> CompatibleUpdates:
    wanted = replace(search(upstreams(web, **versions)), preset=of, same_line=same_line)
    return compatible_updates.find_updates(wanted)


def item_of(updates: CompatibleUpdates, name: str) -> ItemUpdates:
    return next(item for item in updates.items if item.name == name)


@needs_curl
def test_torch_packages_are_updated_together(web: Web) -> None:
    found = find(web)
    assert item_of(found, "torch").fits == found.together["torch"]
    taken = parse(dict(found.raw)).pytorch
    assert taken is not None
    release = CATALOG.torch[taken.torch.split("+")[0]]
    assert taken.torchvision.split("+")[0] == release.torchvision
    assert taken.torch.endswith("+cu118")


@needs_curl
def test_numpy_2_needs_newer_torch_and_opencv(web: Web) -> None:
    found = find(web)
    numpy = item_of(found, "numpy")
    assert (numpy.newest, numpy.fits, numpy.status) == ("2.2.6", "", "held")
    assert "torch 2.1.2" in numpy.why
    assert "numpy" not in found.together  # a newer torch supports it, OpenCV 4.9 does not
    raw = json.loads(json.dumps(REFERENCE.raw))
    raw["opencv"]["version"] = "4.10.0"
    newer = {"opencv": ("4.10.0",), "opencv_contrib": ("4.10.0",)}
    assert find(web, of=parse(raw), **newer).together["numpy"] == "2.2.6"
    assert "numpy" not in find(web, same_line=True).together


@needs_curl
def test_ffmpeg_update_keeps_headers_that_fit(web: Web) -> None:
    found = find(web, ffmpeg=("5.1.10", "5.1.9"), nv_codec_headers=("11.1.5.3", "11.1.5.2"))
    assert found.together["ffmpeg"] == "5.1.10"
    assert "nv-codec-headers" not in found.together  # they would only require a newer driver
    raw = found.raw
    assert raw["ffmpeg"]["version"] == raw["sources"]["ffmpeg"]["version"] == "5.1.10"
    assert raw["sources"]["ffmpeg"]["urls"] == ["https://ffmpeg.org/releases/ffmpeg-5.1.10.tar.xz"]


@needs_curl
def test_release_without_checksum_is_trusted_on_first_use(web: Web) -> None:
    source = find(web, ffmpeg=("5.1.99",)).raw["sources"]["ffmpeg"]
    assert (source["sha256"], source["trust"]) == (None, "first-use")


@needs_curl
def test_unknown_release_is_held(web: Web) -> None:
    found = find(
        web,
        ffmpeg=("99.0", "5.1.9"),
        opencv=("4.99.0", "4.9.0"),
        opencv_contrib=("4.99.0", "4.9.0"),
        tensorrt=("99.1.2", "8.6.1"),
    )
    for name in ("ffmpeg", "opencv"):
        assert (item_of(found, name).status, name in found.together) == ("held", False)
        assert item_of(found, name).why
    assert "99.1.2" in item_of(found, "tensorrt").note


@needs_curl
def test_opencv_update_includes_contrib_and_downloads(web: Web) -> None:
    raw = find(web, opencv=("4.11.0", "4.9.0"), opencv_contrib=("4.11.0", "4.9.0")).raw
    sources = [raw["sources"][name] for name in ("opencv", "opencv-contrib")]
    assert {part["version"] for part in (raw["opencv"], *sources)} == {"4.11.0"}
    assert sources[0]["file"] != sources[1]["file"]  # both are called 4.11.0.tar.gz upstream
    ippicv = raw["sources"]["opencv-cache-ippicv"]["urls"][0]
    assert any(d.url == ippicv and "4.11.0" in d.opencv for d in CATALOG.downloads)
    late = find(web, opencv=("4.11.0", "4.9.0"))
    assert "opencv" not in late.together
    assert "opencv-contrib 4.11.0" in item_of(late, "opencv").why


@needs_curl
def test_tensorrt_update_needs_tar_for_cuda(web: Web) -> None:
    found = find(web, tensorrt=("10.9.0", "8.6.1"))
    taken = found.raw["tensorrt"]["version"]
    assert "cuda-11.8" in found.raw["sources"]["tensorrt"]["urls"][0]
    assert any(t.cuda == "11.8" for t in CATALOG.tensorrt[taken].tars)
    same_line = find(web, same_line=True, tensorrt=("10.9.0", "8.6.1"))
    assert same_line.raw["tensorrt"]["version"] == "8.6.1.6"


@needs_curl
def test_combined_updates_pass_check(web: Web) -> None:
    found = find(
        web,
        ffmpeg=("7.1", "6.0.1", "5.1.9"),
        nv_codec_headers=("12.1.14.0", "11.1.5.2"),
        opencv=("4.11.0", "4.10.0"),
        opencv_contrib=("4.11.0", "4.10.0"),
    )
    old, new = (
        {(f.rule, f.path) for f in check_preset(preset, CATALOG)}
        for preset in (REFERENCE, parse(dict(found.raw)))
    )
    assert new <= old
    assert {"torch", "opencv", "ffmpeg"} <= set(found.together)


@needs_curl
def test_silent_upstream_hides_no_others(web: Web) -> None:
    there = upstreams(web)
    del web.pages["/opencv?per_page=100"]
    found = compatible_updates.find_updates(search(there, resolver(numpy=())))
    assert item_of(found, "opencv").status == item_of(found, "numpy").status == "unknown"
    assert item_of(found, "pillow").fits == "12.3.0"


def test_search_finds_pairs_that_only_fit_together() -> None:
    def candidate(name: str, version: str) -> Candidate:
        def apply(raw: dict[str, Any]) -> None:
            (raw if name == "ffmpeg" else raw["sources"])[name].update(version=version)

        return Candidate(version, apply)

    def findings(preset: Preset) -> dict[str, str]:
        options = preset.component("ffmpeg")
        ffmpeg = options.text("version") if options else ""
        headers = preset.sources["nv-codec-headers"].version
        fitting = (("5.1.9", "11.1.5.2"), ("7.0", "12.1"), ("7.0", "12.2"))
        return {} if (ffmpeg, headers) in fitting else {"pair": f"{ffmpeg} with {headers}"}

    headers = "nv-codec-headers"
    items = [
        ItemUpdates(
            name="ffmpeg", current="5.1.9", newest="7.0", candidates=(candidate("ffmpeg", "7.0"),)
        ),
        ItemUpdates(
            name=headers,
            current="11.1.5.2",
            newest="12.2",
            candidates=(candidate(headers, "12.2"), candidate(headers, "12.1")),
        ),
    ]
    found = compatible_updates.combine(REFERENCE, items, findings)
    # the oldest headers that fit need the oldest driver
    assert found.together == {"ffmpeg": "7.0", headers: "12.1"}
    assert [item.status for item in found.items] == ["held", "held"]


@pytest.mark.parametrize("name", ["../x", "a/b", "Big", "", "x.lock"])
def test_invalid_preset_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        preset_writer.new_file(Project(tmp_path, tmp_path / "artifacts"), name)
    assert_error(caught.value, UsageError, name=name)


def test_existing_preset_is_not_overwritten() -> None:
    with pytest.raises(UsageError) as caught:
        preset_writer.new_file(Project(ROOT, ROOT / "artifacts"), REFERENCE.name)
    assert_error(caught.value, UsageError, file=ROOT / "presets" / f"{REFERENCE.name}.json")


@needs_curl
def test_written_preset_is_valid(web: Web, tmp_path: Path) -> None:
    found = find(web, ffmpeg=("5.1.99",), opencv=("4.11.0",), opencv_contrib=("4.11.0",))
    file = tmp_path / "fresh.json"
    preset_writer.write_new(file, compatible_updates.new_preset(found, file.stem, REFERENCE.name))
    read = presets.load(file)
    ffmpeg = read.component("ffmpeg")
    assert ffmpeg is not None
    assert (read.name, ffmpeg.text("version")) == ("fresh", "5.1.99")
    assert REFERENCE.name in read.summary_en


@needs_curl
def test_outdated_without_network_exits_with_6(tmp_path: Path) -> None:
    for name in ("catalog", "presets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    env = {
        **os.environ,
        "GAPFORGE_ROOT": str(tmp_path),
        "GAPFORGE_RETRIES": "0",
        "GAPFORGE_LANG": "en",
        "GAPFORGE_INDEX_URL": "http://127.0.0.1:1/simple",
        "GAPFORGE_TORCH_INDEX_URL": "http://127.0.0.1:1/torch",
        "GAPFORGE_REGISTRY_MIRROR": "127.0.0.1:1",
        "GAPFORGE_UV": "/nonexistent/uv",
        "GAPFORGE_URL_MIRRORS": "https://api.github.com/=http://127.0.0.1:1/ "
        "https://ffmpeg.org/=http://127.0.0.1:1/",
    }

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        main = str(ROOT / "src/gapforge/__main__.py")
        words = [sys.executable, main, "outdated", REFERENCE.name, "--json"]
        return subprocess.run(
            words, capture_output=True, text=True, env={**env, **more}, timeout=300, check=False
        )

    done = run()
    assert done.returncode == FetchError.exit_code, done.stderr
    document = json.loads(done.stdout)
    assert not document["ok"]
    statuses = {c["name"]: c["status"] for c in document["components"]}
    assert {statuses[name] for name in ("ffmpeg", "opencv", "torch", "base")} == {"unknown"}
    assert not list((tmp_path / "presets").glob("fresh*"))
    offline = run(GAPFORGE_OFFLINE="1")
    assert offline.returncode == FetchError.exit_code
    assert "GAPFORGE_OFFLINE" in offline.stderr
    assert "--from" not in offline.stderr  # an option that this verb does not have
