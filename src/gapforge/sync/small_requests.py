"""Request small HTTP answers with curl, with the same network settings as downloads."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base import limits, process
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import FetchError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.sync.network import Network, clock_hint

ANSWER_SECONDS = 60
LARGEST_ANSWER = 20_000_000  # bytes; listings are smaller


@dataclass(frozen=True)
class Request:
    """An address and the headers of a request to it, which may hold a token.

    curl sends the header Authorization to the host of ``url`` alone: since 7.58 it leaves it out of
    a redirected request to another host (curl's security advisory CVE-2018-1000007).
    """

    url: str
    headers: tuple[str, ...] = field(default=(), repr=False)

    def curl_config(self, *lines: str) -> str:
        """Return curl's configuration for this request, with more ``lines``.

        curl reads it on standard input: `ps` shows command lines, and both an address and a header
        may be secret. A request with headers that is sent with TLS is not redirected to an address
        without it.
        """
        config = [f"url = {quoted(self.url)}", *(f"header = {quoted(h)}" for h in self.headers)]
        if self.headers and self.url.startswith("https:"):
            config.append('proto-redir = "=https"')
        return "\n".join([*config, *lines]) + "\n"


def quoted(text: str) -> str:
    """Return a value for curl's configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "") + '"'


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(
    address: str, network: Network, *, head: bool = False, headers: tuple[str, ...] = ()
) -> Answer:
    """Return the answer, whatever its status; with ``head`` only its headers.

    ``headers`` are sent to the host of ``address`` itself, and never to a mirror of it. Raise
    FetchError without an answer.
    """
    url = address if headers else network.url(address)
    with tempfile.TemporaryDirectory(prefix="gapforge-get-") as folder:
        headers_file = Path(folder, "headers")
        command = network.curl(
            *("--max-redirs", "5", "--proto", "=http,https"),
            *("--connect-timeout", "20", "--max-time", str(ANSWER_SECONDS)),
            *("--max-filesize", str(LARGEST_ANSWER)),
            *("--dump-header", str(headers_file)),
            *("--retry", str(min(2, network.retries)), "--user-agent", "gapforge"),
            "--head" if head else "--compressed",
            *("--config", "-"),
        )
        done = process.run(
            command,
            env=network.environment(),
            stdin=Request(url, headers).curl_config(),
            timeout=4 * ANSWER_SECONDS,
            check=False,
        )
        if done.code != 0:
            raise FetchError(
                _(
                    "{address} does not answer: {error}",
                    address=without_credentials(url),
                    error=last_line(done.errors),
                ),
                hint=clock_hint(done.errors)
                or _(
                    "check the network of this machine (https_proxy, "
                    "GAPFORGE_CA_BUNDLE), or set a mirror: GAPFORGE_URL_MIRRORS"
                ),
            )
        text = ""
        if headers_file.exists():
            text = read_regular(headers_file, limits.SYSTEM).decode("latin-1")
        status, found = _parse_headers(text)
    return Answer(status, found, b"" if head else done.output.encode())


def _parse_headers(text: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of the last answer, after those of redirects and proxies."""
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
    if lines and (
        logged := re.search(r'msg="((?:[^"\\]|\\.)*)"', lines[-1])
    ):  # skopeo's log format
        return logged[1].replace('\\"', '"')
    return re.sub(r"^curl: \(\d+\) ", "", lines[-1]) if lines else _("no answer")
