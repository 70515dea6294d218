"""Sync with stand-ins for servers and programs: requests, results and failures."""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import (
    BusyError,
    CompatibilityError,
    FetchError,
    GatedError,
    LockError,
    ResolveError,
    SecretError,
    TargetError,
)
from gapforge.base.files import sha256_bytes
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.base.strict_json import canonical_json
from gapforge.base.write_files import write_text
from gapforge.cli import main as cli
from gapforge.cli.verbs import sync as sync_verb
from gapforge.image import read_inputs
from gapforge.model import lock as locks
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset, load
from gapforge.store import download_preview, gc, known_sizes
from gapforge.store.store import Store, preset_in_use
from gapforge.sync import lock_only
from gapforge.sync import sync as syncing
from gapforge.sync.base_image_facts import ImageFiles
from gapforge.sync.network import Network
from gapforge.sync.shared_steps import Options, Outcome
from github_site import TOKEN as GITHUB_TOKEN
from github_site import github_site
from raised_errors import assert_error, values_of
from samples import ROOT
from servers import file_server
from sync_world import NAME, FakeProof, World, install, noise, tree


def tar_gz(members: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(text)
            archive.addfile(header, io.BytesIO(text.encode()))
    return out.getvalue()


class Place:
    """A project folder, and short ways to sync in it."""

    def __init__(self, root: Path, world: World, calls: list[str]) -> None:
        self.root, self.world, self.calls = root, world, calls
        self.project = Project(root, root / "artifacts")
        self.store = Store(self.project.store)
        self.artifacts = root / "artifacts" / NAME
        world.publish()
        self.preset: Preset = world.write_preset(root)

    def sync(
        self, *, update: bool = False, provided: Path | None = None, **network: Any
    ) -> Outcome:
        options = Options(update=update, provided=provided, quiet=True)
        return syncing.sync(self.preset, self.project, Network(retries=0, **network), options)

    def asked(self) -> list[str]:
        """Return the requests to servers and stand-ins since the last call."""
        seen = self.calls + [path for path, _ in self.world.site.log if path != "/facts"]
        self.calls.clear()
        self.world.site.log.clear()
        return seen

    def lock(self) -> Lock:
        return locks.load(self.project.lock_file(NAME))

    def lose(self, path: str) -> None:
        self.store.discard(next(e.sha256 for e in self.lock().entries if e.path == path))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with file_server() as site:
        world = World(site)
        yield Place(tmp_path, world, install(site.url, monkeypatch.setattr))


def test_first_sync_lays_out_artifacts(place: Place) -> None:
    outcome = place.sync()
    found = tree(place.artifacts)
    assert {p for p in found if not p.startswith("images/")} == {
        "SHA256SUMS",
        "debs/Packages",
        "debs/Release",
        "debs/gcc_12_amd64.deb",
        "debs/libz_1.2_amd64.deb",
        "lock.json",
        "requirements.txt",
        "sources/ffmpeg_5.1.9.orig.tar.xz",
        "sources/headers.tar.gz",
        "sources/opencv.tar.gz",
        "wheels/alpha-1.0-py3-none-any.whl",
        "wheels/beta-2.0-py3-none-any.whl",
        "wheels/pip-24.2-py3-none-any.whl",
    }
    assert {"images/builder/index.json", "images/runtime/index.json"} <= set(found)
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"],
        cwd=place.artifacts,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": OK") == len(found) - 1, "SHA256SUMS covers every file but itself"
    assert (place.artifacts / "lock.json").read_bytes() == place.project.lock_file(
        NAME
    ).read_bytes()
    assert place.calls.count("base bookworm (minbase, mmdebstrap)") == 1, (
        "one base for both roles is fetched once"
    )
    assert outcome.resolved and outcome.strangers == ()
    assert not list(place.store.partial("x").parent.iterdir()), "nothing is left half-made"


