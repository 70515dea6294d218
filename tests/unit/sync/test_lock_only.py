"""sync --lock-only: pinned and unresolved items, and how sync completes a partial lock."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import CompatibilityError, FetchError, LockError, ResolveError, UsageError
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.cli import main as cli
from gapforge.cli.verbs import sync as sync_verb
from gapforge.image import read_inputs
from gapforge.model import lock as locks
from gapforge.model import preset_status
from gapforge.model import unresolved_item as items
from gapforge.model.lock import Entry, Lock, LockedImage
from gapforge.model.preset import Preset
from gapforge.model.to_resolve import list_to_resolve
from gapforge.model.unresolved_item import Reason, UnresolvedItem
from gapforge.store import verify_artifacts
from gapforge.store.store import Store
from gapforge.sync import lock_only, python_packages, shared_steps, wheel_licence
from gapforge.sync import sync as syncing
from gapforge.sync.network import Network
from gapforge.sync.shared_steps import Options, Outcome
from gapforge.tools.package_versions_page import Review, Stack, render
from raised_errors import assert_error, values_of
from servers import file_server
from sync_world import NAME, World, install, noise, tree

REGISTRY = {role: {"image": f"team/base-{role}:1"} for role in ("builder", "runtime")}
BUILT = {name: {"apt-source": name, "licence": "X"} for name in ("ffmpeg", "opencv")}
TORCH = {
    "torch": "2.1.2+cu118",
    "torchvision": "0.16.2+cu118",
    "index": "https://wheels.example/cu118",
}


class Place:
    """A project whose base images are in a registry."""

    def __init__(self, root: Path, world: World, calls: list[str], **changes: Any) -> None:
        self.root, self.world, self.calls = root, world, calls
        self.project = Project(root, root / "artifacts")
        self.store = Store(self.project.store)
        world.publish()
        self.preset: Preset = world.write_preset(root, **{"base": REGISTRY, **changes})

    def pin(self, *, update: bool = False, **network: Any) -> Lock:
        self.world.publish()
        return lock_only.pin(
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


def reasons(lock: Lock) -> dict[str, Reason]:
    """Return why each item of the lock is unresolved: "KIND NAME" -> reason."""
    return {f"{item.kind} {item.name}": item.reason for item in lock.unresolved}


def no_answer(server: str, **more: str) -> Reason:
    return Reason(code=items.NO_ANSWER, server=server, **more)


NEEDS_LISTS = Reason(code=items.NEEDS_PACKAGE_LISTS)
MANIFEST_ONLY = Reason(code=items.MANIFEST_ONLY)


def test_lock_only_pins_without_downloading(place: Place) -> None:
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
    assert reasons(lock) == {
        "deb gcc": NEEDS_LISTS,
        "deb libz": NEEDS_LISTS,
        "image builder": MANIFEST_ONLY,
        "image runtime": MANIFEST_ONLY,
        "source ffmpeg": Reason(code=items.NEEDS_APT_SOURCES),
    }
    assert (
        len(lock.of("image")) == 6
        and lock.images["builder"].manifest_digest != lock.images["runtime"].manifest_digest
    )
    assert not any(place.store.has(e.sha256) for e in lock.entries)
    assert not place.project.artifacts_of(NAME).exists()
    assert locks.load(place.project.lock_file(NAME)) == lock


def test_lock_depends_on_answers_not_machine(place: Place, tmp_path: Path) -> None:
    place.world.silent = ["registry"]
    place.pin()
    other = Place(tmp_path / "elsewhere", place.world, place.calls)
    other.pin()
    text = place.project.lock_file(NAME).read_text()
    assert text == other.project.lock_file(NAME).read_text()
    assert str(tmp_path) not in text
    assert text.count(place.world.site.url) == 1, "only the address that the preset names"


@pytest.mark.parametrize("silent", [[], ["registry"], ["default"], ["registry", "default"]])
def test_sync_completes_partial_lock_like_fresh_sync(
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


def test_pinned_versions_stay_when_indexes_change(place: Place) -> None:
    place.pin()
    reviewed = {e.path: e.sha256 for e in place.pin().of("wheel")}
    place.world.wheels["beta"] = "3.0"
    place.world.tool = "25.0"
    lock = place.sync().lock
    assert {e.path: e.sha256 for e in lock.of("wheel")} == reviewed
    assert "beta==2.0" in (place.project.artifacts_of(NAME) / "requirements.txt").read_text()
    place.calls.clear()
    assert place.pin() == lock and place.calls == [], "a complete lock needs no request"


def test_sync_rejects_moved_base_image(place: Place) -> None:
    place.pin()
    place.world.base = "base-2"
    with pytest.raises(FetchError) as caught:
        place.sync()
    assert_error(caught.value, FetchError, role="builder", hint={"name": NAME})


def test_only_unresolved_items_are_resolved_again(place: Place) -> None:
    place.world.silent = ["registry"]
    first = place.pin()
    assert reasons(first)["image builder"] == no_answer("registry:docker.io")
    assert first.images == {} and not first.of("image")
    place.world.silent = []
    place.calls.clear()
    second = place.pin()
    assert [c for c in place.calls if not c.startswith("manifest")] == [], (
        "wheels and sources are pinned already"
    )
    assert set(second.images) == {"builder", "runtime"}
    assert [e for e in second.entries if e.kind != "image"] == list(first.entries)


def test_silent_torch_index_leaves_all_wheels_unresolved(
    tmp_path: Path, world: World, calls: list[str]
) -> None:
    place = Place(tmp_path, world, calls, pytorch=TORCH)
    world.silent = ["torch"]
    lock = place.pin()
    index = "index:https://wheels.example/cu118"
    found = {name: reason for name, reason in reasons(lock).items() if name.startswith("wheel")}
    assert found == {
        "wheel torch==2.1.2+cu118": no_answer(index),
        "wheel torchvision==0.16.2+cu118": no_answer(index),
        "wheel alpha": no_answer(index, resolved_with="torch"),
    }
    assert [e.name for e in lock.of("wheel")] == ["pip"], "a set without torch would be a guess"
    assert not any(e.path == "requirements.txt" for e in lock.entries)
    world.silent = ["default"]
    of_default = {
        reason
        for name, reason in reasons(place.pin(update=True)).items()
        if name.startswith(("wheel", "source opencv"))
    }
    assert of_default == {no_answer(items.DEFAULT_INDEX)}


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ({"sha256": ""}, items.CHECKSUM_NOT_STATED),
        ({"size": 0, "url": "{site}/nowhere"}, items.SIZE_NOT_STATED),
        ({"size": 0, "url": "http://127.0.0.1:9/beta"}, items.NO_ANSWER),
    ],
)
def test_index_without_size_or_checksum(
    place: Place, monkeypatch: pytest.MonkeyPatch, missing: dict[str, Any], code: str
) -> None:
    fields = {
        k: v.format(site=place.world.site.url) if isinstance(v, str) else v
        for k, v in missing.items()
    }
    whole = shared_steps.Resolver.wheels

    def wheels(self: Any, preset: Preset, python: str) -> list[python_packages.Wheel]:
        found = whole(self, preset, python)
        return [replace(w, **fields) if w.name == "beta" else w for w in found]

    monkeypatch.setattr(shared_steps.Resolver, "wheels", wheels)
    lock = place.pin()
    file = "" if code == items.NO_ANSWER else "beta-2.0-py3-none-any.whl"
    expected = Reason(code=code, server=items.DEFAULT_INDEX, file=file)
    assert reasons(lock)["wheel alpha"] == expected
    assert [e.name for e in lock.of("wheel")] == ["pip"]


def test_missing_size_is_requested_from_server(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shared_steps.Resolver.wheels
    monkeypatch.setattr(
        shared_steps.Resolver,
        "wheels",
        lambda self, *what: [replace(w, size=0) for w in whole(self, *what)],
    )
    assert {e.size for e in place.pin().of("wheel")} == {2000}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"urls": ["http://127.0.0.1:9/a.tar.gz", "http://localhost:9/a.tar.gz"]},
            Reason(code=items.SIZE_UNKNOWN, hosts=("127.0.0.1", "localhost")),
        ),
        ({"urls": ["{site}/f/gone.tar.gz"]}, Reason(code=items.SIZE_UNKNOWN)),
        ({"urls": ["{site}/f/page.tar.gz"]}, Reason(code=items.SIZE_UNKNOWN)),
        (
            {"urls": ["{site}/f/headers.tar.gz"], "gated": "sign in"},
            Reason(code=items.SIZE_UNKNOWN),
        ),
        (
            {"urls": ["{site}/f/headers.tar.gz"], "sha256": None, "trust": "first-use"},
            Reason(code=items.CHECKSUM_UNPUBLISHED),
        ),
    ],
)
def test_source_without_size_or_checksum(
    tmp_path: Path, world: World, calls: list[str], changes: dict[str, Any], reason: Reason
) -> None:
    world.site.add("/f/headers.tar.gz", b"x" * 10)
    world.site.add("/f/page.tar.gz", b"<html>", content_type="text/html")
    urls = [url.format(site=world.site.url) for url in changes["urls"]]
    headers = {"sha256": "a" * 64, **changes, "urls": urls}
    lock = Place(tmp_path, world, calls, sources={**BUILT, "headers": headers}).pin()
    assert reasons(lock)["source headers"] == reason
    assert not lock.of("source")


def test_size_from_another_lock_needs_no_request(
    tmp_path: Path, world: World, calls: list[str]
) -> None:
    headers = {"urls": ["http://127.0.0.1:9/a.tar.gz"], "sha256": "a" * 64}
    place = Place(tmp_path, world, calls, sources={**BUILT, "headers": headers})
    known = Entry(
        kind="source", path="sources/b.tar.gz", sha256="a" * 64, size=777, origin="url", name="b"
    )
    other = Lock(preset="other", preset_sha256="0" * 64, images={}, entries=(known,))
    (place.root / "presets" / "other.lock.json").write_text(other.render())
    assert [e.size for e in place.pin().of("source")] == [777]


def test_stored_base_images_resolve_debs(place: Place) -> None:
    whole = place.sync().lock
    assert place.pin(update=True) == whole, "everything is in the store"
    gcc = next(e for e in whole.entries if e.name == "gcc")
    place.store.discard(gcc.sha256)
    lock = place.pin(update=True)
    assert reasons(lock) == {"index debs/Packages": Reason(code=items.INDEX_NOT_MADE)}
    assert gcc in lock.entries
    assert place.sync().lock == whole
    place.world.silent = ["apt"]
    assert reasons(place.pin(update=True))["deb gcc"] == no_answer(items.APT_SOURCES)


def test_base_made_from_packages_is_unresolved(
    tmp_path: Path, world: World, calls: list[str]
) -> None:
    base = {"mmdebstrap": {"suite": "bookworm", "variant": "minbase"}}
    place = Place(tmp_path, world, calls, base={"builder": base, "runtime": base})
    assert reasons(place.pin())["image builder"] == Reason(code=items.IMAGE_NOT_MADE)
    assert place.sync().lock.unresolved == ()


def test_errors_write_no_lock(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    unresolvable = ResolveError("no wheel fits")

    def refuse(self: Any, preset: Preset, python: str) -> list[python_packages.Wheel]:
        raise unresolvable

    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        place.pin(offline=True)
    monkeypatch.setattr(shared_steps.Resolver, "wheels", refuse)
    with pytest.raises(ResolveError) as caught:
        place.pin()
    assert caught.value is unresolvable
    assert not place.project.lock_file(NAME).exists()


def test_verify_and_build_reject_partial_lock(place: Place) -> None:
    place.sync()
    committed, own = place.project.lock_file(NAME), place.project.artifacts_of(NAME) / "lock.json"
    item = UnresolvedItem("deb", "gcc", NEEDS_LISTS)
    text = replace(locks.load(committed), unresolved=(item,)).render()
    committed.write_text(text)
    for project_lock in (committed, None):
        with pytest.raises(LockError) as caught:
            verify_artifacts.verify(place.project.artifacts_of(NAME), project_lock=project_lock)
        hint = {"preset": NAME}
        assert_error(caught.value, LockError, count=1, where=["deb gcc"], hint=hint)
        own.unlink()
        own.write_text(text)
    with pytest.raises(LockError) as caught:
        read_inputs.load_lock(place.project, place.preset)
    assert_error(caught.value, LockError, count=1, where=["deb gcc"])


def test_partial_lock_is_shown_as_such(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    lock = place.pin()
    ready = preset_status.readiness_of(place.project, place.preset)
    assert (ready.state, ready.ready, ready.unresolved, ready.locked) == (
        "partially-locked",
        False,
        5,
        False,
    )
    assert values_of(ready.label) == {"unresolved": 5}
    listed = list_to_resolve(place.preset, lock)
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
    assert "wheels/beta-2.0-py3-none-any.whl" in screen and "deb gcc (builder)" in screen
    args.json = True
    assert sync_verb.run(args, place.project) == 0
    document = json.loads(capsys.readouterr().out)["presets"][0]
    assert (document["locked"], document["partial"]) == (False, True)
    text = render(
        [Stack(place.preset, lock)], (), {}, Review("2026-01-02", "검토", "reviewed"), "en"
    )
    assert NEEDS_LISTS.message() in text
    assert "in the base image" not in text, "the packages of the base image are not known"


def test_lock_only_command(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GAPFORGE_ROOT", str(place.root))
    monkeypatch.setattr(read_inputs, "check_project", lambda *words: None)  # no components here
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert cli.main(["sync", NAME, "--lock-only", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["presets"][0]
    assert {
        "kind": "source",
        "name": "ffmpeg",
        "reason": {"code": "needs-apt-sources"},
    } in document["unresolved"]
    assert cli.main(["sync", "--all", "--lock-only"]) == 0
    screen = capsys.readouterr().out
    assert f"presets/{NAME}.lock.json" in screen and NEEDS_LISTS.message() in screen
    assert cli.main(["sync", NAME, "--lock-only", "--from", str(tmp_path)]) == UsageError.exit_code
    assert cli.main(["sync"]) == UsageError.exit_code
    assert cli.main(["sync", NAME, "--lock-only", "--dry-run"]) == UsageError.exit_code


def test_unknown_system_needs_unresolved_image(tmp_path: Path) -> None:
    image = LockedImage(
        reference="a@sha256:" + "c" * 64,
        manifest_digest="sha256:" + "c" * 64,
        config_digest="sha256:" + "d" * 64,
        os_id="",
        os_version="",
    )
    file = tmp_path / "world.lock.json"
    file.write_text(
        Lock(preset=NAME, preset_sha256="0" * 64, images={"builder": image}, entries=()).render()
    )
    with pytest.raises(LockError) as caught:
        locks.load(file)
    assert [fault.where.split(": ")[1] for fault in caught.value.faults] == ["$.images.builder"]
    item = UnresolvedItem("image", "builder", MANIFEST_ONLY)
    lock = Lock(
        preset=NAME,
        preset_sha256="0" * 64,
        images={"builder": image},
        entries=(),
        unresolved=(item, UnresolvedItem("deb", "a", NEEDS_LISTS)),
    )
    file.write_text(lock.render())
    assert locks.load(file).unresolved == (UnresolvedItem("deb", "a", NEEDS_LISTS), item)


def test_sync_and_lock_only_reject_moved_tag(
    tmp_path: Path, world: World, calls: list[str]
) -> None:
    world.cuda, world.cudnn = "11.8.0", "8.6.0.163"
    place = Place(tmp_path, world, calls, cuda="11.8", cudnn="8.9")
    for attempt in (place.pin, place.sync):
        with pytest.raises(CompatibilityError) as caught:
            attempt()
        assert_error(caught.value, CompatibilityError, name=NAME)
    assert not place.project.lock_file(NAME).exists()
    world.cudnn = "8.9.6.50"
    other = Place(tmp_path / "other", world, calls, cuda="11.8", cudnn="8.9")
    assert other.pin().images["builder"].cudnn == "8.9.6.50"
    world.cudnn = (
        "8.6.0.163"  # the manifest has the right version, the package list inside another one
    )
    with pytest.raises(CompatibilityError):
        other.sync()


def test_licence_from_metadata_file_on_index(place: Place) -> None:
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
    assert sha256_bytes(noise("headers", 2000)) in place.project.lock_file(NAME).read_text()


def test_wheels_wait_for_an_unknown_python(tmp_path: Path, world: World, calls: list[str]) -> None:
    """Debian 12 has Python 3.11; which 3.12 an APT source has is known after its lists."""
    own = {"version": "3.12", "packages": ["alpha"]}
    place = Place(tmp_path / "project", world, calls, python=own)
    lock = place.pin()
    assert reasons(lock)["wheel alpha"] == NEEDS_LISTS
    assert not [call for call in calls if call.startswith("wheels")]


def test_wheels_are_pinned_for_the_python_of_the_system(place: Place, calls: list[str]) -> None:
    place.pin()
    assert "wheels 3.11.2" in calls


def test_pins_for_an_expected_python_are_made_again(
    place: Place, world: World, calls: list[str]
) -> None:
    assert {e.version for e in place.pin().of("wheel") if e.name == "alpha"} == {"1.0"}
    world.python, world.wheels["alpha"] = "3.11.9-1", "1.1"
    lock = place.sync().lock
    assert "wheels 3.11.9" in calls
    assert {e.version for e in lock.of("wheel") if e.name == "alpha"} == {"1.1"}


def test_size_of_a_wheel_in_a_folder_is_known(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a b.whl"
    file.write_bytes(b"x" * 123)
    whole = shared_steps.Resolver.wheels
    monkeypatch.setattr(
        shared_steps.Resolver,
        "wheels",
        lambda self, *what: [replace(w, size=0, url=file.as_uri()) for w in whole(self, *what)],
    )
    assert {e.size for e in place.pin().of("wheel") if e.name != "pip"} == {123}
