"""Programs are run with time limits, hidden secrets and clear errors."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base import process
from gapforge.base.errors import ToolError
from raised_errors import assert_error, values_of

pytestmark = pytest.mark.every_python


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_run_separates_output_and_errors() -> None:
    got = process.run(python("import sys; print('o'); print('e', file=sys.stderr)"))
    assert (got.code, got.output, got.errors) == (0, "o\n", "e\n")


def test_failure_ends_with_program_output() -> None:
    argv = python("import sys; print('why', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ToolError) as error:
        process.run(argv)
    first, last = error.value.message.splitlines()
    assert "3" in first and first.endswith(process.quoted(argv)) and last == "why"
    assert error.value.exit_code == 17
    assert process.run(python("raise SystemExit(3)"), check=False).code == 3


def test_missing_program_names_its_package() -> None:
    with pytest.raises(ToolError) as error:
        process.run(["/nonexistent/skopeo"])
    assert_error(error.value, ToolError, program="/nonexistent/skopeo", hint={"package": "skopeo"})
    assert error.value.is_missing
    with pytest.raises(ToolError):
        process.stream(["/nonexistent/x"], print)


def test_program_without_permission_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("x")
    for call in (
        lambda: process.run([str(tmp_path / "tool"), "word"]),
        lambda: process.stream([str(tmp_path / "tool"), "word"], print),
    ):
        with pytest.raises(ToolError) as error:
            call()
        assert_error(error.value, ToolError, program=str(tmp_path / "tool"))


def test_run_ends_at_time_limit() -> None:
    begun = time.monotonic()
    with pytest.raises(process.TimedOut) as error:
        sleep = python("import time; time.sleep(30) # p%40ss/w p@ss%2Fw")
        process.run(sleep, timeout=0.3, redact=["p@ss/w"])
    assert_error(error.value, process.TimedOut, program=sys.executable, timeout=0.3)
    assert str(values_of(error.value.message)["command"]).endswith("# *** ***'")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("secret", ["p@ss w/%41é", "p%40ss%20w%2F%2541%C3%A9"])
def test_secrets_are_hidden_as_addresses_spell_them(secret: str) -> None:
    shown = (
        "p@ss w/%41é",
        "p%40ss%20w%2F%2541%C3%A9",
        "p%40ss+w%2f%2541%c3%a9",
        "p@ss%20w/%41%C3%A9",
    )
    for text in shown:
        assert process.hide(f"https://u:{text}@host", [secret]) == "https://u:***@host"
    assert process.hide("a=1", ["a=1"]) == "a=1", "too short to be a secret"


def test_run_never_waits_for_terminal_input() -> None:
    assert process.run(python("import sys; print(repr(sys.stdin.read()))")).output == "''\n"
    assert process.run(python("import sys; print(sys.stdin.read())"), stdin="in").output == "in\n"


def test_environment_adds_and_removes_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GONE", "x")
    code = "import os; print(os.environ.get('GONE'), os.environ.get('NEW'))"
    assert process.run(python(code), env={"GONE": None, "NEW": "1"}).output == "None 1\n"


def test_failure_hides_secrets() -> None:
    argv = python("import sys; sys.exit('bad hunter22')")
    with pytest.raises(ToolError) as error:
        process.run([*argv, "hunter22"], redact=["hunter22"])
    shown = error.value.render()
    assert "hunter22" not in shown and "***" in shown


def test_hide_replaces_longest_secret_first() -> None:
    assert process.hide("abcdef abc abcd", ["abcd", "abcdef", "abc", ""]) == "*** abc ***"


@given(
    st.lists(
        st.text(alphabet=st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))),
        min_size=1,
    )
)
def test_quoted_command_splits_to_same_words(words: list[str]) -> None:
    assert shlex.split(process.quoted(words)) == words


def test_stream_merges_output_and_errors() -> None:
    lines: list[str] = []
    code = process.stream(
        python("import sys; print('a'); print('b', file=sys.stderr, flush=True); sys.exit(4)"),
        lines.append,
    )
    assert code == 4 and sorted(lines) == ["a", "b"]


def test_stream_feeds_standard_input() -> None:
    lines: list[str] = []

    def feed(pipe: IO[bytes]) -> None:
        pipe.write(b"x" * 300_000)

    assert (
        process.stream(python("import sys; print(len(sys.stdin.read()))"), lines.append, feed=feed)
        == 0
    )
    assert lines == ["300000"]


def test_stream_ignores_broken_pipe_of_feeder() -> None:
    def feed(pipe: IO[bytes]) -> None:
        for _ in range(100):
            pipe.write(b"x" * 100_000)

    assert process.stream(python("import sys; sys.exit(5)"), print, feed=feed) == 5


def test_stream_raises_error_of_feeder() -> None:
    def feed(pipe: IO[bytes]) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        process.stream(python("import sys; sys.stdin.read()"), print, feed=feed)


def test_interruption_ends_whole_process_group() -> None:
    """The programs that the program started end too."""
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.extend(int(word) for word in line.split())
        raise KeyboardInterrupt

    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(os.getpid(), child.pid, flush=True); time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt):
        process.stream(python(code), on_line)
    assert len(pids) == 2
    deadline = time.monotonic() + 50  # they would go on for 60 s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_end_group_kills_after_ignored_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(
        python(
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "print(1, flush=True); time.sleep(60)"
        ),
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    process.end_group(child)
    assert child.returncode == -signal.SIGKILL
    child.stdout.close()
    process.end_group(child)  # does nothing for an ended program


STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n"
)
# Starts a program that ignores SIGTERM, prints its number when it is ready, then does as asked.
PARENT = (
    "import subprocess, sys, time\n"
    f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], stdout=subprocess.PIPE,\n"
    "    stderr=subprocess.DEVNULL)\n"
    "child.stdout.readline()\n"
    "print(child.pid, flush=True)\n"
)


def ended(pid: int) -> bool:
    """Return whether a process does not run any more, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("parent_ends_first", [False, True])
