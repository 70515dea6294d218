"""Locks without the bytes: what is pinned, what stays open and why, and how a partial lock becomes a whole one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base import process
from gapforge.base.errors import CompatibilityError, FetchError, LockError, ResolveError, UsageError
from gapforge.base.project import Project
from gapforge.cli import main as cli
from gapforge.cli.verbs import sync as sync_verb
from gapforge.image import build
from gapforge.model import lock as locks
from gapforge.model import preset_status
from gapforge.model.lock import Entry, Gap, Lock, LockedImage
from gapforge.model.preset import Preset
from gapforge.model.unresolved import unresolved
from gapforge.store import verify_artifacts
from gapforge.store.store import Store
from gapforge.sync import partial_lock, python_packages, wheel_licence
from gapforge.sync import sync as syncing
from gapforge.sync.lock_entries import check_base
from gapforge.sync.network import Network, UnansweredError
from gapforge.sync.options import Options, Outcome
from gapforge.tools.package_versions import Review, Stack, render
from servers import file_server
from syncworld import NAME, World, install, noise, sha, tree

REGISTRY = {role: {"image": f"team/base-{role}:1"} for role in ("builder", "runtime")}
BUILT = {name: {"apt-source": name, "licence": "X"} for name in ("ffmpeg", "opencv")}
TORCH = {
    "torch": "2.1.2+cu118",
    "torchvision": "0.16.2+cu118",
    "index": "https://wheels.example/cu118",
}


class Place:
    """A project in the small world whose bases are in a registry."""

    def __init__(self, root: Path, world: World, calls: list[str], **changes: Any) -> None:
        self.root, self.world, self.calls = root, world, calls
        self.project = Project(root, root / "artifacts")
        self.store = Store(self.project.store)
        world.publish()
        self.preset: Preset = world.write_preset(root, **{"base": REGISTRY, **changes})

    def pin(self, *, update: bool = False, **network: Any) -> Lock:
        self.world.publish()
        return partial_lock.pin(
            self.preset,
            self.project,
            Network(retries=0, **network),
            Options(update=update, quiet=True),
        ).lock

    def sync(self) -> Outcome:
        self.world.publish()
        return syncing.sync(self.preset, self.project, Network(retries=0), Options(quiet=True))

    def artifacts(self) -> dict[str, str]:
        return tree(self.project.artifacts_of(NAME))


@pytest.fixture
def world() -> Iterator[World]:
    with file_server() as site:
        yield World(site)


@pytest.fixture
def calls(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return install(world.site.url, monkeypatch.setattr)


@pytest.fixture
def place(tmp_path: Path, world: World, calls: list[str]) -> Place:
    return Place(tmp_path / "project", world, calls)


def gaps(lock: Lock) -> dict[str, str]:
    return {f"{gap.kind} {gap.name}": gap.reason for gap in lock.unresolved}


def test_all_that_can_be_known_is_pinned_and_nothing_is_fetched(place: Place) -> None:
    lock = place.pin()
    assert {e.path for e in lock.entries if e.kind != "image"} == {
        "wheels/alpha-1.0-py3-none-any.whl",
        "wheels/beta-2.0-py3-none-any.whl",
        "wheels/pip-24.2-py3-none-any.whl",
        "requirements.txt",
        "sources/opencv.tar.gz",
        "sources/headers.tar.gz",
    }
    assert {e.path: e.size for e in lock.of("source")}["sources/headers.tar.gz"] == 2000, (
        "a server was asked for the size"
    )
    assert gaps(lock) == {
        "deb gcc": "needs the package lists of the base images",
        "deb libz": "needs the package lists of the base images",
        "image builder": "is pinned by its manifest; its operating system is read when it is fetched",
        "image runtime": "is pinned by its manifest; its operating system is read when it is fetched",
        "source ffmpeg": "needs the APT sources of the builder's base image",
    }
    assert (
        len(lock.of("image")) == 6
        and lock.images["builder"].manifest_digest != lock.images["runtime"].manifest_digest
    )
    assert not any(place.store.has(e.sha256) for e in lock.entries)
    assert not place.project.artifacts_of(NAME).exists()
    assert locks.load(place.project.lock_file(NAME)) == lock, "what was written is what was meant"


def test_same_answers_same_bytes_and_none_of_this_machine(place: Place, tmp_path: Path) -> None:
    place.world.silent = ["registry"]
    place.pin()
    other = Place(tmp_path / "elsewhere", place.world, place.calls)
    other.pin()
    text = place.project.lock_file(NAME).read_text()
    assert text == other.project.lock_file(NAME).read_text()
    assert str(tmp_path) not in text
    assert text.count(place.world.site.url) == 1, "only the address that the preset names"


@pytest.mark.parametrize("silent", [[], ["registry"], ["default"], ["registry", "default"]])
def test_a_sync_completes_it_to_what_a_fresh_sync_makes(
    tmp_path: Path, world: World, calls: list[str], silent: list[str]
) -> None:
    fresh = Place(tmp_path / "fresh", world, calls)
    fresh.sync()
    place = Place(tmp_path / "partial", world, calls)
    world.silent = silent
    assert place.pin().unresolved
    world.silent = []
    outcome = place.sync()
    assert outcome.resolved and not outcome.lock.unresolved
    assert place.artifacts() == fresh.artifacts()
    assert place.project.lock_file(NAME).read_bytes() == fresh.project.lock_file(NAME).read_bytes()


def test_what_was_reviewed_stays_when_the_world_moves_on(place: Place) -> None:
    place.pin()
    reviewed = {e.path: e.sha256 for e in place.pin().of("wheel")}
    place.world.wheels["beta"] = "3.0"
    place.world.tool = "25.0"
    lock = place.sync().lock
    assert {e.path: e.sha256 for e in lock.of("wheel")} == reviewed
    assert "beta==2.0" in (place.project.artifacts_of(NAME) / "requirements.txt").read_text()
    place.calls.clear()
    assert place.pin() == lock and place.calls == [], "a whole lock is not asked for again"


def test_a_pinned_base_that_moved_is_refused_when_it_is_completed(place: Place) -> None:
    place.pin()
    place.world.base = "base-2"
    with pytest.raises(FetchError, match="cannot be had again") as caught:
        place.sync()
    assert "--update" in caught.value.hint


def test_only_gaps_are_asked_again(place: Place) -> None:
    place.world.silent = ["registry"]
    first = place.pin()
    assert gaps(first)["image builder"] == "registry docker.io did not answer"
    assert first.images == {} and not first.of("image")
    place.world.silent = []
    place.calls.clear()
    second = place.pin()
    assert [c for c in place.calls if not c.startswith("manifest")] == [], (
        "wheels and sources are pinned already"
    )
    assert set(second.images) == {"builder", "runtime"}
    assert [e for e in second.entries if e.kind != "image"] == list(first.entries)


def test_silent_index_leaves_the_whole_set_open(
    tmp_path: Path, world: World, calls: list[str]
) -> None:
    place = Place(tmp_path, world, calls, pytorch=TORCH)
    world.silent = ["torch"]
    lock = place.pin()
    silent = "index https://wheels.example/cu118 did not answer"
    open_ = {name: reason for name, reason in gaps(lock).items() if name.startswith("wheel")}
    assert open_ == {
        "wheel torch==2.1.2+cu118": silent,
        "wheel torchvision==0.16.2+cu118": silent,
        "wheel alpha": f"is resolved together with torch, and {silent}",
    }
    assert [e.name for e in lock.of("wheel")] == ["pip"], "a set without torch would be a guess"
    assert not any(e.path == "requirements.txt" for e in lock.entries)
    world.silent = ["default"]
    reasons = {
        reason
        for name, reason in gaps(place.pin(update=True)).items()
        if name.startswith(("wheel", "source opencv"))
    }
    assert reasons == {"the default Python index did not answer"}


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"sha256": ""}, "the default Python index tells no hash of beta-2.0-py3-none-any.whl"),
        (
            {"size": 0, "url": "{site}/nowhere"},
            "the default Python index tells no size of beta-2.0-py3-none-any.whl",
        ),
        ({"size": 0, "url": "http://127.0.0.1:9/beta"}, "the default Python index did not answer"),
    ],
)
def test_an_index_that_does_not_tell(
    place: Place, monkeypatch: pytest.MonkeyPatch, missing: dict[str, Any], said: str
) -> None:
    fields = {
        k: v.format(site=place.world.site.url) if isinstance(v, str) else v
        for k, v in missing.items()
    }
    whole = syncing.Resolver.wheels

    def wheels(self: Any, preset: Preset) -> list[python_packages.Wheel]:
        return [replace(w, **fields) if w.name == "beta" else w for w in whole(self, preset)]

    monkeypatch.setattr(syncing.Resolver, "wheels", wheels)
    lock = place.pin()
    assert gaps(lock)["wheel alpha"] == said
    assert [e.name for e in lock.of("wheel")] == ["pip"]


def test_a_size_that_the_index_leaves_out_is_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = syncing.Resolver.wheels
    monkeypatch.setattr(
        syncing.Resolver,
        "wheels",
        lambda self, preset: [replace(w, size=0) for w in whole(self, preset)],
    )
    assert {e.size for e in place.pin().of("wheel")} == {2000}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"urls": ["http://127.0.0.1:9/a.tar.gz", "http://localhost:9/a.tar.gz"]},
            "its hash is known, its size is not: 127.0.0.1 and localhost did not answer",
        ),
        (
            {"urls": ["{site}/f/gone.tar.gz"]},
            "its hash is known, its size is not: nobody states it",
        ),
        (
            {"urls": ["{site}/f/page.tar.gz"]},
            "its hash is known, its size is not: nobody states it",
        ),
        (
            {"urls": ["{site}/f/headers.tar.gz"], "gated": "sign in"},
            "its hash is known, its size is not: nobody states it",
        ),
        (
            {"urls": ["{site}/f/headers.tar.gz"], "sha256": None, "trust": "first-use"},
            "nobody published its hash: it is trusted as seen first",
        ),
    ],
)
def test_sources_that_stay_open(
    tmp_path: Path, world: World, calls: list[str], changes: dict[str, Any], said: str
) -> None:
    world.site.add("/f/headers.tar.gz", b"x" * 10)
    world.site.add("/f/page.tar.gz", b"<html>", content_type="text/html")
    urls = [url.format(site=world.site.url) for url in changes["urls"]]
    headers = {"sha256": "a" * 64, **changes, "urls": urls}
    lock = Place(tmp_path, world, calls, sources={**BUILT, "headers": headers}).pin()
    assert gaps(lock)["source headers"] == said
    assert not lock.of("source")


def test_a_size_that_the_preset_or_another_lock_knows_asks_nobody(
    tmp_path: Path, world: World, calls: list[str]
) -> None:
    headers = {"urls": ["http://127.0.0.1:9/a.tar.gz"], "sha256": "a" * 64}
    place = Place(tmp_path, world, calls, sources={**BUILT, "headers": headers})
    known = Entry("source", "sources/b.tar.gz", "a" * 64, 777, "url", "b")
    other = Lock("other", "0" * 64, {}, (known,))
    (place.root / "presets" / "other.lock.json").write_text(other.render())
    assert [e.size for e in place.pin().of("source")] == [777]


def test_bases_that_are_here_resolve_the_packages_too(place: Place) -> None:
    whole = place.sync().lock
    assert place.pin(update=True) == whole, "everything is in the store, so nothing stays open"
    gcc = next(e for e in whole.entries if e.name == "gcc")
    place.store.discard(gcc.sha256)
    lock = place.pin(update=True)
    assert gaps(lock) == {"index debs/Packages": "is made when the packages are fetched"}
    assert gcc in lock.entries
    assert place.sync().lock == whole
    place.world.silent = ["apt"]
    assert (
        gaps(place.pin(update=True))["deb gcc"]
        == "an APT source of the base image or of the preset did not answer"
    )


def test_a_base_that_is_made_here_stays_open(
    tmp_path: Path, world: World, calls: list[str]
) -> None:
    base = {"mmdebstrap": {"suite": "bookworm", "variant": "minbase"}}
    place = Place(tmp_path, world, calls, base={"builder": base, "runtime": base})
    assert gaps(place.pin())["image builder"] == "is made from packages when it is fetched"
    assert place.sync().lock.unresolved == ()


def test_what_is_wrong_is_no_gap(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, preset: Preset) -> list[python_packages.Wheel]:
        raise ResolveError("alpha: no wheel fits")

    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        place.pin(offline=True)
    monkeypatch.setattr(syncing.Resolver, "wheels", refuse)
    with pytest.raises(ResolveError, match="no wheel fits"):
        place.pin()
    assert not place.project.lock_file(NAME).exists()


def test_a_partial_lock_builds_and_verifies_nothing(place: Place) -> None:
    place.sync()
    committed, own = place.project.lock_file(NAME), place.project.artifacts_of(NAME) / "lock.json"
    text = replace(
        locks.load(committed), unresolved=(Gap("deb", "gcc", "needs something"),)
    ).render()
    committed.write_text(text)
    for project_lock in (committed, None):
        with pytest.raises(LockError, match="partial: 1 thing is not resolved") as caught:
            verify_artifacts.verify(place.project.artifacts_of(NAME), project_lock=project_lock)
        assert "deb gcc" in caught.value.render() and f"./deps_sync.sh {NAME}" in caught.value.hint
        own.unlink()
        own.write_text(text)
    with pytest.raises(LockError, match="partial"):
        build.load_lock(place.project, place.preset)


def test_readers_of_locks_tell_a_partial_one(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = place.pin()
    ready = preset_status.readiness_of(place.project, place.preset)
    assert (ready.state, ready.ready, ready.unresolved, ready.locked) == (
        "partially-locked",
        False,
        5,
        False,
    )
    assert "(5 unresolved)" in ready.label or "5개" in ready.label
    listed = unresolved(place.preset, lock)
    assert {(u.kind, u.name): u.reason for u in listed} == {
        (g.kind, g.name): g.reason for g in lock.unresolved
    }
    args = argparse.Namespace(
        presets=[NAME],
        all=False,
        dry_run=True,
        lock_only=False,
        update=False,
        provided=None,
        json=False,
    )
    (place.root / "catalog").mkdir()
    assert sync_verb.run(args, place.project) == 0
    screen = capsys.readouterr().out
    assert (
        "the lock is partial" in screen
        and "wheels/beta-2.0-py3-none-any.whl" in screen
        and "deb gcc (builder)" in screen
    )
    args.json = True
    assert sync_verb.run(args, place.project) == 0
    document = json.loads(capsys.readouterr().out)["presets"][0]
    assert (document["locked"], document["partial"]) == (False, True)
    text = render(
        [Stack(place.preset, lock)], (), {}, Review("2026-01-02", "검토", "reviewed"), "en"
    )
    assert "partial (5 open)" in text and "needs the package lists of the base images" in text
    assert "in the base image" not in text, "which packages the base has is not known"


def test_the_verb(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GAPFORGE_ROOT", str(place.root))
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert cli.main(["sync", NAME, "--lock-only", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["presets"][0]
    assert {
        "kind": "source",
        "name": "ffmpeg",
        "reason": "needs the APT sources of the builder's base image",
    } in document["unresolved"]
    assert cli.main(["sync", "--all", "--lock-only"]) == 0
    screen = capsys.readouterr().out
    assert (
        f"presets/{NAME}.lock.json" in screen
        and "needs the package lists of the base images" in screen
    )
    assert cli.main(["sync", NAME, "--lock-only", "--from", str(tmp_path)]) == UsageError.exit_code
    assert cli.main(["sync"]) == UsageError.exit_code
    assert cli.main(["sync", NAME, "--lock-only", "--dry-run"]) == UsageError.exit_code


def test_a_lock_that_does_not_say_why_it_knows_no_system_is_refused(tmp_path: Path) -> None:
    image = LockedImage("a@sha256:" + "c" * 64, "sha256:" + "c" * 64, "sha256:" + "d" * 64, "", "")
    file = tmp_path / "world.lock.json"
    file.write_text(Lock(NAME, "0" * 64, {"builder": image}, ()).render())
    with pytest.raises(LockError, match="cannot be used"):
        locks.load(file)
    lock = Lock(
        NAME,
        "0" * 64,
        {"builder": image},
        (),
        (Gap("image", "builder", "not read"), Gap("deb", "a", "b")),
    )
    file.write_text(lock.render())
    assert locks.load(file).unresolved == (
        Gap("deb", "a", "b"),
        Gap("image", "builder", "not read"),
    )


# -- the base image is the one that the preset means


@pytest.mark.parametrize(
    ("cuda", "cudnn", "has_cuda", "has_cudnn", "wrong"),
    [
        ("11.8", "8.9", "11.8.0", "8.9.6.50", []),
        ("11.8", "8", "11.8.0", "8.9.6.50", []),
        ("11.8", "8.6", "11.8.0", "8.9.6.50", ["cuDNN"]),
        ("12.1", "8.9", "12.10.0", "8.9.0", ["CUDA"]),
        ("12.1", "8.9", "11.8.0", "9.1.0", ["CUDA", "cuDNN"]),
        ("12.4", None, "12.4.1", "9.1.0", []),
        (None, None, "12.4.1", "9.1.0", []),
    ],
)
@pytest.mark.parametrize("role", ["builder", "runtime"])
def test_moved_tags_are_told(
    cuda: str | None, cudnn: str | None, has_cuda: str, has_cudnn: str, wrong: list[str], role: str
) -> None:
    preset = replace(samples.preset(), cuda=cuda or "", cudnn=cudnn or "")
    image = LockedImage("nvidia/cuda:x@sha256:1", "", "", "ubuntu", "22.04", has_cuda, has_cudnn)
    if not wrong:
        assert check_base(preset, role, image) == []
        return
    with pytest.raises(CompatibilityError) as caught:
        check_base(preset, role, image)
    assert [fault.expected.split()[0] for fault in caught.value.faults] == wrong
    assert (
        f"base.{role}" in caught.value.hint and has_cudnn in caught.value.render()
    ) or wrong == ["CUDA"]


def test_an_image_that_says_nothing_is_warned_about_once() -> None:
    preset = replace(samples.preset(), cuda="11.8", cudnn="8.9")
    image = LockedImage("plain:1", "", "", "ubuntu", "22.04")
    assert len(check_base(preset, "builder", image)) == 2
    assert check_base(preset, "runtime", image) == []


def test_sync_and_lock_refuse_a_moved_tag(tmp_path: Path, world: World, calls: list[str]) -> None:
    world.cuda, world.cudnn = "11.8.0", "8.6.0.163"
    place = Place(tmp_path, world, calls, cuda="11.8", cudnn="8.9")
    with pytest.raises(CompatibilityError, match=r"is not what presets/world\.json says"):
        place.pin()
    with pytest.raises(CompatibilityError, match=r"is not what presets/world\.json says"):
        place.sync()
    assert not place.project.lock_file(NAME).exists()
    world.cudnn = "8.9.6.50"
    other = Place(tmp_path / "other", world, calls, cuda="11.8", cudnn="8.9")
    assert other.pin().images["builder"].cudnn == "8.9.6.50"
    world.cudnn = "8.6.0.163"  # the manifest's own words were right, the package list inside is not
    with pytest.raises(CompatibilityError):
        other.sync()


# -- who did not answer

UV_SILENT = """error: Request failed after 3 retries in 5.9s
  cause: Failed to fetch: {url}
  cause: error sending request for url ({url})
  cause: client error (Connect)
  cause: dns error