def test_lock_records_origins(place: Place) -> None:
    place.sync()
    entries = {e.path: e for e in place.lock().entries}
    assert entries["debs/libz_1.2_amd64.deb"].roles == ("builder", "runtime")
    assert entries["debs/gcc_12_amd64.deb"].roles == ("builder",)
    assert entries["wheels/pip-24.2-py3-none-any.whl"].roles == ("install-tool",)
    assert entries["wheels/alpha-1.0-py3-none-any.whl"].origin == "index:default"
    assert (
        entries["sources/ffmpeg_5.1.9.orig.tar.xz"].origin,
        entries["sources/ffmpeg_5.1.9.orig.tar.xz"].version,
    ) == ("apt:base", "5.1.9")
    assert entries["sources/headers.tar.gz"].urls == (f"{place.world.site.url}/f/headers.tar.gz",)
    text = place.project.lock_file(NAME).read_text()
    assert text.count(place.world.site.url) == 1, (
        "addresses of indexes and APT sources are this machine's affair"
    )
    assert "pip" not in (place.artifacts / "requirements.txt").read_text().replace(
        "pip install", ""
    )


@pytest.mark.parametrize("found", ["ubuntu 20.04", "debian 11", "rocky 9.4", "unknown unknown"])
def test_base_image_of_another_os_is_refused(place: Place, found: str) -> None:
    """The site refuses such an image, so nothing is resolved or locked for it."""
    place.world.os = found
    place.world.publish()
    with pytest.raises(TargetError) as caught:
        place.sync()
    assert [(f.problem, f.expected) for f in caught.value.faults] == [(found, "debian 12")]
    assert not place.project.lock_file(NAME).exists()
    assert not [call for call in place.calls if call.startswith("closure")]


def test_lock_with_base_image_of_another_os_is_refused(place: Place) -> None:
    """A lock of an earlier gapforge may name one."""
    place.sync()
    file = place.project.lock_file(NAME)
    file.write_text(file.read_text().replace('"os_version": "12"', '"os_version": "11"'))
    with pytest.raises(TargetError) as caught:
        place.sync()
    assert len(caught.value.faults) == 2


def test_second_sync_makes_no_request(place: Place) -> None:
    place.sync()
    before = {p: p.stat().st_ino for p in place.artifacts.rglob("*") if p.is_file()}
    place.asked()
    outcome = place.sync(offline=True)
    assert place.asked() == []
    assert {p: p.stat().st_ino for p in place.artifacts.rglob("*") if p.is_file()} == before
    assert (outcome.fetched, outcome.resolved, bool(outcome.changes)) == (0, False, False)


def test_gc_deletes_only_after_update(place: Place) -> None:
    place.sync()
    with gc.exclude_sync(place.project):
        assert gc.find_garbage(place.project).unreferenced == (), (
            "lock.json and SHA256SUMS are known as sync writes them"
        )
    before = place.lock()
    place.world.wheels["beta"] = "2.1"
    place.world.publish()
    place.sync(update=True)
    after, found = place.lock(), tree(place.artifacts)
    with gc.exclude_sync(place.project):
        garbage = gc.find_garbage(place.project)
        gone = {e.sha256 for e in before.entries} - {e.sha256 for e in after.entries}
        assert gone and gone <= {item.path.name for item in garbage.unreferenced}
        assert gc.remove_garbage(place.project, garbage) == garbage.freed > 0
        assert gc.find_garbage(place.project).unreferenced == ()
    place.asked()
    place.sync(offline=True)
    assert place.asked() == [] and tree(place.artifacts) == found


def test_sync_is_reproducible(place: Place, tmp_path: Path) -> None:
    place.sync()
    other = Place(tmp_path / "elsewhere", place.world, place.calls)
    other.sync()
    assert tree(place.artifacts) == tree(other.artifacts)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("wheels/beta-2.0-py3-none-any.whl", ["locate", "/f/beta-2.0-py3-none-any.whl"]),
        ("sources/headers.tar.gz", ["/f/headers.tar.gz"]),
        ("sources/opencv.tar.gz", ["sdist", "/f/opencv.tar.gz"]),
        (
            "sources/ffmpeg_5.1.9.orig.tar.xz",
            ["apt", "closure gcc libz", "closure libz", "source", "/f/ffmpeg_5.1.9.orig.tar.xz"],
        ),
        (
            "debs/gcc_12_amd64.deb",
            ["apt", "closure gcc libz", "closure libz", "/f/gcc_12_amd64.deb"],
        ),
        ("images/builder/index.json", ["base bookworm (minbase, mmdebstrap)"]),
        ("debs/Packages", []),
        ("requirements.txt", []),
    ],
)
def test_only_missing_objects_are_downloaded_again(
    place: Place, path: str, asked: list[str]
) -> None:
    place.sync()
    before = tree(place.artifacts)
    place.asked()
    place.lose(path)
    place.sync()
    assert place.asked() == asked
    assert tree(place.artifacts) == before


