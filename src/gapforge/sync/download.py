"""Download files into the store: in parallel, resumed, from the first address that has them.

Each file is one curl, whose output is read, hashed and written here. curl handles proxies, netrc,
certificates and redirects. As its output is a pipe, curl ends when this process is killed, so a
later run has no second writer. Why curl and not aria2: docs/decisions/0006-downloads.en.md.

Unverified bytes are in ``store/partial/KEY.part``; KEY.json has the version of the file on the
server to which they belong.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import IO, NoReturn, cast
from urllib.parse import unquote, urlsplit

from gapforge.base import process
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import Fault, FetchError, Interrupted
from gapforge.base.files import CHUNK, UnsuitableFile, open_buffered, open_regular, sha256_bytes
from gapforge.base.i18n import _, ngettext
from gapforge.base.progress import Progress
from gapforge.base.storage_errors import storage_errors
from gapforge.base.strict_json import read_json
from gapforge.base.system_errors import unreadable
from gapforge.base.text_layout import whole_number
from gapforge.base.units import human_bytes
from gapforge.base.write_files import is_own, open_own, open_replaced
from gapforge.store.store import Store
from gapforge.sync import private_github_files
from gapforge.sync.network import Network, clock_hint
from gapforge.sync.small_requests import Answer, Request, get, quoted

CONNECT_SECONDS = 30
STALL_SECONDS = 60  # without a byte, until the connection counts as interrupted
LONGEST_WAIT = 60.0  # seconds between two attempts
PIPE_BYTES = 1 << 20

# curl's exit codes for temporary failures: name lookup, connection, truncated transfer, timeout,
# start of TLS, empty answer, send, receive, HTTP/2, QUIC.
TEMPORARY_CURL = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92, 95, 96}
SUCCESS_HTTP = (200, 206)
TEMPORARY_HTTP = {408, 425, 429, 500, 502, 503, 504}
WEB_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf\s*)?<(?:!doctype\s+html|html|head)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Want:
    """One file to download.

    ``sha256`` "" and ``size`` 0 mean unknown; ``urls`` are tried in order.
    """

    file: str
    urls: tuple[str, ...]
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class Got:
    """A file that is in the store now.

    ``url`` is the address of Want.urls that had it, "" for none.
    """

    want: Want
    sha256: str
    size: int
    url: str


class _TemporaryError(Exception):
    """A failure after which another attempt may succeed.

    ``wait`` is the pause in seconds that the server asks for.
    """

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class _FinalError(Exception):
    """A failure that another attempt at this address would repeat."""


class _NotFoundError(_FinalError):
    """The server has no such file, or does not show it without a token."""


class _ChecksumError(_FinalError):
    """The server has other bytes than expected."""


class _StartOver(Exception):  # noqa: N818 - a request, not an error
    """The partial file does not match the file on the server: download it from the start."""


@dataclass
class _Answer:
    """Status and headers of the final HTTP answer."""

    status: int
    headers: dict[str, str]
    redirected: bool = False

    @property
    def whole(self) -> int:
        """Return the bytes of the complete file, 0 if the server does not state them."""
        if self.status == 206:
            match = re.fullmatch(
                r"bytes [0-9]+-[0-9]+/([0-9]{1,19})", self.headers.get("content-range", "")
            )
            return int(match[1]) if match else 0
        text = self.headers.get("content-length", "")
        return (whole_number(text) or 0) if "content-encoding" not in self.headers else 0

    @property
    def start(self) -> int:
        """Return the offset of the first byte of the body, -1 for an invalid answer."""
        if self.status != 206:
            return 0
        match = re.match(r"bytes ([0-9]{1,19})-", self.headers.get("content-range", ""))
        return int(match[1]) if match else -1


@dataclass(kw_only=True)
class _Part:
    """The unverified bytes of one file. ``note`` has their version on the server."""

    path: Path
    note: Path
    counted: int = 0  # bytes that the progress includes
    resumed: bool = False
    announced: bool = False  # whether the total of the progress includes this file
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def server_version(self) -> dict[str, str]:
        """Return the version to which the bytes belong, {} if it is not known.

        It has the SHA-256 of the address ("url"), the "etag", and the "total" of bytes, each "" if
        unknown.
        """
        try:
            value = read_json(self.note)
        except (OSError, ValueError):
            return {}
        known = value if isinstance(value, dict) else {}
        return {name: text for name, text in known.items() if isinstance(text, str)}

    def is_version(self, address: str, etag: str, total: int) -> bool:
        """Return whether the bytes surely belong to the file of ``total`` bytes at ``address``.

        A weak ETag does not guarantee the same bytes.
        """
        known = self.server_version()
        strong = bool(etag) and not etag.startswith("W/")
        return strong and known == version_note(address, etag, total)


def version_note(address: str, etag: str, total: int | None) -> dict[str, str]:
    """Return the note beside a partial file. The address, which may hold a login, is hashed."""
    return {"url": _hashed(address), "etag": etag, "total": str(total or "")}


def _hashed(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()


class Downloader:
    """Download files into a store. Each sync uses one; ``fetch`` may be called several times."""

    def __init__(self, store: Store, network: Network, progress: Progress) -> None:
        self.store, self.network, self.progress = store, network, progress
        self._stop = threading.Event()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()

    def fetch(self, wants: Sequence[Want]) -> list[Got]:
        """Download all of ``wants`` in parallel. Return them in their order.

        A failure does not stop the other downloads: when FetchError is raised with every file that
        failed, all others are in the store. Ctrl-C keeps the partial files.
        """
        if not wants:
            return []
        # Two downloads of one file would write the same partial file.
        unique: dict[str, Want] = {}
        for want in wants:
            unique.setdefault(_key(want), want)
        futures: dict[str, Future[Got]] = {}
        with ThreadPoolExecutor(self.network.jobs) as pool:
            try:
                # Large files first: otherwise they end last.
                for key, want in sorted(unique.items(), key=lambda item: -item[1].size):
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
                raise error  # such as a full disk or a missing curl
        if faults:
            count = len({fault.where for fault in faults})
            raise FetchError(
                ngettext(
                    "{count} file could not be downloaded",
                    "{count} files could not be downloaded",
                    count,
                ),
                faults=faults,
                hint=_(
                    "run the same command again: complete files are kept, and interrupted "
                    "downloads are resumed; or put the files into a folder and add "
                    "--from FOLDER"
                ),
            )
        return [
            Got(want, got.sha256, got.size, got.url)
            for want in wants
            for got in [futures[_key(want)].result()]
        ]

    def _one(self, want: Want, key: str) -> Got:
        """Download one file from the first of its addresses that has the right bytes."""
        part = _Part(path=self.store.partial(f"{key}.part"), note=self.store.partial(f"{key}.json"))
        tried: list[Fault] = []
        if not is_own(part.path):  # a link in its place would be written through
            self._forget(part)
        for url in want.urls:
            try:
                return self._from_url(want, url, part)
            except _FinalError as error:
                tried.append(
                    Fault(want.file, f"{without_credentials(self.network.url(url))}: {error}")
                )
        if not want.urls:
            tried.append(Fault(want.file, _("has no address")))
        self._forget(part)
        raise FetchError(_("{file} could not be downloaded", file=want.file), faults=tried)

    def _from_url(self, want: Want, url: str, part: _Part) -> Got:
        """Download the file from one address.

        Raise _FinalError if this address does not have it.
        """
        address = self.network.url(url)
        file = self.network.github.find(address)
        private = False
        failures = 0
        started_over = False
        while True:
            before = part.size
            try:
                request = self._private_request(file) if file and private else Request(address)
                self._transfer(want, request, part)
                got = self._finish(want, url, part)
                self.progress.note(f"  {want.file}  {human_bytes(got.size)}")
                return got
            except _NotFoundError:
                if file is None or private:
                    raise
                private = True
            except _ChecksumError as error:
                if file is None or not private or file.asset:
                    raise
                raise _FinalError(private_github_files.other_archive(str(error))) from None
            except _StartOver as error:
                self._forget(part)
                if started_over:
                    raise _FinalError(str(error)) from None
                started_over = True
            except _TemporaryError as error:
                moved = part.size > before
                failures = 1 if moved else failures + 1
                if failures > self.network.retries:
                    raise _FinalError(
                        _("{error} (tried {failures} times)", error=error, failures=failures)
                    ) from None
                # After a transfer that made progress, try again at once; otherwise wait longer each
                # time.
                pause = 0.05 if moved else min(LONGEST_WAIT, 0.5 * 2 ** (failures - 1))
                pause = min(LONGEST_WAIT, max(error.wait, pause))
                self.progress.note(
                    _(
                        "  {file}: {error}; next attempt in {pause:g} s from {offset}",
                        file=want.file,
                        error=error,
                        pause=pause,
                        offset=human_bytes(part.size),
                    )
                )
                if self._stop.wait(pause):
                    raise Interrupted(_("stopped")) from None

    def _private_request(self, file: private_github_files.PrivateFile) -> Request:
        """Return the request for a file of a private repository. Raise _FinalError without one."""
        service = self.network.github
        if not service.token:
            raise _FinalError(service.hidden(file))
        try:
            if file.asset:
                accept = "application/vnd.github+json"
                once = replace(self.network, retries=0)
                answer = get(service.release(file), once, headers=service.headers(accept))
                if answer.status != 200:
                    _raise_for_status(answer, service.refusal(file, answer.status, answer.headers))
                file = private_github_files.asset_in(answer.body, file)[0]
        except FetchError as error:
            raise _TemporaryError(error.message) from None
        except private_github_files.RefusedError as error:
            raise _FinalError(str(error)) from None
        return Request(service.address(file), service.headers(private_github_files.OCTETS))

    def _transfer(self, want: Want, request: Request, part: _Part) -> None:
        """Append what is missing of the file to ``part``."""
        self._resume(want, part, request.url)
        if want.sha256 and want.size and part.size == want.size:
            return  # a run was killed between the last byte and the verification
        if urlsplit(request.url).scheme == "file":
            self._copy(want, request.url, part)
            return
        self.network.require(_("downloading {file}", file=want.file))
        with self._running_curl(request, part) as child:
            assert child.stdout is not None and child.stderr is not None
            answer = self._receive(want, request.url, part, child.stdout)
            child.stdout.close()
            output = child.stderr.read().decode("utf-8", "replace").strip()
            code = child.wait()
        if self._stop.is_set():
            raise Interrupted(_("stopped"))
        if answer is not None and answer.status not in SUCCESS_HTTP:
            self._refuse(answer, request, part)
        _check_end(answer, part, output, code)

    @contextmanager
    def _running_curl(self, request: Request, part: _Part) -> Iterator[subprocess.Popen[bytes]]:
        """Start curl for the rest of a file. It has ended when the block ends."""
        child = process.pipe(
            self._curl(), env=self.network.environment(), stdin=_curl_config(request, part)
        )
        with self._guard:
            self._children.add(child)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            for stream in (child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
            with self._guard:
                self._children.discard(child)

    def _receive(self, want: Want, address: str, part: _Part, stream: IO[bytes]) -> _Answer | None:
        """Read curl's output: write the body of a success to ``part``. Return the answer."""
        _widen(stream)
        answer = _read_headers(stream)
        if answer is not None and answer.status in SUCCESS_HTTP:
            self._check_answer(want, answer, part, address)
            version = version_note(address, answer.headers.get("etag", ""), answer.whole)
            with open_replaced(part.note, 0o600) as note:
                json.dump(version, note)
            self._drain(want, cast(BufferedReader, stream), part)
        return answer

    def _refuse(self, answer: _Answer, request: Request, part: _Part) -> NoReturn:
        """Raise the failure for an answer that is no success."""
        if answer.status == 416 and part.size:
            raise _StartOver(_("the file on the server is shorter than the partial file"))
        service = self.network.github
        file = service.find(request.url) if request.headers and not answer.redirected else None
        refusal = service.refusal(file, answer.status, answer.headers) if file else ""
        _raise_for_status(answer, refusal)

    def _check_answer(self, want: Want, answer: _Answer, part: _Part, address: str) -> None:
        """Reject an answer that is not (the rest of) the file, before any byte of it is written."""
        if answer.status == 200 and part.size:
            self._forget(part)  # the server cannot resume, or the file changed: it sends all of it
        if answer.start != part.size:
            raise _StartOver(
                _(
                    "requested from byte {size}, the server sent from byte {start}",
                    size=part.size,
                    start=answer.start,
                )
            )
        if part.size and not want.sha256:
            etag = answer.headers.get("etag", "")
            if not part.is_version(address, etag, answer.whole):
                raise _StartOver(_("the file on the server has changed"))
        if want.size and answer.whole and answer.whole != want.size:
            page = _is_page_type(answer) and not want.file.endswith((".html", ".htm"))
            if page:
                raise _FinalError(_web_page())
            self._forget(part)
            raise _FinalError(
                _(
                    "the file on the server has {whole} bytes, expected {size}",
                    whole=answer.whole,
                    size=want.size,
                )
            )
        if not want.size and answer.whole:
            self._announce(part, answer.whole)

    def _announce(self, part: _Part, size: int) -> None:
        """Add a size that only the server knows to the total, once for each file."""
        with self._guard:
            if not part.announced:
                part.announced = True
                self.progress.total += size

    def _resume(self, want: Want, part: _Part, address: str) -> None:
        """Hash the bytes of an earlier attempt, so that the transfer continues after them.

        Without a checksum nobody could tell a file spliced of two versions, so only bytes are kept
        that surely belong to the same one.
        """
        part.digest = hashlib.sha256()
        known = part.server_version()
        total = known.get("total", "")
        if not want.sha256 and not (
            total.isdigit() and part.is_version(address, known.get("etag", ""), int(total))
        ):
            self._forget(part)
        part.resumed = part.size > 0
        if part.size and known.get("url") not in (None, _hashed(address)) and known.get("etag"):
            # Another address has the same file (the checksum is the same) with another ETag.
            part.note.unlink(missing_ok=True)
        hashed = 0
        if part.resumed:
            with open_regular(part.path) as file:
                while chunk := file.read(CHUNK):
                    part.digest.update(chunk)
                    hashed += len(chunk)
        if hashed != part.counted:
            self.progress.add(hashed - part.counted)
            part.counted = hashed

    def _drain(self, want: Want, source: BufferedReader, part: _Part) -> None:
        """Write and hash the stream until its end."""
        handle = open_own(part.path)
        with storage_errors(part.path), os.fdopen(handle, "wb", buffering=0) as target:
            target.seek(0, os.SEEK_END)
            first = part.counted == 0
            while chunk := source.read1(CHUNK):
                if self._stop.is_set():
                    return
                if first:
                    first = False
                    if WEB_PAGE.match(chunk) and not want.file.endswith((".html", ".htm")):
                        raise _FinalError(_web_page())
                target.write(chunk)
                part.digest.update(chunk)
                part.counted += len(chunk)
                self.progress.add(len(chunk), want.file)
                if want.size and part.counted > want.size:
                    raise _StartOver(
                        _("the server sent more than the expected {size} bytes", size=want.size)
                    )

    def _copy(self, want: Want, address: str, part: _Part) -> None:
        """Copy from a file:// address."""
        path = Path(unquote(urlsplit(address).path))
        try:
            with open_buffered(path, follow=True) as source:
                source.seek(part.size)
                if not want.size:
                    self._announce(part, path.stat().st_size)
                self._drain(want, source, part)
        except FileNotFoundError:
            raise _FinalError(_("does not exist")) from None
        except (PermissionError, IsADirectoryError, UnsuitableFile) as error:
            raise _FinalError(unreadable(error)) from None

    def _finish(self, want: Want, url: str, part: _Part) -> Got:
        """Verify the bytes and move them into the store."""
        size, sha256 = part.size, part.digest.hexdigest()
        if size != part.counted or (size and not is_own(part.path)):
            # Another program replaced or linked the file, so it is not what was hashed.
            raise _StartOver(_("another program changed the partial file"))
        fault = ""
        if want.size and size != want.size:
            fault = _("{size} bytes, expected {want_size}", size=size, want_size=want.size)
        elif want.sha256 and sha256 != want.sha256:
            fault = _(
                "checksum mismatch: sha256 {sha256}, expected {want_sha256}",
                sha256=sha256,
                want_sha256=want.sha256,
            )
        if fault:
            if part.resumed:  # perhaps its parts are of two versions: try once more from the start
                raise _StartOver(fault)
            self._forget(part)
            raise _ChecksumError(fault)
        os.close(open_own(part.path))  # an empty file is a file
        self.store.add(part.path, want.sha256, known=sha256)
        part.note.unlink(missing_ok=True)
        return Got(want, sha256, size, url)

    def _forget(self, part: _Part) -> None:
        """Delete the unverified bytes."""
        part.path.unlink(missing_ok=True)
        part.note.unlink(missing_ok=True)
        part.digest = hashlib.sha256()
        part.resumed = False
        self.progress.add(-part.counted)
        part.counted = 0

    def _curl(self) -> list[str]:
        """Return the command line.

        The address, which may be secret, is passed on standard input.
        """
        return self.network.curl(
            *("--fail", "--max-redirs", "10", "--proto", "=http,https"),
            *("--include", "--suppress-connect-headers"),
            *("--connect-timeout", str(CONNECT_SECONDS)),
            *("--speed-limit", "1", "--speed-time", str(STALL_SECONDS)),
            *("--user-agent", "gapforge", "--config", "-"),
        )


