"""Make SSH keys, agents and signatures, and run gapforge on machines that trust some keys."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bundles import RUN_ENV
from gapforge.base.project import Project
from gapforge.base.text_layout import utc
from gapforge.bundle import sign_bundle
from gapforge.cli.main import main
from gapforge.trust import rollback_protection
from gapforge.trust.rollback_protection import AcceptedStates

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)"
)


def make_key(folder: Path, name: str, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Create a private key with its .pub beside it and the comment NAME@example."""
    folder.mkdir(parents=True, exist_ok=True)
    bits = {"rsa": ["-b", "2048"]}.get(kind, [])
    subprocess.run(
        [
            "ssh-keygen",
            "-q",
            "-t",
            kind,
            *bits,
            "-N",
            passphrase,
            "-C",
            f"{name}@example",
            "-f",
            folder / name,
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return folder / name


def pub(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def fingerprint(key: Path) -> str:
    """Return the output of ssh-keygen for a key."""
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", pub(key)], check=True, capture_output=True, text=True
    )
    return done.stdout.split()[1]


def signature(key: Path, namespace: str, data: bytes, folder: Path) -> bytes:
    """Return a signature as ssh-keygen makes it."""
    file = folder / "by-hand"
    file.write_bytes(data)
    (folder / "by-hand.sig").unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", namespace, file],
        check=True,
        capture_output=True,
    )
    return (folder / "by-hand.sig").read_bytes()


_TERMINAL = """
import json, os, pty, sys
answers = json.loads(sys.argv[1])
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[2], sys.argv[2:])
said = new = b""
try:
    while data := os.read(fd, 1000):
        said, new = said + data, new + data
        if b"passphrase" in new and new.endswith(b": ") and answers:
            os.write(fd, answers.pop(0).encode() + b"\\n")
            new = b""
except OSError: pass
print(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)
"""


def at_a_terminal(
    argv: list[str], folder: Path, answers: list[str], env: Mapping[str, str]
) -> tuple[str, int]:
    """Run a program at a terminal and answer its passphrase prompts. Return code and output."""
    done = subprocess.run(
        [sys.executable, "-c", _TERMINAL, json.dumps(answers), *argv],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, done.returncode


@contextmanager
def ssh_agent(folder: Path) -> Iterator[str]:
    """Start an ssh-agent and return its socket."""
    name = str(folder / "agent")
    child = subprocess.Popen(
        ["ssh-agent", "-D", "-a", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not answers(name):  # the socket exists before the agent listens
            assert child.poll() is None, "ssh-agent did not start"
            time.sleep(0.01)
        yield name
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


def answers(name: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(name) == 0


SIGNED_AT = "TEST_SIGNED_AT"  # in ``env``: seconds since 1970, read by Machine.run


class Machine:
    """A machine: a project and a home with its own settings."""

    def __init__(self, project: Project, home: Path) -> None:
        self.project, self.home = project, home
        home.mkdir(parents=True, exist_ok=True)

    @property
    def trusted(self) -> Path:
        return self.home / ".config" / "gapforge" / "allowed_signers"

    @property
    def record(self) -> Path:
        return self.trusted.with_name("accepted.json")

    def accepted(self) -> AcceptedStates:
        """Return the record of accepted states."""
        with patch.dict(os.environ, {"HOME": str(self.home)}):
            os.environ.pop("XDG_CONFIG_HOME", None)
            return rollback_protection.read(self.project, self.trusted)

    def run(
        self, *words: object, env: Mapping[str, str] | None = None, apart: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a gapforge command, with ``apart`` in a process that has no terminal."""
        argv = [str(word) for word in words]
        base = {key: value for key, value in RUN_ENV.items() if key != "XDG_CONFIG_HOME"}
        whole = {
            **base,
            "HOME": str(self.home),
            "GAPFORGE_ROOT": str(self.project.root),
            **(env or {}),
        }
        signed_at = whole.pop(SIGNED_AT, "")
        if apart:
            return subprocess.run(
                [sys.executable, "-m", "gapforge", *argv],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                timeout=120,
                env=whole,
            )
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        output, errors = io.StringIO(), io.StringIO()
        try:
            with (
                patch.dict(os.environ, whole, clear=True),
                patch.object(sign_bundle, "signing_time", lambda: utc(int(signed_at)))
                if signed_at
                else nullcontext(),
                redirect_stdout(output),
                redirect_stderr(errors),
            ):
                code = main(argv)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return subprocess.CompletedProcess(argv, code, output.getvalue(), errors.getvalue())

    def ok(self, *words: object, env: Mapping[str, str] | None = None, apart: bool = False) -> str:
        """Run a command that must succeed. Return its output."""
        done = self.run(*words, env=env, apart=apart)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def json(self, *words: object, code: int = 0) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def refused(
        self,
        *words: object,
        code: int = 22,
        env: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> str:
        """Run a command that must fail with this code and a hint. Return its message."""
        done = self.run(*words, env=env, apart=apart)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr and "next: " in done.stderr
        return done.stderr
