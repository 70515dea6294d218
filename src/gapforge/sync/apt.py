""".debs and source tarballs: what a base image lacks, resolved and verified by APT without a container."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gapforge.base import process
from gapforge.base.errors import Fault, FetchError, ResolveError, ToolError
from gapforge.base.files import SAFE_NAME, sha256_file, write_text
from gapforge.base.text import tr
from gapforge.model import debian_control
from gapforge.model.preset import AptSource
from gapforge.sync import apt_errors, oci_layout
from gapforge.sync.apt_errors import shown_line
from gapforge.sync.apt_root import IsolatedApt, file_uri
from gapforge.sync.base_image_facts import read_files
from gapforge.sync.network import Network

_URI_LINE = re.compile(r"'([^']+)' (\S+) (\d+)(?: (\S+))?")
_CUDA_BUILD = re.compile(r"\+cuda([0-9]+(?:\.[0-9]+)*)")
_SHOW_AT_ONCE = 200  # packages named on one command line


@dataclass(frozen=True)
class DebFile:
    """One .deb to fetch. ``file`` is its artifact name; ``origin`` "apt:base" or "apt:NAME"; ``uri`` may be file://."""

    package: str
    version: str
    architecture: str
    file: str
    size: int
    sha256: str
    origin: str
    uri: str


@dataclass(frozen=True)
class SourceFile:
    """An upstream tarball. ``version`` is upstream's ("5.1.9"), ``package_version`` the source package's."""

    package: str
    file: str
    version: str
    package_version: str
    size: int
    sha256: str
    origin: str
    uri: str


