"""Downloads into the store: several at a time, resumed mid-file, from the first address that has the right bytes.

Each file is one curl whose output we read, hash and write. curl knows proxies, netrc, certificates and
redirects; we know what is expected. Read through a pipe, curl ends when we are killed, so a later run
never meets a second writer. Why curl and not aria2: docs/decisions/downloader.md.

Unverified bytes are ``store/partial/KEY.part``, with KEY.json telling which version of the file on the
server they belong to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote, urlsplit

from gapforge.base import process
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import Fault, FetchError, Interrupted
from gapforge.base.files import CHUNK, sha256_bytes, storage_errors
from gapforge.base.i18n import _, ngettext
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.system_errors import unreadable
from gapforge.store.store import Store
from gapforge.sync.network import Network

CONNECT_SECONDS = 30
STALL_SECONDS = 60  # no byte for so long counts as a cut connection
LONGEST_WAIT = 60.0  # seconds between two attempts at most
PIPE_BYTES = 1 << 20

# curl's exit codes that waiting can heal: name lookup, connect, cut, timeout, TLS start, empty answer, send, receive, HTTP/2, QUIC.
PASSING_CURL = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92, 95, 96}
PASSING_HTTP = {408, 425, 429, 500, 502, 503, 504}
WEB_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Want:
    """One file to fetch. ``sha256`` "" and ``size`` 0 mean unknown; ``urls`` are tried in order."""

    file: str
    urls: tuple[str, ...]
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class Got:
    """A file that is in the store now. ``url`` is the address (of Want.urls) that had it."""

    want: Want
    sha256: str
    size: int
    url: str


class _Passing(Exception):
    """A failure that waiting may heal. ``wait`` is the seconds the server asked for."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Final(Exception):
    """A failure that this address will repeat."""


class _StartOver(Exception):
    """What is on disk does not go with what the server has."""


@dataclass
class _Answer:
    """The head of the final HTTP answer."""

    status: int
    headers: dict[str, str]

    @property
    def whole(self) -> int:
        """Bytes of the complete file, 0 when the server does not tell."""
        if self.status == 206:
            match = re.fullmatch(r"bytes \d+-\d+/(\d+)", self.headers.get("content-range", ""))
            return int(match[1]) if match else 0
        text = self.headers.get("content-length", "")
        return int(text) if text.isdigit() and "content-encoding" not in self.headers else 0

    @property
    def start(self) -> int:
        """The offset of the first byte that follows; -1 for an answer that makes no sense."""
        if self.status != 206:
            return 0
        match = re.match(r"bytes (\d+)-", self.headers.get("content-range", ""))
        return int(match[1]) if match else -1


@dataclass
class _Part:
    """The unverified bytes of one file."""

    path: Path
    note: Path
    counted: int = 0  # bytes that the progress was told of
    resumed: bool = False
    announced: bool = False  # whether the progress's total holds this file
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def server_version(self) -> dict[str, str]:
        """Which version of the file the bytes belong to: {"url", "etag"}; {} when nothing is known."""
        try:
            value = json.loads(self.note.read_text())
            return (
                {k: v for k, v in value.items() if isinstance(v, str)}
                if isinstance(value, dict)
                else {}
            )
        except (OSError, ValueError):
            return {}


