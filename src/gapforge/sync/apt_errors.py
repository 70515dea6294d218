"""Turn the output of a failed APT into errors with the cause and the next step."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gapforge.base.errors import Fault, FetchError, ResolveError
from gapforge.base.i18n import N_, _
from gapforge.base.process import Result
from gapforge.model.build_packages import AptPackage, bare_name
from gapforge.model.schema import nearest
from gapforge.model.unresolved_item import APT_SOURCES, NO_ANSWER, Reason
from gapforge.sync.network import CERTIFICATE_DATES, NoAnswerError, now_text

ACCEPT_EXPIRED = "GAPFORGE_APT_ACCEPT_EXPIRED"  # "1": accept indexes whose Valid-Until has passed
_LISTED = 8  # names or versions in one message


def accepts_expired() -> bool:
    """Return whether the user accepts package indexes whose Valid-Until has passed."""
    return os.environ.get(ACCEPT_EXPIRED, "") not in ("", "0")


class Runner(Protocol):
    """Something that runs ``apt-get`` and ``apt-cache`` with a root."""

    def run(self, argv: Sequence[str], *, check: bool = True) -> Result:
        """Run a command; with ``check`` raise ToolError if it fails."""


def shown_line(line: str) -> str:
    """Return a line of APT's output without user names and passwords in addresses."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1", line)


def _each(pattern: str, output: str) -> list[tuple[str, ...]]:
    """Return the groups of every line that ``pattern`` matches, each once."""
    matches = re.finditer(pattern, output, re.MULTILINE)
    return list(dict.fromkeys(match.groups() for match in matches))


def versions(apt: Runner, package: str) -> list[str]:
    """Return every version of ``package`` that the sources have, newest first."""
    return all_versions(apt, [package]).get(package, [])


def all_versions(apt: Runner, packages: Sequence[str]) -> dict[str, list[str]]:
    """Return every version of each of ``packages`` that the sources have, newest first."""
    found: dict[str, list[str]] = {}
    for line in apt.run(["apt-cache", "madison", "--", *packages], check=False).output.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) >= 3 and words[1] not in found.setdefault(words[0], []):
            found[words[0]].append(words[1])
    return found


def providers(apt: Runner, package: str) -> list[str]:
    """Return the packages that provide the virtual package ``package``."""
    output = apt.run(["apt-cache", "showpkg", "--", package], check=False).output
    return sorted(
        {
            line.split()[0]
            for line in output.partition("Reverse Provides:")[2].splitlines()
            if line.strip()
        }
    )


def unresolvable(apt: Runner, packages: Sequence[str]) -> ResolveError:
    """Return the error for a failed ``apt-get install PACKAGES``, with every package at fault."""
    # Once more without -qq, which hides what could not be satisfied. APT has no machine-readable
    # form of it.
    plan = apt.run(["apt-get", "install", "-s", "-y", "--no-remove", "--", *packages], check=False)
    output = plan.output + "\n" + plan.errors
    faults = [
        *_unknown_packages(apt, output),
        *_unmet_dependencies(output),
        *_conflicts_with_base(apt, packages, output),
    ]
    if not faults:
        last = [line for line in output.strip().splitlines() if line.strip()][-_LISTED:]
        faults = [Fault("apt-get install", shown_line(line)) for line in last]
    return ResolveError(
        _("no set of .debs satisfies the preset's APT packages"),
        faults=faults,
        hint=_("correct $.apt (or $.tensorrt) in the preset, then sync again"),
    )


def with_reasons(faults: Iterable[Fault], packages: Iterable[AptPackage]) -> tuple[Fault, ...]:
    """Return the faults with component and option for each package that the preset names not.

    A fault of ``libx265-dev`` becomes one of ``libx265-dev (ffmpeg --enable-libx265)``.
    """
    derived = {bare_name(package.name): package for package in packages if package.only_derived}
    explained = []
    for fault in faults:
        package = derived.get(bare_name(fault.where))
        reasons = package.reasons if package else ()
        why = ", ".join(f"{r.component} {r.value}".rstrip() for r in reasons)
        explained.append(replace(fault, where=f"{fault.where} ({why})") if why else fault)
    return tuple(explained)


def not_chosen(apt: Runner, packages: Sequence[str]) -> ResolveError:
    """Return the error for packages that a successful APT neither installs nor finds installed.

    APT has read their names as patterns, or a version as one of several.
    """
    known = apt.run(["apt-cache", "pkgnames"]).output.split()
    faults = []
    for item in packages:
        name, pinned, version = item.partition("=")
        available = versions(apt, name) if pinned else []
        problem = (
            _("no APT source has this version{near}", near=nearest(version, available))
            if available
            else _("no APT source has this package{near}", near=nearest(name, known))
        )
        faults.append(Fault(item, problem, _one_of(available)))
    return ResolveError(
        _("APT installs other packages than those that the preset names"),
        faults=faults,
        hint=_("correct $.apt (or $.tensorrt) in the preset, then sync again"),
    )