def test_object_damaged_through_hard_link_is_replaced(place: Place) -> None:
    place.sync()
    before = tree(place.artifacts)
    victim = place.artifacts / "wheels/beta-2.0-py3-none-any.whl"
    victim.chmod(0o644)
    victim.write_bytes(b"x" * len(victim.read_bytes()))
    place.sync()
    assert tree(place.artifacts) == before


def test_lock_restores_everything(place: Place) -> None:
    place.sync()
    before = tree(place.artifacts)
    subprocess.run(["rm", "-r", str(place.project.artifacts)], check=True)
    place.sync()
    assert tree(place.artifacts) == before


def test_replaced_package_cannot_be_restored(place: Place) -> None:
    place.sync()
    place.lose("debs/gcc_12_amd64.deb")
    place.world.debs["gcc"] = "13"
    place.world.publish()
    with pytest.raises(ResolveError) as error:
        place.sync()
    assert "gcc_12_amd64.deb" in error.value.render() and "--update" in error.value.hint


def test_moved_base_image_cannot_be_restored(place: Place) -> None:
    place.sync()
    place.lose("images/builder/index.json")
    place.world.base = "base-2"
    place.world.publish()
    with pytest.raises(FetchError) as error:
        place.sync()
    assert "--update" in error.value.hint


def test_presets_of_one_command_share_a_base_image(place: Place) -> None:
    options, day = Options(quiet=True), 1_600_000_000

    def made(name: str, options: Options = options, **changes: Any) -> list[str]:
        file = place.root / "presets" / f"{name}.json"
        write_text(
            file, canonical_json({**place.preset.raw, "name": name, "epoch": day, **changes})
        )
        place.asked()
        syncing.sync(load(file), place.project, Network(retries=0), options)
        return [request for request in place.asked() if request.startswith("base ")]

    image = "base bookworm (minbase, mmdebstrap)"
    assert made(NAME) == [image]
    assert made("same") == []
    assert tree(place.artifacts.parent / "same" / "images") == tree(place.artifacts / "images")
    assert made("other-date", epoch=day + 1) == [image]
    base = place.preset.raw["base"]
    runtime = {"mmdebstrap": {**base["runtime"]["mmdebstrap"], "include": ["vim"]}}
    assert len(made("other-packages", base={**base, "runtime": runtime})) == 1
    assert made("other-command", Options(quiet=True)) == [image]
    place.lose("images/runtime/index.json")
    assert made("lost-meanwhile") == [image]


def test_sync_verb_shares_base_images(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_inputs, "check_project", lambda *words: None)  # no components here
    monkeypatch.setenv("GAPFORGE_ROOT", str(place.root))
    for name in ("one", "two"):
        file = place.root / "presets" / f"{name}.json"
        write_text(file, canonical_json({**place.preset.raw, "name": name}))
    assert cli.main(["sync", "one", "two", "--json"]) == 0
    assert sum(request.startswith("base ") for request in place.asked()) == 1


def test_update_reports_changes_and_removes_files(place: Place) -> None:
    place.sync()
    place.world.wheels = {"alpha": "1.1", "gamma": "3.0"}
    place.world.publish()
    assert not place.sync().resolved, "without --update the lock decides"
    outcome = place.sync(update=True)
    assert outcome.changes.lines() == [
        "+ wheel gamma 3.0",
        "- wheel beta 2.0",
        "~ wheel alpha 1.0 -> 1.1",
    ]
    assert sorted(p.name for p in (place.artifacts / "wheels").iterdir()) == [
        "alpha-1.1-py3-none-any.whl",
        "gamma-3.0-py3-none-any.whl",
        "pip-24.2-py3-none-any.whl",
    ]
    assert outcome.strangers == ()