class Downloader:
    """Fetches files into a store. Use one for each sync; ``fetch`` may be called again and again."""

    def __init__(self, store: Store, network: Network, progress: Progress) -> None:
        self.store, self.network, self.progress = store, network, progress
        self._stop = threading.Event()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()

    def fetch(self, wants: Sequence[Want]) -> list[Got]:
        """Fetch all of ``wants`` (in their order), several at a time.

        A failure does not stop the others: everything that can be had is in the store when FetchError
        names every file that could not. Ctrl-C keeps the partial files.
        """
        if not wants:
            return []
        # Two wants of one file would write one partial file: fetch each once.
        unique: dict[str, Want] = {}
        for want in wants:
            unique.setdefault(_key(want), want)
        futures: dict[str, Future[Got]] = {}
        with ThreadPoolExecutor(self.network.jobs) as pool:
            try:
                for key, want in sorted(
                    unique.items(), key=lambda item: -item[1].size
                ):  # large ones end last otherwise
                    futures[key] = pool.submit(self._one, want, key)
                wait(futures.values())
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                with self._guard:
                    for child in self._children:
                        child.kill()
                raise
        faults: list[Fault] = []
        for key in unique:
            error = futures[key].exception()
            if isinstance(error, FetchError):
                faults += error.faults
            elif error is not None:
                raise error  # a full disk or missing curl concerns all of them
        if faults:
            count = len({fault.where for fault in faults})
            raise FetchError(
                ngettext(
                    "{count} file could not be fetched", "{count} files could not be fetched", count
                ),
                faults=faults,
                hint=_(
                    "run the same command again: what was fetched is kept and cut "
                    "downloads go on where they stopped; or put the files into a folder "
                    "and add --from FOLDER"
                ),
            )
        return [
            Got(want, got.sha256, got.size, got.url)
            for want in wants
            for got in [futures[_key(want)].result()]
        ]

    def _one(self, want: Want, key: str) -> Got:
        """One file, from the first of its addresses that has the right bytes."""
        part = _Part(self.store.partial(f"{key}.part"), self.store.partial(f"{key}.json"))
        tried: list[Fault] = []
        for url in want.urls:
            try:
                return self._from_url(want, url, part)
            except _Final as error:
                tried.append(
                    Fault(want.file, f"{without_credentials(self.network.url(url))}: {error}")
                )
        if not want.urls:
            tried.append(Fault(want.file, _("has no address to fetch it from")))
        self._forget(part)
        raise FetchError(_("{file} could not be fetched", file=want.file), faults=tried)

    def _from_url(self, want: Want, url: str, part: _Part) -> Got:
        """The file from one address; _Final when this address cannot give it."""
        address = self.network.url(url)
        failures = 0
        started_over = False
        while True:
            before = part.size
            try:
                self._transfer(want, address, part)
                got = self._finish(want, url, part)
                self.progress.note(f"  {want.file}  {human_bytes(got.size)}")
                return got
            except _StartOver as error:
                self._forget(part)
                if started_over:
                    raise _Final(str(error)) from None
                started_over = True
            except _Passing as error:
                moved = part.size > before
                failures = 1 if moved else failures + 1
                if failures > self.network.retries:
                    raise _Final(
                        _("{error} (tried {failures} times)", error=error, failures=failures)
                    ) from None
                # A server that cuts but serves is asked again at once; one that does not answer, ever later.
                pause = 0.05 if moved else min(LONGEST_WAIT, 0.5 * 2 ** (failures - 1))
                pause = min(LONGEST_WAIT, max(error.wait, pause))
                at = human_bytes(part.size)
                self.progress.note(
                    _(
                        "  {file}: {error}; again in {pause:g} s at {at}",
                        file=want.file,
                        error=error,
                        pause=pause,
                        at=at,
                    )
                )
                if self._stop.wait(pause):
                    raise Interrupted(_("stopped")) from None

    def _transfer(self, want: Want, address: str, part: _Part) -> None:
        """Append what is missing of the file to ``part``."""
        self._take_up(part, address)
        if want.size and part.size == want.size:
            return  # a run that was killed between the last byte and the check
        scheme = urlsplit(address).scheme
        if scheme == "file":
            self._copy(want, address, part)
            return
        self.network.require(_("fetching {file}", file=want.file))
        child = process.pipe(
            self._curl(), env=self.network.environment(), stdin=_curl_config(address, part)
        )
        assert child.stdout is not None and child.stderr is not None
        with self._guard:
            self._children.add(child)
        ended = 0
        try:
            _widen(child.stdout)
            answer = _read_head(child.stdout)
            if answer is not None and answer.status in (200, 206):
                self._check_head(want, answer, part)
                part.note.write_text(
                    json.dumps({"url": address, "etag": answer.headers.get("etag", "")})
                )
                self._drain(want, cast(BufferedReader, child.stdout), part)
                ended = part.size
            child.stdout.close()
            message = child.stderr.read().decode("utf-8", "replace").strip()
            code = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            child.stdout.close()
            child.stderr.close()
            with self._guard:
                self._children.discard(child)
        if self._stop.is_set():
            raise Interrupted(_("stopped"))
        if answer is not None and answer.status not in (200, 206):
            self._refused(answer, part)
        if code in PASSING_CURL:
            raise _Passing(_plain(message, code))
        if code != 0 or answer is None:
            hint = (
                _("; set GAPFORGE_CA_BUNDLE to your organisation's certificates")
                if code in (60, 77)
                else ""
            )
            raise _Final(_plain(message, code) + hint)
        if answer.whole and ended < answer.whole:
            there, whole = human_bytes(ended), human_bytes(answer.whole)
            raise _Passing(
                _("the connection was cut at {there} of {whole}", there=there, whole=whole)
            )

    def _refused(self, answer: _Answer, part: _Part) -> None:
        """Turn an HTTP status that is no success into the right failure."""
        if answer.status == 416 and part.size:
            raise _StartOver(_("the server has fewer bytes than were fetched before"))
        if answer.status in PASSING_HTTP:
            after = answer.headers.get("retry-after", "")
            said = _("the server answers {status}", status=answer.status)
            raise _Passing(said, float(after) if after.isdigit() else 0)
        reasons = {
            401: _("login needed (netrc)"),
            403: _("access denied"),
            404: _("not there"),
            407: _("the proxy wants a login"),
            410: _("gone"),
        }
        reason = reasons.get(answer.status, _("not usable"))
        raise _Final(
            _("the server answers {status}: {reason}", status=answer.status, reason=reason)
        )

    def _check_head(self, want: Want, answer: _Answer, part: _Part) -> None:
        """Refuse an answer that cannot be (the rest of) the file, before any byte of it is written."""
        if answer.status == 200 and part.size:
            self._forget(part)  # the server cannot resume, or the file changed: it sends the whole
        if answer.start != part.size:
            raise _StartOver(
                _(
                    "asked to go on at byte {size}, the server sent from {start}",
                    size=part.size,
                    start=answer.start,
                )
            )
        if want.size and answer.whole and answer.whole != want.size:
            page = _is_page_type(answer) and not want.file.endswith((".html", ".htm"))
            if page:
                raise _Final(_page_came())
            self._forget(part)
            raise _Final(
                _(
                    "the file there has {whole} bytes, expected {size}",
                    whole=answer.whole,
                    size=want.size,
                )
            )
        if not want.size and answer.whole:
            self._announce(part, answer.whole)

    def _announce(self, part: _Part, size: int) -> None:
        """Add a size that only the server knew to the total, once a file."""
        with self._guard:
            if not part.announced:
                part.announced = True
                self.progress.total += size

    def _take_up(self, part: _Part, address: str) -> None:
        """Hash what an earlier attempt left, so that the hash goes on from there."""
        part.digest = hashlib.sha256()
        part.resumed = part.size > 0
        known = part.server_version()
        if part.size and known.get("url") not in (None, address) and known.get("etag"):
            # Another address: the bytes are the same file (one hash is expected) but its ETag is not.
            part.note.unlink(missing_ok=True)
        total = 0
        if part.resumed:
            with open(part.path, "rb") as file:
                while chunk := file.read(CHUNK):
                    part.digest.update(chunk)
                    total += len(chunk)
        if total != part.counted:
            self.progress.add(total - part.counted)
            part.counted = total

    def _drain(self, want: Want, source: BufferedReader, part: _Part) -> None:
        """Write and hash what comes until the end of the stream."""
        with storage_errors(part.path), open(part.path, "ab", buffering=0) as target:
            first = part.counted == 0
            while chunk := source.read1(CHUNK):
                if self._stop.is_set():
                    return
                if first:
                    first = False
                    if WEB_PAGE.match(chunk) and not want.file.endswith((".html", ".htm")):
                        raise _Final(_page_came())
                target.write(chunk)
                part.digest.update(chunk)
                part.counted += len(chunk)
                self.progress.add(len(chunk), want.file)
                if want.size and part.counted > want.size:
                    raise _StartOver(
                        _("the server sends more than the expected {size} bytes", size=want.size)
                    )

    def _copy(self, want: Want, address: str, part: _Part) -> None:
        """A file:// address: read here, as curl would need another set of rules for it."""
        path = Path(unquote(urlsplit(address).path))
        try:
            with open(path, "rb") as source:
                source.seek(part.size)
                if not want.size:
                    self._announce(part, path.stat().st_size)
                self._drain(want, source, part)
        except FileNotFoundError:
            raise _Final(_("does not exist")) from None
        except (PermissionError, IsADirectoryError) as error:
            raise _Final(unreadable(error)) from None

    def _finish(self, want: Want, url: str, part: _Part) -> Got:
        """Give the verified bytes their place in the store; the only way into it for a download."""
        size, sha256 = part.size, part.digest.hexdigest()
        wrong = ""
        if want.size and size != want.size:
            wrong = _("has {size} bytes, expected {want_size}", size=size, want_size=want.size)
        elif want.sha256 and sha256 != want.sha256:
            wrong = _(
                "has sha256 {sha256}, expected {want_sha256}",
                sha256=sha256,
                want_sha256=want.sha256,
            )
        if wrong:
            if part.resumed:  # pieces of two files? once more, in one go
                raise _StartOver(_("the file {wrong}", wrong=wrong))
            self._forget(part)
            raise _Final(_("the file there {wrong}", wrong=wrong))
        if not part.path.exists():
            part.path.touch()  # an empty file is a file
        self.store.add(part.path, want.sha256, known=sha256)
        part.note.unlink(missing_ok=True)
        return Got(want, sha256, size, url)

    def _forget(self, part: _Part) -> None:
        """Throw the unverified bytes away."""
        part.path.unlink(missing_ok=True)
        part.note.unlink(missing_ok=True)
        part.digest = hashlib.sha256()
        part.resumed = False
        self.progress.add(-part.counted)
        part.counted = 0

    def _curl(self) -> list[str]:
        """The command line: nothing secret, the address comes on standard input."""
        return [
            "curl",
            "--disable",
            "--silent",
            "--show-error",
            "--fail",
            "--location",
            "--max-redirs",
            "10",
            "--proto",
            "=http,https",
            "--proto-redir",
            "=http,https",
            "--include",
            "--suppress-connect-headers",
            "--connect-timeout",
            str(CONNECT_SECONDS),
            "--speed-limit",
            "1",
            "--speed-time",
            str(STALL_SECONDS),
            "--user-agent",
            "gapforge",
            *self.network.curl_options(),
            "--config",
            "-",
        ]