def _unknown_packages(apt: Runner, output: str) -> list[Fault]:
    """Return a fault for each package or version that no APT source has."""
    faults: list[Fault] = []
    missing = _each(r"^E: Unable to locate package (\S+)", output)
    known = apt.run(["apt-cache", "pkgnames"]).output.split() if missing else []
    for (name,) in missing:
        near = nearest(name, known)
        faults.append(Fault(name, _("no APT source has this package{near}", near=near)))
    for version, name in _each(r"^E: Version '([^']+)' for '([^']+)' was not found", output):
        available = versions(apt, name)
        expected = _one_of(available) or _("a package that a source has")
        problem = _("no APT source has this version{near}", near=nearest(version, available))
        faults.append(Fault(f"{name}={version}", problem, expected))
    for (name,) in _each(r"^E: Package '([^']+)' has no installation candidate", output):
        problem = _("is not a package that can be installed")
        faults.append(Fault(name, problem, _one_of(providers(apt, name))))
    return faults


def _unmet_dependencies(output: str) -> list[Fault]:
    """Return a fault for each relation such as " app : Depends: a (>= 2) but …".

    Further relations of a package are on lines without its name.
    """
    faults: list[Fault] = []
    name = ""
    relation = re.compile(r" (?:(\S+) :|  +) ?((?:PreDepends|Depends|Conflicts|Breaks): .*)")
    for line in output.splitlines():
        if match := relation.match(line):
            name = match[1] or name
            faults.append(Fault(name, match[2].strip()))
    return faults


def _conflicts_with_base(apt: Runner, packages: Sequence[str], output: str) -> list[Fault]:
    """Return a fault for each change of the base image's packages that would be necessary."""
    faults: list[Fault] = []
    if "remove is disabled" in output:
        flags = ["-s", "-y", "--allow-change-held-packages", "--allow-downgrades"]
        removals = apt.run(["apt-get", "install", *flags, "--", *packages], check=False).output
        for (name,) in _each(r"^Remv (\S+)", removals):
            faults.append(Fault(name, _("is in the base image and would have to be removed")))
    base = _("the base image")
    if "used without --allow-downgrades" in output:
        problem = _("contains a newer version of a pinned package")
        faults.append(Fault(base, problem, _("a pin that is not older")))
    if "used without --allow-change-held-packages" in output:
        problem = _("has a package on hold (apt-mark hold) that would have to change")
        faults.append(Fault(base, problem))
    return faults


def _one_of(names: Sequence[str]) -> str:
    """Return the first few of ``names`` as what is expected, "" for none."""
    return _("one of: {names}", names=", ".join(names[:_LISTED])) if names else ""


@dataclass(frozen=True)
class _UpdateFailure:
    """A way in which ``apt-get update`` fails.

    In the texts {key} is the pattern's group and {now} the time of this machine.
    """

    pattern: str
    message: str
    hint: str


# In the order in which they are tried.
_UPDATE_FAILURES = (
    _UpdateFailure(
        CERTIFICATE_DATES,
        N_("a server's certificate is not valid at the time of this machine's clock"),
        N_("correct the clock (it shows {now}), then run the same command again"),
    ),
    _UpdateFailure(
        r"is not valid yet",
        N_("a package index is dated in the future: this machine's clock is behind"),
        N_("correct the clock (it shows {now}), then run the same command again"),
    ),
    _UpdateFailure(
        r"is expired|expired \(invalid since",
        N_(
            "a package index is no longer valid: the mirror is out of date, or this "
            "machine's clock is ahead"
        ),
        N_(
            "check the clock (it shows {now}); use a current mirror "
            "(GAPFORGE_APT_MIRROR); or, for an archived release, {accept_expired}=1"
        ),
    ),
    _UpdateFailure(
        r"NO_PUBKEY ([0-9A-F]+)",
        N_("a package index is signed with the key {key}, which is none of the known keys"),
        N_(
            'correct "key" of that source in the preset; for the sources of the base image, '
            "use a newer base image"
        ),
    ),
    _UpdateFailure(
        r"BADSIG|invalid signature|EXPKEYSIG|REVKEYSIG|EXPSIG",
        N_("the signature of a package index is not valid"),
        N_("do not use this mirror; try again later, or use another one (GAPFORGE_APT_MIRROR)"),
    ),
    _UpdateFailure(
        r"is not signed|does not have a Release file",
        N_("an APT source has no signed index at that address"),
        N_('correct "uri" and "suite" of that source in the preset'),
    ),
    _UpdateFailure(
        r"Hash Sum mismatch|unexpected size",
        N_("a package index does not match its signed checksum; the mirror may be updating"),
        N_("run the same command again in some minutes"),
    ),
)


def update_failure(output: str) -> FetchError:
    """Return the error for the output of a failed ``apt-get update``."""
    lines = [line.strip() for line in output.splitlines() if re.match(r"\s*(E|W|Err)[:\d]", line)]
    faults = [Fault("apt-get update", shown_line(line)) for line in dict.fromkeys(lines)][:12]
    for failure in _UPDATE_FAILURES:
        if match := re.search(failure.pattern, output):
            return FetchError(
                _(failure.message, key=match[1] if match.re.groups else ""),
                faults=faults,
                hint=_(failure.hint, now=now_text(), accept_expired=ACCEPT_EXPIRED),
            )
    # No index is wrong, so none was sent.
    return NoAnswerError(
        _("the package indexes cannot be downloaded"),
        reason=Reason(code=NO_ANSWER, server=APT_SOURCES),
        faults=faults,
        hint=_(
            "set http_proxy for a proxy or GAPFORGE_APT_MIRROR for a mirror, then run the same "
            "command again"
        ),
    )
