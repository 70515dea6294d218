"""Wheels and source distributions for the *target's* Python and platform, resolved by uv.

PyTorch's packages come only from the index that the preset names and everything else only from the
default one: uv is told so (``explicit`` index and ``sources``), and a package of the set that comes in
as somebody's dependency is made a direct requirement, as uv applies ``sources`` to those alone.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from gapforge.base import process
from gapforge.base.errors import Fault, ResolveError, ToolError
from gapforge.base.files import SAFE_NAME, write_text
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.model.lock import Entry
from gapforge.model.names import package_of
from gapforge.model.preset import Preset
from gapforge.model.unresolved_item import DEFAULT_INDEX, NO_ANSWER, Reason, server_name
from gapforge.sync.network import Network, NoAnswerError

INSTALL_TOOL = (
    "pip==24.2"  # installs the wheels inside the image; pinned here so that locks stay the same
)
TORCH_SET = ("torch", "torchvision", "torchaudio")
GLIBC = {  # of the base OS: decides which manylinux wheels run there
    ("debian", "11"): 31,
    ("debian", "12"): 36,
    ("debian", "13"): 40,  # 13 has 2.41; uv knows up to 2.40
    ("ubuntu", "20.04"): 31,
    ("ubuntu", "22.04"): 35,
    ("ubuntu", "24.04"): 39,
}
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
# What of the user's uv settings we let through. The others may add an index or change the resolution.
UV_KEPT = re.compile(
    r"UV_(CACHE_DIR|DEFAULT_INDEX|INDEX_URL|HTTP_TIMEOUT|HTTP_RETRIES|NATIVE_TLS|SYSTEM_CERTS|KEYRING_PROVIDER|"
    r"INSECURE_HOST|OFFLINE|CONCURRENT_DOWNLOADS|INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD))"
)
_TOML_TO_JSON = """
import json, sys
try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib
json.dump(tomllib.loads(sys.stdin.read()), sys.stdout, default=str)
"""


@dataclass(frozen=True)
class Wheel:
    """One wheel to install. ``index`` is "default" or "torch"; ``sha256`` "" and ``size`` 0 when the index
    does not tell; ``url`` may hold a login and is never stored."""

    name: str
    version: str
    file: str
    url: str
    sha256: str
    size: int
    index: str


@dataclass(frozen=True)
class Sdist:
    """A source distribution on the default index; fields as in Wheel."""

    file: str
    version: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Resolver:
    """Asks uv. ``workdir`` gets the generated project and uv's answer; ``refresh`` ignores uv's cached indexes.

    Without ``retries_indexes`` an index that does not answer is asked once only.
    """

    project: Project
    network: Network
    workdir: Path
    refresh: bool = False
    retries_indexes: bool = True

    def wheels(self, preset: Preset) -> list[Wheel]:
        """The wheels that the preset's Python needs, by name, each the best one for the target.

        Raises ResolveError naming the package that has none, and what there is instead.
        """
        wanted = [*(preset.pytorch.requirements() if preset.pytorch else ()), *preset.packages]
        if not wanted:
            return []
        index = _torch_index(preset, self.network)
        while True:
            found = self._compile(preset, wanted, index)
            # A member of the set that nobody asked for by name came from the default index: ask by name.
            surprise = [
                p["name"]
                for p in found
                if p["name"] in TORCH_SET and p["name"] not in map(package_of, wanted)
            ]
            if not index or not surprise:
                break
            wanted += surprise
        return [self._choose(preset, package, index) for package in found]

    def install_tool(self, preset: Preset) -> Wheel:
        """The wheel of pip that installs the others inside the image."""
        found = self._compile(preset, [INSTALL_TOOL], "", dependencies=False)
        return self._choose(preset, found[0], "")

    def sdist(self, requirement: str, preset: Preset) -> Sdist:
        """The source distribution ``NAME==VERSION`` on the default index. Raises ResolveError when it has none."""
        found = self._compile(preset, [requirement], "", dependencies=False, wheels_only=False)
        raw = found[0].get("sdist")
        if raw is None:
            raise ResolveError(
                _(
                    "{requirement} has no source distribution on the default index",
                    requirement=requirement,
                ),
                hint=_("name the archive's address in the preset instead (urls)"),
            )
        file = _file(raw)
        return Sdist(
            file,
            found[0]["version"],
            self._login(raw["url"], ""),
            _sha256(raw),
            int(raw.get("size", 0)),
        )

    def locate(self, preset: Preset, entries: Iterable[Entry]) -> dict[str, str]:
        """Where the locked wheels among ``entries`` are now: path -> address.

        The lock names an index, not an address, as every machine may have its own. Raises ResolveError
        for a file that is not there any more or has another hash.
        """
        index = _torch_index(preset, self.network)
        result: dict[str, str] = {}
        faults: list[Fault] = []
        # pip may be there twice, once as a package of the image and once as the tool: ask for each by itself.
        by_group: dict[bool, list[Entry]] = {}
        for entry in entries:
            by_group.setdefault("install-tool" in entry.roles, []).append(entry)
        for group in by_group.values():
            pins = [f"{e.name}=={e.version}" for e in group]
            packages = self._compile(preset, pins, index, dependencies=False)
            known = {_file(w): w for p in packages for w in p.get("wheels", ())}
            for entry in group:
                raw = known.get(entry.file)
                if raw is None:
                    faults.append(Fault(entry.path, _("is not on the index any more"), entry.file))
                elif (there := _sha256(raw)) not in ("", entry.sha256):
                    problem = _("has sha256 {there} on the index", there=there)
                    faults.append(Fault(entry.path, problem, f"sha256 {entry.sha256}"))
                else:
                    result[entry.path] = self._login(
                        raw["url"], index if entry.origin == "index:torch" else ""
                    )
        if faults:
            raise ResolveError(
                _("the index does not have what the lock names"),
                faults=faults,
                hint=_("resolve anew: ./deps_sync.sh {name} --update", name=preset.name),
            )
        return result

    def _compile(
        self,
        preset: Preset,
        requirements: Sequence[str],
        torch_index: str,
        *,
        dependencies: bool = True,
        wheels_only: bool = True,
    ) -> list[dict[str, Any]]:
        """uv's resolution for the target: the ``packages`` of a pylock.toml, by name."""
        self.network.require(_("resolving Python packages"))
        self.workdir.mkdir(parents=True, exist_ok=True)
        write_text(
            self.workdir / "pyproject.toml", project_toml(preset.python, requirements, torch_index)
        )
        answer = self.workdir / "pylock.toml"
        answer.unlink(missing_ok=True)
        command = [
            str(find_uv(self.project)),
            "pip",
            "compile",
            "pyproject.toml",
            "--format",
            "pylock.toml",
            "--output-file",
            answer.name,
            "--quiet",
            "--no-header",
            "--no-annotate",
            "--no-config",
            "--no-python-downloads",
            "--python",
            sys.executable,
            "--python-version",
            preset.python,
            "--python-platform",
            platform(preset),
        ]
        if wheels_only:
            command += ["--only-binary", ":all:"]
        if not dependencies:
            command.append("--no-deps")
        if self.refresh:
            command.append("--refresh")
        if self.network.index_url:
            command += ["--default-index", self.network.index_url]
        env: dict[str, str | None] = {
            k: None for k in os.environ if k.startswith("UV_") and not UV_KEPT.fullmatch(k)
        }
        env.update(self.network.environment())
        if not self.retries_indexes:
            env["UV_HTTP_RETRIES"] = "0"
        done = process.run(
            command,
            env=env,
            cwd=self.workdir,
            timeout=1800,
            check=False,
            redact=_secrets(self.network),
        )
        if done.code != 0:
            raise _explain(done, preset, requirements, _secrets(self.network), torch_index)
        document = _toml(answer.read_text(), self.project)
        return sorted(document.get("packages", ()), key=lambda package: str(package["name"]))

    def _choose(self, preset: Preset, package: Mapping[str, Any], torch_index: str) -> Wheel:
        """The wheel that pip would install on the target, out of those that uv lists."""
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
            there = ", ".join(sorted(_file(raw) for raw in package.get("wheels", ()))) or _(
                "no wheel at all"
            )
            what, target = (
                f"{package['name']} {package['version']}",
                f"{preset.os_id} {preset.os_version}",
            )
            raise ResolveError(
                _(
                    "{what} has no wheel for CPython {python} on {target}; there is: {there}",
                    what=what,
                    python=preset.python,
                    target=target,
                    there=there,
                )
            )
        _unused, file, raw = min(ranked)
        index = "torch" if torch_index and package["name"] in TORCH_SET else "default"
        return Wheel(
            package["name"],
            package["version"],
            file,
            self._login(raw["url"], torch_index if index == "torch" else ""),
            _sha256(raw),
            int(raw.get("size", 0)),
            index,
        )

    def _login(self, url: str, index: str) -> str:
        """``url`` with the index's login, where the file is on the index's own host and uv left it out."""
        source = urlsplit(index or self.network.index_url or os.environ.get("UV_DEFAULT_INDEX", ""))
        parts = urlsplit(url)
        login, at, host = source.netloc.rpartition("@")
        if not at or "@" in parts.netloc or (parts.scheme, parts.netloc) != (source.scheme, host):
            return url
        return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def requirements_text(wheels: Iterable[tuple[str, str, str]]) -> str:
    """requirements.txt for (name, version, sha256): pinned, one hash each, read by pip and by uv alike."""
    lines = [
        f"{name}=={version} \\\n    --hash=sha256:{sha256}\n"
        for name, version, sha256 in sorted(wheels)
    ]
    return (
        "# Written by gapforge sync from the lock. Install with: pip install --no-index --no-deps --require-hashes\n"
        + "".join(lines)
    )