def _curl_config(request: Request, part: _Part) -> str:
    """Return curl's configuration for one request, which continues after the bytes of ``part``."""
    lines = []
    if part.size:
        lines.append(f'range = "{part.size}-"')
        etag = part.server_version().get("etag", "")
        if etag and not etag.startswith("W/"):  # a weak ETag does not guarantee the same bytes
            lines.append(f"header = {quoted('If-Range: ' + etag)}")
    return request.curl_config(*lines)


def _check_end(answer: _Answer | None, part: _Part, output: str, code: int) -> None:
    """Raise the failure that curl reports, or that of a body that ended too early."""
    if code in TEMPORARY_CURL:
        raise _TemporaryError(_curl_error(output, code))
    if code != 0 or answer is None:
        raise _FinalError(_with_advice(output, code))
    if answer.whole and part.size < answer.whole:
        received, whole = human_bytes(part.size), human_bytes(answer.whole)
        raise _TemporaryError(
            _("the connection ended after {received} of {whole}", received=received, whole=whole)
        )


def _raise_for_status(answer: _Answer | Answer, refusal: str) -> NoReturn:
    """Raise the failure for a status that is no success; ``refusal`` is why a token is refused."""
    if refusal:
        raise _FinalError(refusal)
    after = answer.headers.get("retry-after", "")
    if answer.status in TEMPORARY_HTTP or (answer.status == 403 and after):
        message = _("the server answers {status}", status=answer.status)
        raise _TemporaryError(message, float(after) if after.isdigit() else 0)
    reasons = {
        401: _("login required (netrc)"),
        403: _("access denied"),
        404: _("not found"),
        407: _("the proxy requires a login"),
        410: _("no longer available"),
    }
    reason = reasons.get(answer.status, _("not usable"))
    kind = _NotFoundError if answer.status == 404 else _FinalError
    raise kind(_("the server answers {status}: {reason}", status=answer.status, reason=reason))