class AptRoot:
    """APT seeded with a base image. Use as a context manager; entering reads the signed package indexes.

    ``layout`` is the base's OCI layout, ``workdir`` a folder for working files (they are removed at the
    end), ``local_repo`` a local-repository .deb whose packages may be used too. Entering raises FetchError
    when an index cannot be had or trusted, ResolveError when the base is no Debian or Ubuntu.
    """

    def __init__(self, layout: Path, extra: tuple[AptSource, ...], workdir: Path, network: Network,
                 local_repo: Path | None = None) -> None:  # fmt: skip
        self._arguments = (layout, extra, workdir, local_repo)
        self._network = network
        self._apt: IsolatedApt | None = None
        self._has_sources = False

    def __enter__(self) -> AptRoot:
        layout, extra, workdir, local_repo = self._arguments
        files = read_files(oci_layout.read_layout(layout))
        self._apt = IsolatedApt(files, extra, workdir, self._network, local_repo)
        try:
            self._apt.update()
        except BaseException:
            self._apt.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._apt is not None:
            self._apt.close()
            self._apt = None

    @property
    def apt(self) -> IsolatedApt:
        if self._apt is None:
            raise RuntimeError("AptRoot is a context manager; enter it first")  # no tr: for programmers
        return self._apt

    def closure(self, packages: Sequence[str]) -> list[DebFile]:
        """Exactly the .debs that the base lacks for ``packages`` (``name`` or ``name=version``), by file name.

        Raises ResolveError naming every package that cannot be had, with the nearest names and versions,
        and every dependency that would come as the build for another CUDA than the pinned packages.
        """
        if not packages:
            return []
        self._prefer_pinned(packages)
        done = self.apt.run(
            ["apt-get", "install", "-qq", "-y", "--no-remove", "--print-uris", "--", *packages], check=False
        )
        if done.code != 0:
            raise apt_errors.unresolvable(self.apt, packages)
        found = []
        for line in done.output.splitlines():
            match = _URI_LINE.fullmatch(line.strip())
            if match:
                found.append((match[1], match[2], int(match[3])))
        debs = self._described(found)
        self._check_builds(packages, debs)
        return debs

    def source_tarball(self, name: str) -> SourceFile:
        """The upstream tarball of source package ``name`` in the base's own sources, newest version.

        Raises ResolveError when there is no such source package, or it has no upstream tarball.
        """
        if not self._has_sources:
            self.apt.add_source_indexes()
            self._has_sources = True
        done = self.apt.run(
            ["apt-get", "source", "-qq", "--print-uris", "--only-source", "--download-only", "--", name], check=False
        )
        if done.code != 0:
            raise ResolveError(tr(f'기반 이미지의 APT 소스에 "{name}" 소스 패키지가 없습니다',
                                  f'there is no source package "{name}" in the base image\'s APT sources'),
                               faults=[Fault(name, shown_line(_last(done.errors)))],
                               hint=tr('프리셋의 "apt-source"를 고치십시오', 'correct "apt-source" in the preset'))  # fmt: skip
        files = {match[2]: (match[1], int(match[3])) for line in done.output.splitlines()
                 if (match := _URI_LINE.fullmatch(line.strip()))}  # fmt: skip
        described = self.apt.run(["apt-cache", "showsrc", "--only-source", "--", name]).output
        for stanza in debian_control.parse(described):
            hashes = {words[2]: (int(words[1]), words[0]) for line in stanza.get("checksums-sha256", "").splitlines()
                      if len(words := line.split()) == 3}  # fmt: skip
            if not set(files) <= set(hashes):
                continue  # another version of the same package
            version = stanza["version"]
            upstream = version.split(":", 1)[-1].rsplit("-", 1)[0]
            for file in sorted(files):
                if re.fullmatch(re.escape(f"{name}_{upstream}") + r"\.orig\.tar\.[a-z0-9]+", file):
                    size, sha256 = hashes[file]
                    return SourceFile(name, file, re.sub(r"[+~](dfsg|ds|repack).*$", "", upstream), version, size, sha256,
                                      "apt:base", files[file][0])  # fmt: skip
            held = ", ".join(sorted(files))
            raise ResolveError(tr(f'소스 패키지 "{name}" {version}에 원본 tar 파일이 없습니다',
                                  f'source package "{name}" {version} has no upstream tarball'),
                               faults=[Fault(name, tr(f"들어 있는 파일: {held}", f"holds {held}"), f"{name}_{upstream}.orig.tar.*")],
                               hint=_own_address())  # fmt: skip
        raise ResolveError(tr(f'색인에 소스 패키지 "{name}"의 파일에 대한 SHA-256이 없습니다',
                              f'the index of source package "{name}" gives no SHA-256 for its files'),
                           hint=_own_address())  # fmt: skip

    # -- resolving

    def _prefer_pinned(self, packages: Sequence[str]) -> None:
        """Let dependencies follow pinned CUDA builds: APT alone takes the newest version, of any CUDA.

        ``?*`` because APT refuses ``*`` together with a version.
        """
        versions = list(dict.fromkeys(p.split("=", 1)[1] for p in packages if "=" in p and _CUDA_BUILD.search(p)))
        builds = dict.fromkeys(match[0] for v in versions if (match := _CUDA_BUILD.search(v)))
        pins = [(version, 990) for version in versions] + [(f"*{build}", 980) for build in builds]
        text = "\n".join(
            f"Package: ?*\nPin: version {version}\nPin-Priority: {priority}\n" for version, priority in pins
        )
        (self.apt.root / "etc/apt/preferences.d/00gapforge").write_text(text)

    def _described(self, found: Sequence[tuple[str, str, int]]) -> list[DebFile]:
        """The .debs behind APT's addresses. The SHA-256 comes from the index; --print-uris may give MD5 only."""
        wanted: dict[tuple[str, str, str], tuple[str, int]] = {}
        for uri, name, size in found:
            package, version, architecture = name.removesuffix(".deb").split("_")
            wanted[package, version.replace("%3a", ":"), architecture] = (uri, size)
        names = [f"{package}={version}" for package, version, _ in wanted]
        stanzas: list[dict[str, str]] = []
        for start in range(0, len(names), _SHOW_AT_ONCE):
            stanzas += debian_control.parse(
                self.apt.run(["apt-cache", "show", "--", *names[start : start + _SHOW_AT_ONCE]]).output
            )
        debs: dict[str, DebFile] = {}
        for stanza in stanzas:
            key = (stanza.get("package", ""), stanza.get("version", ""), stanza.get("architecture", ""))
            if key not in wanted or "filename" not in stanza:
                continue
            uri, size = wanted[key]
            # One version may stand in several repositories with different bytes; take the one APT chose.
            if not _plain(uri).endswith("/" + _plain(stanza["filename"])) or int(stanza.get("size", "0")) != size:
                continue
            if not stanza.get("sha256"):
                raise ResolveError(tr(f"색인에 {key[0]} {key[1]}의 SHA-256이 없습니다", f"the index gives no SHA-256 for {key[0]} {key[1]}"),
                                   hint=tr("SHA-256이 있는 소스를 쓰십시오", "use a source that does"))  # fmt: skip
            package, version, architecture = key
            file = f"{package}_{version.split(':', 1)[-1]}_{architecture}.deb"
            if not SAFE_NAME.fullmatch(file):
                raise ResolveError(tr(f"{package} {version}: 쓸 수 없는 파일 이름입니다: {file!r}",
                                      f"{package} {version}: {file!r} is not a usable file name"))  # fmt: skip
            deb = DebFile(
                package, version, architecture, file, size, stanza["sha256"], self.apt.origin(uri), file_uri(uri)
            )
            if file in debs and debs[file].sha256 != deb.sha256:
                raise ResolveError(
                    tr(
                        f"서로 다른 두 패키지의 파일 이름이 같습니다: {file}",
                        f"two different packages would both be {file}",
                    )
                )
            debs[file] = deb
        missing = set(wanted) - {(d.package, d.version, d.architecture) for d in debs.values()}
        if missing:
            raise ResolveError(tr("APT가 고른 패키지가 색인에 없습니다", "APT chose packages that its index does not describe"),
                               faults=[Fault(f"{p}={v}", tr(f"{a}용이 색인에 없음", f"for {a}, not in the index")) for p, v, a in sorted(missing)])  # fmt: skip
        return sorted(debs.values(), key=lambda deb: deb.file)

    def _check_builds(self, packages: Sequence[str], debs: Sequence[DebFile]) -> None:
        pinned = {match[1] for p in packages if "=" in p and (match := _CUDA_BUILD.search(p))}
        if not pinned:
            return
        faults = []
        for deb in debs:
            match = _CUDA_BUILD.search(deb.version)
            if match and match[1] not in pinned:
                fitting = [
                    v
                    for v in apt_errors.versions(self.apt, deb.package)
                    if (m := _CUDA_BUILD.search(v)) and m[1] in pinned
                ]
                one = tr(" 또는 ", " or ").join(sorted(pinned))
                faults.append(Fault(deb.package, tr(f"선택된 버전이 {deb.version}임", f"would come as {deb.version}"),
                                    f"{deb.package}={fitting[0]}" if fitting else
                                    tr(f"CUDA {one}용 빌드(가진 소스가 없음)", f"a build for CUDA {one}; no source has one")))  # fmt: skip
        if faults:
            of = tr(", ", " and ").join(sorted(pinned))
            raise ResolveError(tr(f"고정한 패키지는 CUDA {of}용인데 그 의존성은 그렇지 않습니다",
                                  f"pinned packages are built for CUDA {of}, but their dependencies would not be"),
                               faults=faults,
                               hint=tr("이 패키지들도 프리셋에서 고정하거나 맞는 빌드가 있는 소스를 적으십시오",
                                       "pin these too in the preset, or name a source that has the fitting builds"))  # fmt: skip


