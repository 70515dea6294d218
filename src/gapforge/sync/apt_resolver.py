"""Resolve .debs and source tarballs with APT, on top of a base image and without a container."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from gapforge.base import process
from gapforge.base.errors import Fault, FetchError, ResolveError, ToolError
from gapforge.base.files import sha256_file
from gapforge.base.i18n import _
from gapforge.base.path_checks import SAFE_NAME
from gapforge.base.text_layout import whole_number
from gapforge.base.write_files import write_text
from gapforge.model import debian_control
from gapforge.model.build_packages import bare_name
from gapforge.model.preset import AptSource
from gapforge.sync import apt_errors, oci_layout
from gapforge.sync.apt_errors import shown_line
from gapforge.sync.base_image_facts import read_files
from gapforge.sync.isolated_apt import IsolatedApt, file_uri
from gapforge.sync.network import Network

_URI_LINE = re.compile(r"'([^']+)' (\S+) (\d+)(?: (\S+))?")
_CUDA_BUILD = re.compile(r"\+cuda([0-9]+(?:\.[0-9]+)*)")
# The last part of the section of packages that contain no shared library, though called lib….
_NO_LIBRARIES = ("debug", "devel", "doc", "introspection", "java", "libdevel", "perl", "python")
_SHOW_AT_ONCE = 200  # packages on one command line


@dataclass(frozen=True, kw_only=True)
class DebFile:
    """One .deb to download.

    ``file`` is its name in the artifacts, ``size`` in bytes, ``origin`` "apt:base" or "apt:NAME".
    ``uri`` may be a file:// address.
    """

    package: str
    version: str
    architecture: str
    file: str
    size: int
    sha256: str
    origin: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """An upstream tarball to download. ``version`` is upstream's ("5.1.9"), ``size`` in bytes."""

    file: str
    version: str
    size: int
    sha256: str
    origin: str
    uri: str


class _Download(NamedTuple):
    """One file that APT would download; ``size`` in bytes."""

    uri: str
    file: str
    size: int


class _Closure(NamedTuple):
    """The .debs that the base image lacks for some packages, and their entries in the index."""

    debs: list[DebFile]
    stanzas: list[dict[str, str]]