def _key(want: Want) -> str:
    """Return the name of the partial file: the checksum, or without one that of the addresses."""
    return want.sha256 or "url-" + sha256_bytes("\n".join(want.urls).encode())[:40]


def _read_headers(stream: IO[bytes]) -> _Answer | None:
    """Return the last header block, after redirects and 100-continue; None without an answer."""
    answer: _Answer | None = None
    redirected = False
    while True:
        line = stream.readline(65536)
        match = re.match(rb"HTTP/[0-9.]+ (\d{3})", line)
        if not match:
            return answer
        answer = _Answer(int(match[1]), {}, redirected)
        while (line := stream.readline(65536).rstrip(b"\r\n")) != b"":
            name, _separator, value = line.decode("latin-1").partition(":")
            answer.headers[name.strip().lower()] = value.strip()
        leads_on = 300 <= answer.status < 400 and "location" in answer.headers
        redirected = redirected or leads_on
        if not leads_on and answer.status >= 200:
            return answer


def _is_page_type(answer: _Answer) -> bool:
    return answer.headers.get("content-type", "").split(";")[0].strip().lower() in (
        "text/html",
        "application/xhtml+xml",
    )


def _widen(stream: IO[bytes]) -> None:
    """Make a pipe larger for fewer context switches, if the system allows it."""
    try:
        fcntl.fcntl(stream.fileno(), getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
    except OSError:
        pass


def _web_page() -> str:
    return _("the server sent a web page (login or error page?) instead of the file")


def _with_advice(output: str, code: int) -> str:
    """Return curl's error, and what to do if a certificate is refused."""
    advice = clock_hint(output)
    if not advice and code in (60, 77):
        advice = _("set GAPFORGE_CA_BUNDLE to your organisation's certificates")
    error = _curl_error(output, code)
    return _("{error}; {advice}", error=error, advice=advice) if advice else error


def _curl_error(output: str, code: int) -> str:
    """Return the last line of curl's output without its prefix."""
    last = output.splitlines()[-1] if output else ""
    return re.sub(r"^curl: \(\d+\) ", "", last) or _("curl ended with {code}", code=code)
