"""Resolve wheels and source distributions for the target's Python and platform with uv.

PyTorch's packages come only from the index in the preset, everything else only from the default
index. uv gets this as an ``explicit`` index and ``sources``. It applies ``sources`` to direct
requirements only, so a package of PyTorch's set that is only a dependency is made a direct
requirement.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from gapforge.base import limits, process
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import Fault, ResolveError, ToolError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.base.path_checks import SAFE_NAME
from gapforge.base.project import Project
from gapforge.base.strict_json import parse_json
from gapforge.base.system_errors import unlistable
from gapforge.base.write_files import write_text
from gapforge.model import catalog as catalogs
from gapforge.model import doubled_modules
from gapforge.model.lock import Entry
from gapforge.model.names import package_of
from gapforge.model.preset import TORCH_SET, Preset
from gapforge.model.schema import one_of
from gapforge.sync import target_python, uv_errors
from gapforge.sync.network import Network
from gapforge.sync.uv_errors import TARGET, Query
from gapforge.sync.wheel_tags import GLIBC, platform, tags, wheel_rank

INSTALL_TOOL = "pip==24.2"  # installs the wheels in the image; pinned, so that locks stay the same
ANSWER = "pylock.toml"
ANNOTATED = "requirements.txt"  # uv's answer with the packages that require each one
OVERRIDES = "overrides.txt"
FLAT = "flat"  # uv's name for an index that is a folder of wheels
UV_LOGIN = re.compile(r"UV_INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)")
# uv settings of the user that uv gets. The others could add an index or change the resolution.
UV_SETTINGS = re.compile(
    r"UV_(CACHE_DIR|DEFAULT_INDEX|INDEX_URL|HTTP_TIMEOUT|HTTP_RETRIES|NATIVE_TLS|SYSTEM_CERTS|KEYRING_PROVIDER|"
    r"INSECURE_HOST|OFFLINE|CONCURRENT_DOWNLOADS)|" + UV_LOGIN.pattern
)
_TOML_TO_JSON = """
import json, sys
try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib
json.dump(tomllib.loads(sys.stdin.read()), sys.stdout, default=str)
"""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One wheel to install.

    ``index`` is "default" or "torch". ``sha256`` is "" and ``size`` 0 if the index does not state
    them. ``url`` may contain a login and is never stored.
    """

    name: str
    version: str
    file: str
    url: str
    sha256: str
    size: int
    index: str


