"""outdated: upstreams behind loopback servers that behave like the real ones, and the search for what fits together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from gapforge.base.errors import FetchError, UsageError
from gapforge.base.project import Project
from gapforge.cli.verbs import outdated as cli
from gapforge.compat import catalog as catalogs
from gapforge.model import preset as presets
from gapforge.model.lock import Lock, LockedImage
from gapforge.model.preset import Preset
from gapforge.sync import http_get
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver, Wheel
from gapforge.updates import advice, candidates, published_releases
from gapforge.updates.published_releases import Upstream

ROOT = Path(__file__).resolve().parents[3]
CATALOG = catalogs.load(ROOT / "catalog")
UPSTREAMS = published_releases.load(ROOT / "catalog")
REFERENCE = presets.load(ROOT / "presets" / "ubuntu22.04-cuda11.8-torch2.1.json")
NETWORK = Network(retries=0)
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

FFMPEG_PAGE = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN"><html><head><title>Index of /releases</title></head><body>
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
    web.pages["/repos/o/r/tags?per_page=100"] = (
        200,
        {
            "Link": f'<{address}?per_page=100&page=2>; rel="next", <{address}?per_page=100&page=2>; rel="last"'
        },
        tags("n12.0.16.1", "n13.0.19.0"),
    )
    web.pages["/repos/o/r/tags?per_page=100&page=2"] = (
        200,
        {},
        tags("n11.1.5.3", "n8.1.24.10", "sdk-rc1"),
    )
    where = Upstream(
        "nv-codec-headers", "github-tags", address, UPSTREAMS["nv-codec-headers"].pattern
    )
    assert [r.version for r in published_releases.releases(where, NETWORK)] == [
        "13.0.19.0",
        "12.0.16.1",
        "11.1.5.3",
        "8.1.24.10",
    ]


@needs_curl
def test_rate_limit_says_until_when_and_how_to_go_on(web: Web) -> None:
    web.pages["/tags?per_page=100"] = (
        403,
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000000"},
        b'{"message": "API rate limit exceeded"}',
    )
    with pytest.raises(FetchError, match=r"until 22:13 UTC \(rate limit\)") as caught:
        published_releases.github_tags(f"{web.url}/tags", NETWORK)
    assert "netrc" in caught.value.hint


@needs_curl
@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (404, {}, b"", "answers 404"),
        (403, {}, b"forbidden", "answers 403"),
        (429, {"Retry-After": "60"}, b"", "rate limit"),
        (200, {}, b"<html>log in</html>", "no list of tags"),
        (200, {}, b'{"message": "moved"}', "no list of tags"),
        (200, {"Link": '<file:///etc/passwd>; rel="next"'}, b"[]", "no web address"),
    ],
)
def test_answers_that_are_no_tags(
    web: Web, status: int, headers: dict[str, str], body: bytes, words: str
) -> None:
    web.pages["/tags?per_page=100"] = (status, headers, body)
    with pytest.raises(FetchError, match=words):
        published_releases.github_tags(f"{web.url}/tags", NETWORK)


@needs_curl
def test_listing_page(web: Web) -> None:
    web.pages["/releases/"] = (200, {"Content-Type": "text/html"}, FFMPEG_PAGE.encode())
    where = replace(UPSTREAMS["ffmpeg"], address=f"{web.url}/releases/")
    assert [r.version for r in published_releases.releases(where, NETWORK)] == [
        "99.0",
        "6.0.1",
        "5.1.10",
        "5.1.9",
    ]


@needs_curl
def test_a_listing_without_releases_is_an_error(web: Web) -> None:
    web.pages["/releases/"] = (200, {}, b"<html><a href='login'>log in</a></html>")
    with pytest.raises(FetchError, match="lists no release"):
        published_releases.releases(
            replace(UPSTREAMS["ffmpeg"], address=f"{web.url}/releases/"), NETWORK
        )


@needs_curl
def test_mirror_is_asked_instead_of_the_upstream(web: Web) -> None:
    web.pages["/mirror/"] = (200, {}, FFMPEG_PAGE.encode())
    mirrored = Network(
        retries=0, url_mirrors=(("https://ffmpeg.org/releases/", f"{web.url}/mirror/"),)
    )
    assert published_releases.releases(UPSTREAMS["ffmpeg"], mirrored)
    assert web.asked == ["/mirror/"]


@needs_curl
def test_nobody_there_and_offline() -> None:
    with pytest.raises(FetchError, match="does not answer"):
        http_get.get("http://127.0.0.1:1/", NETWORK)
    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        published_releases.releases(UPSTREAMS["ffmpeg"], Network(offline=True))


@needs_skopeo
def test_registry_tags_and_moved_digest(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
    kind = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
    web.pages["/v2/"] = (200, {}, b"{}")
    names = [
        "11.8.0-cudnn8-devel-ubuntu22.04",
        "11.8.9-cudnn8-devel-ubuntu22.04",
        "11.8.0-cudnn8-devel-ubuntu20.04",
        "12.8.1-cudnn-devel-ubuntu22.04",
        "latest",
    ]
    web.pages["/v2/nvidia/cuda/tags/list"] = (
        200,
        {"Content-Type": "application/json"},
        json.dumps({"name": "nvidia/cuda", "tags": names}).encode(),
    )
    for role in ("devel", "runtime"):
        web.pages[f"/v2/nvidia/cuda/manifests/11.8.0-cudnn8-{role}-ubuntu22.04"] = (
            200,
            kind,
            manifest,
        )
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
    found = candidates._base(REFERENCE, UPSTREAMS, network, lock, False)
    assert found is not None
    assert (found.problem, found.newest, [c.version for c in found.candidates]) == (
        "",
        "11.8.9-cudnn8",
        ["11.8.9-cudnn8"],
    )
    assert "12.8.1-cudnn-devel-ubuntu22.04" in found.note  # another CUDA line is named, not taken
    assert found.note.count("another image now") == 2
    raw = json.loads(json.dumps(REFERENCE.raw))
    found.candidates[0].apply(raw)
    assert raw["base"]["runtime"] == {"image": "nvidia/cuda:11.8.9-cudnn8-runtime-ubuntu22.04"}


class FakeResolver:
    """What uv would say: package -> the versions there are, newest first."""

    def __init__(self, there: Mapping[str, tuple[str, ...]]) -> None:
        self.there = there

    def wheels(self, preset: Preset) -> list[Wheel]:
        found = []
        for requirement in preset.packages:
            name, _, below = requirement.partition("<")
            version = next(
                (
                    v
                    for v in self.there.get(name, ())
                    if not below or candidates.key(v) < candidates.key(below)
                ),
                "",
            )
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


@contextmanager
def upstreams(web: Web, **versions: tuple[str, ...]) -> Iterator[dict[str, Upstream]]:
    """All listings of the reference preset on one server."""
    there = {
        "ffmpeg": ("5.1.9",),
        "nv-codec-headers": ("11.1.5.2",),
        "opencv": ("4.9.0",),
        "opencv-contrib": ("4.9.0",),
        "tensorrt": ("8.6.1",),
        **{name.replace("_", "-"): v for name, v in versions.items()},
    }
    prefix = {"nv-codec-headers": "n", "tensorrt": "v"}
    web.pages["/ffmpeg/"] = (
        200,
        {},
        "".join(f'<a href="ffmpeg-{v}.tar.xz">x</a>' for v in there["ffmpeg"]).encode(),
    )
    result = {}
    for name, where in UPSTREAMS.items():
        if name == "ffmpeg":
            result[name] = replace(where, address=f"{web.url}/ffmpeg/")
        elif name != "base":
            web.pages[f"/{name}?per_page=100"] = (
                200,
                {},
                tags(*(prefix.get(name, "") + v for v in there[name])),
            )
            result[name] = replace(where, address=f"{web.url}/{name}")
    yield result


def look(
    web: Web,
    *,
    same_line: bool = False,
    of: Preset = REFERENCE,
    answers: Resolver | None = None,
    **versions: tuple[str, ...],
) -> advice.Outlook:
    with upstreams(web, **versions) as there:
        return advice.look(of, CATALOG, there, NETWORK, answers or resolver(), same_line=same_line)


def part(outlook: advice.Outlook, name: str) -> candidates.Component:
    return next(c for c in outlook.components if c.name == name)


@needs_curl
def test_torch_is_limited_by_cuda_and_its_set_moves_together(web: Web) -> None:
    found = look(web)
    assert part(found, "torch").fits == found.together["torch"]
    taken = advice.parse(dict(found.raw)).pytorch
    assert taken is not None
    release = CATALOG.torch[taken.torch.split("+")[0]]
    assert taken.torchvision.split("+")[0] == release.torchvision
    assert taken.torch.endswith("+cu118")


@needs_curl
def test_numpy_2_is_held_by_torch_21_but_goes_with_a_newer_torch(web: Web) -> None:
    found = look(web)
    numpy = part(found, "numpy")
    assert (numpy.newest, numpy.fits, numpy.status) == ("2.2.6", "", "held")
    assert "torch" in numpy.why
    assert "numpy" not in found.together  # a newer torch takes it, OpenCV 4.9 does not
    raw = json.loads(json.dumps(REFERENCE.raw))
    raw["opencv"]["version"] = "4.10.0"
    assert (
        look(web, of=advice.parse(raw), opencv=("4.10.0",), opencv_contrib=("4.10.0",)).together[
            "numpy"
        ]
        == "2.2.6"
    )
    assert "numpy" not in look(web, same_line=True).together


@needs_curl
def test_ffmpeg_takes_newer_headers_along_only_when_it_must(web: Web) -> None:
    found = look(web, ffmpeg=("5.1.10", "5.1.9"), nv_codec_headers=("11.1.5.3", "11.1.5.2"))
    assert found.together["ffmpeg"] == "5.1.10"
    assert (
        "nv-codec-headers" not in found.together
    )  # newer headers than needed only ask for a newer driver
    raw = found.raw
    assert raw["ffmpeg"]["version"] == raw["sources"]["ffmpeg"]["version"] == "5.1.10"
    assert raw["sources"]["ffmpeg"]["urls"] == ["https://ffmpeg.org/releases/ffmpeg-5.1.10.tar.xz"]


@needs_curl
def test_a_release_that_nobody_published_a_hash_for_is_trusted_on_first_use(web: Web) -> None:
    source = look(web, ffmpeg=("5.1.99",)).raw["sources"]["ffmpeg"]
    assert (source["sha256"], source["trust"]) == (None, "first-use")


@needs_curl
def test_what_the_catalog_does_not_know_is_held(web: Web) -> None:
    found = look(
        web,
        ffmpeg=("99.0", "5.1.9"),
        opencv=("4.99.0", "4.9.0"),
        opencv_contrib=("4.99.0", "4.9.0"),
        tensorrt=("99.1.2", "8.6.1"),
    )
    for name in ("ffmpeg", "opencv"):
        assert (part(found, name).status, name in found.together) == ("held", False)
        assert part(found, name).why
    assert "99.1.2" in part(found, "tensorrt").note


@needs_curl
def test_opencv_brings_its_contrib_and_downloads(web: Web) -> None:
    raw = look(web, opencv=("4.11.0", "4.9.0"), opencv_contrib=("4.11.0", "4.9.0")).raw
    assert (
        raw["opencv"]["version"]
        == raw["sources"]["opencv"]["version"]
        == raw["sources"]["opencv-contrib"]["version"]
        == "4.11.0"
    )
    files = {raw["sources"][name]["file"] for name in ("opencv", "opencv-contrib")}
    assert len(files) == 2  # both archives are called 4.11.0.tar.gz upstream
    ippicv = raw["sources"]["opencv-cache-ippicv"]["urls"][0]
    assert any(d.url == ippicv and "4.11.0" in d.opencv for d in CATALOG.downloads)
    late = look(web, opencv=("4.11.0", "4.9.0"))
    assert "opencv" not in late.together
    assert "contrib" in part(late, "opencv").why


@needs_curl
def test_tensorrt_only_with_a_tar_for_this_cuda(web: Web) -> None:
    found = look(web, tensorrt=("10.9.0", "8.6.1"))
    taken = found.raw["tensorrt"]["version"]
    assert "cuda-11.8" in found.raw["sources"]["tensorrt"]["urls"][0]
    assert any(t.cuda == "11.8" for t in CATALOG.tensorrt[taken].tars)
    assert (
        look(web, same_line=True, tensorrt=("10.9.0", "8.6.1")).raw["tensorrt"]["version"]
        == "8.6.1.6"
    )


@needs_curl
def test_everything_taken_together_passes_check(web: Web) -> None:
    found = look(
        web,
        ffmpeg=("7.1", "6.0.1", "5.1.9"),
        nv_codec_headers=("12.1.14.0", "11.1.5.2"),
        opencv=("4.11.0", "4.10.0"),
        opencv_contrib=("4.11.0", "4.10.0"),
    )
    old = {(p.rule, p.path) for p in advice.rules.check_preset(REFERENCE, CATALOG)}
    new = {
        (p.rule, p.path) for p in advice.rules.check_preset(advice.parse(dict(found.raw)), CATALOG)
    }
    assert new <= old
    assert {"torch", "opencv", "ffmpeg"} <= set(found.together)


@needs_curl
def test_one_silent_upstream_does_not_hide_the_others(web: Web) -> None:
    with upstreams(web) as there:
        del web.pages["/opencv?per_page=100"]
        found = advice.look(REFERENCE, CATALOG, there, NETWORK, resolver(numpy=()))
    assert part(found, "opencv").status == part(found, "numpy").status == "unknown"
    assert part(found, "pillow").fits == "12.3.0"


def test_offline_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        advice.look(REFERENCE, CATALOG, UPSTREAMS, Network(offline=True), resolver())


def test_search_finds_pairs_that_only_fit_together() -> None:
    def put(path: str, value: str) -> Callable[[dict[str, Any]], None]:
        return lambda raw: (
            raw["ffmpeg"].update(version=value)
            if path == "ffmpeg"
            else raw["sources"][path].update(version=value)
        )

    def judge(preset: Preset) -> dict[str, str]:
        options = preset.component("ffmpeg")
        ffmpeg = options.text("version") if options else ""
        headers = preset.sources["nv-codec-headers"].version
        return (
            {}
            if {("5.1.9", "11.1.5.2"), ("7.0", "12.1"), ("7.0", "12.2")} & {(ffmpeg, headers)}
            else {"pair": f"{ffmpeg} with {headers}"}
        )

    parts = [
        candidates.Component(
            "ffmpeg", "5.1.9", "7.0", (candidates.Candidate("7.0", put("ffmpeg", "7.0")),)
        ),
        candidates.Component(
            "nv-codec-headers",
            "11.1.5.2",
            "12.2",
            tuple(candidates.Candidate(v, put("nv-codec-headers", v)) for v in ("12.2", "12.1")),
        ),
    ]
    found = advice.combine(REFERENCE, parts, judge)
    assert found.together == {
        "ffmpeg": "7.0",
        "nv-codec-headers": "12.1",
    }  # the oldest that does: lowest driver
    assert [c.status for c in found.components] == ["held", "held"]


@pytest.mark.parametrize("name", ["../x", "a/b", "Big", "", "x.lock"])
def test_names_that_cannot_be_presets(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        cli._target(name, Project(tmp_path, tmp_path / "artifacts"))


def test_an_existing_preset_is_not_overwritten() -> None:
    with pytest.raises(UsageError, match="exists already"):
        cli._target(REFERENCE.name, Project(ROOT, ROOT / "artifacts"))


def test_refusals_in_korean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    with pytest.raises(UsageError) as caught:
        cli._target("Big", Project(tmp_path, tmp_path / "artifacts"))
    assert (caught.value.message, caught.value.hint) == (
        '--write "Big": 프리셋 이름으로 쓸 수 없습니다',
        "영문 소문자, 숫자, '.', '_', '-'만 쓰십시오. 예: ubuntu22.04-cuda11.8-torch2.3",
    )
    with pytest.raises(UsageError) as caught:
        cli._target(REFERENCE.name, Project(ROOT, ROOT / "artifacts"))
    assert caught.value.message == f"{ROOT}/presets/{REFERENCE.name}.json: 이미 있습니다"


@needs_curl
def test_the_written_preset_is_read_back_by_the_parser(web: Web, tmp_path: Path) -> None:
    found = look(web, ffmpeg=("5.1.99",), opencv=("4.11.0",), opencv_contrib=("4.11.0",))
    cli._write(tmp_path / "fresh.json", found, REFERENCE.name)
    read = presets.load(tmp_path / "fresh.json")
    ffmpeg = read.component("ffmpeg")
    assert ffmpeg is not None
    assert (read.name, ffmpeg.text("version")) == ("fresh", "5.1.99")
    assert REFERENCE.name in read.summary_en


@needs_curl
def test_the_verb_with_nothing_reachable_reports_and_ends_with_6(tmp_path: Path) -> None:
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
        "GAPFORGE_URL_MIRRORS": "https://api.github.com/=http://127.0.0.1:1/ https://ffmpeg.org/=http://127.0.0.1:1/",
    }
    words = [
        sys.executable,
        str(ROOT / "src/gapforge/__main__.py"),
        "outdated",
        REFERENCE.name,
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == FetchError.exit_code, done.stderr
    document = json.loads(done.stdout)
    assert not document["ok"]
    assert {
        c["status"]
        for c in document["components"]
        if c["name"] in ("ffmpeg", "opencv", "torch", "base")
    } == {"unknown"}
    assert not list((tmp_path / "presets").glob("fresh*"))
    offline = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env={**env, "GAPFORGE_OFFLINE": "1"},
        timeout=60,
        check=False,
    )
    assert offline.returncode == FetchError.exit_code
    assert (
        "GAPFORGE_OFFLINE" in offline.stderr and "--from" not in offline.stderr
    )  # which this verb has not
