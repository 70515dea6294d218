"""List the releases that a project has published: its tags, its listing page, or a registry's tags.

Where to look is data (``catalog/upstreams.json``). The requests are made with curl and skopeo, so
that proxies, certificates, netrc and mirrors work as for every download.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin

from gapforge.base import process
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import FetchError, ToolError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.strict_json import parse_json
from gapforge.base.text_layout import whole_number
from gapforge.model.catalog import documents
from gapforge.model.versions import key
from gapforge.sync.network import Network
from gapforge.sync.small_requests import Answer, get, last_line

_MAX_PAGES = 30  # of 100 tags; no project here has more
_LAST_SECOND = 1 << 40  # that time.gmtime converts on every system
_MANIFEST_BYTES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Where the releases of ``name`` are listed.

    ``pattern`` has the group ``version`` and matches a whole tag or file name. ``archive`` is the
    address of a release's archive with {version} and {tag}, "" if there is none.
    """

    name: str
    kind: str
    address: str
    pattern: str
    archive: str = ""


@dataclass(frozen=True)
class Release:
    """A published release: its version, its tag or file name, and the pattern's groups in it."""

    version: str
    tag: str
    groups: Mapping[str, str]


def load(catalog: Path) -> dict[str, Upstream]:
    """Return the upstreams in ``catalog/upstreams.json`` by name. Raise PresetError."""
    names = ("kind", "address", "pattern", "archive")
    table = documents(catalog)["upstreams"]["upstreams"]
    return {
        name: Upstream(name=name, **{k: v for k, v in upstream.items() if k in names})
        for name, upstream in table.items()
    }


def releases(upstream: Upstream, network: Network) -> list[Release]:
    """Return every release, newest first. Raise FetchError for an unexpected answer."""
    network.require(_("asking for releases of {name}", name=upstream.name), files=False)
    lists = {"github-tags": github_tags, "listing": listing, "registry": registry_tags}
    found = matching(lists[upstream.kind](upstream.address, network), upstream.pattern)
    if not found:
        raise FetchError(
            _(
                "no release at {address} matches {pattern}",
                address=without_credentials(upstream.address),
                pattern=upstream.pattern,
            ),
            hint=_(
                "if the project has new names for its releases, correct {name} in "
                "catalog/upstreams.json",
                name=upstream.name,
            ),
        )
    return found


def matching(names: Iterable[str], pattern: str) -> list[Release]:
    """Return the releases among tags or file names, each version once, newest first.

    The patterns exclude pre-releases.
    """
    found: dict[str, Release] = {}
    for match in filter(None, (re.fullmatch(pattern, name) for name in names)):
        groups = {group: text or "" for group, text in match.groupdict().items()}
        found.setdefault("-".join(groups.values()), Release(match["version"], match[0], groups))
    return sorted(found.values(), key=lambda r: (key(r.version), r.tag), reverse=True)


def github_tags(address: str, network: Network) -> list[str]:
    """Return all tags of a repository, from every page of the tags API."""
    names: list[str] = []
    url = f"{address}?per_page=100"
    for _page in range(_MAX_PAGES):
        answer = get(url, network)
        _refuse_limit(answer, address)
        _expect_success(answer, address)
        where = without_credentials(address)
        try:
            names += [str(tag["name"]) for tag in parse_json(answer.body)]
        except (ValueError, TypeError, KeyError) as error:
            raise FetchError(
                _("the answer of {address} is not a list of tags", address=where),
                hint=_("check whether a proxy answers: curl {address!q}", address=where),
            ) from error
        following = re.search(r'<([^>]+)>\s*;\s*rel="next"', answer.headers.get("link", ""))
        if not following:
            return names
        url = urljoin(url, following[1])
        if not url.startswith(("http://", "https://")):
            raise FetchError(_("the next page of {address} is not a web address", address=where))
    return names


def listing(address: str, network: Network) -> list[str]:
    """Return the file names that a listing page links to."""
    answer = get(address, network)
    _expect_success(answer, address)
    text = answer.body.decode("utf-8", "replace")
    links = re.findall(r"""<a\s[^>]*?href\s*=\s*["']?([^"'\s>]+)""", text, re.IGNORECASE)
    paths = (html.unescape(link).split("?")[0].split("#")[0] for link in links)
    return [unquote(path).rsplit("/", 1)[-1] for path in paths]


def registry_tags(image: str, network: Network) -> list[str]:
    """Return all tags of an image (``registry/name`` without a tag)."""
    reference = network.registry(image)
    command = _skopeo(["list-tags"], reference, network)
    try:
        with network.skopeo_environment(reference) as environment:
            done = process.run(command, env=environment, timeout=300, check=False)
    except ToolError as error:
        if error.is_missing:
            raise
        raise FetchError(
            _("{image} does not answer: {reason}", image=reference, reason=error.message)
        ) from error
    if done.code != 0:
        reason = last_line(done.errors)
        raise FetchError(
            _("cannot list the tags of {image}: {reason}", image=reference, reason=reason),
            hint=process.quoted(["skopeo", "list-tags", f"docker://{reference}"]),
        )
    try:
        return [str(tag) for tag in parse_json(done.output.encode())["Tags"]]
    except (ValueError, TypeError, KeyError):
        raise FetchError(
            _("the answer of {address} is not a list of tags", address=reference)
        ) from None


def image_digest(image: str, network: Network) -> str:
    """Return the digest that an image's tag refers to now ("sha256:…"). Raise FetchError."""
    network.require(_("asking for the digest of {image}", image=image), files=False)
    reference = network.registry(image)
    command = _skopeo(["inspect", "--raw"], reference, network)
    try:
        with (
            network.skopeo_environment(reference) as environment,
            process.piped(command, env=environment) as output,
        ):
            return f"sha256:{sha256_bytes(output.read(_MANIFEST_BYTES))}"
    except ToolError as error:
        if error.is_missing:
            raise
        reason = last_line(error.output or error.message)
        raise FetchError(
            _("cannot inspect {image}: {reason}", image=reference, reason=reason)
        ) from error


def _skopeo(words: list[str], reference: str, network: Network) -> list[str]:
    retries = str(min(2, network.retries))
    return ["skopeo", *words, "--retry-times", retries, f"docker://{reference}"]


def _refuse_limit(answer: Answer, address: str) -> None:
    if answer.status not in (403, 429):
        return
    left, after = answer.headers.get("x-ratelimit-remaining"), answer.headers.get("retry-after", "")
    if left != "0" and answer.status != 429 and not after:
        return
    host = without_credentials(address).split("/")[2]
    reset = answer.headers.get("x-ratelimit-reset", "")
    wait = f"{after} s" if whole_number(after) is not None else ""
    moment = whole_number(reset)
    if moment is not None and moment < _LAST_SECOND:
        wait = time.strftime("%H:%M UTC", time.gmtime(moment))
    token = f"machine {host} login USER password TOKEN"
    hint = (
        _("try again later ({wait}), or put a token into ~/.netrc: {token}", wait=wait, token=token)
        if wait
        else _("try again later, or put a token into ~/.netrc: {token}", token=token)
    )
    raise FetchError(_("the rate limit of {host} is reached", host=host), hint=hint)


def _expect_success(answer: Answer, address: str) -> None:
    if answer.status == 200:
        return
    where = without_credentials(address)
    raise FetchError(
        _("{address} answered with status {status}", address=where, status=answer.status)
        if answer.status
        else _("{address} did not answer", address=where),
        hint=_("check whether the address in catalog/upstreams.json is still correct"),
    )