@dataclass(frozen=True, kw_only=True)
class Sdist:
    """A source distribution on the default index; fields as in Wheel."""

    file: str
    version: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """Resolve with uv in ``workdir``, which gets the generated project and uv's answer.

    ``refresh`` ignores uv's cached indexes. Without ``retries_indexes`` uv tries each index once
    only.
    """

    project: Project
    network: Network
    workdir: Path
    refresh: bool = False
    retries_indexes: bool = True

    def wheels(self, preset: Preset, python: str = "") -> list[Wheel]:
        """Return the wheels that the preset needs, by name, each the best one for the target.

        ``python`` is the full version of the target's Python; without it the OS's is assumed. Raise
        ResolveError with the package that has none, and the wheels that exist.
        """
        wanted = [*(preset.pytorch.requirements() if preset.pytorch else ()), *preset.packages]
        if not wanted:
            _check_choices(preset, ())
            _check_needed(preset, ())
            return []
        query = self._query(preset, python)
        while True:
            found = self._compile(query, wanted)
            # A package of the set that is only a dependency came from the default index: require it
            # directly.
            indirect = [
                p["name"]
                for p in found
                if p["name"] in TORCH_SET and p["name"] not in map(package_of, wanted)
            ]
            if not query.torch_index or not indirect:
                break
            wanted += indirect
        names = [package["name"] for package in found]
        _check_choices(preset, names)
        _check_needed(preset, names)
        if doubled_modules.reasons(preset, names, {}):
            requirers = self._requirers(query, wanted)
            raise _doubled(preset, doubled_modules.reasons(preset, names, requirers))
        return [self._choose(query, package) for package in found]

    def install_tool(self, preset: Preset) -> Wheel:
        """Return the wheel of pip that installs the others in the image."""
        query = self._query_default_index(preset)
        found = self._compile(query, [INSTALL_TOOL], dependencies=False)
        return self._choose(query, found[0])

    def sdist(self, requirement: str, preset: Preset) -> Sdist:
        """Return the source distribution ``NAME==VERSION`` on the default index.

        Raise ResolveError without one.
        """
        query = self._query_default_index(preset)
        found = self._compile(query, [requirement], dependencies=False, wheels_only=False)
        raw = found[0].get("sdist")
        if raw is None:
            raise ResolveError(
                _(
                    "{requirement} has no source distribution on the default index",
                    requirement=requirement,
                ),
                hint=_("specify the address of the archive in the preset instead (urls)"),
            )
        file = _file(raw)
        return Sdist(
            file=file,
            version=found[0]["version"],
            url=self._login(raw["url"], ""),
            sha256=_sha256(raw),
            size=_size(raw),
        )

    def locate(self, preset: Preset, entries: Iterable[Entry], python: str = "") -> dict[str, str]:
        """Return the current addresses of locked wheels: path -> address.

        A lock has the name of an index and no address, as every machine may configure its own.
        Raise ResolveError for a file that the index no longer has or has with another checksum.
        """
        query = self._query(preset, python)
        result: dict[str, str] = {}
        faults: list[Fault] = []
        # pip may occur twice, as a package of the image and as the tool: one request for each.
        by_group: dict[bool, list[Entry]] = {}
        for entry in entries:
            by_group.setdefault("install-tool" in entry.roles, []).append(entry)
        for group in by_group.values():
            pins = [f"{e.name}=={e.version}" for e in group]
            packages = self._compile(query, pins, dependencies=False)
            known = {_file(w): w for p in packages for w in p.get("wheels", ())}
            for entry in group:
                raw = known.get(entry.file)
                if raw is None:
                    faults.append(Fault(entry.path, _("is no longer on the index"), entry.file))
                elif (sha256 := _sha256(raw)) not in ("", entry.sha256):
                    problem = _("has sha256 {sha256} on the index", sha256=sha256)
                    faults.append(Fault(entry.path, problem, f"sha256 {entry.sha256}"))
                else:
                    index = query.torch_index if entry.origin == "index:torch" else ""
                    result[entry.path] = self._login(raw["url"], index)
        if faults:
            raise ResolveError(
                _("the index no longer has the files of the lock"),
                faults=faults,
                hint=_("resolve again: ./deps_sync.sh {name!q} --update", name=preset.name),
            )
        return result

    def _query(self, preset: Preset, python: str) -> Query:
        """Return the query for the packages of a preset, whose Python may not be known yet."""
        return Query(
            preset=preset,
            python=python or target_python.expected(preset) or preset.python,
            torch_index=_torch_index(preset, self.network),
        )

    def _query_default_index(self, preset: Preset) -> Query:
        """Return the query for pip or a source archive, which never come from PyTorch's index."""
        return replace(self._query(preset, ""), torch_index="")

    def _compile(
        self,
        query: Query,
        requirements: Sequence[str],
        *,
        dependencies: bool = True,
        wheels_only: bool = True,
    ) -> list[dict[str, Any]]:
        """Return uv's resolution for the target: the ``packages`` of a pylock.toml, by name.

        Raise ResolveError if there is none.
        """
        options = [] if dependencies else ["--no-deps"]
        if wheels_only:
            options += ["--only-binary", ":all:"]
        if dependencies:
            options += self._overrides(query.preset)
        done = self._ask(query, requirements, options)
        if done.code == 0:
            return self._answer()
        text = process.hide(done.errors.strip() or done.output.strip(), _secrets(self.network))
        raise uv_errors.failure(text, query, partial(self._nearest, query))

    def _ask(
        self,
        query: Query,
        requirements: Sequence[str],
        options: Sequence[str],
        *,
        answer: str = ANSWER,
    ) -> process.Result:
        """Run uv, which writes ``answer``, a pylock.toml or ANNOTATED, into ``workdir``."""
        self.network.require(_("resolving Python packages"))
        self.workdir.mkdir(parents=True, exist_ok=True)
        write_text(
            self.workdir / "pyproject.toml",
            project_toml(query.preset.python, requirements, query.torch_index),
            0o600,  # the address of the PyTorch index may hold a login
        )
        (self.workdir / answer).unlink(missing_ok=True)
        command = [
            *(str(find_uv(self.project)), "pip", "compile", "pyproject.toml"),
            *("--format", answer, "--output-file", answer),
            *(["--no-annotate"] if answer == ANSWER else []),
            *("--quiet", "--no-header", "--no-config", "--no-python-downloads"),
            *("--python", sys.executable, "--python-version", query.python),
            *("--python-platform", platform(query.preset), *options),
        ]
        if self.refresh:
            command.append("--refresh")
        if self.network.index_url and folder_layout(self.network.index_url) == FLAT:
            command += ["--find-links", self.network.index_url]
        env: dict[str, str | None] = {
            k: None for k in os.environ if k.startswith("UV_") and not UV_SETTINGS.fullmatch(k)
        }
        env.update(self.network.environment())
        if self.network.index_url:  # not an option: everyone may read a program's arguments
            env |= {"UV_DEFAULT_INDEX": self.network.index_url, "UV_INDEX_URL": None}
        if not self.retries_indexes:
            env["UV_HTTP_RETRIES"] = "0"
        return process.run(
            command,
            env=env,
            cwd=self.workdir,
            timeout=1800,
            check=False,
            redact=_secrets(self.network),
        )

    def _answer(self) -> list[dict[str, Any]]:
        """Return the packages of uv's answer, by name."""
        text = read_regular(self.workdir / ANSWER, limits.STATE).decode("utf-8")
        document = _toml(text, self.project)
        return sorted(document.get("packages", ()), key=lambda package: str(package["name"]))

    def _overrides(self, preset: Preset) -> list[str]:
        """Return uv's options for packages that no dependency may bring: they are for no Python."""
        if not preset.without:
            return []
        self.workdir.mkdir(parents=True, exist_ok=True)
        lines = (f'{name} ; python_version < "0"\n' for name in preset.without)
        write_text(self.workdir / OVERRIDES, "".join(lines))
        return ["--override", OVERRIDES]

    def _requirers(self, query: Query, requirements: Sequence[str]) -> dict[str, list[str]]:
        """Return which packages require each package of the resolution, as far as uv says it."""
        options = ["--only-binary", ":all:", "--annotation-style", "line"]
        options += self._overrides(query.preset)
        if self._ask(query, requirements, options, answer=ANNOTATED).code != 0:
            return {}
        text = read_regular(self.workdir / ANNOTATED, limits.STATE).decode("utf-8")
        found = re.findall(r"(?m)^([A-Za-z0-9._-]+)==\S+\s+# via (.*)$", text)
        return {
            name: [by for by in users.split(", ") if not by.startswith(TARGET)]
            for name, users in found
        }

    def _nearest(self, query: Query, name: str, version: str) -> list[str]:
        """Return the versions of ``name`` below and above ``version`` that run on the target.

        A local part as in "2.1.2+cu118" is left out of the comparison, as in every range.
        """
        public, local, _build = version.partition("+")
        ranges = [(f"{name}<{public}", "highest"), (f"{name}>{public}", "lowest")]
        if local:
            ranges.insert(1, (f"{name}=={public}", "highest"))
        versions = []
        for requirement, resolution in ranges:
            options = ["--no-deps", "--only-binary", ":all:", "--resolution", resolution]
            if self._ask(query, [requirement], options).code == 0:
                versions += [str(package["version"]) for package in self._answer()]
        return versions

    def _choose(self, query: Query, package: Mapping[str, Any]) -> Wheel:
        """Return the wheel that pip would install on the target.

        Raise ResolveError if there is none.
        """
        preset = query.preset
        order = {
            tag: rank
            for rank, tag in enumerate(tags(preset.python, GLIBC[preset.os_id, preset.os_version]))
        }
        ranked = []
        for raw in package.get("wheels", ()):
            rank = wheel_rank(_file(raw), order)
            if rank is not None:
                ranked.append((rank, _file(raw), raw))
        if not ranked:
            available = ", ".join(sorted(_file(raw) for raw in package.get("wheels", ())))
            name = f"{package['name']} {package['version']}"
            raise ResolveError(
                _(
                    "{package} has no wheel for CPython {python} on {os}; available: {wheels}",
                    package=name,
                    python=preset.python,
                    os=preset.os,
                    wheels=available or _("no wheel at all"),
                )
            )
        _unused, file, raw = min(ranked)
        from_torch = bool(query.torch_index) and package["name"] in TORCH_SET
        return Wheel(
            name=package["name"],
            version=package["version"],
            file=file,
            url=self._login(raw["url"], query.torch_index if from_torch else ""),
            sha256=self._published(file, _sha256(raw)),
            size=_size(raw),
            index="torch" if from_torch else "default",
        )

    def _published(self, file: str, sha256: str) -> str:
        """Return the SHA-256 of a wheel: ``sha256`` of the index, or the catalog's if that is "".

        Return "" if neither states one. Raise ResolveError if the index has a file other than the
        one that the catalog knows.
        """
        catalog = catalogs.of_presets(self.project.catalog)
        known = catalog.wheels.get(file, frozenset()) if catalog else frozenset()
        if not known or sha256 in known:
            return sha256
        if not sha256:
            return min(known) if len(known) == 1 else ""
        raise ResolveError(
            _("the index has another file under the name of a published wheel"),
            faults=[
                Fault(
                    file,
                    _("has sha256 {sha256} on the index", sha256=sha256),
                    f"sha256 {', '.join(sorted(known))}",
                )
            ],
            hint=_(
                "check the address of the index and GAPFORGE_TORCH_INDEX_URL. If PyTorch replaced "
                "the file, correct catalog/pytorch.json"
            ),
        )

    def _login(self, url: str, index: str) -> str:
        """Return ``url`` with the login of the index, which uv omits, if it is on the same host."""
        source = urlsplit(index or _default_index(self.network))
        parts = urlsplit(url)
        login, at, host = source.netloc.rpartition("@")
        if not at or "@" in parts.netloc or (parts.scheme, parts.netloc) != (source.scheme, host):
            return url
        return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def _check_choices(preset: Preset, names: Sequence[str]) -> None:
    """Raise ResolveError if the preset chooses files of packages that it does not install."""
    absent = sorted(preset.not_in_runtime.keys() - set(names))
    if absent:
        raise ResolveError(
            _('"not-in-runtime" names packages that the preset does not install'),
            faults=[
                Fault(f'$.python["not-in-runtime"].{name}', _("is not installed"), one_of(names))
                for name in absent
            ],
            hint=_("correct it, then: ./gapforge check {stem!q}", stem=preset.name),
        )


