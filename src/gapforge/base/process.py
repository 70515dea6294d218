"""The one place that starts other programs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gapforge.base.errors import ToolError
from gapforge.base.i18n import _

# Which package provides a program, for the message when it is missing (Debian 12 and Ubuntu 22.04 names).
PACKAGE_OF = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "curl": "curl",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "uv": "uv (pip install uv)",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "git": "git",
    "dpkg-scanpackages": "dpkg-dev",
    "apt-cache": "apt",
    "zstd": "zstd",
    "ssh-keygen": "openssh-client",
    "ssh-agent": "openssh-client",
    "ssh-add": "openssh-client",
}


class TimedOut(ToolError):
    """A program did not finish in its time."""


@dataclass(frozen=True)
class Result:
    """What a finished program left behind. ``output`` is stdout; ``errors`` is stderr ("" when merged)."""

    argv: tuple[str, ...]
    code: int
    output: str
    errors: str


def quoted(argv: Sequence[str]) -> str:
    """The command as one line that can be pasted into a shell."""
    return shlex.join(argv)


def environment(extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This process's environment with ``extra`` laid over it; a value of None removes the variable."""
    merged = dict(os.environ)
    for key, value in (extra or {}).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    stdin: str | bytes | None = None,
    check: bool = True,
    echo: bool = False,
    redact: Iterable[str] = (),
    detached: bool = False,
) -> Result:
    """Run a program to its end and return what it printed.

    ``timeout`` is in seconds. ``echo`` prints the quoted command to stderr first, with every string of
    ``redact`` hidden. ``detached`` runs it in a session of its own, where it finds no terminal to ask at.
    Raises ToolError when the program is missing, takes too long, or (with ``check``)
    exits with anything but 0; the message ends with the last lines it printed.
    """
    if echo:
        print(f"$ {hide(quoted(argv), redact)}", file=sys.stderr, flush=True)
    try:
        with _exact(stdin) as file:
            done = subprocess.run(
                list(argv),
                env=environment(env),
                cwd=cwd,
                timeout=timeout,
                input=stdin if isinstance(stdin, str) else None,
                stdin=file,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                start_new_session=detached,
            )
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except PermissionError:
        raise _denied(argv[0]) from None
    except subprocess.TimeoutExpired:
        command = hide(quoted(argv), redact)
        raise TimedOut(
            _(
                "{argv} did not finish within {timeout:g} s: {command}",
                argv=argv[0],
                timeout=timeout,
                command=command,
            )
        ) from None
    result = Result(tuple(argv), done.returncode, done.stdout, done.stderr)
    if check and done.returncode != 0:
        raise failed(result, redact)
    return result


