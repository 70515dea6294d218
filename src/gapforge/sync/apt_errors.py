"""What APT says when it cannot do something, turned into errors that name the cause and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Protocol

from gapforge.base.errors import Fault, FetchError, GapforgeError, ResolveError
from gapforge.base.i18n import N_, _
from gapforge.base.process import Result
from gapforge.model.schema import nearest
from gapforge.model.unresolved_item import APT_SOURCES, NO_ANSWER, Reason
from gapforge.sync.network import NoAnswerError

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
    return sorted(
        {
            line.split()[0]
            for line in said.partition("Reverse Provides:")[2].splitlines()
            if line.strip()
        }
    )


def unresolvable(apt: Runner, packages: Sequence[str]) -> ResolveError:
    """The error for ``apt-get install PACKAGES`` that failed; every package at fault is named."""
    # Asked again without -qq, which hides what could not be satisfied.
    plan = apt.run(["apt-get", "install", "-s", "-y", "--no-remove", "--", *packages], check=False)
    said = plan.output + "\n" + plan.errors
    faults: list[Fault] = []
    missing = _each(r"^E: Unable to locate package (\S+)", said)
    known = apt.run(["apt-cache", "pkgnames"]).output.split() if missing else []
    for (name,) in missing:
        near = nearest(name, known)
        faults.append(Fault(name, _("no APT source has this package{near}", near=near)))
    for version, name in _each(r"^E: Version '([^']+)' for '([^']+)' was not found", said):
        have = versions(apt, name)
        expected = _one_of(have) or _("a package that a source has")
        near = nearest(version, have)
        problem = _("no APT source has this version{near}", near=near)
        faults.append(Fault(f"{name}={version}", problem, expected))
    for (name,) in _each(r"^E: Package '([^']+)' has no installation candidate", said):
        problem = _("is not a package that can be installed")
        faults.append(Fault(name, problem, _one_of(providers(apt, name))))
    name = ""
    for line in said.splitlines():
        # " app : Depends: a (>= 2) but …", and further dependencies of it on lines without the name
        if match := re.match(
            r" (?:(\S+) :|  +) ?((?:PreDepends|Depends|Conflicts|Breaks): .*)", line
        ):
            name = match[1] or name
            faults.append(Fault(name, match[2].strip()))
    if "remove is disabled" in said:
        command = [
            "apt-get",
            "install",
            "-s",
            "-y",
            "--allow-change-held-packages",
            "--allow-downgrades",
        ]
        removals = apt.run([*command, "--", *packages], check=False).output
        for (name,) in _each(r"^Remv (\S+)", removals):
            faults.append(Fault(name, _("is in the base image and would have to be removed")))
    base = _("the base image")
    if "used without --allow-downgrades" in said:
        faults.append(
            Fault(
                base, _("holds a newer version of a pinned package"), _("a pin that is not older")
            )
        )
    if "used without --allow-change-held-packages" in said:
        faults.append(
            Fault(
                base, _("holds a package at its version (apt-mark hold) that would have to change")
            )
        )
    if not faults:
        last = [line for line in said.strip().splitlines() if line.strip()][-_MANY:]
        faults = [Fault("apt-get install", shown_line(line)) for line in last]
    return ResolveError(
        _("no set of .debs satisfies the preset's APT packages"),
        faults=faults,
        hint=_("correct $.apt (or $.tensorrt) in the preset, then sync again"),
    )


def _one_of(names: Sequence[str]) -> str:
    """The first few of ``names`` as what is expected, "" for none."""
    few = ", ".join(names[:_MANY])
    return _("one of: {few}", few=few) if names else ""


# How the ways in which `apt-get update` fails are told apart, in this order: pattern, message, hint by language.
# {1} is the pattern's first group, {now} the time of this machine's clock.
_UPDATE_FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        r"is not valid yet",
        N_("a package index is dated in the future: this machine's clock is behind"),
        N_("correct the clock (it says {now}), then run the same command again"),
    ),
    (
        r"is expired|expired \(invalid since",
        N_(
            "a package index is no longer valid: the mirror is out of date, or this "
            "machine's clock is ahead"
        ),
        N_(
            "look at the clock (it says {now}); use a current mirror "
            "(GAPFORGE_APT_MIRROR); or, for an archived release, {accept_expired}=1"
        ),
    ),
    (
        r"NO_PUBKEY ([0-9A-F]+)",
        N_("a package index is signed with the key {key}, which none of the given keys is"),
        N_(
            'correct "key" of that source in the preset; for the base\'s own sources, '
            "take a newer base image"
        ),
    ),
    (
        r"BADSIG|invalid signature|EXPKEYSIG|REVKEYSIG|EXPSIG",
        N_("a package index's signature is not good"),
        N_("do not use this mirror; try again later, or another one (GAPFORGE_APT_MIRROR)"),
    ),
    (
        r"is not signed|does not have a Release file",
        N_("an APT source has no signed index at that address"),
        N_('correct "uri" and "suite" of that source in the preset'),
    ),
    (
        r"Hash Sum mismatch|unexpected size",
        N_("a package index is not what its signature says; the mirror may just be changing"),
        N_("run the same command again in some minutes"),
    ),
    (
        r"",
        N_("the package indexes cannot be fetched"),
        N_(
            "proxies come from http_proxy, mirrors from GAPFORGE_APT_MIRROR; then run "
            "the same command again"
        ),
    ),
)


def update_failure(said: str) -> GapforgeError:
    """The error for what ``apt-get update`` printed."""
    telling = [line.strip() for line in said.splitlines() if re.match(r"\s*(E|W|Err)[:\d]", line)]
    faults = [Fault("apt-get update", shown_line(line)) for line in dict.fromkeys(telling)][:12]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    match, message, then = next(
        (m, text, do) for p, text, do in _UPDATE_FAILURES if (m := re.search(p, said))
    )
    text = _(message, key=match[1] if match.re.groups else "")
    hint = _(then, now=now, accept_expired=ACCEPT_EXPIRED)
    if match.re.pattern == "":  # nothing is wrong with what came: nothing came
        reason = Reason(code=NO_ANSWER, server=APT_SOURCES)
        return NoAnswerError(text, reason=reason, faults=faults, hint=hint)
    return FetchError(text, faults=faults, hint=hint)