def project_toml(python: str, requirements: Sequence[str], torch_index: str) -> str:
    """The pyproject.toml that uv resolves. JSON strings are TOML strings, so nothing can break out of one."""
    text = (
        '[project]\nname = "gapforge-target"\nversion = "0"\n'
        f"requires-python = {json.dumps(f'=={python}.*')}\n"
        f"dependencies = {json.dumps(list(requirements), indent=1)}\n"
    )
    if torch_index:
        text += f'\n[[tool.uv.index]]\nname = "torch"\nurl = {json.dumps(torch_index)}\nexplicit = true\n\n[tool.uv.sources]\n'
        text += "".join(f'{name} = {{ index = "torch" }}\n' for name in TORCH_SET)
    return text


def platform(preset: Preset) -> str:
    """uv's name for the target's platform. Raises ResolveError for an OS whose glibc we do not know."""
    glibc = GLIBC.get((preset.os_id, preset.os_version))
    if glibc is None:
        known = ", ".join(f"{name} {version}" for name, version in sorted(GLIBC))
        raise ResolveError(
            _(
                "which wheels run on {os_id} {os_version} is not known; known are: {known}",
                os_id=preset.os_id,
                os_version=preset.os_version,
                known=known,
            )
        )
    return f"x86_64-manylinux_2_{glibc}"


