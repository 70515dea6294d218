"""Find the address at which GitHub gives a file of a private repository to the owner of a token.

The addresses of the web site answer a private repository with 404 whatever token is sent. Its REST
API accepts a token:

| address on the web site | address of the API |
|---|---|
| ``/OWNER/REPO/archive/REF.tar.gz`` | ``/repos/OWNER/REPO/tarball/REF`` (``zipball`` for .zip) |
| ``/OWNER/REPO/releases/download/TAG/FILE`` | ``/repos/OWNER/REPO/releases/assets/ID`` |

Sources: docs.github.com, REST API. "Download a repository archive (tar)": answers 302; for a
private repository the link is valid for five minutes. "Get a release asset": with the media type
application/octet-stream answers 302, or 200 with the file. "Troubleshooting the REST API": 404 for
a private resource without access; 403 or 429 with ``x-ratelimit-remaining: 0`` and
``x-ratelimit-reset`` (UTC, epoch seconds), or with ``retry-after``. "Authenticating to the REST
API": the scheme ``token`` is valid for all personal access tokens and for those of a workflow; 401
for a wrong one; a token without single sign-on gets 403 with ``X-GitHub-SSO``. That the web site
ignores a token is known from experience: github.com/unjs/giget, pull request 93;
github.com/zapier/kubechecks, issue 525. The scheme ``Bearer`` failed for archives with fine-grained
tokens (github.com/unjs/giget, issue 263).

The archive of the API has another top folder than that of the web site, OWNER-REPO-COMMIT instead
of REPO-TAG, and therefore another checksum (github.com/PyGithub/PyGithub, issue 1871).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from gapforge.base.i18n import _
from gapforge.base.strict_json import parse_json
from gapforge.model.credentials import GITHUB_TOKEN

OCTETS = "application/octet-stream"
_NAME = r"[A-Za-z0-9._-]+"
_ARCHIVE = re.compile(rf"/({_NAME})/({_NAME})/archive/(.+)\.(tar\.gz|zip)")
_CODELOAD = re.compile(rf"/({_NAME})/({_NAME})/(?:legacy\.)?(tar\.gz|zip)/(.+)")
_ASSET = re.compile(rf"/({_NAME})/({_NAME})/releases/download/([^/]+)/([^/]+)")
_LATEST = re.compile(rf"/({_NAME})/({_NAME})/releases/(latest)/download/([^/]+)")
_API = re.compile(rf"/repos/({_NAME})/({_NAME})/((?:tar|zip)ball/.+|releases/assets/[0-9]+)")
_SHOWN_ASSETS = 8


@dataclass(frozen=True, kw_only=True)
class PrivateFile:
    """A file of a repository, as an address names it.

    ``path`` is its path in the API below ``/repos/OWNER/REPO/``, "" for an asset, which has the
    name ``asset`` in the release ``tag`` ("latest" for the newest one).
    """

    repository: str
    path: str = ""
    tag: str = ""
    asset: str = ""


class RefusedError(Exception):
    """GitHub does not give the file. The text says why and what to change."""


@dataclass(frozen=True, kw_only=True)
class GitHub:
    """GitHub's hosts, as origins without a path, and the token that only they get."""

    token: str = field(default="", repr=False)
    web: str = "https://github.com"
    codeload: str = "https://codeload.github.com"
    api: str = "https://api.github.com"

    def find(self, address: str) -> PrivateFile | None:
        """Return the file that ``address`` names, None if it is no archive or asset on GitHub."""
        try:
            parts = urlsplit(address)
        except ValueError:
            return None
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path
        if origin == self.web:
            if match := _ASSET.fullmatch(path) or _LATEST.fullmatch(path):
                owner, name, tag, asset = match.groups()
                return PrivateFile(repository=f"{owner}/{name}", tag=tag, asset=unquote(asset))
            if match := _ARCHIVE.fullmatch(path):
                owner, name, reference, form = match.groups()
                return _archive(owner, name, form, reference)
        if origin == self.codeload and (match := _CODELOAD.fullmatch(path)):
            owner, name, form, reference = match.groups()
            return _archive(owner, name, form, reference)
        if origin == self.api and (match := _API.fullmatch(path)):
            return PrivateFile(repository=f"{match[1]}/{match[2]}", path=match[3])
        return None

    def address(self, file: PrivateFile) -> str:
        """Return the API's address of a file that has a path."""
        return f"{self.api}/repos/{file.repository}/{file.path}"

    def release(self, file: PrivateFile) -> str:
        """Return the API's address of the release that has the asset."""
        part = "latest" if file.tag == "latest" else f"tags/{file.tag}"
        return f"{self.api}/repos/{file.repository}/releases/{part}"

    def headers(self, accept: str) -> tuple[str, ...]:
        """Return the headers of a request to the API: the token, and the wanted media type."""
        return f"Authorization: token {self.token}", f"Accept: {accept}"

    def refusal(self, file: PrivateFile, status: int, headers: Mapping[str, str]) -> str:
        """Return why the API refuses a request, "" for a status that says nothing of the token."""
        repository = file.repository
        if status == 401:
            return _(
                "GitHub refuses {key} (status 401): it is wrong, expired or revoked; create a new "
                "one and replace it in .env",
                key=GITHUB_TOKEN,
            )
        if status in (403, 429) and headers.get("x-ratelimit-remaining") == "0":
            reset = headers.get("x-ratelimit-reset", "")
            moment = time.gmtime(int(reset)) if re.fullmatch(r"[0-9]{1,12}", reset) else None
            return _(
                "the requests that GitHub allows {key} are used up until {moment} UTC (status "
                "{status})",
                key=GITHUB_TOKEN,
                moment=time.strftime("%H:%M", moment) if moment else "?",
                status=status,
            )
        if status == 403 and "retry-after" in headers:
            return ""  # too many requests at once
        if status == 403 and "x-github-sso" in headers:
            return _(
                "the organisation of {repository} requires single sign-on (status 403): authorize "
                "{key} for it, on GitHub under Settings, Developer settings, Personal access "
                "tokens, Configure SSO",
                repository=repository,
                key=GITHUB_TOKEN,
            )
        if status == 403:
            return _(
                "{key} may not read {repository} (status 403): it needs the permission Contents: "
                "read (a classic token: the scope repo)",
                key=GITHUB_TOKEN,
                repository=repository,
            )
        if status == 404:
            return _(
                "not found with {key} (status 404): it has no access to {repository}, or the tag "
                "or file does not exist there",
                key=GITHUB_TOKEN,
                repository=repository,
            )
        return ""

    def hidden(self, file: PrivateFile) -> str:
        """Return what a 404 without a token means."""
        return _(
            "not found (status 404), which is also GitHub's answer for a private repository: if "
            "{repository} is private, set {key} in .env (cp .env.template .env; chmod 600 .env)",
            repository=file.repository,
            key=GITHUB_TOKEN,
        )


