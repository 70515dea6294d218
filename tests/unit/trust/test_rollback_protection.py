"""The record of accepted states: which state is newer, where it is, and what it contains."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from gapforge.base import limits
from gapforge.base.errors import BusyError, TrustError
from gapforge.base.project import Project
from gapforge.trust import rollback_protection
from gapforge.trust.rollback_protection import AcceptedState, AcceptedStates
from raised_errors import assert_error

OLD, MIDDLE, NEW = (f"2025-01-0{day}T00:00:00Z" for day in (1, 2, 3))
ONE, TWO, THREE, FOUR = (digit * 64 for digit in "1234")


def states(**presets: AcceptedState) -> AcceptedStates:
    return AcceptedStates(presets)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    return Project(tmp_path / "project", tmp_path / "project/artifacts")


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared/allowed_signers"


def write_raw(file: Path, **presets: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"format": 1, "presets": presets}))


def raw(**change: Any) -> dict[str, Any]:
    return {"made": OLD, "bundle": "b", "lock": ONE, "superseded": [TWO], **change}


# -- which state is newer


def test_newer_state_is_newer_or_superseded_the_lock() -> None:
    record = states(p=AcceptedState(MIDDLE, "b", ONE))
    assert record.newer_state("p", OLD, TWO) == record.presets["p"]
    assert record.newer_state("q", OLD, TWO) is None
    assert record.newer_state("p", OLD, ONE) is None
    # With equal times it is unknown which is newer.
    assert record.newer_state("p", MIDDLE, TWO) == record.presets["p"]
    assert record.newer_state("p", NEW, TWO) is None


def test_older_state_is_accepted_only_intentionally() -> None:
    record = states(p=AcceptedState(MIDDLE, "b", ONE))
    assert record.accept("p", OLD, "a", TWO) is record
    assert record.accept("p", OLD, "a", ONE) is record
    assert record.accept("p", OLD, "a", ONE, older=True) is record
    back = record.accept("p", OLD, "a", TWO, older=True)
    assert back == states(p=AcceptedState(OLD, "a", TWO))
    forth = back.accept("p", MIDDLE, "b", ONE)
    assert forth == states(p=AcceptedState(MIDDLE, "b", ONE, (TWO,)))
    assert forth.newer_state("p", NEW, TWO) == forth.presets["p"]


def test_same_lock_in_a_newer_bundle_is_the_newest_state() -> None:
    """The lock of the state is no superseded one, and a bundle of the same moment adds nothing."""
    record = states(p=AcceptedState(MIDDLE, "b", TWO, (ONE,)))
    assert record.accept("p", MIDDLE, "c", TWO) == states(p=AcceptedState(MIDDLE, "c", TWO, (ONE,)))
    assert record.accept("p", NEW, "c", TWO) == states(p=AcceptedState(NEW, "c", TWO, (ONE,)))
    assert record.accept("p", OLD, "c", TWO, older=True) is record


def test_each_accepted_lock_supersedes_those_before() -> None:
    record = AcceptedStates()
    for made, lock in ((OLD, ONE), (MIDDLE, TWO), (NEW, THREE)):
        record = record.accept("p", made, "b", lock)
    assert record == states(p=AcceptedState(NEW, "b", THREE, (ONE, TWO)))
    # A superseded lock stays refused, however new its signature is.
    assert record.newer_state("p", "2026", ONE) == record.presets["p"]
    assert record.accept("p", "2026", "c", ONE) is record
    # Going back intentionally removes only what is accepted again.
    back = record.accept("p", OLD, "a", ONE, older=True)
    assert back == states(p=AcceptedState(OLD, "a", ONE, (TWO,)))
    assert back.accept("p", NEW, "b", THREE).presets["p"].superseded == (TWO, ONE)


def test_other_presets_stay_as_they_are() -> None:
    first = AcceptedStates().accept("p", OLD, "b", ONE)
    second = first.accept("q", NEW, "c", TWO)
    assert second == states(p=AcceptedState(OLD, "b", ONE), q=AcceptedState(NEW, "c", TWO))
    changed = second.accept("p", MIDDLE, "d", THREE)
    assert changed.presets["q"] == second.presets["q"]
    assert first == states(p=AcceptedState(OLD, "b", ONE))


def test_last_superseded_locks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback_protection, "MAX_SUPERSEDED", 2)
    record = states(p=AcceptedState(OLD, "b", THREE, (ONE, TWO)))
    assert record.accept("p", NEW, "c", FOUR).presets["p"].superseded == (TWO, THREE)
    merged = record.merge(states(p=AcceptedState(NEW, "c", FOUR)))
    assert merged.presets["p"].superseded == (TWO, THREE)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (OLD, AcceptedState(MIDDLE, "b", TWO, (FOUR, THREE, ONE))),
        (MIDDLE, AcceptedState(MIDDLE, "b", TWO, (FOUR, THREE, ONE))),
        (NEW, AcceptedState(NEW, "c", THREE, (ONE, TWO, FOUR))),
    ],
)
def test_merge_takes_the_newest_and_supersedes_the_other(
    made: str, expected: AcceptedState
) -> None:
    mine = states(p=AcceptedState(MIDDLE, "b", TWO, (ONE,)), q=AcceptedState(OLD, "q", ONE))
    theirs = states(p=AcceptedState(made, "c", THREE, (FOUR,)), r=AcceptedState(OLD, "r", ONE))
    merged = mine.merge(theirs)
    assert merged == states(p=expected, q=mine.presets["q"], r=theirs.presets["r"])
    assert list(merged.presets) == ["p", "q", "r"]
    assert mine.merge(mine) == mine


# -- where the record is


def test_record_is_beside_a_list_that_this_user_maintains(
    tmp_path: Path, project: Project, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "settings/gapforge"
    assert rollback_protection.record_file(trusted) == trusted.parent / "accepted.json"
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    assert rollback_protection.record_file(trusted) == own / "accepted.json"
    assert asked == [(trusted.parent, os.W_OK)]
    # The user's own folder may not exist yet.
    assert rollback_protection.record_file(own / "allowed_signers") == own / "accepted.json"


def test_newest_of_all_records_counts(
    tmp_path: Path, project: Project, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this user, of others who use the list, and of versions before 0.2."""
    files = (
        tmp_path / "settings/gapforge/accepted.json",
        trusted.parent / "accepted.json",
        project.store / "accepted.json",
    )
    assert rollback_protection.existing_records(project, trusted) == []
    for number, file in enumerate(files):
        write_raw(file, p=raw(made=f"2025-01-0{number + 1}T00:00:00Z", lock=str(number) * 64))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert rollback_protection.existing_records(project, trusted) == list(files)
    newest = rollback_protection.read(project, trusted).presets["p"]
    assert (newest.made, newest.lock) == (NEW, TWO)
    assert set(newest.superseded) == {"0" * 64, ONE}
    files[1].unlink()
    files[1].symlink_to(tmp_path / "absent")  # not absent: it cannot be used
    assert rollback_protection.existing_records(project, trusted) == list(files)
    with pytest.raises(TrustError) as caught:
        rollback_protection.read(project, trusted)
    assert_error(caught.value, TrustError, where=[str(files[1])])