def tags(python: str, glibc: int) -> list[str]:
    """The wheel tags that CPython ``python`` on x86-64 with glibc 2.``glibc`` takes, best first."""
    minor = int(python.split(".")[1])
    platforms: list[str] = []
    for version in range(glibc, 4, -1):
        platforms.append(f"manylinux_2_{version}_x86_64")
        if version in LEGACY:
            platforms.append(f"{LEGACY[version]}_x86_64")
    platforms.append("linux_x86_64")
    result = [f"cp3{minor}-{abi}-{p}" for abi in (f"cp3{minor}", "abi3", "none") for p in platforms]
    result += [f"cp3{older}-abi3-{p}" for older in range(minor - 1, 1, -1) for p in platforms]
    generic = [f"py3{minor}", "py3", *(f"py3{older}" for older in range(minor - 1, -1, -1))]
    result += [f"{name}-none-{p}" for name in generic for p in platforms]
    return result + [f"cp3{minor}-none-any"] + [f"{name}-none-any" for name in generic]


def wheel_rank(file: str, order: Mapping[str, int]) -> tuple[int, int] | None:
    """How good a wheel is (lower is better, a later build wins), None when it does not run on the target."""
    parts = file.removesuffix(".whl").split("-")
    if not file.endswith(".whl") or len(parts) not in (5, 6):
        return None
    build = re.match(r"\d+", parts[2]) if len(parts) == 6 else None
    pythons, abis, platforms = (part.split(".") for part in parts[-3:])
    ranks = [
        order[tag]
        for p in pythons
        for a in abis
        for f in platforms
        if (tag := f"{p}-{a}-{f}") in order
    ]
    return (min(ranks), -int(build[0]) if build else 0) if ranks else None


def find_uv(project: Project) -> Path:
    """The uv that deps_sync.sh installed, or the one on PATH; GAPFORGE_UV names another. ToolError without one."""
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
        hint=_("./deps_sync.sh installs it for itself; run that instead of gapforge sync"),
    )


