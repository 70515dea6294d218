"""Get one small HTTP answer with curl, so that proxies, certificates, netrc and mirrors work as for every download."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gapforge.base import process
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import FetchError
from gapforge.base.i18n import _
from gapforge.sync.network import Network

ANSWER_SECONDS = 60
LARGEST_ANSWER = 20_000_000  # bytes; a listing is never larger


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(address: str, network: Network, *, head: bool = False) -> Answer:
    """One small HTTP answer, whatever its status; with ``head`` its headers alone. Raises FetchError when none comes."""
    url = network.url(address)
    with tempfile.TemporaryDirectory(prefix="gapforge-ask-") as room:
        heads = Path(room, "heads")
        command = [
            "curl",
            "--disable",
            "--silent",
            "--show-error",
            "--location",
            "--max-redirs",
            "5",
            "--proto",
            "=http,https",
            "--proto-redir",
            "=http,https",
            "--connect-timeout",
            "20",
            "--max-time",
            str(ANSWER_SECONDS),
            "--max-filesize",
            str(LARGEST_ANSWER),
            "--dump-header",
            str(heads),
            "--retry",
            str(min(2, network.retries)),
            "--user-agent",
            "gapforge",
            *network.curl_options(),
            *(("--head",) if head else ("--compressed",)),
            "--config",
            "-",
        ]
        # The address goes over standard input: `ps` shows command lines, and a mirror's may hold a login.
        quoted = url.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "")
        done = process.run(
            command,
            env=network.environment(),
            stdin=f'url = "{quoted}"\n',
            timeout=4 * ANSWER_SECONDS,
            check=False,
        )
        if done.code != 0:
            where, said = without_credentials(url), last_line(done.errors)
            raise FetchError(
                _("{where} does not answer: {said}", where=where, said=said),
                hint=_(
                    "check the network of this machine (https_proxy, "
                    "GAPFORGE_CA_BUNDLE), or name a mirror: GAPFORGE_URL_MIRRORS"
                ),
            )
        status, headers = _heads(heads.read_text(encoding="latin-1") if heads.exists() else "")
    return Answer(status, headers, b"" if head else done.output.encode())


def _heads(text: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the last answer; those of redirects and proxies come before it."""
    status: int = 0
    headers: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.match(r"HTTP/[0-9.]+ (\d{3})", line):
            status, headers = int(match[1]), {}
        elif ":" in line:
            name, _separator, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
    return status, headers


def last_line(text: str) -> str:
    """Return the last line that curl or skopeo printed, without the program's own prefix."""
    lines = text.strip().splitlines()
    if lines and (said := re.search(r'msg="((?:[^"\\]|\\.)*)"', lines[-1])):  # skopeo's log format
        return said[1].replace('\\"', '"')
    return re.sub(r"^curl: \(\d+\) ", "", lines[-1]) if lines else _("no answer")
