"""Which keys get an agent of their own, with which answers of OpenSSH, and that it always ends."""

from __future__ import annotations

import io
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gapforge.base import process
from gapforge.base.errors import ToolError, TrustError
from gapforge.trust import private_ssh_agent, ssh_signatures
from gapforge.trust.private_ssh_agent import unlocked
from gapforge.trust.ssh_signatures import PublicKey, SigningKey
from raised_errors import assert_error, values_of

PUBLIC = PublicKey("ssh-ed25519", b"blob")
KEY = SigningKey(Path("/keys/mine"), PUBLIC, has_passphrase=True)


class OpenSSH:
    """The programs of OpenSSH: what they answer, and how they were called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.terminal, self.listed, self.said, self.code = True, "", "4242\n", 0
        self.agents: list[list[str]] = []
        self.lists: list[dict[str, Any]] = []
        self.adds: list[tuple[list[str], SigningKey, bool]] = []
        self.killed: list[tuple[int, int]] = []
        monkeypatch.setattr(ssh_signatures, "at_terminal", lambda: self.terminal)
        monkeypatch.setattr(process, "run", self.run)
        monkeypatch.setattr(process, "companion", self.companion)
        monkeypatch.setattr(ssh_signatures, "run_interactive", self.add)
        monkeypatch.setattr(os, "kill", self.kill)

    def run(self, argv: list[str], **named: Any) -> Any:
        assert argv == ["ssh-add", "-L"]
        self.lists.append(named)
        return SimpleNamespace(output=self.listed)

    @contextmanager
    def companion(self, argv: list[str]) -> Iterator[Any]:
        self.agents.append(argv)
        yield SimpleNamespace(stdout=io.StringIO(self.said) if self.said is not None else None)

    def add(self, argv: list[str], key: SigningKey, terminal: bool) -> Any:
        self.adds.append((argv, key, terminal))
        return SimpleNamespace(code=self.code)

    def kill(self, pid: int, number: int) -> None:
        self.killed.append((pid, number))
        raise ProcessLookupError


@pytest.fixture
def openssh(monkeypatch: pytest.MonkeyPatch) -> OpenSSH:
    return OpenSSH(monkeypatch)


@pytest.mark.parametrize(
    ("key", "terminal", "listed"),
    [
        (None, True, ""),
        (replace(KEY, has_passphrase=False), True, ""),
        (replace(KEY, public=PublicKey("sk-ssh-ed25519@openssh.com", b"b")), True, ""),
        (KEY, False, ""),
        (KEY, True, f"other\n{PUBLIC.text} comment\n"),
    ],
)
def test_key_that_needs_no_question_is_unchanged(
    openssh: OpenSSH, key: SigningKey | None, terminal: bool, listed: str
) -> None:
    openssh.terminal, openssh.listed = terminal, listed
    with unlocked(key) as same:
        assert same is key
    assert openssh.agents == openssh.adds == openssh.killed == []
    for named in openssh.lists:
        assert named == {
            "env": ssh_signatures.openssh_environment(KEY),
            "check": False,
            "timeout": 60.0,
            "detached": True,
        }


def test_agent_holds_the_key_until_the_end(openssh: OpenSSH) -> None:
    openssh.listed = "another key"
    with unlocked(KEY) as key:
        assert key is not None and key.agent is not None
        socket = key.agent
        assert key == replace(KEY, agent=socket) and socket.parent.is_dir()
        assert openssh.killed == []
    command = ["sh", "-c", 'echo "$SSH_AGENT_PID"; exec cat']
    assert openssh.agents == [["ssh-agent", "-a", str(socket), *command]]
    assert openssh.adds == [(["ssh-add", "-q", str(KEY.file)], key, True)]
    assert openssh.killed == [(4242, signal.SIGTERM)] and not socket.parent.exists()


def test_agent_ends_after_an_error(openssh: OpenSSH) -> None:
    with pytest.raises(KeyboardInterrupt), unlocked(KEY):
        raise KeyboardInterrupt
    assert openssh.killed == [(4242, signal.SIGTERM)]
    for openssh.code in (1, -signal.SIGTERM):
        with pytest.raises(TrustError) as caught, unlocked(KEY):
            pytest.fail("no passphrase was given")
        assert_error(caught.value, TrustError, file=KEY.file)
    assert len(openssh.killed) == 3


@pytest.mark.parametrize("said", ["", "no number\n", None])
def test_agent_that_does_not_start(openssh: OpenSSH, said: str | None) -> None:
    openssh.said = said  # type: ignore[assignment]
    with pytest.raises(ToolError) as caught, unlocked(KEY):
        pytest.fail("there is no agent")
    assert values_of(caught.value.hint) == {"file": KEY.file}
    assert openssh.adds == openssh.killed == []


@pytest.mark.parametrize(("length", "short"), [(61, False), (70, False), (71, True)])
def test_socket_has_a_short_path(
    openssh: OpenSSH, monkeypatch: pytest.MonkeyPatch, length: int, short: bool
) -> None:
    """In bytes: a letter may take several."""
    folders: list[str | None] = []
    real = tempfile.TemporaryDirectory

    def folder(prefix: str, dir: str | None) -> Any:
        folders.append(dir)
        return real(prefix=prefix, dir="/tmp")

    letters = "/" + "가" * 20 + "x" * (length - 61)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: letters)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", folder)
    with unlocked(KEY):
        pass
    assert folders == ["/tmp" if short else None]
    assert private_ssh_agent._LONGEST + len("/gapforge-agent-12345678/socket") < 107
