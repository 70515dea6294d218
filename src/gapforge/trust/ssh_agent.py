"""An ssh-agent of our own, for work that signs at its beginning and again, much later, at its end.

A person who types a passphrase and leaves must not find, hours later, a question that nobody answered.
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

# ssh-agent ends when the command that it was given ends, and cat ends when we close its stdin, or die.
_AGENT = 'echo "$SSH_AGENT_PID"; exec cat'
_LONGEST = 70  # bytes of a folder's path; with our own names behind it, a socket's path ends at 107


@contextmanager
def held(key: SigningKey | None) -> Iterator[SigningKey | None]:
    """``key``, usable without a question until the end. A passphrase is asked for now, once, at the terminal.

    Nothing is asked without a key, nor of one without passphrase, of one that the user's ssh-agent holds, or of a security key, whose
    owner is there anyway. Without a terminal the key comes back as it is, and signing says what to do.
    Raises TrustError when no right passphrase is given, ToolError without OpenSSH's programs.
    """
    if (
        key is None
        or not key.locked
        or key.public.touched
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
                        hint=f"ssh-add {key.file}; " + _("then") + f" --sign {key.file}.pub",
                    )
                ours = dataclasses.replace(key, agent=socket)
                done = ssh_signatures.asked(["ssh-add", "-q", str(key.file)], ours, terminal=True)
                if done.code != 0:
                    raise TrustError(
                        _("no passphrase for {file} was given", file=key.file),
                        hint=_("run the same command again"),
                    )
                yield ours
            finally:
                if pid.isdecimal():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGTERM)


def _in_users_agent(key: SigningKey) -> bool:
    done = process.run(
        ["ssh-add", "-L"],
        env=ssh_signatures.asking(key),
        check=False,
        timeout=ssh_signatures.PATIENCE,
        detached=True,
    )
    return key.public.text in done.output