def other_archive(fault: str) -> str:
    """Return a checksum's ``fault`` with its likely cause: see the module's docstring."""
    return _(
        "{fault} (the archive of a private repository is packed by GitHub's API, with another top "
        "folder than in a browser: write the checksum of this download into the preset, or use a "
        "release asset)",
        fault=fault,
    )


def asset_in(release: bytes, file: PrivateFile) -> tuple[PrivateFile, int]:
    """Return the asset with its path in the API, and its size in bytes (0 if unknown).

    ``release`` is the API's document of the release. Raise RefusedError if the asset is not in it.
    """
    names = []
    for asset in _assets(release):
        name, number, size = asset.get("name"), asset.get("id"), asset.get("size")
        if name == file.asset and type(number) is int and number >= 0:
            found = PrivateFile(repository=file.repository, path=f"releases/assets/{number}")
            return found, size if type(size) is int and size > 0 else 0
        names.append(str(name))
    more = ", …" if names[_SHOWN_ASSETS:] else ""
    raise RefusedError(
        _(
            "the release {tag} of {repository} has no file {asset}; it has: {names}",
            tag=file.tag,
            repository=file.repository,
            asset=file.asset,
            names=", ".join(names[:_SHOWN_ASSETS]) + more if names else "-",
        )
    )


def _assets(release: bytes) -> list[dict[str, Any]]:
    try:
        assets = parse_json(release)["assets"]
        return [asset for asset in assets if isinstance(asset, dict)]
    except (ValueError, TypeError, KeyError):
        raise RefusedError(_("GitHub's answer does not list the files of the release")) from None


def _archive(owner: str, name: str, form: str, reference: str) -> PrivateFile:
    verb = "zipball" if form == "zip" else "tarball"
    path = f"{verb}/{quote(unquote(reference), safe='/')}"
    return PrivateFile(repository=f"{owner}/{name}", path=path)