def test_damaged_record_hides_no_other(tmp_path: Path, project: Project, trusted: Path) -> None:
    damaged, good = trusted.parent / "accepted.json", project.store / "accepted.json"
    write_raw(good, p=raw())
    damaged.write_text("{")
    with pytest.raises(TrustError) as caught:
        rollback_protection.read(project, trusted)
    assert_error(caught.value, TrustError, where=[str(damaged)])
    read = rollback_protection.read(project, trusted, skip_damaged=True)
    assert read == states(p=AcceptedState(OLD, "b", ONE, (TWO,)))
    damaged.unlink()
    damaged.mkdir()  # an error of the system, not of the contents
    with pytest.raises(TrustError) as caught:
        rollback_protection.read(project, trusted)
    assert_error(caught.value, TrustError, where=[str(damaged)])
    assert rollback_protection.read(project, trusted, skip_damaged=True) == read


def test_large_record_is_refused(
    project: Project, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = trusted.parent / "accepted.json"
    write_raw(file, p=raw())
    monkeypatch.setattr(limits, "STATE", file.stat().st_size)
    assert rollback_protection.read(project, trusted).presets
    monkeypatch.setattr(limits, "STATE", file.stat().st_size - 1)
    with pytest.raises(TrustError):
        rollback_protection.read(project, trusted)


def test_written_record_is_read_again(project: Project, trusted: Path) -> None:
    """It replaces the one of versions before 0.2."""
    write_raw(project.store / "accepted.json", p=raw())
    record = states(p=AcceptedState(NEW, "b", ONE, (TWO, THREE)), q=AcceptedState(OLD, "c", TWO))
    rollback_protection.write(project, trusted, record)
    assert rollback_protection.read(project, trusted) == record
    assert rollback_protection.existing_records(project, trusted) == [
        trusted.parent / "accepted.json"
    ]
    rollback_protection.write(project, trusted, AcceptedStates())
    assert rollback_protection.read(project, trusted) == AcceptedStates()


def test_one_change_of_the_record_at_a_time(project: Project, trusted: Path) -> None:
    changing = rollback_protection.changing
    with changing(trusted), pytest.raises(BusyError), changing(trusted):
        pass
    with changing(trusted):
        pass
    assert [file.name for file in trusted.parent.iterdir()] == [".accepted.json.lock"]


def test_home_comes_from_home_or_passwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "relative")
    known = pwd.getpwuid(os.getuid()).pw_dir
    assert rollback_protection.home_folder() == Path(known)

    def unknown(number: int) -> object:
        assert number == os.getuid()
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(TrustError) as caught:
        rollback_protection.home_folder()
    assert_error(caught.value, TrustError, where=[])
    assert "GAPFORGE_TRUST=/" in caught.value.hint
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rollback_protection.home_folder() == tmp_path
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert rollback_protection.settings_folder() == tmp_path / ".config/gapforge"


