"""Test that written locks parse to the same data, and that locks of format 1 still work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapforge.base.errors import LockError
from gapforge.base.files import sha256_file
from gapforge.base.project import Project
from gapforge.bundle.contents import preset_contents
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model import unresolved_item as items
from gapforge.model.lock_format_1 import reason_of
from gapforge.model.preset_status import readiness_of
from gapforge.model.to_resolve import list_to_resolve
from gapforge.model.unresolved_item import Reason
from gapforge.store.verify_artifacts import verify
from raised_errors import assert_error
from samples import ROOT
from servers import file_server

OLD = ROOT / "tests" / "data" / "format-1"
COMPLETE, PARTIAL = "debian12-cpu-quickstart", "ubuntu22.04-cpu-torch2.5"
INDEX = "index:https://download.pytorch.org/whl/cpu"


def old_lock(name: str) -> Path:
    return OLD / "presets" / f"{name}.lock.json"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "presets").glob("*.lock.json")), ids=lambda p: p.name
)
def test_committed_lock_is_as_written(file: Path) -> None:
    lock = locks.load(file)
    assert lock.render() == file.read_text(encoding="utf-8")
    assert not [item for item in lock.unresolved if item.reason.code == items.OTHER]


@pytest.mark.parametrize("name", [COMPLETE, PARTIAL])
def test_format_1_lock_loads_with_same_entries(name: str) -> None:
    raw = json.loads(old_lock(name).read_text(encoding="utf-8"))
    lock = locks.load(old_lock(name))
    written = json.loads(lock.render())
    assert (raw.pop("format"), written.pop("format")) == (1, 2)
    reasons = {(i["kind"], i["name"]): i.pop("reason") for i in raw.get("unresolved", ())}
    for item in written.get("unresolved", ()):
        assert item.pop("reason") == reason_of(reasons[item["kind"], item["name"]]).to_json()
    assert written == raw


def test_complete_format_1_lock_renders_unchanged() -> None:
    text = old_lock(COMPLETE).read_text(encoding="utf-8")
    assert locks.load(old_lock(COMPLETE)).render(version=1) == text


def test_format_1_locks_give_same_results(tmp_path: Path) -> None:
    project = Project(OLD, tmp_path / "artifacts")
    complete, partial = (presets.load(OLD / "presets" / f"{n}.json") for n in (COMPLETE, PARTIAL))
    lock = locks.load_matching(old_lock(COMPLETE), complete)
    assert lock is not None and list_to_resolve(complete, lock) == []
    assert (readiness_of(project, complete).state, readiness_of(project, complete).locked) == (
        "not-synced",
        True,
    )
    lock = locks.load_matching(old_lock(PARTIAL), partial)
    assert (
        lock is not None and readiness_of(project, partial).unresolved == len(lock.unresolved) == 59
    )
    assert len(list_to_resolve(partial, lock)) == 59
    assert not lock.resolves("deb") and lock.resolves("tensorrt")
    with pytest.raises(LockError) as caught:
        lock.require_complete("x")
    assert_error(caught.value, LockError, count=59, shown="x", hint={"preset": PARTIAL})
    assert len(caught.value.faults) == 59


@pytest.mark.parametrize("version", [1, 2])
def test_artifacts_with_format_1_lock_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    from gapforge.sync import sync as syncing
    from gapforge.sync.network import Network
    from gapforge.sync.shared_steps import Options
    from sync_world import NAME, World, install  # sync without a network

    project = Project(tmp_path, tmp_path / "artifacts")
    with file_server() as site:
        world = World(site)
        install(site.url, monkeypatch.setattr)
        preset = world.write_preset(tmp_path)
        world.publish()
        lock = syncing.sync(preset, project, Network(), Options(quiet=True)).lock
    folder, committed = project.artifacts_of(NAME), project.lock_file(NAME)
    own, sums = folder / "lock.json", folder / "SHA256SUMS"
    before = sha256_file(own)
    for file in (own, sums):  # hard links into the store
        text = file.read_text(encoding="utf-8")
        file.unlink()
        file.write_text(lock.render(version=1) if file == own else text, encoding="utf-8")
    sums.write_text(sums.read_text(encoding="utf-8").replace(before, sha256_file(own)))
    committed.write_text(lock.render(version=version), encoding="utf-8")
    verify(folder, project_lock=committed, preset=preset).raise_for_faults()
    if version == 1:
        assert preset_contents(project, [preset]).presets[0].preset == NAME


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        (
            "is resolved together with torch, and index https://download.pytorch.org/whl/cpu "
            "did not answer",
            Reason(code=items.NO_ANSWER, server=INDEX, resolved_with="torch"),
        ),
        (
            "its hash is known, its size is not: github.com and ffmpeg.org did not answer",
            Reason(code=items.SIZE_UNKNOWN, hosts=("github.com", "ffmpeg.org")),
        ),
        ("its hash is known, its size is not: nobody states it", Reason(code=items.SIZE_UNKNOWN)),
        (
            "registry docker.io wants a login",
            Reason(code=items.LOGIN_REQUIRED, server="registry:docker.io"),
        ),
        (
            "the default Python index tells no hash of a-1-py3-none-any.whl",
            Reason(
                code=items.CHECKSUM_NOT_STATED,
                server=items.DEFAULT_INDEX,
                file="a-1-py3-none-any.whl",
            ),
        ),
        (
            "an APT source of the base image or of the preset did not answer",
            Reason(code=items.NO_ANSWER, server=items.APT_SOURCES),
        ),
        ("the moon is full", Reason(code=items.OTHER, text="the moon is full")),
    ],
)
def test_format_1_sentence_becomes_reason(sentence: str, reason: Reason) -> None:
    assert reason_of(sentence) == reason
    assert Reason.from_json(reason.to_json()) == reason
    arguments = (reason.file, reason.resolved_with, reason.text, *reason.hosts)
    assert all(argument in reason.message() for argument in arguments)


@pytest.mark.parametrize("reason", ["did not answer", {"code": "unknown"}, {"server": "apt"}, {}])
def test_format_2_rejects_other_reasons(tmp_path: Path, reason: object) -> None:
    raw = json.loads((ROOT / "presets" / f"{PARTIAL}.lock.json").read_text(encoding="utf-8"))
    raw["unresolved"][0]["reason"] = reason
    file = tmp_path / "x.lock.json"
    file.write_text(json.dumps(raw))
    with pytest.raises(LockError) as caught:
        locks.load(file)
    assert ["unresolved[0].reason" in fault.where for fault in caught.value.faults] == [True]


@pytest.mark.parametrize("path", ["a//b", "a/./b", "./a", "SHA256SUMS", "lock.json", "../a", "/a"])
def test_second_name_of_a_file_is_refused(path: str) -> None:
    raw = json.loads((ROOT / "presets" / f"{COMPLETE}.lock.json").read_text(encoding="utf-8"))
    locks.parse(json.dumps(raw).encode(), shown="x", name=COMPLETE)
    raw["entries"][0]["path"] = path
    with pytest.raises(LockError) as caught:
        locks.parse(json.dumps(raw).encode(), shown="x", name=COMPLETE)
    assert [fault.where for fault in caught.value.faults] == ["x: $.entries[0].path"]
