"""What APT says when it cannot do something, turned into errors that name the cause and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Protocol

from gapforge.base.errors import Fault, FetchError, GapforgeError, ResolveError
from gapforge.base.process import Result
from gapforge.base.text import language, tr
from gapforge.model.reasons import APT_SOURCES
from gapforge.model.schema import nearest
from gapforge.sync.network import UnansweredError

ACCEPT_EXPIRED = "GAPFORGE_APT_ACCEPT_EXPIRED"  # "1": use indexes whose Valid-Until has passed
_MANY = 8  # names or versions that one message lists


class Runner(Protocol):
    """Runs ``apt-get`` and ``apt-cache`` in a root."""

    def run(self, argv: Sequence[str], *, check: bool = True) -> Result: ...


def shown_line(line: str) -> str:
    """One line of APT's output without user names and passwords in addresses."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1", line)


def _each(pattern: str, said: str) -> list[tuple[str, ...]]:
    """The groups of every line that ``pattern`` matches, each once."""
    matches = re.finditer(pattern, said, re.MULTILINE)
    return list(dict.fromkeys(match.groups() for match in matches))


def versions(apt: Runner, package: str) -> list[str]:
    """Every version of ``package`` that the sources have, newest first."""
    lines = apt.run(["apt-cache", "madison", "--", package], check=False).output.splitlines()
    return list(dict.fromkeys(line.split("|")[1].strip() for line in lines if line.count("|") >= 2))


def providers(apt: Runner, package: str) -> list[str]:
    """The packages that provide the virtual package ``package``."""
    said = apt.run(["apt-cache", "showpkg", "--", package], check=False).output
    return sorted({line.split()[0] for line in said.partition("Reverse Provides:")[2].splitlines() if line.strip()})


def unresolvable(apt: Runner, packages: Sequence[str]) -> ResolveError:
    """The error for ``apt-get install PACKAGES`` that failed; every package at fault is named."""
    # Asked again without -qq, which hides what could not be satisfied.
    plan = apt.run(["apt-get", "install", "-s", "-y", "--no-remove", "--", *packages], check=False)
    said = plan.output + "\n" + plan.errors
    faults: list[Fault] = []
    missing = _each(r"^E: Unable to locate package (\S+)", said)  # no tr: APT's words
    known = apt.run(["apt-cache", "pkgnames"]).output.split() if missing else []
    for (name,) in missing:
        near = nearest(name, known)
        faults.append(
            Fault(name, tr(f"이 패키지가 있는 APT 소스가 없음{near}", f"no APT source has this package{near}"))
        )
    # no tr: APT's words
    for version, name in _each(r"^E: Version '([^']+)' for '([^']+)' was not found", said):
        have = versions(apt, name)
        expected = _one_of(have) or tr("소스에 있는 패키지", "a package that a source has")
        near = nearest(version, have)
        problem = tr(f"이 버전이 있는 APT 소스가 없음{near}", f"no APT source has this version{near}")
        faults.append(Fault(f"{name}={version}", problem, expected))
    # no tr: APT's words
    for (name,) in _each(r"^E: Package '([^']+)' has no installation candidate", said):
        problem = tr("설치할 수 있는 패키지가 아님", "is not a package that can be installed")
        faults.append(Fault(name, problem, _one_of(providers(apt, name))))
    name = ""
    for line in said.splitlines():
        # " app : Depends: a (>= 2) but …", and further dependencies of it on lines without the name
        if match := re.match(r" (?:(\S+) :|  +) ?((?:PreDepends|Depends|Conflicts|Breaks): .*)", line):
            name = match[1] or name
            faults.append(Fault(name, match[2].strip()))
    if "remove is disabled" in said:  # no tr: APT's words
        command = ["apt-get", "install", "-s", "-y", "--allow-change-held-packages", "--allow-downgrades"]
        removals = apt.run([*command, "--", *packages], check=False).output
        for (name,) in _each(r"^Remv (\S+)", removals):
            faults.append(Fault(name, tr("기반 이미지에 있고, 제거해야만 설치할 수 있음",
                                         "is in the base image and would have to be removed")))  # fmt: skip
    base = tr("기반 이미지", "the base image")
    if "used without --allow-downgrades" in said:  # no tr: APT's words
        faults.append(Fault(base, tr("고정한 패키지보다 새로운 버전이 이미 있음", "holds a newer version of a pinned package"),
                            tr("더 낮지 않은 버전으로 고정", "a pin that is not older")))  # fmt: skip
    if "used without --allow-change-held-packages" in said:  # no tr: APT's words
        faults.append(Fault(base, tr("바꾸어야 할 패키지가 지금 버전에 고정되어 있음(apt-mark hold)",
                                     "holds a package at its version (apt-mark hold) that would have to change")))  # fmt: skip
    if not faults:
        last = [line for line in said.strip().splitlines() if line.strip()][-_MANY:]
        faults = [Fault("apt-get install", shown_line(line)) for line in last]
    return ResolveError(
        tr("프리셋의 APT 패키지를 모두 만족하는 deb 패키지 조합이 없습니다", "no set of .debs satisfies the preset's APT packages"),
        faults=faults,
        hint=tr("프리셋의 $.apt(또는 $.tensorrt)를 고친 뒤 다시 받으십시오",
                "correct $.apt (or $.tensorrt) in the preset, then sync again"),
    )  # fmt: skip