def test_changed_content_of_same_version_is_reported(place: Place) -> None:
    place.sync()
    place.world.ffmpeg = b"rebuilt"
    place.world.publish()
    lines = place.sync(update=True).changes.lines()
    old, new = (sha256_bytes(data)[:12] for data in (noise("ffmpeg.tar.xz", 2000), b"rebuilt"))
    assert len(lines) == 1 and lines[0].startswith("~ source ffmpeg 5.1.9: ")
    assert lines[0].endswith(f"sha256 {old} -> {new}")


def test_libraries_of_the_builder_are_locked_for_the_runtime(place: Place) -> None:
    """The build finds which of them the files of the image need."""
    place.preset = place.world.write_preset(place.root, apt={"builder": ["gcc", "libz"]})
    place.sync()
    roles = {e.name: e.roles for e in place.lock().of("deb")}
    assert roles == {"gcc": ("builder",), "libz": ("builder", "runtime")}


def test_changed_preset_is_resolved_anew(place: Place) -> None:
    place.sync()
    place.preset = place.world.write_preset(
        place.root, apt={"builder": ["gcc"], "runtime": [], "sources": []}
    )
    outcome = place.sync()
    assert outcome.resolved
    assert outcome.changes.lines() == ["- deb libz:amd64 1.2"]
    assert place.lock().preset_sha256 == place.preset.sha256


def test_interrupted_update_keeps_old_state(place: Place) -> None:
    place.sync()
    before = tree(place.artifacts)
    place.world.wheels = {"alpha": "1.1"}
    place.world.publish()
    place.world.site.paths["/f/alpha-1.1-py3-none-any.whl"].status = 404
    with pytest.raises(FetchError):
        place.sync(update=True)
    assert tree(place.artifacts) == before
    assert not place.sync().resolved


def test_unexpected_files_are_reported_and_kept(place: Place) -> None:
    place.sync()
    (place.artifacts / "wheels" / "mine.whl").write_text("x")
    assert place.sync().strangers == ("wheels/mine.whl",)
    assert (place.artifacts / "wheels" / "mine.whl").exists()