def _check_needed(preset: Preset, names: Sequence[str]) -> None:
    """Raise ResolveError if a module that the image builds needs other packages than these."""
    if lacking := doubled_modules.lacking(preset, names):
        raise ResolveError(
            _("Python packages are missing that the image builds its own modules with"),
            faults=[Fault(package, reason) for package, reason in sorted(lacking.items())],
            hint=_(
                "add to python.packages in presets/{preset}.json: {packages}",
                preset=preset.name,
                packages=", ".join(sorted(lacking)),
            ),
        )


def _doubled(preset: Preset, reasons: Mapping[str, str]) -> ResolveError:
    return ResolveError(
        _("Python packages would replace what the image builds itself"),
        faults=[Fault(package, reason) for package, reason in sorted(reasons.items())],
        hint=doubled_modules.suggestion(reasons, preset),
    )


def requirements_text(wheels: Iterable[tuple[str, str, str]]) -> str:
    """Return a requirements.txt for pip and uv from (name, version, SHA-256) of each wheel."""
    lines = [
        f"{name}=={version} \\\n    --hash=sha256:{sha256}\n"
        for name, version, sha256 in sorted(wheels)
    ]
    return (
        "# Written by gapforge sync from the lock. Install with: "
        "pip install --no-index --no-deps --require-hashes\n" + "".join(lines)
    )