# -- what the record contains


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": 1}']
)
def test_damaged_record_is_named(project: Project, trusted: Path, text: bytes) -> None:
    file = trusted.parent / "accepted.json"
    file.write_bytes(text)
    with pytest.raises(TrustError) as caught:
        rollback_protection.read(project, trusted)
    assert_error(caught.value, TrustError, where=[str(file)])
    assert "--allow-older" in caught.value.hint


@pytest.mark.parametrize(
    "state",
    [
        raw(more=1),
        {key: value for key, value in raw().items() if key != "superseded"},
        raw(made=1),
        raw(made="2025-01-01"),
        raw(made=OLD + "\n"),
        raw(bundle=1),
        raw(lock="1" * 63),
        raw(lock=None),
        raw(superseded=[TWO, "2"]),
        raw(superseded=[1]),
        raw(superseded=None),
        [],
    ],
)
def test_record_in_another_shape_is_refused(project: Project, trusted: Path, state: Any) -> None:
    file = trusted.parent / "accepted.json"
    write_raw(file, good=raw(), bad=state)
    with pytest.raises(TrustError) as caught:
        rollback_protection.read(project, trusted)
    assert_error(caught.value, TrustError, where=[str(file)])
    write_raw(file, good=raw(), empty=raw(superseded=[]))
    assert set(rollback_protection.read(project, trusted).presets) == {"good", "empty"}


@pytest.mark.parametrize("change", [{"format": 0}, {"format": 2}, {"more": 1}])
def test_record_in_another_format_is_refused(
    project: Project, trusted: Path, change: dict[str, int]
) -> None:
    file = trusted.parent / "accepted.json"
    file.write_text(json.dumps({"format": 1, "presets": {}, **change}))
    with pytest.raises(TrustError) as caught:
        rollback_protection.read(project, trusted)
    assert_error(caught.value, TrustError, where=[str(file)])
    assert "1" in caught.value.faults[0].problem