def _one_of(names: Sequence[str]) -> str:
    """The first few of ``names`` as what is expected, "" for none."""
    few = ", ".join(names[:_MANY])
    return tr(f"다음 가운데 하나: {few}", f"one of: {few}") if names else ""


# How the ways in which `apt-get update` fails are told apart, in this order: pattern, message, hint by language.
# {1} is the pattern's first group, {now} the time of this machine's clock.
_UPDATE_FAILURES: tuple[tuple[str, dict[str, str], dict[str, str]], ...] = (
    (r"is not valid yet",  # no tr: APT's words
     {"ko": "패키지 색인의 날짜가 미래입니다. 이 컴퓨터의 시계가 늦습니다",
      "en": "a package index is dated in the future: this machine's clock is behind"},
     {"ko": "시계(지금 {now})를 맞춘 뒤 같은 명령을 다시 실행하십시오",
      "en": "correct the clock (it says {now}), then run the same command again"}),
    (r"is expired|expired \(invalid since",  # no tr: APT's words
     {"ko": "패키지 색인의 유효 기간이 지났습니다. 미러가 오래되었거나 이 컴퓨터의 시계가 빠릅니다",
      "en": "a package index is no longer valid: the mirror is out of date, or this machine's clock is ahead"},
     {"ko": "시계(지금 {now})를 확인하고 최신 미러를 쓰십시오(GAPFORGE_APT_MIRROR). 보관된 옛 배포판이면: " + ACCEPT_EXPIRED + "=1",
      "en": "look at the clock (it says {now}); use a current mirror (GAPFORGE_APT_MIRROR); or, for an archived release, "
            + ACCEPT_EXPIRED + "=1"}),
    (r"NO_PUBKEY ([0-9A-F]+)",
     {"ko": "패키지 색인에 서명한 키가 주어진 키 가운데 없습니다: {1}",
      "en": "a package index is signed with the key {1}, which none of the given keys is"},
     {"ko": '프리셋에서 그 소스의 "key"를 고치십시오. 기반 이미지 자체의 소스라면 더 새로운 기반 이미지를 쓰십시오',
      "en": 'correct "key" of that source in the preset; for the base\'s own sources, take a newer base image'}),
    (r"BADSIG|invalid signature|EXPKEYSIG|REVKEYSIG|EXPSIG",  # no tr: APT's words
     {"ko": "패키지 색인의 서명이 올바르지 않습니다", "en": "a package index's signature is not good"},
     {"ko": "이 미러를 쓰지 마십시오. 나중에 다시 하거나 다른 미러를 쓰십시오(GAPFORGE_APT_MIRROR)",
      "en": "do not use this mirror; try again later, or another one (GAPFORGE_APT_MIRROR)"}),
    (r"is not signed|does not have a Release file",  # no tr: APT's words
     {"ko": "그 주소의 APT 소스에 서명된 색인이 없습니다", "en": "an APT source has no signed index at that address"},
     {"ko": '프리셋에서 그 소스의 "uri"와 "suite"를 고치십시오', "en": 'correct "uri" and "suite" of that source in the preset'}),
    (r"Hash Sum mismatch|unexpected size",
     {"ko": "패키지 색인이 서명된 내용과 다릅니다. 미러가 바뀌는 중일 수 있습니다",
      "en": "a package index is not what its signature says; the mirror may just be changing"},
     {"ko": "몇 분 뒤 같은 명령을 다시 실행하십시오", "en": "run the same command again in some minutes"}),
    (r"",
     {"ko": "패키지 색인을 받지 못했습니다", "en": "the package indexes cannot be fetched"},
     {"ko": "프록시는 http_proxy, 미러는 GAPFORGE_APT_MIRROR로 정합니다. 확인한 뒤 같은 명령을 다시 실행하십시오",
      "en": "proxies come from http_proxy, mirrors from GAPFORGE_APT_MIRROR; then run the same command again"}),
)  # fmt: skip


def update_failure(said: str) -> GapforgeError:
    """The error for what ``apt-get update`` printed."""
    telling = [line.strip() for line in said.splitlines() if re.match(r"\s*(E|W|Err)[:\d]", line)]
    faults = [Fault("apt-get update", shown_line(line)) for line in dict.fromkeys(telling)][:12]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    match, message, then = next((m, text, do) for p, text, do in _UPDATE_FAILURES if (m := re.search(p, said)))
    text, hint = message[language()].format("", *match.groups()), then[language()].replace("{now}", now)
    if match.re.pattern == "":  # nothing is wrong with what came: nothing came
        return UnansweredError(text, who=APT_SOURCES, faults=faults, hint=hint)
    return FetchError(text, faults=faults, hint=hint)
