"""Which releases a project has published: its tags, its listing page, or a registry's tags.

Where to look is data (``catalog/upstreams.json``). Answers are small and are asked with curl and skopeo, so
that proxies, certificates, netrc and mirrors work as for every download.
"""

from __future__ import annotations

import html
import json
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
from gapforge.compat.catalog import documents
from gapforge.compat.versions import key
from gapforge.sync.http_get import Answer, get, last_line
from gapforge.sync.network import Network

MOST_PAGES = 30  # of 100 tags; no project here has more
MANIFEST_BYTES = 4_000_000


@dataclass(frozen=True)
class Upstream:
    """Where a component's releases are listed. ``pattern`` has the group ``version`` and matches a whole tag or
    file name; ``archive`` is the address of a release's archive with {version} and {tag}, "" for none."""

    name: str
    kind: str
    address: str
    pattern: str
    archive: str = ""


@dataclass(frozen=True)
class Release:
    """One published release: its version, and the tag or file name that said so."""

    version: str
    tag: str
    groups: Mapping[str, str]


def load(catalog: Path) -> dict[str, Upstream]:
    """The listings of ``catalog/upstreams.json`` by component. Raises PresetError when the catalog has faults."""
    table = documents(catalog)["upstreams"]["upstreams"]
    return {
        name: Upstream(name, u["kind"], u["address"], u["pattern"], u.get("archive", ""))
        for name, u in table.items()
    }


def releases(upstream: Upstream, network: Network) -> list[Release]:
    """Every release there, newest first. Raises FetchError saying who did not answer as expected."""
    network.require(_("asking for releases of {name}", name=upstream.name), files=False)
    if upstream.kind == "github-tags":
        names = github_tags(upstream.address, network)
    elif upstream.kind == "listing":
        names = listing(upstream.address, network)
    else:
        names = registry_tags(upstream.address, network)
    found = matching(names, upstream.pattern)
    if not found:
        where = without_credentials(upstream.address)
        raise FetchError(
            _(
                "{where} answered, but lists no release that looks like {pattern}",
                where=where,
                pattern=upstream.pattern,
            ),
            hint=_(
                "if the project changed its names, correct catalog/upstreams.json: {name}",
                name=upstream.name,
            ),
        )
    return found


def matching(names: Iterable[str], pattern: str) -> list[Release]:
    """The releases among tags or file names, each version once, newest first. A pattern leaves pre-releases out."""
    found: dict[str, Release] = {}
    for name in names:
        match = re.fullmatch(pattern, name)
        if match:
            groups = {group: text or "" for group, text in match.groupdict().items()}
            found.setdefault("-".join(groups.values()), Release(match["version"], name, groups))
    return sorted(found.values(), key=lambda r: (key(r.version), r.tag), reverse=True)


def github_tags(address: str, network: Network) -> list[str]:
    """All tags of a repository, by the tags API and its pages."""
    names: list[str] = []
    url = f"{address}?per_page=100"
    for _round in range(MOST_PAGES):
        answer = get(url, network)
        _refuse_limit(answer, address)
        _expect_success(answer, address)
        try:
            page = json.loads(answer.body)
            names += [str(tag["name"]) for tag in page]
        except (ValueError, TypeError, KeyError) as error:
            where = without_credentials(address)
            raise FetchError(
                _("{where} answers something that is no list of tags", where=where),
                hint=_("a proxy's page? look: curl {where}", where=where),
            ) from error
        following = re.search(r'<([^>]+)>\s*;\s*rel="next"', answer.headers.get("link", ""))
        if not following:
            return names
        url = urljoin(url, following[1])
        if not url.startswith(("http://", "https://")):
            where = without_credentials(address)
            raise FetchError(_("{where} names a next page that is no web address", where=where))
    return names


def listing(address: str, network: Network) -> list[str]:
    """The file names that a listing page links to."""
    answer = get(address, network)
    _expect_success(answer, address)
    text = answer.body.decode("utf-8", "replace")
    links = re.findall(r"""<a\s[^>]*?href\s*=\s*["']?([^"'\s>]+)""", text, re.IGNORECASE)
    return [
        unquote(html.unescape(link).split("?")[0].split("#")[0]).rsplit("/", 1)[-1]
        for link in links
    ]


def registry_tags(image: str, network: Network) -> list[str]:
    """All tags of an image (``registry/name`` without a tag)."""
    reference = network.registry(image)
    try:
        done = process.run(
            [
                "skopeo",
                "list-tags",
                "--retry-times",
                str(min(2, network.retries)),
                f"docker://{reference}",
            ],
            env=network.environment(),
            timeout=300,
            check=False,
        )
    except ToolError as error:
        if error.hint:
            raise
        raise FetchError(
            _("{reference} does not answer: {message}", reference=reference, message=error.message)
        ) from error
    if done.code != 0:
        said = last_line(done.errors)
        raise FetchError(
            _("the tags of {reference} cannot be listed: {said}", reference=reference, said=said),
            hint=f"skopeo list-tags docker://{reference}",
        )
    try:
        return [str(tag) for tag in json.loads(done.output)["Tags"]]
    except (ValueError, TypeError, KeyError):
        raise FetchError(_("{reference} answers no list of tags", reference=reference)) from None


def image_digest(image: str, network: Network) -> str:
    """The digest that an image's tag stands for now ("sha256:…"). Raises FetchError."""
    network.require(_("asking for the digest of {image}", image=image), files=False)
    reference = network.registry(image)
    command = [
        "skopeo",
        "inspect",
        "--raw",
        "--retry-times",
        str(min(2, network.retries)),
        f"docker://{reference}",
    ]
    try:
        with process.piped(command, env=network.environment()) as output:
            return f"sha256:{sha256_bytes(output.read(MANIFEST_BYTES))}"
    except ToolError as error:
        if error.hint:
            raise
        said = last_line(error.message)
        raise FetchError(
            _("{reference} cannot be looked at: {said}", reference=reference, said=said)
        ) from error


def _refuse_limit(answer: Answer, address: str) -> None:
    if answer.status not in (403, 429):
        return
    left, after = answer.headers.get("x-ratelimit-remaining"), answer.headers.get("retry-after", "")
    if left != "0" and answer.status != 429 and not after:
        return
    reset = answer.headers.get("x-ratelimit-reset", "")
    when = ""
    if reset.isdigit():
        at = time.strftime("%H:%M UTC", time.gmtime(int(reset)))
        when = _(" until {at}", at=at)
    elif after.isdigit():
        when = _(" for {after} s", after=after)
    host = without_credentials(address).split("/")[2]
    raise FetchError(
        _(
            "{host} answers no more questions from this address{when} (rate limit)",
            host=host,
            when=when,
        ),
        hint=_(
            "wait, or give a token in ~/.netrc: machine {host} login USER password TOKEN", host=host
        ),
    )


def _expect_success(answer: Answer, address: str) -> None:
    if answer.status != 200:
        where, said = without_credentials(address), answer.status or _("nothing")
        raise FetchError(
            _("{where} answers {said}", where=where, said=said),
            hint=_("look whether the address in catalog/upstreams.json is still right"),
        )
