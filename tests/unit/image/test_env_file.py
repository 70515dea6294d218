"""`.env`: read exactly, kept to the named keys, never shown, never left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base.errors import SecretError
from gapforge.image import env_file
from gapforge.image.env_file import SecretSet, load, parse
from gapforge.model import preset as presets
from gapforge.model.preset import Secret

TOKEN, BUILD = (
    Secret("XAIVA_LICENSE_TOKEN", "secret", False),
    Secret("XAIVA_BUILD_TOKEN", "build-arg", False),
)
CANARY = "canary-5f2d9c71"


def values(text: str) -> dict[str, str]:
    found, faults = parse(text.encode())
    assert faults == []
    return found


def faults(data: bytes | str) -> list[str]:
    found = parse(data if isinstance(data, bytes) else data.encode())[1]
    return [f"{fault.where.rsplit('line ', 1)[1]}: {fault.problem}" for fault in found]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("K=plain", "plain"),
        ("  export   K=plain", "plain"),
        ("K = spaced  ", "spaced"),
        ("K=", ""),
        ("K= # only a comment", ""),
        ("K=a b # comment", "a b"),
        ("K=a#b", "a#b"),
        ("K=a=b==", "a=b=="),
        ("K=$HOME `id` $(id)", "$HOME `id` $(id)"),
        ("K='a # b' # c", "a # b"),
        (r"K='a\n$x'", r"a\n$x"),
        (r'K="a\n\t\"\\\$x"', 'a\n\t"\\$x'),
        ('K="a\n  b\n"', "a\n  b\n"),
        ("K='-----BEGIN\nabc=\n-----END'", "-----BEGIN\nabc=\n-----END"),
        ('K=""', ""),
        ("K=비밀", "비밀"),
        ("K=it's", "it's"),
    ],
)
def test_forms(line: str, value: str) -> None:
    assert values(f"# c\n\n{line}\nOTHER=1\n") == {"K": value, "OTHER": "1"}


def test_windows_files() -> None:
    assert parse(b"\xef\xbb\xbfA=1\r\n\r\nB='x\r\ny'\r\n") == ({"A": "1", "B": "x\ny"}, [])


def test_every_fault_with_its_line() -> None:
    text = 'A=1\nnonsense\n1X=2\nA=3\nB="x" y\nC="\\q"\nA B=1\n=1\nD=x\x07\nE="open\nF=1\n'
    assert [found.split(":")[0] for found in faults(text)] == [
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
    ]
    assert "never closed" in faults(text)[-1]
    assert (
        parse(text.encode())[0]["F"] == "1"
    )  # what follows an open quote is looked at all the same


def test_not_utf8_names_the_line() -> None:
    assert faults(b"A=1\nB=\xff\xfe\n") == ["2: is not UTF-8 text"]


@given(st.text(max_size=60))
def test_no_fault_shows_the_file(text: str) -> None:
    secret = "S3CR3T"
    for line in (
        f"{text}{secret}",
        f'K="{secret}',
        f"K='a'{secret}",
        f'K="\\q{secret}"',
        f"A {secret}=1",
        f"{secret}-x=1",
    ):
        for fault in parse(line.encode())[1]:
            assert secret not in fault.lines()


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), max_size=40))
def test_single_quotes_keep_every_text(text: str) -> None:
    text = text.replace("'", "")
    assert values(f"K='{text}'\nL=1\n") == {"K": text, "L": "1"}


@given(st.binary(max_size=120))
def test_any_bytes_give_a_result(data: bytes) -> None:
    parse(data)


def test_only_named_keys_are_kept(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        f"XAIVA_LICENSE_TOKEN={CANARY}\nAWS_SECRET=other\nXAIVA_BUILD_TOKEN=\nXAIVA_MEDIA_SOURCE=/src\n"
    )
    file.chmod(0o600)
    got = load(file, [TOKEN, BUILD], environ={})
    assert got.values == {"XAIVA_LICENSE_TOKEN": CANARY}
    assert got.settings == {"XAIVA_MEDIA_SOURCE": "/src"}
    assert got.warnings == ()
    assert CANARY not in repr(got) and "other" not in repr(got)


def test_environment_beats_the_file_unless_empty(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "XAIVA_LICENSE_TOKEN=from-file\nXAIVA_BUILD_TOKEN=from-file\nXAIVA_MEDIA_SOURCE=/file\n"
    )
    environ = {
        "XAIVA_LICENSE_TOKEN": "from-env",
        "XAIVA_BUILD_TOKEN": "",
        "XAIVA_MEDIA_SOURCE": "/env",
    }
    got = load(file, [TOKEN, BUILD], environ=environ)
    assert got.values == {"XAIVA_LICENSE_TOKEN": "from-env", "XAIVA_BUILD_TOKEN": "from-file"}
    assert got.origin == {"XAIVA_LICENSE_TOKEN": "environment", "XAIVA_BUILD_TOKEN": ".env"}
    assert got.settings == {"XAIVA_MEDIA_SOURCE": "/env"}


def test_missing_file_is_fine_until_a_key_is_required(tmp_path: Path) -> None:
    assert load(tmp_path / ".env", [TOKEN], environ={}).values == {}
    needed = [Secret("A", "secret", True), Secret("B", "build-arg", True), TOKEN]
    with pytest.raises(SecretError) as error:
        load(tmp_path / ".env", needed, environ={})
    assert error.value.exit_code == 14
    assert [fault.where for fault in error.value.faults] == ["A", "B"]
    assert ".env.template" in error.value.hint
    (tmp_path / ".env").write_text("A=\nB=x\n")
    with pytest.raises(SecretError) as error:
        load(tmp_path / ".env", needed, environ={})
    assert [fault.where for fault in error.value.faults] == ["A"]


def test_unusable_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(SecretError, match="is a folder"):
        load(tmp_path / ".env", [TOKEN], environ={})
    (tmp_path / "bad").write_text(f"oops {CANARY}\nX=1\nX=2\n")
    with pytest.raises(SecretError) as error:
        load(tmp_path / "bad", [TOKEN], environ={})
    assert len(error.value.faults) == 2 and CANARY not in error.value.render()


def test_warns_of_readable_and_tracked_files(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\n")
    file.chmod(0o644)
    assert len(env_file.file_warnings(file)) == 1 and "0644" in env_file.file_warnings(file)[0]
    file.chmod(0o600)
    assert env_file.file_warnings(file) == []
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert env_file.file_warnings(file) == []
    subprocess.run(["git", "-C", str(tmp_path), "add", "-f", ".env"], check=True)
    assert (
        len(env_file.file_warnings(file)) == 1
        and "tracked by git" in env_file.file_warnings(file)[0]
    )


def test_no_git_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / ".env"
    file.touch(mode=0o600)
    assert env_file.file_warnings(file) == []


def made(**values: str) -> SecretSet:
    return SecretSet((TOKEN, BUILD), values)


def test_files_are_private_and_gone_afterwards(storage: Path) -> None:
    got = made(XAIVA_LICENSE_TOKEN=f"{CANARY}\nline", XAIVA_BUILD_TOKEN="arg")
    with got.files() as files:
        assert list(files) == ["XAIVA_LICENSE_TOKEN"]
        file = files["XAIVA_LICENSE_TOKEN"]
        assert file.read_bytes() == f"{CANARY}\nline".encode()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert storage in file.parents
    assert list(storage.iterdir()) == []


def test_files_are_gone_after_an_error(storage: Path) -> None:
    with pytest.raises(KeyboardInterrupt), made(XAIVA_LICENSE_TOKEN=CANARY).files():
        raise KeyboardInterrupt
    assert list(storage.iterdir()) == []


def test_dry_and_empty_write_nothing(storage: Path) -> None:
    with made(XAIVA_LICENSE_TOKEN=CANARY).files(dry=True) as files:
        assert list(files) == ["XAIVA_LICENSE_TOKEN"] and not files["XAIVA_LICENSE_TOKEN"].exists()
        assert list(storage.iterdir()) == []
    with made(XAIVA_BUILD_TOKEN=CANARY).files() as files:
        assert files == {} and list(storage.iterdir()) == []


def test_what_a_killed_build_left_is_removed_and_a_running_one_kept(
    storage: Path, root: Path
) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(root / "src")!r})
        from gapforge.image.env_file import SecretSet
        from gapforge.model.preset import Secret
        with SecretSet((Secret("K", "secret", False),), {{"K": "left"}}).files() as files:
            print(files["K"], flush=True)
            time.sleep(60)
    """)
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        paths = [Path(child.stdout.readline().strip()) for child in children]  # type: ignore[union-attr]
        assert all(path.read_text() == "left" for path in paths)
        children[0].kill()
        children[0].wait()
        assert paths[0].exists()
        with made(XAIVA_LICENSE_TOKEN=CANARY).files():
            assert not paths[0].parent.exists()
            assert paths[1].exists()
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()  # type: ignore[union-attr]


