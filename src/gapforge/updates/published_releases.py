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
from gapforge.base.errors import FetchError, ToolError
from gapforge.base.files import sha256_bytes
from gapforge.base.text import tr
from gapforge.compat.catalog import documents
from gapforge.compat.versions import key
from gapforge.sync.http_get import Answer, get, last_line
from gapforge.sync.network import Network, shown

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
        name: Upstream(name, u["kind"], u["address"], u["pattern"], u.get("archive", "")) for name, u in table.items()
    }


def releases(upstream: Upstream, network: Network) -> list[Release]:
    """Every release there, newest first. Raises FetchError saying who did not answer as expected."""
    network.require(tr(f"{upstream.name}의 릴리스 확인", f"asking for releases of {upstream.name}"), files=False)
    if upstream.kind == "github-tags":
        names = github_tags(upstream.address, network)
    elif upstream.kind == "listing":
        names = listing(upstream.address, network)
    else:
        names = registry_tags(upstream.address, network)
    found = matching(names, upstream.pattern)
    if not found:
        where = shown(upstream.address)
        raise FetchError(tr(f"{where}에 {upstream.pattern} 꼴의 릴리스가 없습니다",
                            f"{where} answered, but lists no release that looks like {upstream.pattern}"),
                         hint=tr(f"프로젝트가 이름 규칙을 바꾸었으면 catalog/upstreams.json을 고치십시오: {upstream.name}",
                                 f"if the project changed its names, correct catalog/upstreams.json: {upstream.name}"))  # fmt: skip
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
    for _ in range(MOST_PAGES):
        answer = get(url, network)
        _refuse_limit(answer, address)
        _expect_success(answer, address)
        try:
            page = json.loads(answer.body)
            names += [str(tag["name"]) for tag in page]
        except (ValueError, TypeError, KeyError) as error:
            where = shown(address)
            raise FetchError(tr(f"{where}의 응답이 태그 목록이 아닙니다", f"{where} answers something that is no list of tags"),
                             hint=tr(f"프록시의 페이지인지 확인하십시오: curl {where}",
                                     f"a proxy's page? look: curl {where}")) from error  # fmt: skip
        following = re.search(r'<([^>]+)>\s*;\s*rel="next"', answer.headers.get("link", ""))
        if not following:
            return names
        url = urljoin(url, following[1])
        if not url.startswith(("http://", "https://")):
            where = shown(address)
            raise FetchError(tr(f"{where}의 응답에 적힌 다음 페이지가 웹 주소가 아닙니다",
                                f"{where} names a next page that is no web address"))  # fmt: skip
    return names


def listing(address: str, network: Network) -> list[str]:
    """The file names that a listing page links to."""
    answer = get(address, network)
    _expect_success(answer, address)
    text = answer.body.decode("utf-8", "replace")
    links = re.findall(r"""<a\s[^>]*?href\s*=\s*["']?([^"'\s>]+)""", text, re.IGNORECASE)
    return [unquote(html.unescape(link).split("?")[0].split("#")[0]).rsplit("/", 1)[-1] for link in links]


def registry_tags(image: str, network: Network) -> list[str]:
    """All tags of an image (``registry/name`` without a tag)."""
    reference = network.registry(image)
    try:
        done = process.run(["skopeo", "list-tags", "--retry-times", str(min(2, network.retries)), f"docker://{reference}"],
                           env=network.environment(), timeout=300, check=False)  # fmt: skip
    except ToolError as error:
        if error.hint:
            raise
        raise FetchError(
            tr(f"{reference}: 답이 없습니다: {error.message}", f"{reference} does not answer: {error.message}")
        ) from error
    if done.code != 0:
        said = last_line(done.errors)
        raise FetchError(tr(f"{reference}의 태그 목록을 얻지 못했습니다: {said}", f"the tags of {reference} cannot be listed: {said}"),
                         hint=f"skopeo list-tags docker://{reference}")  # fmt: skip
    try:
        return [str(tag) for tag in json.loads(done.output)["Tags"]]
    except (ValueError, TypeError, KeyError):
        raise FetchError(
            tr(f"{reference}의 응답이 태그 목록이 아닙니다", f"{reference} answers no list of tags")
        ) from None


def image_digest(image: str, network: Network) -> str:
    """The digest that an image's tag stands for now ("sha256:…"). Raises FetchError."""
    network.require(tr(f"{image}의 다이제스트 확인", f"asking for the digest of {image}"), files=False)
    reference = network.registry(image)
    command = ["skopeo", "inspect", "--raw", "--retry-times", str(min(2, network.retries)), f"docker://{reference}"]
    try:
        with process.piped(command, env=network.environment()) as output:
            return f"sha256:{sha256_bytes(output.read(MANIFEST_BYTES))}"
    except ToolError as error:
        if error.hint:
            raise
        said = last_line(error.message)
        raise FetchError(
            tr(f"{reference}: 확인하지 못했습니다: {said}", f"{reference} cannot be looked at: {said}")
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
        when = tr(f" {at}까지", f" until {at}")
    elif after.isdigit():
        when = tr(f" {after}초 동안", f" for {after} s")
    host = shown(address).split("/")[2]
    raise FetchError(tr(f"{host}: 이 주소에서 오는 요청에{when} 답하지 않습니다(횟수 제한)",
                        f"{host} answers no more questions from this address{when} (rate limit)"),
                     hint=tr(f"기다리거나 ~/.netrc에 토큰을 넣으십시오: machine {host} login USER password TOKEN",
                             f"wait, or give a token in ~/.netrc: machine {host} login USER password TOKEN"))  # fmt: skip


def _expect_success(answer: Answer, address: str) -> None:
    if answer.status != 200:
        where, said = shown(address), answer.status or tr("없음", "nothing")
        raise FetchError(tr(f"{where}: 서버 응답 {said}", f"{where} answers {said}"),
                         hint=tr("catalog/upstreams.json의 주소가 아직 맞는지 확인하십시오",
                                 "look whether the address in catalog/upstreams.json is still right"))  # fmt: skip