class AptResolver:
    """APT with the package state of a base image, and with signed package indexes.

    It is a context manager, which removes its working files. ``layout`` is the OCI layout of the
    base image, ``workdir`` a folder for working files, ``local_repo`` a local-repository .deb whose
    packages may be used too. The first step reads the indexes: it raises FetchError if one cannot
    be downloaded or trusted, ResolveError if the base image is neither Debian nor Ubuntu.
    """

    def __init__(
        self,
        layout: Path,
        extra: tuple[AptSource, ...],
        workdir: Path,
        network: Network,
        local_repo: Path | None = None,
    ) -> None:
        self._files = read_files(oci_layout.read_layout(layout))
        self._installed = self._files.installed()
        self._has_sources = False
        self._closures: dict[tuple[str, ...], _Closure] = {}
        self.apt = IsolatedApt(self._files, extra, workdir, network, local_repo)
        try:
            self.apt.update()
        except BaseException:
            self.apt.close()
            raise

    def __enter__(self) -> AptResolver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.apt.close()

    def closure(self, packages: Sequence[str]) -> list[DebFile]:
        """Return exactly the .debs that the base image lacks for ``packages``, by file name.

        A package is ``name`` or ``name=version``. Raise ResolveError with every package that is not
        available, with the nearest names and versions, and every dependency that APT would take
        from the build for another CUDA than that of the pinned packages. APT takes a name that no
        package has as a pattern or an instruction, so each package must be among the chosen or the
        installed ones, or provided by one.
        """
        return self._resolve(packages).debs

    def libraries(self, packages: Sequence[str]) -> dict[str, str]:
        """Return what programs can link to once ``packages`` are installed: version by package.

        These are the packages that a development package depends on. Those of NVIDIA are left out:
        the runtime base image has the same ones, or the preset names them.
        """
        stanzas = {
            stanza["package"]: stanza
            for stanza in (*self._installed, *self._resolve(packages).stanzas)
            if "package" in stanza
        }
        names = {
            name
            for package, stanza in stanzas.items()
            if package.endswith("-dev")
            for name in debian_control.names(stanza.get("depends", ""))
        }
        names.update(map(bare_name, packages))
        return {
            name: stanzas[name]["version"]
            for name in sorted(names & stanzas.keys())
            if _may_be_linked_to(stanzas[name])
        }

    def with_libraries(
        self, packages: Sequence[str], libraries: Mapping[str, str]
    ) -> tuple[list[DebFile], list[str]]:
        """Return the .debs for ``packages`` and ``libraries``, and the libraries that are absent.

        ``libraries`` are the versions that programs are linked to. What the base image has in this
        version or a newer one needs no .deb. A library is absent if no source has it, or if it
        cannot be installed together with ``packages``.
        """
        debs = self.closure(packages)
        lacking = self._lacking(libraries)
        chosen = self._installable(packages, self._available(lacking))
        if chosen:
            more = self.closure([*packages, *chosen])
            debs = list({deb.file: deb for deb in (*more, *debs)}.values())
        absent = lacking.keys() - {item.partition("=")[0] for item in chosen}
        absent -= {stanza.get("package", "") for stanza in self._installed}
        return sorted(debs, key=lambda deb: deb.file), sorted(absent)

    def check_programs(self, role: str, python: str, debs: Sequence[DebFile]) -> None:
        """Raise ResolveError if the image of ``role`` would lack what the build's scripts run.

        These are apt, which the base image must have, and the Python of the preset.
        """
        faults = []
        if not self._files.has("usr/bin/apt-get"):
            found = _("the base image has no apt-get, which installs the packages")
            faults.append(Fault(f"$.base.{role}", found, _("a base image with apt")))
        name = f"python{python}"
        chosen = any(deb.package == name for deb in debs)
        if not chosen and not self._files.has(f"usr/bin/{name}"):
            found = _("neither the packages nor the base image contain {name}", name=name)
            faults.append(Fault(f"$.apt.{role}", found, name))
        if faults:
            raise ResolveError(
                _("the {role} image would lack programs of the build", role=role),
                faults=faults,
                hint=_("correct $.apt or $.base in the preset, then sync again"),
            )

    def source_tarball(self, name: str) -> SourceFile:
        """Return the newest upstream tarball of source package ``name`` of the base image.

        Raise ResolveError if there is no such source package, or it has no upstream tarball.
        """
        if not self._has_sources:
            self.apt.add_source_indexes()
            self._has_sources = True
        options = ["-qq", "--print-uris", "--only-source", "--download-only"]
        done = self.apt.run(["apt-get", "source", *options, "--", name], check=False)
        if done.code != 0:
            raise ResolveError(
                _('the base image\'s APT sources have no source package "{name}"', name=name),
                faults=[Fault(name, shown_line(_last(done.errors)))],
                hint=_('correct "apt-source" in the preset'),
            )
        files = {download.file: download.uri for download in _downloads(done.output)}
        described = self.apt.run(["apt-cache", "showsrc", "--only-source", "--", name]).output
        for stanza in debian_control.parse(described):
            # Other stanzas are of other versions of the package.
            if stanza.get("version") and files.keys() <= _checksums(stanza).keys():
                return _upstream_tarball(name, stanza, files)
        raise ResolveError(
            _('the index has no SHA-256 for the files of source package "{name}"', name=name),
            hint=_own_address(),
        )

    # -- resolving

    def _resolve(self, packages: Sequence[str]) -> _Closure:
        """Return what the base image lacks for ``packages``. Each question is asked once."""
        if not packages:
            return _Closure([], [])
        key = tuple(packages)
        if key not in self._closures:
            self._prefer_pinned(packages)
            done = self._install("--print-uris", packages)
            if done.code != 0:
                raise apt_errors.unresolvable(self.apt, packages)
            found = self._describe(_downloads(done.output))
            if absent := debian_control.absent(packages, [*found.stanzas, *self._installed]):
                raise apt_errors.not_chosen(self.apt, absent)
            self._check_cuda_builds(packages, found.debs)
            self._closures[key] = found
        return self._closures[key]

    def _install(self, how: str, packages: Sequence[str]) -> process.Result:
        words = ["apt-get", "install", "-qq", "-y", "--no-remove", how, "--", *packages]
        return self.apt.run(words, check=False)

    def _lacking(self, libraries: Mapping[str, str]) -> dict[str, str]:
        """Return what of ``libraries`` the base image lacks, or has in an older version."""
        installed = {
            stanza.get("package", ""): stanza.get("version", "") for stanza in self._installed
        }
        return {
            name: version
            for name, version in libraries.items()
            if name not in installed or self._is_older(installed[name], version)
        }

    def _available(self, lacking: Mapping[str, str]) -> list[str]:
        """Return what of ``lacking`` a source has, as name=version if it has this version."""
        if not lacking:
            return []
        offered = apt_errors.all_versions(self.apt, list(lacking))
        return [
            f"{name}={version}" if version in offered[name] else name
            for name, version in lacking.items()
            if name in offered
        ]

    def _is_older(self, version: str, other: str) -> bool:
        if version == other:
            return False
        argv = ["dpkg", "--compare-versions", version, "lt", other]
        return process.run(argv, check=False).code == 0

    def _installable(self, packages: Sequence[str], more: Sequence[str]) -> list[str]:
        """Return what of ``more`` can be installed together with ``packages``, which can."""
        if not more:
            return []
        self._prefer_pinned(packages)
        if self._install("-s", [*packages, *more]).code == 0:
            return list(more)
        if len(more) == 1:
            return []
        middle = len(more) // 2
        first = self._installable(packages, more[:middle])
        return first + self._installable([*packages, *first], more[middle:])

    def _prefer_pinned(self, packages: Sequence[str]) -> None:
        """Make dependencies follow pinned CUDA builds; APT would take the newest version."""
        builds = _pinned_cuda_builds(packages)
        pins = [(version, 990) for version in builds]
        pins += [(f"*+cuda{cuda}", 980) for cuda in dict.fromkeys(builds.values())]
        # "?*", because APT rejects "*" together with a version.
        text = "\n".join(
            f"Package: ?*\nPin: version {version}\nPin-Priority: {priority}\n"
            for version, priority in pins
        )
        (self.apt.root / "etc/apt/preferences.d/00gapforge").write_text(text)

    def _describe(self, downloads: Sequence[_Download]) -> _Closure:
        """Return the .debs that APT would download.

        The SHA-256 comes from the index, as --print-uris may print an MD5 sum only.
        """
        wanted = {_package_of(download.file): download for download in downloads}
        names = [f"{package}={version}" for package, version, _unused in wanted]
        stanzas: list[dict[str, str]] = []
        for start in range(0, len(names), _SHOW_AT_ONCE):
            stanzas += debian_control.parse(
                self.apt.run(
                    ["apt-cache", "show", "--", *names[start : start + _SHOW_AT_ONCE]]
                ).output
            )
        debs: dict[str, DebFile] = {}
        chosen: list[dict[str, str]] = []
        for stanza in stanzas:
            package = (
                stanza.get("package", ""),
                stanza.get("version", ""),
                stanza.get("architecture", ""),
            )
            # Several repositories may have one version with different bytes; take the one APT
            # chose.
            if package not in wanted or not _is_of(stanza, wanted[package]):
                continue
            deb = self._deb(package, wanted[package], stanza.get("sha256", ""))
            if deb.file in debs and debs[deb.file].sha256 != deb.sha256:
                raise ResolveError(
                    _("two different packages have the file name {file}", file=deb.file)
                )
            debs[deb.file] = deb
            chosen.append(stanza)
        missing = set(wanted) - {(d.package, d.version, d.architecture) for d in debs.values()}
        if missing:
            raise ResolveError(
                _("APT chose packages that its index does not describe"),
                faults=[
                    Fault(f"{name}={version}", _("not in the index for {arch}", arch=arch))
                    for name, version, arch in sorted(missing)
                ],
            )
        return _Closure(sorted(debs.values(), key=lambda deb: deb.file), chosen)

    def _deb(self, named: tuple[str, str, str], download: _Download, sha256: str) -> DebFile:
        """Return the .deb with this package, version and architecture."""
        package, version, architecture = named
        if not sha256:
            raise ResolveError(
                _(
                    "the index has no SHA-256 for {package} {version}",
                    package=package,
                    version=version,
                ),
                hint=_("use an APT source that has one"),
            )
        file = f"{package}_{version.split(':', 1)[-1]}_{architecture}.deb"
        if not SAFE_NAME.fullmatch(file):
            raise ResolveError(
                _(
                    "{package} {version}: {file!r} is not a usable file name",
                    package=package,
                    version=version,
                    file=file,
                )
            )
        return DebFile(
            package=package,
            version=version,
            architecture=architecture,
            file=file,
            size=download.size,
            sha256=sha256,
            origin=self.apt.origin(download.uri),
            uri=file_uri(download.uri),
        )

    def _check_cuda_builds(self, packages: Sequence[str], debs: Sequence[DebFile]) -> None:
        """Raise ResolveError if a dependency is built for another CUDA than the pinned packages."""
        pinned = sorted(set(_pinned_cuda_builds(packages).values()))
        if not pinned:
            return
        faults = []
        for deb in debs:
            if _cuda_of(deb.version) in ("", *pinned):
                continue
            available = apt_errors.versions(self.apt, deb.package)
            fitting = [version for version in available if _cuda_of(version) in pinned]
            if fitting:
                expected = f"{deb.package}={fitting[0]}"
            else:
                cuda = _(" or ").join(pinned)
                expected = _("a build for CUDA {cuda}, which no source has", cuda=cuda)
            problem = _("APT would install {version}", version=deb.version)
            faults.append(Fault(deb.package, problem, expected))
        if faults:
            raise ResolveError(
                _(
                    "pinned packages are built for CUDA {cuda}, but some dependencies are not",
                    cuda=_(" and ").join(pinned),
                ),
                faults=faults,
                hint=_("pin these in the preset too, or add an APT source that has such builds"),
            )