def _curl_config(address: str, part: _Part) -> str:
    """curl's configuration for one request. Off the command line, where `ps` would show a token in it."""
    lines = [f"url = {_quote(address)}"]
    if part.size:
        lines.append(f'range = "{part.size}-"')
        etag = part.server_version().get("etag", "")
        if etag and not etag.startswith("W/"):  # a weak one does not promise the same bytes
            lines.append(f"header = {_quote('If-Range: ' + etag)}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "") + '"'


def _key(want: Want) -> str:
    """The name of the partial file: the expected hash, or one made from the addresses where none is known."""
    return want.sha256 or "url-" + sha256_bytes("\n".join(want.urls).encode())[:40]


def _read_head(stream: IO[bytes]) -> _Answer | None:
    """The last header block (redirects and 100-continue come before it); None when there was no answer."""
    answer: _Answer | None = None
    while True:
        line = stream.readline(65536)
        match = re.match(rb"HTTP/[0-9.]+ (\d{3})", line)
        if not match:
            return answer
        answer = _Answer(int(match[1]), {})
        while (line := stream.readline(65536).rstrip(b"\r\n")) != b"":
            name, _separator, value = line.decode("latin-1").partition(":")
            answer.headers[name.strip().lower()] = value.strip()
        redirected = 300 <= answer.status < 400 and "location" in answer.headers
        if not redirected and answer.status >= 200:
            return answer


def _is_page_type(answer: _Answer) -> bool:
    return answer.headers.get("content-type", "").split(";")[0].strip().lower() in (
        "text/html",
        "application/xhtml+xml",
    )


def _widen(stream: IO[bytes]) -> None:
    """A larger pipe: fewer switches between curl and us. The default where the system refuses."""
    try:
        fcntl.fcntl(stream.fileno(), getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
    except OSError:
        pass


def _page_came() -> str:
    return _("a web page (a login or error page?) came instead of the file")


def _plain(message: str, code: int) -> str:
    """curl's message without its prefix; only the last line, and no address (it may hold a token)."""
    last = message.splitlines()[-1] if message else ""
    said = re.sub(r"^curl: \(\d+\) ", "", last)
    return said or _("curl ended with {code}", code=code)
