"""Run a loopback server that answers for a private repository as GitHub does.

Sources: the docstring of ``gapforge.sync.private_github_files``. The archive's host is another
server under another host name, whose addresses hold a token of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from gapforge.sync.private_github_files import OCTETS, GitHub
from servers import Site, file_server, serving

TOKEN = "github_pat_11AAAAAAA_secret-canary"
REPOSITORY = "acme/secret"
SIGNATURE = "signed-canary"


@dataclass
class GitHubSite:
    """The web site (``web``) and the API (``api``) on one port; ``storage`` has the bytes.

    ``answers`` maps a token to the status that it gets, with headers; 0 lets it in. ``archives``
    are by reference, ``assets`` by tag and name. ``streams`` sends an asset without a redirect.
    ``log`` has the path of each request, ``sent`` its Authorization header.
    """

    storage: Site
    port: int = 0
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=lambda: {TOKEN: (0, {})})
    archives: dict[str, bytes] = field(default_factory=dict)
    assets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    streams: bool = False
    log: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def service(self, token: str = "") -> GitHub:
        """Return the hosts for the program under test. The API is the web site's host here."""
        return GitHub(token=token, web=self.web, codeload="http://codeload.invalid", api=self.web)

    def archive(self, reference: str, body: bytes, form: str = "tar.gz") -> str:
        """Add an archive. Return its address on the web site."""
        self.archives[reference] = body
        return f"{self.web}/{REPOSITORY}/archive/{reference}.{form}"

    def asset(self, tag: str, name: str, body: bytes) -> str:
        """Add a release asset. Return its address on the web site."""
        self.assets.setdefault(tag, {})[name] = body
        return f"{self.web}/{REPOSITORY}/releases/download/{tag}/{name}"

    def stored(self, name: str, body: bytes) -> str:
        """Put ``body`` at the archive's host, another host than GitHub's. Return its address."""
        self.storage.add(f"/{SIGNATURE}/{name}", body, etag=f'"{name}"')
        return f"http://localhost:{self.storage.port}/{SIGNATURE}/{name}?token={SIGNATURE}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: GitHubSite

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        site, path = self.site, unquote(urlsplit(self.path).path)
        site.log.append(path)
        site.sent.append(self.headers.get("Authorization", ""))
        prefix = f"/repos/{REPOSITORY}/"
        if not path.startswith(prefix):
            self._answer(404, b"<!DOCTYPE html><html>Not Found</html>")  # whatever token it gets
            return
        token = self.headers.get("Authorization", "").removeprefix("token ")
        status, headers = site.answers.get(token, (401, {})) if token else (404, {})
        if status:
            self._json(status, {"message": "no"}, headers)
        else:
            self._private(path.removeprefix(prefix))

    def _private(self, path: str) -> None:
        site = self.site
        verb, _slash, rest = path.partition("/")
        if verb in ("tarball", "zipball") and rest in site.archives:
            self._redirect(site.stored(rest.replace("/", "-"), site.archives[rest]))
        elif path.startswith("releases/assets/"):
            name, body = self._numbered()[int(path.rsplit("/", 1)[1])]
            if self.headers.get("Accept") != OCTETS:
                self._json(200, {"name": name})
            elif site.streams:
                self._answer(200, body, {"Content-Type": OCTETS})
            else:
                self._redirect(site.stored(name, body))
        elif path.startswith("releases/"):
            tag = path.removeprefix("releases/").removeprefix("tags/")
            tag = max(site.assets) if tag == "latest" else tag
            listed = [
                {"id": number, "name": name, "size": len(body)}
                for number, (name, body) in enumerate(self._numbered())
                if name in site.assets.get(tag, {})
            ]
            self._json(200 if tag in site.assets else 404, {"tag_name": tag, "assets": listed})
        else:
            self._json(404, {"message": "Not Found"})

    def _numbered(self) -> list[tuple[str, bytes]]:
        return [pair for assets in self.site.assets.values() for pair in assets.items()]

    def _redirect(self, address: str) -> None:
        self._answer(302, b"", {"Location": address})

    def _json(self, status: int, document: object, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json"}
        self._answer(status, json.dumps(document).encode(), {**kind, **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def github_site() -> Iterator[GitHubSite]:
    """Run GitHub and the host of its archives on free loopback ports during the block."""
    with file_server() as storage:
        site = GitHubSite(storage)
        with serving(type("Handler", (_Handler,), {"site": site})) as site.port:
            yield site