def _cuda_of(version: str) -> str:
    """Return the CUDA that a package's version is built for ("1.0-1+cuda11.8"), "" for none."""
    match = _CUDA_BUILD.search(version)
    return match[1] if match else ""


def _pinned_cuda_builds(packages: Sequence[str]) -> dict[str, str]:
    """Return the pinned versions that are built for a CUDA: version -> CUDA."""
    versions = (package.partition("=")[2] for package in packages)
    return {version: cuda for version in versions if (cuda := _cuda_of(version))}


def _may_be_linked_to(stanza: Mapping[str, str]) -> bool:
    """Return whether a package can own libraries that a program needs, and is not NVIDIA's."""
    name, section = stanza["package"], stanza.get("section", "").rpartition("/")[2]
    return (
        name.startswith("lib")
        and not name.endswith("-dev")
        and section not in _NO_LIBRARIES
        and "nvidia" not in stanza.get("maintainer", "").lower()
    )


def _is_of(stanza: Mapping[str, str], download: _Download) -> bool:
    """Return whether an entry of an index describes the file of ``download``."""
    path = stanza.get("filename", "")
    return (
        bool(path)
        and _plain(download.uri).endswith("/" + _plain(path))
        and whole_number(stanza.get("size", "")) == download.size
    )


def _downloads(output: str) -> list[_Download]:
    """Return the files in the output of --print-uris. Raise ResolveError for an unusable size."""
    found = []
    for line in output.splitlines():
        if match := _URI_LINE.fullmatch(line.strip()):
            size = whole_number(match[3])
            if size is None:
                raise _unreadable(line)
            found.append(_Download(match[1], match[2], size))
    return found


