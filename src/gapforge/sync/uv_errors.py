"""Turn the output of a failed uv into errors with the cause and the next step.

uv gives no exit code or structured output for why it found no solution; only its text tells. What
is taken from it are whole phrases with a requirement in them, as uv's resolver (PubGrub) writes
them. A text without such a phrase is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gapforge.base.addresses import without_credentials
from gapforge.base.errors import Fault, ResolveError
from gapforge.base.i18n import _
from gapforge.model.names import normalized
from gapforge.model.preset import TORCH_SET, Preset
from gapforge.model.unresolved_item import DEFAULT_INDEX, NO_ANSWER, Reason, server_name
from gapforge.sync.network import NoAnswerError, clock_hint

TARGET = "gapforge-target"  # the name of the project whose dependencies are the preset's packages
_LONGEST = 2000  # characters of uv's text in a message

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_CLAUSE = r"(?:===|[<>=!~]=|[<>])[^\s,;)<>=!~][^\s,;)]*"
_PACKAGE = rf"({_NAME})(?:\[[^\]\s]*\])?((?:{_CLAUSE}(?:,{_CLAUSE})*)?)"
_NO_WHEEL = re.compile(rf"{_PACKAGE} (?:has|have) no (?:usable )?wheels")
_ABSENT = re.compile(rf"{_PACKAGE} was not found in the ")
_NO_VERSION = re.compile(rf"there (?:is|are) no versions? of {_PACKAGE}")
_AVAILABLE = re.compile(rf"only {_PACKAGE} (?:is|are) available and ")
_PYTHON = re.compile(rf"{_PACKAGE} (?:requires|depends on) Python ?({_CLAUSE}(?:,{_CLAUSE})*)")
_NEEDS = re.compile(rf"(?:all versions of ({_NAME})|{_PACKAGE}) depends? on ")
_NEEDED = re.compile(rf"{_PACKAGE}(?! (?:depends|has|have|requires|was) )")
_UNANSWERED = re.compile(
    r"(?:Failed to fetch|for url)\W+(\w+://[^\s`)]+)"
    r"(?=[\s\S]*(?:error sending request|dns error|connect error|"
    r"Connection refused|timed out|status (?:code|server error)|HTTP status))"
)


@dataclass(frozen=True)
class _Need:
    """``who``, a version of ``owner``, needs a version of ``package``; ``versions`` "" is any."""

    owner: str
    who: str
    package: str
    versions: str


@dataclass(frozen=True, kw_only=True)
class Query:
    """What uv resolves for.

    ``python`` is the full version of the target's Python. ``torch_index`` is the address of
    PyTorch's index, "" if its packages come from the default one.
    """

    preset: Preset
    python: str
    torch_index: str


# Returns the versions next to a version of a package that run on the target.
Nearest = Callable[[str, str], Sequence[str]]


def failure(text: str, query: Query, nearest: Nearest) -> ResolveError | NoAnswerError:
    """Return the error for uv's output ``text``, in which logins are hidden.

    uv's own text is kept, because it lists the versions that exist.
    """
    sentences = _joined(text.split("\nhint: ")[0])
    hints = " ".join(re.findall(r"^hint: (.*)$", text, re.MULTILINE))
    error = (
        _without_wheel(sentences, query)
        or _absent(sentences, query)
        or _other_python(sentences, query)
        or _without_version(sentences, query, nearest)
        or _excluding(sentences, query)
    )
    if error is not None:
        said = Fault("uv", sentences[:_LONGEST], hints[:500])
        error.faults = (*error.faults, said)
        return error
    if unanswered := _UNANSWERED.search(text):
        return _no_answer(unanswered[1], sentences, query)
    return ResolveError(
        _("Python packages for {name} could not be resolved", name=query.preset.name),
        faults=[Fault("uv", sentences[:_LONGEST])],
        hint=clock_hint(sentences) or _check_network(),
    )


def _joined(text: str) -> str:
    """Return uv's text as one line without its prefixes."""
    lines = (re.sub(r"^(error|cause): ", "", line.strip()) for line in text.splitlines())
    return " ".join(line for line in lines if line)


def _without_wheel(text: str, query: Query) -> ResolveError | None:
    """Return the error for a package whose wheels do not run on the target."""
    found = _NO_WHEEL.search(text)
    if found is None:
        return None
    return ResolveError(
        _(
            "{package}: no wheel for CPython {python} on {os_id} {os_version}",
            package=_shown(found[1], found[2]),
            python=query.python,
            os_id=query.preset.os_id,
            os_version=query.preset.os_version,
        ),
        faults=[*_needs_of(text, found[1], query), *_sought(found[1], query)],
        hint=_(
            "change the version in presets/{name}.json to one that has a wheel for the target",
            name=query.preset.name,
        ),
    )


def _absent(text: str, query: Query) -> ResolveError | None:
    """Return the error for a package that its index does not have."""
    found = _ABSENT.search(text)
    if found is None:
        return None
    return ResolveError(
        _(
            "{package} is not on {server}",
            package=found[1],
            server=server_name(_server(found[1], query)),
        ),
        faults=[*_needs_of(text, found[1], query), *_sought(found[1], query)],
        hint=_correct(query),
    )