def test_copies_are_reported_without_hard_links(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.sync().copies == 0

    def link(*_: object) -> None:
        raise OSError(1, "no links on this disk")

    monkeypatch.setattr("os.link", link)
    subprocess.run(["rm", "-r", str(place.artifacts)], check=True)
    monkeypatch.setattr(read_inputs, "check_project", lambda *words: None)  # no components here
    monkeypatch.setenv("GAPFORGE_ROOT", str(place.root))
    assert cli.main(["sync", NAME, "--json"]) == 0
    files = [p for p in place.artifacts.rglob("*") if p.is_file()]
    told = json.loads(capsys.readouterr().out)["presets"][0]["copies"]
    assert told == {"files": len(files), "bytes": sum(p.stat().st_size for p in files)}
    assert cli.main(["sync", NAME]) == 0
    assert capsys.readouterr().out.count(f" {len(files)} files (") == 1


def test_signature_is_kept_until_lock_changes(place: Place) -> None:
    place.sync()
    (place.artifacts / "lock.json.sig").write_text("signature")
    assert place.sync().strangers == () and (place.artifacts / "lock.json.sig").exists()
    place.world.wheels = {"alpha": "1.1"}
    place.world.publish()
    assert (
        place.sync(update=True).strangers == () and not (place.artifacts / "lock.json.sig").exists()
    )


def test_damaged_lock_is_rejected_until_update(place: Place) -> None:
    place.sync()
    before = tree(place.artifacts)
    place.project.lock_file(NAME).write_text("{")
    with pytest.raises(LockError) as error:
        place.sync()
    assert "--update" in error.value.hint
    place.sync(update=True)
    assert tree(place.artifacts) == before


def test_second_concurrent_sync_is_rejected(place: Place) -> None:
    with exclusive(place.store.lock_file, "test"), pytest.raises(BusyError):
        place.sync()


def test_sync_changes_no_artifacts_that_are_being_built(place: Place) -> None:
    place.sync()
    before = tree(place.artifacts)
    with preset_in_use(place.project, NAME, changes=False), pytest.raises(BusyError) as error:
        place.sync(update=True)
    assert values_of(error.value.hint)["pid"] == os.getpid()
    assert tree(place.artifacts) == before
    place.sync(update=True)


def test_other_sdist_is_rejected_before_download(place: Place) -> None:
    place.world.opencv = b"tampered"
    place.world.publish()
    with pytest.raises(ResolveError) as error:
        place.sync()
    assert (
        "opencv==4.9" in error.value.message and sha256_bytes(b"tampered") in error.value.render()
    )
    assert "/f/opencv.tar.gz" not in place.asked()


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("source", ["ffmpeg", "opencv", "headers"])
def test_archive_that_contains_another_version_is_refused(
    place: Place, source: str, locked: bool
) -> None:
    """From APT, from the index and from an address; also when a lock pins it already."""
    shutil.copytree(ROOT / "components", place.root / "components")
    described = json.loads((ROOT / "components/ffmpeg/component.json").read_text())
    described["sources"].append("headers")
    described["versions"]["headers"] = {"file": "VERSION", "pattern": "([0-9.]+)"}
    write_text(place.root / "components/ffmpeg/component.json", json.dumps(described))
    place.world.ffmpeg = tar_gz({"ffmpeg-5.1.9/RELEASE": "5.1.9\n"})
    define = "#define CV_VERSION_{}  {}\n"
    parts = [define.format(*pair) for pair in (("MAJOR", 4), ("MINOR", 9), ("REVISION", 0))]
    member = "modules/core/include/opencv2/core/version.hpp"
    place.world.opencv = tar_gz({f"cv/{member}": "".join(parts)})
    headers = tar_gz({"headers/VERSION": "1.2"})
    wrong = {
        "ffmpeg": tar_gz({"ffmpeg-5.1.9/RELEASE": "5.0.3\n"}),
        "opencv": tar_gz({f"cv/{member}": "".join(parts).replace("9", "8")}),
        "headers": tar_gz({"headers/VERSION": "1.3"}),
    }[source]
    for version, body in (("wrong", wrong), ("right", None)):
        world = copy.copy(place.world)
        world.ffmpeg = body if body and source == "ffmpeg" else world.ffmpeg
        world.opencv = body if body and source == "opencv" else world.opencv
        other = body if body and source == "headers" else headers
        world.publish()
        raw = dict(world.write_preset(place.root).raw)
        address = place.world.site.add(f"/f/headers-{version}.tar.gz", other)
        sources = {
            **raw["sources"],
            "headers": {"urls": [address], "sha256": sha256_bytes(other), "version": "1.2"},
            "opencv": {
                **raw["sources"]["opencv"],
                "folder": "cv",
                "sha256": sha256_bytes(world.opencv),
            },
        }
        place.preset = world.write_preset(place.root, sources=sources)
        if locked:
            options = Options(update=True, quiet=True)
            lock_only.pin(place.preset, place.project, Network(retries=0), options)
        if body is None:
            place.sync()
            continue
        place.asked()
        with pytest.raises(CompatibilityError) as error:
            place.sync()
        (fault,) = error.value.faults
        found = {"ffmpeg": "5.0.3", "opencv": "4.8.0", "headers": "1.3"}[source]
        assert values_of(fault.problem)["found"] == found
        assert not place.artifacts.exists()


def test_option_whose_library_is_missing_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The base images of this world are no archives.
    monkeypatch.setattr("gapforge.sync.sync.read_layout", lambda folder: folder)
    monkeypatch.setattr("gapforge.sync.sync.read_files", lambda layout: ImageFiles({}))
    shutil.copytree(ROOT / "components", place.root / "components")
    place.world.debs = {}
    place.world.ffmpeg = tar_gz({"ffmpeg-5.1.9/RELEASE": "5.1.9\n"})
    place.world.publish()
    raw = dict(place.world.write_preset(place.root).raw)
    configure = [*raw["ffmpeg"]["configure"], "--enable-zlib"]
    ffmpeg = {**raw["ffmpeg"], "configure": configure}
    sources = {"ffmpeg": raw["sources"]["ffmpeg"]}
    place.preset = place.world.write_preset(place.root, ffmpeg=ffmpeg, opencv=None, sources=sources)
    with pytest.raises(ResolveError) as error:
        place.sync()
    (fault,) = error.value.faults
    assert values_of(fault.problem)["file"] == "zlib.h"
    assert not place.artifacts.exists()


def test_wrong_bytes_reach_no_artifact(place: Place) -> None:
    place.world.site.paths["/f/headers.tar.gz"].body = b"tampered"
    with pytest.raises(FetchError) as error:
        place.sync()
    assert [f.where for f in error.value.faults] == ["headers.tar.gz"]
    assert not place.artifacts.exists() and not place.project.lock_file(NAME).exists()
    assert not Store(place.project.store).has(sha256_bytes(b"tampered"))


GATED = {
    "urls": ["http://127.0.0.1:9/TensorRT-8.6.1.6.tar.gz"],
    "sha256": sha256_bytes(noise("trt", 5000)),
    "size": 5000,
    "version": "8.6.1.6",
    "gated": "log in at NVIDIA and accept the licence",
}


def gated(place: Place, **changes: Any) -> None:
    raw = json.loads((place.root / "presets" / f"{NAME}.json").read_text())
    raw["sources"]["tensorrt"] = {**GATED, **changes}
    raw["tensorrt"] = {"version": "8.6.1.6", "form": "tar"}
    place.preset = place.world.write_preset(
        place.root, sources=raw["sources"], tensorrt=raw["tensorrt"]
    )


def test_gated_download_is_reported_first(place: Place) -> None:
    gated(place)
    with pytest.raises(GatedError) as error:
        place.sync()
    said = error.value.render()
    for part in (
        "TensorRT-8.6.1.6.tar.gz",
        "8.6.1.6",
        GATED["sha256"],
        "5000 bytes",
        GATED["urls"][0],
        "accept the licence",
        f"./deps_sync.sh {NAME} --from",
    ):
        assert part in said
    assert place.asked() == []


def test_gated_download_answers_with_page(place: Place) -> None:
    url = place.world.site.add(
        "/TensorRT-8.6.1.6.tar.gz", b"<!doctype html>log in", content_type="text/html"
    )
    gated(place, urls=[url])
    with pytest.raises(GatedError) as error:
        place.sync()
    assert "web page" in error.value.render()


@pytest.mark.parametrize("name", ["TensorRT-8.6.1.6.tar.gz", "sub/renamed by the browser (1).gz"])
def test_provided_file_is_found(place: Place, tmp_path: Path, name: str) -> None:
    gated(place)
    file = tmp_path / "downloads" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(noise("trt", 5000))
    place.sync(provided=tmp_path / "downloads")
    entry = next(e for e in place.lock().entries if e.kind == "tensorrt")
    assert entry.path == "tensorrt/TensorRT-8.6.1.6.tar.gz"
    assert file.exists()
    place.lose(entry.path)
    place.sync(provided=tmp_path / "downloads")
    assert (place.artifacts / entry.path).read_bytes() == noise("trt", 5000)


@pytest.mark.parametrize("body", [b"<html>log in</html>", noise("trt", 4999), noise("other", 5000)])
def test_wrong_provided_file_is_reported(place: Place, tmp_path: Path, body: bytes) -> None:
    gated(place)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "TensorRT-8.6.1.6.tar.gz").write_bytes(body)
    with pytest.raises(FetchError) as error:
        place.sync(provided=tmp_path / "downloads")
    assert "downloads/TensorRT-8.6.1.6.tar.gz" in error.value.render()