@contextmanager
def _exact(stdin: str | bytes | None) -> Iterator[IO[bytes] | int | None]:
    """What to give subprocess as ``stdin``: bytes come out of a file, so that no encoding touches them."""
    if not isinstance(stdin, bytes):
        yield subprocess.DEVNULL if stdin is None else None
        return
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        yield file


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    feed: Callable[[IO[bytes]], None] | None = None,
) -> int:
    """Run a program, hand each line of its merged output to ``on_line`` as it comes, return its exit code.

    ``feed`` writes the program's standard input (bytes) from a thread of its own. The program gets its own
    process group and is ended with it when we are interrupted. Raises ToolError when it is missing.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            env=environment(env),
            cwd=cwd,
            start_new_session=True,
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except PermissionError:
        raise _denied(argv[0]) from None
    feeder: threading.Thread | None = None
    feed_error: list[BaseException] = []
    if feed is not None:
        assert child.stdin is not None
        feeder = threading.Thread(target=_pump, args=(feed, child.stdin, feed_error), daemon=True)
        feeder.start()
    assert child.stdout is not None
    try:
        with child.stdout:
            for raw in child.stdout:
                on_line(raw.decode("utf-8", "replace").rstrip("\n"))
        code = child.wait()
    except BaseException:
        end_group(child)
        raise
    if feeder is not None:
        feeder.join()
    if feed_error:
        raise feed_error[0]
    return code


@contextmanager
def piped(
    argv: Sequence[str],
    *,
    env: Mapping[str, str | None] | None = None,
    feed: Callable[[IO[bytes]], None] | None = None,
) -> Iterator[IO[bytes]]:
    """A program's standard output as a binary stream, exact to the byte.

    ``feed`` writes its standard input from a thread. When the block ends without an error the rest of the
    output is read away and the exit code checked: ToolError with the program's own last words. An error
    inside the block, or in ``feed``, ends the program and is raised instead.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(
                list(argv),
                env=environment(env),
                start_new_session=True,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except FileNotFoundError:
            raise missing(argv[0]) from None
        except PermissionError:
            raise _denied(argv[0]) from None
        assert child.stdout is not None
        feed_error: list[BaseException] = []
        feeder: threading.Thread | None = None
        if feed is not None:
            assert child.stdin is not None
            feeder = threading.Thread(
                target=_pump, args=(feed, child.stdin, feed_error), daemon=True
            )
            feeder.start()
        try:
            yield child.stdout
            while child.stdout.read(1 << 20):
                pass
            code = child.wait()
            if feeder is not None:
                feeder.join()
            if not feed_error and code != 0:
                errors.seek(0)
                raise failed(
                    Result(tuple(argv), code, "", errors.read().decode("utf-8", "replace"))
                )
        except BaseException:
            if child.poll() is None:
                end_group(child)
            if feeder is not None:
                feeder.join()
            if not feed_error:
                raise
        finally:
            child.stdout.close()
        if feed_error:
            raise feed_error[0]


def _pump(feed: Callable[[IO[bytes]], None], pipe: IO[bytes], errors: list[BaseException]) -> None:
    """Run ``feed`` on a program's standard input and carry what goes wrong to the caller's thread."""
    try:
        feed(pipe)
    except BrokenPipeError:
        pass  # the program stopped reading; its exit code tells why
    except BaseException as error:  # noqa: BLE001 - raised by the caller
        errors.append(error)
    finally:
        try:
            pipe.close()
        except BrokenPipeError:
            pass


def pipe(
    argv: Sequence[str], *, env: Mapping[str, str | None] | None = None, stdin: str = ""
) -> subprocess.Popen[bytes]:
    """Start a program whose output the caller reads from ``.stdout``; ``stdin`` is written and closed first.

    The program ends by itself when we are killed, because nobody reads its output any more. The caller
    closes ``.stdout`` and calls ``.wait()`` or ``.kill()``. ``stdin`` must fit a pipe (64 kB).
    Raises ToolError when the program is missing.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            env=environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except PermissionError:
        raise _denied(argv[0]) from None
    assert child.stdin is not None
    try:
        child.stdin.write(stdin.encode())
        child.stdin.close()
    except BrokenPipeError:
        pass  # it ended at once; its exit code tells why
    return child


def spawn(
    argv: Sequence[str], log: Path, *, env: Mapping[str, str | None] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that outlives us, in a session of its own; what it prints replaces ``log``.

    Raises ToolError when it is missing.
    """
    try:
        with open(log, "wb") as file:
            return subprocess.Popen(
                list(argv),
                env=environment(env),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except PermissionError:
        raise _denied(argv[0]) from None


def companion(argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program that reads its stdin until that ends, and so ends with us however we end.

    It has a session of its own, and stdin and stdout are pipes. Raises ToolError when it is missing.
    """
    try:
        return subprocess.Popen(
            list(argv),
            start_new_session=True,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except PermissionError:
        raise _denied(argv[0]) from None


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End a program that was started in its own session: politely, then not."""
    for sign, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            return
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def hide(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret value replaced by ``***``. Values shorter than 4 characters stay."""
    for secret in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def missing(program: str) -> ToolError:
    """The error for a program that is not on PATH."""
    package = PACKAGE_OF.get(Path(program).name, Path(program).name)
    return ToolError(
        _("{program} is not installed", program=program),
        hint=_("install it first: apt-get install {package}", package=package),
    )


def _denied(program: str) -> ToolError:
    return ToolError(_("{program} cannot be executed (permission denied)", program=program))


def failed(result: Result, redact: Iterable[str] = ()) -> ToolError:
    """The error for a program that exited with a failure."""
    last = "\n".join((result.errors or result.output).strip().splitlines()[-12:])
    command = hide(quoted(result.argv), redact)
    said = _("exit code {code} from: {command}", code=result.code, command=command)
    return ToolError(f"{said}\n{hide(last, redact)}".rstrip())