def _other_python(text: str, query: Query) -> ResolveError | None:
    """Return the error for a package that needs another Python than the target's."""
    found = _PYTHON.search(text)
    if found is None:
        return None
    return ResolveError(
        _(
            "{package} needs Python {versions}; the target has Python {python}",
            package=_shown(found[1], found[2]),
            versions=found[3].strip(","),
            python=query.python,
        ),
        faults=_needs_of(text, found[1], query),
        hint=_correct(query),
    )


def _without_version(text: str, query: Query, nearest: Nearest) -> ResolveError | None:
    """Return the error for a version that does not exist."""
    found = _NO_VERSION.search(text)
    name, versions = (found[1], found[2]) if found else ("", "")
    for available in () if found else _AVAILABLE.finditer(text):
        need = next(_needs(text[available.end() :], query), None)
        if need is not None and need.package == available[1]:
            name, versions = need.package, need.versions
            break
    if not name or not versions:
        return None
    faults = [*_needs_of(text, name, query), *_sought(name, query)]
    exact = versions.removeprefix("==")
    existing = nearest(name, exact) if re.fullmatch(r"==[^,=*]+", versions) else ()
    if existing:
        message = _(
            "{package} has no version {version}; the nearest are {versions}",
            package=name,
            version=exact,
            versions=", ".join(existing),
        )
    else:
        message = _("{package}: no version is {versions}", package=name, versions=versions)
    return ResolveError(message, faults=faults, hint=_correct(query))


def _excluding(text: str, query: Query) -> ResolveError | None:
    """Return the error for requirements that exclude each other."""
    needs = list(_needs(text, query))
    for package in dict.fromkeys(need.package for need in needs):
        on_package = [need for need in needs if need.package == package]
        owners = {need.owner for need in on_package}
        versions = {need.versions for need in on_package}
        if len(versions) > 1 and (len(owners) > 1 or TARGET in owners):
            return ResolveError(
                _("the requirements on {package} exclude each other", package=package),
                faults=_needs_of(text, package, query),
                hint=_correct(query),
            )
    return None


def _needs(text: str, query: Query) -> Iterator[_Need]:
    """Yield each "A depends on B and C" of uv's text."""
    for start in _NEEDS.finditer(text):
        name, versions = start[1] or start[2], start[3] or ""
        who = _shown(name, versions)
        if name == TARGET:
            who = f"presets/{query.preset.name}.json"
        position = start.end()
        while needed := _NEEDED.match(text, position):
            yield _Need(name, who, needed[1], needed[2])
            position = needed.end()
            if not text.startswith(" and ", position):
                break
            position += len(" and ")


def _needs_of(text: str, package: str, query: Query) -> list[Fault]:
    """Return who needs ``package`` in which versions."""
    return [
        Fault(need.who, _("needs {requirement}", requirement=need.package + need.versions))
        for need in dict.fromkeys(_needs(text, query))
        if normalized(need.package) == normalized(package)
    ]


def _server(package: str, query: Query) -> str:
    """Return the index of ``package`` as a lock names it."""
    if query.torch_index and query.preset.pytorch and normalized(package) in TORCH_SET:
        return f"index:{without_credentials(query.preset.pytorch.index)}"
    return DEFAULT_INDEX


def _sought(package: str, query: Query) -> list[Fault]:
    """Return where ``package`` was sought, if the preset has an index of its own for PyTorch."""
    if not query.torch_index:
        return []
    server = _server(package, query)
    problem = _(
        "was sought on {server} only: the preset's index for PyTorch provides {packages}, and the "
        "default index all others, so that no package of the same name on the other index can "
        "replace one",
        server=server_name(server),
        packages=", ".join(TORCH_SET),
    )
    return [Fault(package, problem)]


def _shown(name: str, versions: str) -> str:
    """Return "numpy 1.26.4" for an exact version, else "numpy<2"."""
    return f"{name} {versions[2:]}" if re.match(r"==[^=]", versions) else name + versions


def _correct(query: Query) -> str:
    return _(
        "correct the packages in presets/{name}.json, then: ./gapforge check {name!q}",
        name=query.preset.name,
    )


def _no_answer(url: str, said: str, query: Query) -> NoAnswerError:
    """Return the error for an index that does not answer at ``url``."""
    server = DEFAULT_INDEX
    if query.preset.pytorch and _is_below(url, query.torch_index):
        server = f"index:{query.preset.pytorch.index}"
    return NoAnswerError(
        _(
            "Python packages for {name} could not be resolved: {server} did not answer",
            name=query.preset.name,
            server=server_name(server),
        ),
        reason=Reason(code=NO_ANSWER, server=server),
        faults=[Fault("uv", said[:_LONGEST])],
        hint=clock_hint(said) or _check_network(),
    )


def _is_below(url: str, index: str) -> bool:
    """Return whether ``url`` is below ``index``, apart from logins; False without an index."""
    plain_url, plain_index = (re.sub(r"//[^/]*@", "//", address) for address in (url, index))
    return bool(index) and plain_url.startswith(plain_index.rstrip("/") + "/")


def _check_network() -> str:
    return _(
        "check the network (GAPFORGE_INDEX_URL, https_proxy, GAPFORGE_CA_BUNDLE), then "
        "run the same command again"
    )
