"""Run loopback servers: files with the faults of real servers, and Python indexes."""

from __future__ import annotations

import hashlib
import html
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import unquote

from gapforge.model.names import normalized


@dataclass
class Behaviour:
    """How one path answers. The default is a correct server with ranges."""

    body: bytes = b""
    cut_after: int = 0  # bytes of body after which the connection is closed, each time
    cuts: int = 10**9  # how often the connection is closed
    ranges: bool = True
    ignores_if_range: bool = False  # answers 206 although the file has another ETag
    wrong_range: bool = False  # answers 206 from byte 0 for every range
    fail_times: int = 0  # the number of first requests that get ``fail_status``
    fail_status: int = 503
    status: int = 200  # another status is the answer to every request
    content_type: str = "application/octet-stream"
    etag: str = ""
    rate: int = 0  # bytes per second and connection, 0 for full speed
    hang_after: int = 0  # bytes after which the server sends nothing, with the connection open
    redirect: str = ""
    needs_login: str = ""  # the Authorization header that it requires
    no_length: bool = False


@dataclass
class Site:
    """A running server.

    ``log`` has (path, Range header) for every request. ``paths`` may be changed at any time.
    ``stop_at`` is the number of sent bytes after which the server pauses, 0 for never.
    """

    paths: dict[str, Behaviour] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    heads: list[Mapping[str, str]] = field(default_factory=list)
    port: int = 0
    sent: int = 0
    stop_at: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, path: str, body: bytes, **how: object) -> str:
        """Serve ``body`` at ``path``. Return the full address."""
        self.paths[path] = Behaviour(body=body, **how)  # type: ignore[arg-type]
        return self.url + path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _plain(self, status: int, text: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_HEAD(self) -> None:
        behaviour = self.site.paths.get(unquote(self.path))
        if behaviour is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
        else:
            self.send_response(behaviour.status)
            self.send_header("Content-Length", str(len(behaviour.body)))
            self.send_header("Content-Type", behaviour.content_type)
            if behaviour.ranges:
                self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self) -> None:
        site, path = self.site, unquote(self.path.split("?")[0])
        with site.guard:
            site.log.append((path, self.headers.get("Range", "")))
            site.heads.append(dict(self.headers.items()))
            how = site.paths.get(path)
            failing = how is not None and how.fail_times > 0
            if how is not None and failing:
                how.fail_times -= 1
        if how is None:
            self._plain(404, b"nothing here")
        elif failing:
            self._plain(how.fail_status, b"later")
        elif how.needs_login and self.headers.get("Authorization") != how.needs_login:
            self._plain(401, b"who are you?", WWW_Authenticate='Basic realm="x"')
        elif how.redirect:
            self._plain(302, b"", Location=how.redirect)
        elif how.status != 200:
            self._plain(how.status, b"no")
        else:
            self._file(how)

    def _file(self, how: Behaviour) -> None:
        asked = self.headers.get("Range", "")
        start, end, status = 0, len(how.body), 200
        if_range = "" if how.ignores_if_range else self.headers.get("If-Range", "")
        if asked.startswith("bytes=") and how.ranges and (not if_range or if_range == how.etag):
            first, _, last = asked[6:].partition("-")
            if first == "":
                start = max(0, end - int(last))
            else:
                start = int(first)
                end = min(end, int(last) + 1) if last else end
            if start >= len(how.body):
                self._plain(416, b"")
                return
            status = 206
            if how.wrong_range:
                start = 0
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(how.body)}")
        if how.no_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(end - start))
        if how.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", how.content_type)
        if how.etag:
            self.send_header("ETag", how.etag)
        self.end_headers()
        self._body(how, start, end)

    def _body(self, how: Behaviour, start: int, end: int) -> None:
        limit = end
        if how.cut_after and how.cuts > 0 and start + how.cut_after < end:
            with self.site.guard:
                how.cuts -= 1
            limit = start + how.cut_after
        step = max(1024, how.rate // 50) if how.rate else 1 << 18
        begin, position = time.monotonic(), start
        try:
            while position < limit:
                while 0 < self.site.stop_at <= self.site.sent:
                    time.sleep(0.01)
                piece = how.body[position : min(position + step, limit)]
                with self.site.guard:  # before a client has them
                    self.site.sent += len(piece)
                self.wfile.write(piece)
                position += len(piece)
                if how.hang_after and position - start >= how.hang_after:
                    time.sleep(3600)
                if how.rate:
                    ahead = (position - start) / how.rate - (time.monotonic() - begin)
                    if ahead > 0:
                        time.sleep(ahead)
        except OSError:
            self.close_connection = True
            return
        if limit < end:
            self.close_connection = True
            try:
                self.wfile.flush()
                self.connection.shutdown(2)
            except OSError:
                pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # tests kill clients on purpose


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Run a server during the block. Return its port, a free one of loopback."""
    server = _Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def file_server() -> Iterator[Site]:
    """Run a server on a free loopback port during the block."""
    site = Site()
    with serving(type("Handler", (_Handler,), {"site": site})) as site.port:
        yield site


def wheel(
    name: str,
    version: str,
    tag: str = "py3-none-any",
    requires: tuple[str, ...] = (),
    *,
    payload: str = "",
    requires_python: str = "",
) -> tuple[str, bytes]:
    """Return an installable wheel: (file name, bytes).

    Its module ``NAME`` has ``__version__`` and ``payload``.
    """
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in requires)
    metadata += f"Requires-Python: {requires_python}\n" if requires_python else ""
    files = {
        f"{plain}/__init__.py": f"__version__ = {version!r}\npayload = {payload!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\n"
        f"Root-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
    files[f"{info}/RECORD"] = record
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return f"{plain}-{version}-{tag}.whl", buffer.getvalue()


def publish(site: Site, root: str, files: Mapping[str, bytes], *, hashes: bool = True) -> str:
    """Serve ``files`` as a simple Python index (PEP 503) under ``root``. Return its address."""
    projects: dict[str, dict[str, bytes]] = {}
    for name, body in files.items():
        stem = name.split("-")[0] if name.endswith(".whl") else name.rsplit("-", 1)[0]
        projects.setdefault(normalized(stem), {})[name] = body
    for project, archives in projects.items():
        lines = []
        for name, body in sorted(archives.items()):
            site.add(f"{root}/files/{name}", body)
            fragment = f"#sha256={hashlib.sha256(body).hexdigest()}" if hashes else ""
            address = html.escape(f"{root}/files/{name.replace('+', '%2B')}{fragment}")
            lines.append(f'<a href="{address}">{html.escape(name)}</a><br>')
        page = "<!DOCTYPE html><html><body>" + "\n".join(lines) + "</body></html>"
        site.add(f"{root}/simple/{project}/", page.encode(), content_type="text/html")
    return f"{site.url}{root}/simple"