def test_termination_removes_the_files(storage: Path, root: Path) -> None:
    """As the command line does it: SIGTERM unwinds like Ctrl-C."""
    script = textwrap.dedent(f"""
        import signal, sys, time
        sys.path.insert(0, {str(root / "src")!r})
        from gapforge.image.env_file import SecretSet
        from gapforge.cli import main
        from gapforge.model.preset import Secret
        signal.signal(signal.SIGTERM, main._terminate)
        with SecretSet((Secret("K", "secret", False),), {{"K": "left"}}).files() as files:
            print(files["K"], flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    path = Path(child.stdout.readline().strip())  # type: ignore[union-attr]
    assert path.exists()
    child.send_signal(signal.SIGTERM)
    child.wait(20)
    child.stdout.close()  # type: ignore[union-attr]
    assert list(storage.iterdir()) == []


def test_a_folder_of_somebody_else_is_left_alone(storage: Path) -> None:
    alien = storage / "gapforge-secrets-alien"
    alien.mkdir()
    (alien / "file").write_text("x")
    env_file.remove_stale(storage)
    assert (alien / "file").exists()


def test_redactions_cover_lines_and_come_longest_first() -> None:
    got = made(
        XAIVA_LICENSE_TOKEN="first line\n  second line\n", XAIVA_BUILD_TOKEN="second line too"
    )
    assert set(got.redactions) >= {"first line", "second line", "second line too"}
    assert list(got.redactions) == sorted(got.redactions, key=lambda text: (-len(text), text))


def test_template_is_valid_and_names_the_keys_of_every_preset(root: Path) -> None:
    found, wrong = parse((root / ".env.template").read_bytes())
    assert wrong == []
    for name in presets.names(root / "presets"):
        for secret in presets.find(root / "presets", name).application.secrets:
            assert secret.key in found, f"{name}: {secret.key} is not in .env.template"
    assert "XAIVA_MEDIA_SOURCE" in found and not any(found.values())


def test_template_is_in_git_and_env_is_not(root: Path) -> None:
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    ignored = subprocess.run(["git", "-C", str(root), "check-ignore", "-q", ".env"], check=False)
    assert ignored.returncode == 0


def test_storage_prefers_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    expected = (
        Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(env_file.tempfile.gettempdir())
    )
    assert env_file.secret_storage() == expected