"""


@pytest.mark.parametrize(
    ("url", "who"),
    [
        ("https://wheels.example/cu118/torch/", "index https://wheels.example/cu118"),
        ("https://elsewhere.example/simple/alpha/", "the default Python index"),
        ("https://wheels.example/cu118x/torch/", "the default Python index"),
    ],
)
def test_uv_says_which_index_is_silent(url: str, who: str) -> None:
    preset = samples.preset(pytorch=TORCH)
    said = process.Result(("uv",), 2, "", UV_SILENT.format(url=url))
    error = python_packages._explain(
        said, preset, ["alpha"], [], "https://user:pw@wheels.example/cu118/"
    )
    assert isinstance(error, UnansweredError)
    assert error.reason == f"{who} did not answer"
    assert error.exit_code == FetchError.exit_code


def test_licence_from_metadata_beside_the_wheel(place: Place) -> None:
    place.world.site.add(
        "/f/beta-2.0-py3-none-any.whl.metadata",
        b"Metadata-Version: 2.1\nName: beta\nLicense: MIT\n\nLicense: no\n",
    )
    assert {e.name: e.licence for e in place.pin().of("wheel")} == {
        "alpha": "",
        "beta": "MIT",
        "pip": "",
    }
    assert wheel_licence.licence_in(b"") == ""
    assert sha(noise("headers", 2000)) in place.project.lock_file(NAME).read_text()