def test_local_repository_is_no_artifact(place: Place) -> None:
    body = noise("repo", 3000)
    url = place.world.site.add("/f/nv-tensorrt-local-repo_1_amd64.deb", body)
    raw = json.loads((place.root / "presets" / f"{NAME}.json").read_text())
    raw["sources"]["tensorrt"] = {"urls": [url], "sha256": sha256_bytes(body)}
    place.world.debs["libnvinfer8"] = "8.6.1.6-1+cuda11.8"
    place.world.publish()
    place.preset = place.world.write_preset(
        place.root,
        sources=raw["sources"],
        tensorrt={
            "version": "8.6.1.6",
            "form": "deb",
            "builder": ["libnvinfer-dev"],
            "runtime": ["libnvinfer8=8.6.1.6-1+cuda11.8"],
        },
    )
    place.sync()
    paths = [e.path for e in place.lock().entries]
    assert "debs/libnvinfer8_8.6.1.6-1+cuda11.8_amd64.deb" in paths
    assert not [p for p in paths if "local-repo" in p]
    assert "closure gcc libz libnvinfer-dev" in place.calls
    assert "closure libz libnvinfer8=8.6.1.6-1+cuda11.8" in place.calls


def test_trust_on_first_use(place: Place) -> None:
    url = place.world.site.add("/f/nohash.tar", b"first")
    raw = json.loads((place.root / "presets" / f"{NAME}.json").read_text())
    raw["sources"]["nohash"] = {"urls": [url], "sha256": None, "trust": "first-use"}
    place.preset = place.world.write_preset(place.root, sources=raw["sources"])
    place.sync()
    entry = next(e for e in place.lock().entries if e.name == "nohash")
    assert (entry.trust, entry.sha256) == ("first-use", sha256_bytes(b"first"))
    place.world.site.paths["/f/nohash.tar"].body = b"other"
    place.lose(entry.path)
    with pytest.raises(FetchError) as error:
        place.sync()
    assert sha256_bytes(b"first") in error.value.render()
    assert "~ source nohash" in "\n".join(place.sync(update=True).changes.lines())


