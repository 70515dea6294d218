"""Run an ssh-agent for work that signs at its beginning and again, hours later, at its end.

The passphrase is asked for once, at the beginning, when the person is still at the terminal.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import ToolError, TrustError
from gapforge.base.i18n import _
from gapforge.trust import ssh_signatures
from gapforge.trust.ssh_signatures import SigningKey

# ssh-agent ends with the command that it runs, and cat ends when we close its stdin, or die.
_AGENT = 'echo "$SSH_AGENT_PID"; exec cat'
# Bytes of the temporary folder's path: with our own names, a socket's path must stay within 107.
_LONGEST = 70


@contextmanager
def unlocked(key: SigningKey | None) -> Iterator[SigningKey | None]:
    """Yield ``key``, usable without further questions. A passphrase is asked for now, once.

    No question is asked for a key without passphrase, a key in the user's ssh-agent, or a security
    key, which its owner touches anyway. Without a terminal the key is unchanged, and signing fails
    with a hint. Raises TrustError without the right passphrase, ToolError without OpenSSH.
    """
    if (
        key is None
        or not key.has_passphrase
        or key.public.needs_touch
        or not ssh_signatures.at_terminal()
        or _in_users_agent(key)
    ):
        yield key
        return
    short = None if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST else "/tmp"
    with tempfile.TemporaryDirectory(prefix="gapforge-agent-", dir=short) as folder:
        socket = Path(folder, "socket")
        with process.companion(["ssh-agent", "-a", str(socket), "sh", "-c", _AGENT]) as agent:
            pid = (agent.stdout.readline() if agent.stdout is not None else "").strip()
            try:
                if not pid.isdecimal():
                    raise ToolError(
                        _("ssh-agent does not start"),
                        hint=_("ssh-add {file!q}; then --sign {file}.pub", file=key.file),
                    )
                unlocked_key = dataclasses.replace(key, agent=socket)
                done = ssh_signatures.run_interactive(
                    ["ssh-add", "-q", str(key.file)], unlocked_key, terminal=True
                )
                if done.code != 0:
                    raise TrustError(
                        _("no passphrase for {file} was given", file=key.file),
                        hint=_("run the same command again"),
                    )
                yield unlocked_key
            finally:
                if pid.isdecimal():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGTERM)


def _in_users_agent(key: SigningKey) -> bool:
    done = process.run(
        ["ssh-add", "-L"],
        env=ssh_signatures.openssh_environment(key),
        check=False,
        timeout=ssh_signatures.VERIFY_TIMEOUT,
        detached=True,
    )
    return key.public.text in done.output
