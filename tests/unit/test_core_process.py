"""Programs: quoted, bounded in time, secrets hidden, ended with us."""

from __future__ import annotations

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

from gapforge.core import process
from gapforge.core.errors import ToolError

pytestmark = pytest.mark.every_python


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_errors_apart() -> None:
    got = process.run(python("import sys; print('o'); print('e', file=sys.stderr)"))
    assert (got.code, got.output, got.errors) == (0, "o\n", "e\n")


def test_failure_carries_the_last_words() -> None:
    with pytest.raises(ToolError) as error:
        process.run(python("import sys; print('why', file=sys.stderr); sys.exit(3)"))
    assert "exit code 3" in error.value.message and "why" in error.value.message and error.value.exit_code == 17
    assert process.run(python("raise SystemExit(3)"), check=False).code == 3


def test_missing_program_names_its_package() -> None:
    with pytest.raises(ToolError, match="not installed") as error:
        process.run(["/nonexistent/skopeo"])
    assert "apt-get install skopeo" in error.value.hint
    with pytest.raises(ToolError):
        process.stream(["/nonexistent/x"], print)


def test_not_executable(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("x")
    for call in (
        lambda: process.run([str(tmp_path / "tool")]),
        lambda: process.stream([str(tmp_path / "tool")], print),
    ):
        with pytest.raises(ToolError, match="cannot be executed"):
            call()


def test_time_limit() -> None:
    begun = time.monotonic()
    with pytest.raises(ToolError, match=r"within 0\.3 s"):
        process.run(python("import time; time.sleep(30)"), timeout=0.3)
    assert time.monotonic() - begun < 10


def test_nothing_waits_for_a_keyboard() -> None:
    assert process.run(python("import sys; print(repr(sys.stdin.read()))")).output == "''\n"
    assert process.run(python("import sys; print(sys.stdin.read())"), stdin="in").output == "in\n"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GONE", "x")
    code = "import os; print(os.environ.get('GONE'), os.environ.get('NEW'))"
    assert process.run(python(code), env={"GONE": None, "NEW": "1"}).output == "None 1\n"


def test_secrets_are_hidden_in_echo_and_failure(capsys: pytest.CaptureFixture[str]) -> None:
    argv = python("import sys; sys.exit('bad hunter22')")
    with pytest.raises(ToolError) as error:
        process.run([*argv, "hunter22"], echo=True, redact=["hunter22"])
    shown = error.value.render() + capsys.readouterr().err
    assert "hunter22" not in shown and "***" in shown


def test_hide_longest_first_and_nothing_short() -> None:
    assert process.hide("abcdef abc abcd", ["abcd", "abcdef", "abc", ""]) == "*** abc ***"


@given(st.lists(st.text(alphabet=st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))), min_size=1))
def test_quoted_can_be_pasted(words: list[str]) -> None:
    assert shlex.split(process.quoted(words)) == words


def test_stream_gives_lines_as_they_come() -> None:
    lines: list[str] = []
    code = process.stream(
        python("import sys; print('a'); print('b', file=sys.stderr, flush=True); sys.exit(4)"), lines.append
    )
    assert code == 4 and sorted(lines) == ["a", "b"]


def test_stream_feeds() -> None:
    lines: list[str] = []

    def feed(pipe: IO[bytes]) -> None:
        pipe.write(b"x" * 300_000)

    assert process.stream(python("import sys; print(len(sys.stdin.read()))"), lines.append, feed=feed) == 0
    assert lines == ["300000"]


def test_stream_feeding_a_program_that_stops_reading() -> None:
    def feed(pipe: IO[bytes]) -> None:
        for _ in range(100):
            pipe.write(b"x" * 100_000)

    assert process.stream(python("import sys; sys.exit(5)"), print, feed=feed) == 5


def test_stream_error_of_the_feeder_reaches_us() -> None:
    def feed(pipe: IO[bytes]) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        process.stream(python("import sys; sys.stdin.read()"), print, feed=feed)


def test_interruption_ends_the_whole_family() -> None:
    """The program and what it started end, not just the one that we know."""
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.extend(int(word) for word in line.split())
        raise KeyboardInterrupt

    code = "import os, subprocess, sys, time\n" \
           "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n" \
           "print(os.getpid(), child.pid, flush=True); time.sleep(60)"  # fmt: skip
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


def test_a_program_that_ignores_the_polite_end(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(
        python("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"),
        start_new_session=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    real, patience = child.wait, iter([0.2])  # for the polite end only
    monkeypatch.setattr(child, "wait", lambda seconds=None: real(next(patience, seconds)))
    process.end_group(child)
    assert child.returncode == -signal.SIGKILL
    child.stdout.close()
    process.end_group(child)  # of one that is gone


def test_bytes_that_are_no_text() -> None:
    lines: list[str] = []
    process.stream(python("import sys; sys.stdout.buffer.write(b'\\xff\\n')"), lines.append)
    assert (
        lines == ["\ufffd"] and process.run(python("import sys; sys.stdout.buffer.write(b'\\xff')")).output == "\ufffd"
    )


@pytest.mark.parametrize("program", ["ssh-keygen", "ssh-agent", "ssh-add"])
def test_the_package_that_has_the_program_is_named(program: str) -> None:
    assert process.missing(program).hint == "install it first: apt-get install openssh-client"


def test_what_programs_fail_with_in_korean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert process.missing("/usr/bin/skopeo").render() == (
        "오류: /usr/bin/skopeo: 설치되어 있지 않습니다\n다음: 먼저 설치하십시오: apt-get install skopeo"
    )
    (tmp_path / "tool").write_text("")
    with pytest.raises(ToolError) as caught:
        process.run([str(tmp_path / "tool")])
    assert caught.value.render() == f"오류: {tmp_path}/tool: 실행할 수 없습니다(권한 없음)"
    argv = python("import sys; sys.exit('why')")
    with pytest.raises(ToolError) as caught:
        process.run(argv)
    assert caught.value.render() == f"오류: 종료 코드 1: {process.quoted(argv)}\nwhy"
    argv = python("import time; time.sleep(60)")
    with pytest.raises(process.TimedOut) as late:
        process.run(argv, timeout=0.2)
    assert late.value.message == f"{sys.executable}: 0.2초 안에 끝나지 않았습니다: {process.quoted(argv)}"