def test_pip_of_preset_stays_in_requirements(place: Place) -> None:
    place.world.wheels["pip"] = "24.2"
    place.world.publish()
    place.sync()
    assert "pip==24.2" in (place.artifacts / "requirements.txt").read_text()
    before = tree(place.artifacts)
    place.lose("requirements.txt")
    place.sync()
    assert tree(place.artifacts) == before


def test_offline_sync_with_missing_file(place: Place) -> None:
    place.sync()
    place.lose("wheels/beta-2.0-py3-none-any.whl")
    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        place.sync(offline=True)


def test_dry_run_needs_no_network(place: Place) -> None:
    assert locks.load_matching(place.project.lock_file(NAME), place.preset) is None
    before = download_preview.of_preset(place.preset, known_sizes.read_known_sizes(place.project))
    assert any("source package ffmpeg" in item.where[0] for item in before.items)
    place.sync()
    place.lose("sources/headers.tar.gz")
    place.asked()
    lock = locks.load_matching(place.project.lock_file(NAME), place.preset)
    assert lock is not None
    known = known_sizes.read_known_sizes(place.project)
    shown = download_preview.preview(place.preset, lock, known)
    assert [item.name for item in shown.items if not item.stored] == ["sources/headers.tar.gz"]
    assert place.asked() == []


def test_two_sources_with_one_path(place: Place) -> None:
    raw = json.loads((place.root / "presets" / f"{NAME}.json").read_text())
    raw["sources"]["again"] = raw["sources"]["headers"]
    place.preset = place.world.write_preset(place.root, sources=raw["sources"])
    with pytest.raises(FetchError, match=r"sources/headers\.tar\.gz"):
        place.sync()