def _torch_index(preset: Preset, network: Network) -> str:
    """The address of PyTorch's index, "" where the set comes from the default one."""
    if preset.pytorch is None or preset.pytorch.index == "default":
        return ""
    return network.torch_index_url or network.url(preset.pytorch.index)


_SILENT = re.compile(
    r"(?:Failed to fetch|for url)\W+(\w+://[^\s`)]+)(?=[\s\S]*(?:error sending request|dns error|connect error|"
    r"Connection refused|timed out|status (?:code|server error)|HTTP status))"
)


def _explain(
    done: process.Result,
    preset: Preset,
    requirements: Sequence[str],
    secrets: Iterable[str],
    torch_index: str = "",
) -> ResolveError | NoAnswerError:
    """uv's refusal as an error that names the package. uv's own words tell what exists, so they are kept.

    NoAnswerError when it is not about packages: an index gave no answer.
    """
    text = process.hide(done.errors.strip() or done.output.strip(), secrets)
    names = re.findall(r"Because (?:all versions of |only )?([A-Za-z0-9._-]+)", text)
    hints = re.findall(r"^hint: (.*)$", text, re.MULTILINE)
    reason = " ".join(
        re.sub(r"^(error|cause|hint): ", "", line.strip())
        for line in text.split("\nhint: ")[0].splitlines()
    )
    if not names and (silent := _SILENT.search(text)):
        login_free = re.sub(r"//[^/@]*@", "//", torch_index).rstrip("/")
        ours = (
            login_free
            and re.sub(r"//[^/@]*@", "//", silent[1]).startswith(login_free + "/")
            and preset.pytorch
        )
        server = f"index:{preset.pytorch.index}" if ours and preset.pytorch else DEFAULT_INDEX
        named = server_name(server)
        return NoAnswerError(
            _(
                "Python packages for {name} could not be resolved: {named} did not answer",
                name=preset.name,
                named=named,
            ),
            reason=Reason(code=NO_ANSWER, server=server),
            faults=[Fault("uv", reason[:2000])],
            hint=_check_network(),
        )
    if not names:
        return ResolveError(
            _("Python packages for {name} could not be resolved", name=preset.name),
            faults=[Fault("uv", reason[:2000])],
            hint=_check_network(),
        )
    package = names[0] if names[0] != "gapforge-target" else package_of(requirements[0])
    return ResolveError(
        _(
            "{package}: no wheel fits CPython {python} on {os_id} {os_version}",
            package=package,
            python=preset.python,
            os_id=preset.os_id,
            os_version=preset.os_version,
        ),
        faults=[Fault(package, reason[:2000], " ".join(hints)[:500])],
        hint=_(
            "change the version in presets/{name}.json to one that has a wheel for the target",
            name=preset.name,
        ),
    )


def _check_network() -> str:
    return _(
        "check the network (GAPFORGE_INDEX_URL, https_proxy, GAPFORGE_CA_BUNDLE), then "
        "run the same command again"
    )


def _secrets(network: Network) -> list[str]:
    """Logins that may stand in index addresses."""
    addresses = (network.index_url, network.torch_index_url, os.environ.get("UV_DEFAULT_INDEX", ""))
    found = [
        part
        for address in addresses
        if address
        for part in (urlsplit(address).password, urlsplit(address).username)
        if part
    ]
    return [text for part in found for text in (part, unquote(part))]


def _toml(text: str, project: Project) -> dict[str, Any]:
    """A parsed TOML document. Python 3.10 has no parser of its own: the tools folder has one."""
    loaded: dict[str, Any]
    try:
        parser = importlib.import_module(
            "tomllib"
        )  # by name: type checkers for 3.10 do not know it
    except ModuleNotFoundError:
        python = project.state / "tools" / "bin" / "python"
        done = process.run([str(python), "-c", _TOML_TO_JSON], stdin=text, timeout=60)
        loaded = json.loads(done.output)
    else:
        loaded = parser.loads(text)
    return loaded


def _file(raw: Mapping[str, Any]) -> str:
    """The file name of a pylock wheel or sdist, safe to use as one."""
    name = str(raw.get("name") or unquote(urlsplit(raw["url"]).path).rsplit("/", 1)[-1])
    if not SAFE_NAME.fullmatch(name):
        raise ResolveError(
            _("the index offers a file with the name {name!r}, which is not usable", name=name)
        )
    return name


def _sha256(raw: Mapping[str, Any]) -> str:
    return str((raw.get("hashes") or {}).get("sha256", ""))