def test_end_group_ends_a_grandchild_that_ignores_sigterm(
    monkeypatch: pytest.MonkeyPatch, parent_ends_first: bool
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    last = "" if parent_ends_first else "time.sleep(60)"
    child = subprocess.Popen(python(PARENT + last), start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        grandchild = int(child.stdout.readline())
    if parent_ends_first:
        child.wait(20)
    process.end_group(child)
    assert ended(grandchild)


def test_failed_reader_ends_what_an_ended_program_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    with pytest.raises(KeyError), process.piped(python(PARENT)) as output:
        grandchild = int(output.readline())
        output.read()  # the program has ended, and what it started holds no pipe
        raise KeyError
    assert ended(grandchild)


def test_time_limit_of_detached_program_ends_what_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    note = tmp_path / "pid"
    script = 'trap "" TERM; sleep 60 & echo $! >"$1"; sleep 60'
    with pytest.raises(process.TimedOut):
        process.run(["sh", "-c", script, "sh", str(note)], timeout=0.5, detached=True)
    assert ended(int(note.read_text()))


def test_undecodable_output_is_replaced() -> None:
    lines: list[str] = []
    process.stream(python("import sys; sys.stdout.buffer.write(b'\\xff\\n')"), lines.append)
    assert (
        lines == ["\ufffd"]
        and process.run(python("import sys; sys.stdout.buffer.write(b'\\xff')")).output == "\ufffd"
    )


@pytest.mark.parametrize("program", ["ssh-keygen", "ssh-agent", "ssh-add"])
def test_missing_program_hint_names_package(program: str) -> None:
    assert values_of(process.missing(program).hint) == {"package": "openssh-client"}


def test_missing_program_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert process.missing("/usr/bin/skopeo").render() == (
        "오류: /usr/bin/skopeo: 설치되어 있지 않습니다\n"
        "다음: 먼저 설치하십시오: apt-get install skopeo"
    )


def test_credentials_of_sync_reach_a_program_only_when_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in process.WITHHELD:
        monkeypatch.setenv(key, "canary-1")
    show = python("import os; print(*os.environ.values())")
    assert "canary" not in process.run(show).output
    assert "canary" in process.run(show, env={"GITHUB_TOKEN": "canary-2"}).output
    lines: list[str] = []
    process.stream(show, lines.append)
    with process.piped(show) as output:
        lines.append(output.read().decode())
    child = process.companion(show)
    lines.append(child.communicate()[0])
    assert len(lines) == 3 and "canary" not in repr(lines)


def test_bytes_reach_a_program_exactly() -> None:
    code = "import sys; print(sys.stdin.buffer.read().hex())"
    assert process.run(python(code), stdin=b"\xff\r\n\0x").output == "ff0d0a0078\n"


@pytest.mark.parametrize("code", ["sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_failure_of_a_piped_program_ends_with_its_output(code: str) -> None:
    lines = "import os, sys; [print(n, file=sys.stderr, flush=True) for n in range(40, 70)]; "
    with pytest.raises(ToolError) as error, process.piped(python(lines + code)) as output:
        assert output.read() == b""
    assert error.value.output.splitlines() == [str(n) for n in range(58, 70)]


def test_unread_rest_of_a_piped_program_is_discarded() -> None:
    """A program that is cut off instead ends by SIGPIPE, which is an error."""
    with process.piped(python("print('x' * 3_000_000)")) as output:
        assert output.read(1) == b"x"


def test_output_of_a_pipe_is_read_by_the_caller() -> None:
    child = process.pipe(["cat"], stdin="이름\n")
    assert child.stdout is not None and child.stderr is not None
    with child.stdout, child.stderr:
        assert child.stdout.read() == "이름\n".encode() and child.wait() == 0
    ended = process.pipe(["true"], stdin="x" * 1000)
    assert ended.stdout is not None and ended.stderr is not None
    with ended.stdout, ended.stderr:
        assert ended.wait() == 0


def test_zombie_is_no_living_group() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    assert child.stdin is not None
    assert process._group_lives(child.pid)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process._group_lives(child.pid), "its parent has not asked for it yet"
    child.wait()
    assert not process._group_lives(child.pid)


@pytest.mark.parametrize("verbose", [True, False])
def test_command_is_shown_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    monkeypatch.setattr(process.output_mode, "verbose", lambda: verbose)
    assert process.run(["echo", "a b", "s3cret"], redact=["s3cret"]).output == "a b s3cret\n"
    assert capsys.readouterr().err == "+ echo 'a b' ***\n" * verbose