def test_private_github_source_is_synced_and_the_lock_has_no_token(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way of a token: .env, sync, lock and artifacts."""
    with github_site() as site:
        body = noise("headers", place.world.size)
        address = site.asset("v1", "headers.tar.gz", body)
        raw = json.loads((place.root / "presets" / f"{NAME}.json").read_text())
        sources = {**raw["sources"], "headers": {**raw["sources"]["headers"], "urls": [address]}}
        place.preset = place.world.write_preset(place.root, sources=sources)
        (place.root / ".env").write_text(f"GITHUB_TOKEN={GITHUB_TOKEN}\n")
        (place.root / ".env").chmod(0o600)
        monkeypatch.delenv("GITHUB_TOKEN", raising=False)
        network = Network(retries=0, github=site.service()).with_credentials(place.root / ".env")
        pinned = lock_only.pin(place.preset, place.project, network, Options(quiet=True)).lock
        sizes = {entry.path: entry.size for entry in pinned.entries}
        assert sizes["sources/headers.tar.gz"] == len(body), "the API states the size"
        outcome = syncing.sync(place.preset, place.project, network, Options(quiet=True))
    assert outcome.lock.unresolved == ()
    assert (place.artifacts / "sources/headers.tar.gz").read_bytes() == body
    places = [place.root / "artifacts", place.root / "presets", place.root / ".gapforge"]
    files = [file for folder in places for file in folder.rglob("*") if file.is_file()]
    assert files and not [file for file in files if GITHUB_TOKEN.encode() in file.read_bytes()]


def test_sync_verb_reads_the_credentials_of_the_env_file(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    monkeypatch.delenv("REGISTRY_LOGINS", raising=False)
    monkeypatch.setattr(read_inputs, "check_project", lambda *words: None)  # no components here
    monkeypatch.chdir(place.root)
    env = place.root / ".env"
    seen: list[str] = []

    def sync(preset: Preset, project: Project, network: Network, options: Options) -> Outcome:
        seen.append(network.github.token)
        return syncing_sync(preset, project, network, options)

    syncing_sync = syncing.sync
    monkeypatch.setattr(syncing, "sync", sync)
    arguments = argparse.Namespace(
        presets=[NAME],
        all=False,
        update=False,
        lock_only=False,
        dry_run=False,
        provided=None,
        json=True,
    )
    for text, mode, warned in (("GITHUB_TOKEN=canary-1\n", 0o644, True), ("", 0o644, False)):
        env.write_text(text)
        env.chmod(mode)
        assert sync_verb.run(arguments, place.project) == 0
        assert (".env" in capsys.readouterr().err) is warned
    assert seen == ["canary-1", ""]
    env.write_text("GITHUB_TOKEN='canary 1'\n")
    with pytest.raises(SecretError) as caught:
        sync_verb.run(arguments, place.project)
    assert "canary" not in caught.value.render() and seen == ["canary-1", ""]


def test_wheels_are_resolved_for_the_full_python(place: Place) -> None:
    place.sync()
    assert [call for call in place.calls if call.startswith("wheels")] == ["wheels 3.11.2"]
    assert FakeProof.pythons == ["3.11.2"]


def test_wheels_follow_the_python_of_the_packages(place: Place) -> None:
    place.world.debs["python3.11"] = "3.11.9-1"
    place.world.publish()
    raw = {**place.preset.raw["apt"]}
    raw["builder"], raw["runtime"] = ["gcc", "python3.11"], ["libz", "python3.11"]
    place.preset = place.world.write_preset(place.root, apt=raw)
    place.sync()
    asked = [call for call in place.calls if call.startswith("wheels")]
    assert asked == ["wheels 3.11.2", "wheels 3.11.9"]
    assert FakeProof.pythons == ["3.11.2", "3.11.9"]


def test_unknown_python_is_resolved_once_it_is_known(place: Place) -> None:
    place.preset = place.world.write_preset(
        place.root, python={"version": "3.12", "packages": ["alpha"]}
    )
    with pytest.raises(ResolveError) as error:
        place.sync()
    assert_error(error.value, ResolveError, where=["python3.12"] * 2, python="3.12")
    assert not [call for call in place.calls if call.startswith("wheels")]
    place.world.python, place.world.debs["python3.12"] = "", "3.12.7-1"
    place.world.publish()
    both = {"builder": ["python3.12"], "runtime": ["python3.12"], "sources": []}
    place.preset = place.world.write_preset(
        place.root, python={"version": "3.12", "packages": ["alpha"]}, apt=both
    )
    place.sync()
    assert [call for call in place.calls if call.startswith("wheels")] == ["wheels 3.12.7"]


def test_images_with_two_pythons_are_refused(place: Place) -> None:
    place.world.debs["python3.11"] = "3.11.9-1"
    place.world.publish()
    only = {"builder": ["python3.11"], "runtime": ["libz"], "sources": []}
    place.preset = place.world.write_preset(place.root, apt=only)
    with pytest.raises(ResolveError) as error:
        place.sync()
    assert_error(error.value, ResolveError, where=["builder", "runtime"], python="3.11")


def test_wheel_that_the_site_refuses_is_refused(place: Place) -> None:
    FakeProof.refused = ("beta",)
    with pytest.raises(ResolveError) as error:
        place.sync()
    assert [f.where for f in error.value.faults] == ["wheels/beta-2.0-py3-none-any.whl"]
    assert not place.artifacts.exists() and not place.project.lock_file(NAME).exists()
    assert not [call for call in place.calls if call.startswith(("base", "apt"))], "too late"


def test_lock_of_earlier_is_proved_too(place: Place) -> None:
    place.sync()
    FakeProof.refused = ("beta",)
    with pytest.raises(ResolveError):
        place.sync()