def _package_of(file: str) -> tuple[str, str, str]:
    """Return package, version and architecture of APT's name for a .deb.

    Raise ResolveError for another name.
    """
    parts = file.removesuffix(".deb").split("_")
    if len(parts) != 3:
        raise _unreadable(file)
    return parts[0], parts[1].replace("%3a", ":"), parts[2]


def _checksums(stanza: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Return size in bytes and SHA-256 of each file of a source package, by name."""
    return {
        words[2]: (size, words[0])
        for line in stanza.get("checksums-sha256", "").splitlines()
        if len(words := line.split()) == 3 and (size := whole_number(words[1])) is not None
    }


def _upstream_tarball(name: str, stanza: Mapping[str, str], files: Mapping[str, str]) -> SourceFile:
    """Return the upstream tarball among the ``files`` (name -> address) of a source package.

    Raise ResolveError without one.
    """
    version = stanza["version"]
    upstream = version.split(":", 1)[-1].rsplit("-", 1)[0]
    for file in sorted(files):
        if re.fullmatch(re.escape(f"{name}_{upstream}") + r"\.orig\.tar\.[a-z0-9]+", file):
            size, sha256 = _checksums(stanza)[file]
            return SourceFile(
                file=file,
                version=re.sub(r"[+~](dfsg|ds|repack).*$", "", upstream),
                size=size,
                sha256=sha256,
                origin="apt:base",
                uri=files[file],
            )
    found = _("contains {files}", files=", ".join(sorted(files)))
    raise ResolveError(
        _('source package "{name}" {version} has no upstream tarball', name=name, version=version),
        faults=[Fault(name, found, f"{name}_{upstream}.orig.tar.*")],
        hint=_own_address(),
    )


def _unreadable(line: str) -> ResolveError:
    return ResolveError(_("the output of APT cannot be read: {line}", line=shown_line(line)))


def _plain(path: str) -> str:
    """Return ``path`` unquoted and without ``./`` parts, to compare addresses with the index."""
    parts = re.sub(r"%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), path).split("/")
    return "/".join(part for part in parts if part != ".")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else _("APT gave no reason")


def _own_address() -> str:
    return _('specify the address of the archive under "urls" in the preset')


def write_index(folder: Path) -> None:
    """Write ``Packages`` and ``Release`` for the .debs in ``folder``, a flat APT repository.

    Same .debs, same bytes. Raise FetchError with each file that is no .deb.
    """
    files = sorted(folder.glob("*.deb"))
    faults: list[Fault] = []

    def describe(file: Path) -> str:
        try:
            control = process.run(["dpkg-deb", "-f", str(file)]).output
        except ToolError as error:
            if error.is_missing:
                raise
            faults.append(Fault(str(file), _("is not a Debian package"), _("a .deb")))
            return ""
        return debian_control.stanza_for(
            control, file=file.name, size=file.stat().st_size, sha256=sha256_file(file)
        )

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        stanzas = list(pool.map(describe, files))
    if faults:
        raise FetchError(
            _("{folder} contains files that are not Debian packages", folder=folder),
            faults=sorted(faults),
            hint=_("delete them, then sync again"),
        )
    text = debian_control.join_stanzas(stanzas)
    write_text(folder / "Packages", text)
    write_text(folder / "Release", debian_control.release_text(text.encode()))