def project_toml(python: str, requirements: Sequence[str], torch_index: str) -> str:
    """Return the pyproject.toml that uv resolves.

    JSON strings are TOML strings, so they are quoted safely.
    """
    text = (
        f'[project]\nname = "{TARGET}"\nversion = "0"\n'
        f"requires-python = {json.dumps(f'=={python}.*')}\n"
        f"dependencies = {json.dumps(list(requirements), indent=1)}\n"
    )
    if torch_index:
        text += (
            f'\n[[tool.uv.index]]\nname = "torch"\nurl = {json.dumps(torch_index)}\n'
            "explicit = true\n"
        )
        if folder_layout(torch_index) == FLAT:
            text += f'format = "{FLAT}"\n'
        text += "\n[tool.uv.sources]\n"
        text += "".join(f'{name} = {{ index = "torch" }}\n' for name in TORCH_SET)
    return text


def folder_layout(index: str) -> str:
    """Return FLAT for the file:// address of a folder of wheels, "" for every other index.

    Raise ResolveError for a folder that is no index at all.
    """
    parts = urlsplit(index)
    if parts.scheme != "file":
        return ""
    folder = Path(unquote(parts.path))
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise _no_index(index, unlistable(error)) from error
    if any(name.endswith(".whl") for name in names):
        return FLAT
    if not any((folder / name / "index.html").is_file() for name in names):
        raise _no_index(index, _("contains neither wheels nor a folder with an index.html"))
    return ""


