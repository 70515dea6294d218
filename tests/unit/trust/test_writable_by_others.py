"""A list of trusted signers that others can change is not believed."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gapforge.base.errors import TrustError
from gapforge.base.project import Project
from gapforge.trust import trusted_signers
from gapforge.trust.writable_by_others import _own_group, writable_by_others

ME, OTHER = os.geteuid(), 54321


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "settings").mkdir(parents=True, mode=0o755)
    (tmp_path / "home" / "settings" / "list").write_text("")
    (tmp_path / "home" / "settings" / "list").chmod(0o644)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("place", "mode", "safe"),
    [
        ("settings/list", 0o600, True),
        ("settings/list", 0o644, True),
        ("settings/list", 0o664, False),
        ("settings/list", 0o646, False),
        ("settings", 0o777, False),
        ("settings", 0o775, False),
        ("settings", 0o1777, True),
        (".", 0o757, False),
        ("..", 0o777, True),  # beyond the home folder, as OpenSSH judges
    ],
)
def test_modes_of_list_and_folders(
    home: Path, place: str, mode: int, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = SimpleNamespace(gr_name="everybody", gr_mem=["alice", "bob"])
    monkeypatch.setattr(grp, "getgrgid", lambda number: group)
    monkeypatch.setattr("gapforge.trust.writable_by_others._own_group", lambda *ids: False)
    path = (home / place).resolve()
    path.chmod(mode)
    file = home / "settings" / "list"
    found = writable_by_others(file, home)
    assert (found is None) == safe
    assert safe or (found is not None and found[0] == path)
    monkeypatch.setenv("GAPFORGE_TRUST", str(file))
    monkeypatch.setenv("HOME", str(home))
    project = Project(home.parent / "p", home.parent / "p" / "artifacts")
    if safe:
        assert trusted_signers.load(project).signers == ()
    else:
        with pytest.raises(TrustError) as error:
            trusted_signers.load(project)
        assert [fault.where for fault in error.value.faults] == [str(path)]


def test_link_is_judged_by_both_folders(home: Path) -> None:
    away = home / "away"
    away.mkdir(mode=0o755)
    (away / "link").symlink_to(home / "settings" / "list")
    assert writable_by_others(away / "link", home) is None
    away.chmod(0o777)
    assert writable_by_others(away / "link", home) is not None
    away.chmod(0o755)
    (home / "settings").chmod(0o777)
    assert writable_by_others(away / "link", home) is not None


@pytest.mark.skipif(ME != 0, reason="giving files away needs root")
def test_owner_is_root_the_user_or_the_caller_of_sudo(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "settings" / "list"
    monkeypatch.delenv("SUDO_UID", raising=False)
    for path in (file, file.parent):
        os.chown(path, OTHER, OTHER)
        assert writable_by_others(file, home) is not None
        monkeypatch.setenv("SUDO_UID", str(OTHER))
        monkeypatch.setenv("SUDO_GID", str(OTHER))
        assert writable_by_others(file, home) is None
        monkeypatch.delenv("SUDO_UID")
        os.chown(path, 0, 0)


@pytest.mark.parametrize(
    ("group", "members", "safe"),
    [
        ("alice", [], True),
        ("alice", ["alice"], True),
        ("alice", ["bob"], False),
        ("staff", [], False),
    ],
)
def test_own_group_of_a_user_may_write(
    home: Path, monkeypatch: pytest.MonkeyPatch, group: str, members: list[str], safe: bool
) -> None:
    user = SimpleNamespace(pw_name="alice")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: user)
    monkeypatch.setattr(
        grp, "getgrgid", lambda number: SimpleNamespace(gr_name=group, gr_mem=members)
    )
    monkeypatch.setattr(os, "stat", as_user(1000))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (home / "settings" / "list").chmod(0o664)
    assert (writable_by_others(home / "settings" / "list", home) is None) == safe


@pytest.mark.parametrize(
    ("group", "user", "own"),
    [
        (0, 0, True),  # root's, also where no name is known
        (7, 0, False),
        (7, 7, False),  # numbers without names
        (1000, 1000, True),
        (50, 1000, False),
        (60, 1000, False),
    ],
)
def test_group_is_a_users_own_if_it_has_the_name(
    monkeypatch: pytest.MonkeyPatch, group: int, user: int, own: bool
) -> None:
    groups = {1000: "alice", 50: "aaa", 60: "staff"}
    monkeypatch.setattr(
        pwd, "getpwuid", lambda number: SimpleNamespace(pw_name={1000: "alice"}[number])
    )
    monkeypatch.setattr(
        grp, "getgrgid", lambda number: SimpleNamespace(gr_name=groups[number], gr_mem=[])
    )
    assert _own_group(group, user) is own


def as_user(number: int) -> Callable[..., os.stat_result]:
    """Return os.stat for a machine where everything belongs to this user and group."""
    real = os.stat

    def stat(path: object, **more: object) -> os.stat_result:
        fields = list(real(path, **more))  # type: ignore[call-overload]
        fields[4] = fields[5] = number
        return os.stat_result(fields)

    return stat


def test_list_that_cannot_be_examined_is_not_absent(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "settings" / "list"
    monkeypatch.setenv("GAPFORGE_TRUST", str(file))
    project = Project(home / "p", home / "p" / "artifacts")
    for name in ("lstat", "stat"):
        real = getattr(os, name)

        def refused(path: object, *words: object, real: object = real, **more: object) -> object:
            if str(path) == str(file):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *words, **more)  # type: ignore[operator]

        monkeypatch.setattr(os, name, refused)
    with pytest.raises(TrustError):
        trusted_signers.load(project)
    with pytest.raises(TrustError):
        trusted_signers.read(file)


@pytest.mark.parametrize("variable", ["GAPFORGE_TRUST", "XDG_CONFIG_HOME"])
@pytest.mark.parametrize("linked", [False, True])
def test_list_in_artifacts_outside_the_project_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, linked: bool
) -> None:
    project = Project(home / "project", home.parent / "stick" / "artifacts")
    settings = project.artifacts / "settings"
    (settings / "gapforge").mkdir(parents=True)
    (settings / "gapforge" / "allowed_signers").write_text("")
    if linked:
        (home / "link").symlink_to(settings)
        settings = home / "link"
    listed = settings / "gapforge" / "allowed_signers"
    named = listed if variable == "GAPFORGE_TRUST" else settings
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv(variable, str(named))
    with pytest.raises(TrustError) as error:
        trusted_signers.load(project)
    assert error.value.message.values["file"] == listed  # type: ignore[attr-defined]
