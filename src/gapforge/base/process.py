"""Start other programs. No other module does."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from gapforge.base import output_mode
from gapforge.base.errors import ToolError
from gapforge.base.files import system_text
from gapforge.base.i18n import _

# The package of each program whose package has another name (Debian 12 and Ubuntu 22.04).
PACKAGE_OF = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "dpkg-deb": "dpkg",
    "dpkg-scanpackages": "dpkg-dev",
    "setpriv": "util-linux",
    "ssh-add": "openssh-client",
    "ssh-agent": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "uv": "uv (pip install uv)",
}
# Variables with credentials that only sync reads. No program inherits them.
WITHHELD = ("GITHUB_TOKEN", "REGISTRY_LOGINS")
# A git hook sets these for its own repository; the git of another folder must not see them.
_OF_A_GIT_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL
Environment = Mapping[str, str | None]
Feed = Callable[[IO[bytes]], None]


class TimedOut(ToolError):
    """A program did not finish within its time limit."""


@dataclass(frozen=True)
class Result:
    """The exit code, standard output and standard error of a finished program."""

    argv: tuple[str, ...]
    code: int
    output: str
    errors: str


def quoted(argv: Sequence[str]) -> str:
    """Return the command as one line that can be pasted into a shell."""
    return shlex.join(map(str, argv))


def environment(changes: Environment | None = None) -> dict[str, str]:
    """Return this process's environment with ``changes``, where None removes a variable.

    It has the variables of ``WITHHELD`` and of git hooks only if ``changes`` sets them.
    """
    left_out = (*WITHHELD, *_OF_A_GIT_HOOK)
    inherited = {key: value for key, value in os.environ.items() if key not in left_out}
    merged = {**inherited, **(changes or {})}
    return {key: value for key, value in merged.items() if value is not None}


def run(
    argv: Sequence[str],
    *,
    env: Environment | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    stdin: str | bytes | None = None,
    check: bool = True,
    redact: Iterable[str] = (),
    detached: bool = False,
) -> Result:
    """Run a program to its end and return what it printed.

    ``timeout`` is in seconds. Messages hide every string of ``redact``. ``detached`` runs the
    program in a session of its own, where it has no terminal to ask questions at. Raises ToolError
    when the program is missing or takes too long, and with ``check`` also when it exits with
    another code than 0; that message ends with the last lines that the program printed.
    """
    with _exact(stdin) as file:
        child = _start(
            argv,
            env,
            redact,
            cwd=cwd,
            stdin=file,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=detached,
        )
        with child:
            try:
                output, errors = child.communicate(
                    stdin if isinstance(stdin, str) else None, timeout
                )
            except BaseException as error:
                if detached:
                    end_group(child)
                else:  # it shares our process group, so that it can ask questions at the terminal
                    child.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                raise TimedOut(
                    _(
                        "{program} did not finish within {timeout:g} s: {command}",
                        program=argv[0],
                        timeout=timeout,
                        command=hide(quoted(argv), redact),
                    )
                ) from None
    result = Result(tuple(argv), child.returncode, output, errors)
    if check and result.code != 0:
        raise failed(result, redact)
    return result


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Environment | None = None,
    cwd: Path | None = None,
    feed: Feed | None = None,
) -> int:
    """Run a program, pass each line of its merged output to ``on_line``, return its exit code.

    ``feed`` writes the program's standard input in a thread. The program runs in its own process
    group, which is ended when this process is interrupted. Raises ToolError when it is missing, and
    the error of ``feed`` or ``on_line``.
    """
    child = _start(
        argv,
        env,
        cwd=cwd,
        start_new_session=True,
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    feeder = _Feeder(feed, child.stdin)
    assert child.stdout is not None
    try:
        with child.stdout:
            for raw in child.stdout:
                on_line(raw.decode("utf-8", "replace").rstrip("\n"))
        code = child.wait()
    except BaseException:
        end_group(child)
        raise
    feeder.finish()
    return code


@contextmanager
def piped(
    argv: Sequence[str], *, env: Environment | None = None, feed: Feed | None = None
) -> Iterator[IO[bytes]]:
    """Open a program's standard output as a binary stream.

    ``feed`` writes its standard input in a thread. When the block ends without an error, the rest
    of the output is discarded and ToolError is raised, with the end of standard error, if the exit
    code is not 0. An error in the block ends the program. An error of ``feed`` is raised instead of
    any other.
    """
    with tempfile.TemporaryFile() as errors:
        child = _start(
            argv,
            env,
            start_new_session=True,
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stderr=errors,
        )
        feeder = _Feeder(feed, child.stdin)
        assert child.stdout is not None
        try:
            with child.stdout:
                yield child.stdout
                while child.stdout.read(1 << 20):
                    pass
            code = child.wait()
        except BaseException:
            end_group(child)
            feeder.finish()
            raise
        feeder.finish()
        if code != 0:
            errors.seek(0)
            text = errors.read().decode("utf-8", "replace")
            raise failed(Result(tuple(argv), code, "", text))


def pipe(
    argv: Sequence[str], *, env: Environment | None = None, stdin: str = ""
) -> subprocess.Popen[bytes]:
    """Start a program whose output the caller reads from ``.stdout``, after ``stdin`` was written.

    The caller closes ``.stdout`` and calls ``.wait()`` or ``.kill()``. If this process is killed,
    the program ends because nobody reads its output. ``stdin`` must fit into a pipe (64 kB). Raises
    ToolError when the program is missing.
    """
    child = _start(argv, env, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it ended at once; its exit code tells why
        child.stdin.write(stdin.encode())
        child.stdin.close()
    return child


def spawn(
    argv: Sequence[str], log: Path, *, env: Environment | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in its own session that outlives this process. Its output goes to ``log``.

    Raises ToolError when it is missing.
    """
    log.unlink(missing_ok=True)
    with open(log, "xb") as file:  # never through a link
        return _start(
            argv,
            env,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def companion(argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program that runs until its standard input ends, which it does with this process.

    It has a session of its own and text pipes at standard input and output. Raises ToolError when
    it is missing.
    """
    return _start(
        argv, start_new_session=True, text=True, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def end_group(child: subprocess.Popen[Any]) -> None:
    """End a program that has its own session, and everything it started in there.

    The process group gets SIGTERM, and after ``PATIENCE`` seconds SIGKILL. The program may have
    ended already: what it started is ended all the same.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        deadline = time.monotonic() + PATIENCE
        while child.poll() is None or _group_lives(child.pid):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def _group_lives(group: int) -> bool:
    """Return whether a process of the group still runs. Zombies only wait for their parent."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # another user's, which we cannot end
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if not entry.name.isdigit():
                continue
            # The program's name is in parentheses and may contain anything.
            fields = system_text(entry / "stat").rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False


def hide(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in ``text`` by ``***``, except values shorter than 4 characters.

    A program may print a secret as it is written in an address, encoded as a whole or in part.
    """
    for secret in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        text = _spellings(secret).sub("***", text)
    return text


@lru_cache(maxsize=256)
def _spellings(secret: str) -> re.Pattern[str]:
    """Return what matches a secret, and the same decoded from an address or encoded for one."""

    def either(character: str) -> str:
        encoded = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        blank = r"|\+" if character == " " else ""
        return f"(?:{re.escape(character)}|(?i:{encoded}){blank})"

    plain = dict.fromkeys((secret, unquote(secret)))
    return re.compile("|".join("".join(map(either, text)) for text in plain))


def missing(program: str) -> ToolError:
    """Return the error for a program that is not installed."""
    name = Path(program).name
    error = ToolError(
        _("{program} is not installed", program=program),
        hint=_("install it first: apt-get install {package}", package=PACKAGE_OF.get(name, name)),
    )
    error.is_missing = True
    return error


def failed(result: Result, redact: Iterable[str] = ()) -> ToolError:
    """Return the error for a program that exited with a failure."""
    last = "\n".join((result.errors or result.output).strip().splitlines()[-12:])
    command = hide(quoted(result.argv), redact)
    message = _("exit code {code} from: {command}", code=result.code, command=command)
    output = hide(last, redact)
    error = ToolError(f"{message}\n{output}".rstrip())
    error.output = output
    return error


def _start(
    argv: Sequence[str],
    env: Environment | None = None,
    redact: Iterable[str] = (),
    *,
    stdout: int | IO[bytes] = subprocess.PIPE,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start a program with the ``options`` of Popen, and show the command with ``--verbose``.

    Raise ToolError if the program is missing or cannot be executed.
    """
    if output_mode.verbose():
        sys.stderr.write("+ " + hide(quoted(argv), redact) + "\n")
        sys.stderr.flush()
    try:
        return subprocess.Popen(list(argv), env=environment(env), stdout=stdout, **options)
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except PermissionError:
        raise ToolError(
            _("{program} cannot be executed (permission denied)", program=argv[0])
        ) from None


@contextmanager
def _exact(stdin: str | bytes | None) -> Iterator[IO[bytes] | int]:
    """Open what subprocess gets as ``stdin``: bytes come from a file, so that they stay exact."""
    if not isinstance(stdin, bytes):
        yield subprocess.DEVNULL if stdin is None else subprocess.PIPE
        return
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        yield file


class _Feeder:
    """Runs ``feed`` on a program's standard input in a thread, if there is one."""

    def __init__(self, feed: Feed | None, stdin: IO[bytes] | None) -> None:
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None
        if feed is not None and stdin is not None:
            self.thread = threading.Thread(target=self._run, args=(feed, stdin), daemon=True)
            self.thread.start()

    def finish(self) -> None:
        """Wait until everything is written. Raise the error of ``feed`` if there was one."""
        if self.thread is not None:
            self.thread.join()
        if self.error is not None:
            raise self.error

    def _run(self, feed: Feed, stdin: IO[bytes]) -> None:
        try:
            feed(stdin)
        except BrokenPipeError:
            pass  # the program stopped reading; its exit code tells why
        except BaseException as error:  # noqa: BLE001 - raised by finish()
            self.error = error
        finally:
            with suppress(BrokenPipeError):
                stdin.close()