def _no_index(index: str, problem: str) -> ResolveError:
    return ResolveError(
        _("{index} is not a Python index", index=without_credentials(index)),
        faults=[Fault(without_credentials(index), problem)],
        hint=_(
            "name a folder that has the wheels themselves (NAME-VERSION-TAGS.whl), or a folder "
            "NAME/index.html for each package (PEP 503)"
        ),
    )


def find_uv(project: Project) -> Path:
    """Return GAPFORGE_UV, the uv that deps_sync.sh installed, or the one on PATH.

    Raise ToolError without one.
    """
    named = os.environ.get("GAPFORGE_UV")
    own = project.state / "tools" / "bin" / "uv"
    if named:
        return Path(named)
    if own.exists():
        return own
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and os.access(Path(folder) / "uv", os.X_OK):
            return Path(folder) / "uv"
    raise ToolError(
        _("uv is not installed"),
        hint=_("run ./deps_sync.sh instead of gapforge sync: it installs uv"),
    )


def _torch_index(preset: Preset, network: Network) -> str:
    """Return the address of PyTorch's index, "" if the set comes from the default one."""
    if preset.pytorch is None or preset.pytorch.index == "default":
        return ""
    return network.torch_index_url or network.url(preset.pytorch.index)


def _default_index(network: Network) -> str:
    """Return the address of the default index that uv is given, "" if it uses its own."""
    env = os.environ
    return network.index_url or env.get("UV_DEFAULT_INDEX", "") or env.get("UV_INDEX_URL", "")


def _secrets(network: Network) -> list[str]:
    """Return the logins that uv gets: in addresses of indexes and proxies, and in variables."""
    pairs = (*network.url_mirrors, *network.proxies)
    users = (os.environ.get(name, "") for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"))
    addresses = (network.index_url, network.torch_index_url, *(to for _from, to in pairs), *users)
    given = [value for name, value in os.environ.items() if UV_LOGIN.fullmatch(name) and value]
    return given + [
        part
        for address in addresses
        if address
        for part in (urlsplit(address).password, urlsplit(address).username)
        if part
    ]


def _toml(text: str, project: Project) -> dict[str, Any]:
    """Return a parsed TOML document.

    Python 3.10 has no parser; the Python of the tools folder has one.
    """
    loaded: dict[str, Any]
    try:
        parser = importlib.import_module("tomllib")  # type checkers for 3.10 do not know it
    except ModuleNotFoundError:
        python = project.state / "tools" / "bin" / "python"
        done = process.run([str(python), "-c", _TOML_TO_JSON], stdin=text, timeout=60)
        loaded = parse_json(done.output.encode())
    else:
        loaded = parser.loads(text)
    return loaded


def _size(raw: Mapping[str, Any]) -> int:
    """Return the size of a pylock wheel or sdist in bytes, 0 if the index does not state it."""
    size = raw.get("size", 0)
    return size if type(size) is int and size > 0 else 0


def _file(raw: Mapping[str, Any]) -> str:
    """Return the file name of a pylock wheel or sdist. Raise ResolveError for an unsafe one."""
    name = str(raw.get("name") or unquote(urlsplit(raw["url"]).path).rsplit("/", 1)[-1])
    if not SAFE_NAME.fullmatch(name):
        raise ResolveError(_("the index offers a file with the unsafe name {name!r}", name=name))
    return name


def _sha256(raw: Mapping[str, Any]) -> str:
    return str((raw.get("hashes") or {}).get("sha256", ""))