def _plain(path: str) -> str:
    """``path`` without ``./`` parts and with quoting undone, to compare addresses with index entries."""
    parts = re.sub(r"%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), path).split("/")
    return "/".join(part for part in parts if part != ".")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else tr("APT가 이유를 밝히지 않음", "APT gave no reason")


def _own_address() -> str:
    return tr(
        '프리셋의 "urls"에 아카이브의 주소를 직접 적으십시오',
        'give the archive\'s own address under "urls" in the preset',
    )


def write_index(folder: Path) -> tuple[Path, Path]:
    """Write ``Packages`` and ``Release`` for the .debs in ``folder``: a flat repository that APT can use.

    Same .debs, same bytes. Gives both paths. Raises FetchError naming each file that is no .deb.
    """
    files = sorted(folder.glob("*.deb"))
    faults: list[Fault] = []

    def describe(file: Path) -> str:
        try:
            control = process.run(["dpkg-deb", "-f", str(file)]).output
        except ToolError as error:
            if error.hint:  # dpkg-deb itself is missing
                raise
            faults.append(
                Fault(str(file), tr("deb 패키지가 아님", "is not a Debian package"), tr("deb 패키지", "a .deb"))
            )
            return ""
        return debian_control.stanza_for(control, file=file.name, size=file.stat().st_size, sha256=sha256_file(file))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        stanzas = list(pool.map(describe, files))
    if faults:
        raise FetchError(tr(f"{folder}에 패키지가 아닌 파일이 있습니다", f"{folder} holds files that are no packages"),
                         faults=sorted(faults),
                         hint=tr("그 파일들을 지우고 다시 받으십시오", "delete them, then sync again"))  # fmt: skip
    text = debian_control.join_stanzas(stanzas)
    write_text(folder / "Packages", text)
    write_text(folder / "Release", debian_control.release_text(text.encode()))
    return folder / "Packages", folder / "Release"
