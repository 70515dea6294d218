"""Test APT with the practice preset's packages, signed repositories and source tarballs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apt_repositories import fetch, make_base, make_deb, make_key, signed_repository
from gapforge.base.errors import FetchError, ResolveError
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.model import preset as presets
from gapforge.model.names import ROLES
from gapforge.model.preset import AptSource
from gapforge.sync import apt_errors, base_images, oci_layout
from gapforge.sync.apt_resolver import AptResolver, DebFile, write_index
from gapforge.sync.network import Network
from samples import QUICKSTART, ROOT
from servers import Site, file_server

QUIET = Progress("test", quiet=True)
NETWORK = Network(retries=0)
COMPONENTS = ROOT / "components"
# Configuration of a base image that must not count: each line refuses the packages, installs
# others, or leaves a file behind.
HOSTILE = {
    "etc/apt/apt.conf.d/99image": 'APT::Default-Release "trixie";\n'
    'APT::Install-Suggests "true";\n'
    'Acquire::http::Proxy "http://127.0.0.1:1";\n'
    'Dir::Bin::dpkg "/bin/false";\n'
    'APT::Update::Pre-Invoke { "touch /hook-update"; };\n'
    'DPkg::Pre-Invoke { "touch /hook-pre"; };\n'
    'DPkg::Post-Invoke { "touch /hook-post"; };\n'
    'DPkg::Pre-Install-Pkgs { "touch /hook-packages"; };\n',
    "etc/apt/apt.conf": 'APT::Default-Release "trixie";\n',
    "etc/apt/preferences.d/image": "Package: *\nPin: release *\nPin-Priority: -1\n",
    "etc/apt/auth.conf": "machine host login me password secret\n",
    "etc/dpkg/dpkg.cfg.d/image": "post-invoke=touch /hook-dpkg\n"
    "status-logger=touch /hook-status\nrefuse-depends=libexpat1\n"
    "path-exclude=/usr/share/doc/libexpat1/changelog*\n",
    "root/.dpkg.cfg": "post-invoke=touch /hook-home\n",
}


# -- the practice preset


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed")
    folder = tmp_path_factory.mktemp("base")
    preset = presets.load(QUICKSTART)
    base_images.fetch(
        preset.builder, Project(folder, folder), 1_700_000_000, folder / "layout", Network(), QUIET
    )
    return folder / "layout"


@pytest.fixture(scope="module")
def synced(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[DebFile], list[DebFile]]:
    """Return a flat APT repository of the practice preset's .debs, and both closures."""
    folder = tmp_path_factory.mktemp("debs")
    preset = presets.load(QUICKSTART)
    with AptResolver(base, (), folder / "work", Network()) as root:
        builder, runtime = (root.closure(preset.debs(role)) for role in ROLES)
        libraries = root.libraries(preset.debs("builder"))
        more, absent = root.with_libraries(preset.debs("runtime"), libraries)
        assert absent == []
        assert {d.file for d in more} <= {d.file for d in builder + runtime}, "one base image"
        fetch(list({d.file: d for d in builder + runtime}.values()), folder / "repo", Network())
    assert not list((folder / "work").iterdir())
    write_index(folder / "repo")
    return folder / "repo", builder, runtime


def chroot(base: Path, repo: Path, folder: Path) -> Path:
    """Unpack the base image into ``folder``, with the inputs of the component apt in /in."""
    folder.mkdir()
    layout = oci_layout.read_layout(base)
    subprocess.run(["tar", "-xf", str(layout.layers[0].path(base)), "-C", str(folder)], check=True)
    shutil.copytree(repo, folder / "in/debs")
    for script in (COMPONENTS / "common.sh", COMPONENTS / "apt/build.sh"):
        shutil.copy(script, folder / "in")
    (folder / "in/params").mkdir()
    os.mknod(folder / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    return folder


def install(place: Path, packages: list[str]) -> subprocess.CompletedProcess[str]:
    (place / "in/params/packages").write_text("\n".join(packages))
    return run_in(place)


def run_in(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the build of the component apt in the unpacked image."""
    return subprocess.run(
        ["unshare", "-n", "chroot", str(place), "bash", "/in/build.sh", *words],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "DPKG_FORCE": "refuse-all"},
        capture_output=True,
        text=True,
        check=False,
    )


def configuration(place: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return the bytes, modes and times of the files that configure apt and dpkg in an image."""
    folders = (place / "etc/apt", place / "etc/dpkg")
    return {
        str(file.relative_to(place)): (
            file.read_bytes(),
            file.stat().st_mode,
            file.stat().st_mtime_ns,
        )
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file()
    }


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (chroot)")


@needs_root
@pytest.mark.timeout(900)
def test_closures_install_whatever_the_image_configures(
    base: Path, synced: tuple[Path, list[DebFile], list[DebFile]], tmp_path: Path
) -> None:
    repo, builder, runtime = synced
    preset = presets.load(QUICKSTART)
    assert {d.origin for d in builder + runtime} == {"apt:base"}
    for name, packages, closure in (
        ("b", preset.debs("builder"), builder),
        ("r", preset.debs("runtime"), runtime),
    ):
        place = chroot(base, repo, tmp_path / name)
        for path, text in HOSTILE.items():
            (place / path).write_text(text)
        before = configuration(place)
        done = install(place, list(packages))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "W:" not in done.stderr
        assert len(re.findall(r"^Unpacking ", done.stdout, re.MULTILINE)) == len(closure), (
            "other packages than the closure were installed"
        )
        after = configuration(place)
        assert {path: after.get(path) for path in before} == before
        assert list(place.glob("hook-*")) == []
        assert not list(place.glob("usr/share/doc/libexpat1/changelog*"))
        if name == "r":
            install_libraries(place)
        shutil.rmtree(place)


def install_libraries(place: Path) -> None:
    """Install what a list of libraries needs besides the packages of the image."""
    libraries = {"libgomp1": "libgomp.so.1", "libc6": "libc.so.6", "libabsent0": "libz.so.1"}
    rows = [f"{name}\t1\t{library}\t/usr/local/bin/x" for name, library in libraries.items()]
    (place / "in/list").write_text("\n".join([*rows, ""]))
    done = run_in(place, "/in/list")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^Unpacking (\S+?):amd64 ", done.stdout, re.MULTILINE) == ["libgomp1"]
    assert (place / "usr/share/gapforge/libraries.tsv").read_text() == (
        place / "in/list"
    ).read_text()


@needs_root
@pytest.mark.timeout(300)
def test_apt_refuses_damaged_package_and_index(
    base: Path, synced: tuple[Path, list[DebFile], list[DebFile]], tmp_path: Path
) -> None:
    repo, _, runtime = synced
    place = chroot(base, repo, tmp_path / "c")
    deb = place / "in/debs" / next(d.file for d in runtime if d.package == "libexpat1")
    data = bytearray(deb.read_bytes())
    data[len(data) // 2] ^= 1
    deb.write_bytes(data)
    done = install(place, ["python3.11"])
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stderr
    index = place / "in/debs" / "Packages"
    index.write_text(index.read_text().replace("Size: 1", "Size: 2", 1))
    done = install(place, ["python3.11"])
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stderr or "unexpected size" in done.stderr
    shutil.rmtree(place)


@pytest.mark.timeout(300)
def test_source_tarball_of_ffmpeg_is_found(base: Path, tmp_path: Path) -> None:
    with AptResolver(base, (), tmp_path / "work", Network()) as root:
        found = root.source_tarball("ffmpeg")
        fetch([found], tmp_path, Network())
        with pytest.raises(ResolveError, match="ffmpegg"):
            root.source_tarball("ffmpegg")
        with pytest.raises(ResolveError, match="base-files"):
            root.source_tarball("base-files")
    assert re.fullmatch(r"5\.1\.\d+", found.version)
    assert found.file == f"ffmpeg_{found.version}.orig.tar.xz"
    assert hashlib.sha256((tmp_path / found.file).read_bytes()).hexdigest() == found.sha256


# -- signed repositories, as an Ubuntu base has them, from a loopback server


class Fixture:
    """A signed archive on a server, and a base image with this archive as its APT source."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder, self.site = folder, site
        self.home, self.public = make_key(folder / "gnupg", "archive")
        make_deb(folder / "ubuntu/pool", "tool", "2:1.0-0ubuntu1", Depends="libtool1 (>= 1)")
        make_deb(folder / "ubuntu/pool", "libtool1", "1.0")
        make_deb(folder / "cuda/pool", "cuda-thing", "11.8-1", Depends="libtool1")

    def sign(self, **how: Any) -> None:
        for name in ("ubuntu", "cuda"):
            signed_repository(self.folder / name, self.home, "jammy", **how)
        self.serve()

    def serve(self) -> None:
        for name in ("ubuntu", "cuda"):
            for file in (self.folder / name).rglob("*"):
                if file.is_file():
                    self.site.add("/" + file.relative_to(self.folder).as_posix(), file.read_bytes())

    def base(self) -> Path:
        key = self.public.read_bytes()
        return make_base(
            self.folder / "base",
            {
                "etc/os-release": 'ID=ubuntu\nVERSION_ID="22.04"\n',
                "etc/apt/sources.list.d/ubuntu.sources": (
                    f"Types: deb\nURIs: {self.site.url}/ubuntu\nSuites: jammy\n"
                    "Components: main\nSigned-By: /etc/apt/keyrings/a.asc\n"
                ),
                "etc/apt/keyrings/a.asc": key,
            },
        )

    def cuda(self, key: bytes | None = None) -> AptSource:
        data = self.public.read_bytes() if key is None else key
        url = self.site.add("/key.asc", data)
        return AptSource(
            name="cuda",
            uri=f"{self.site.url}/cuda",
            suite="jammy",
            components=("main",),
            key_urls=(url,),
            key_sha256=hashlib.sha256(data).hexdigest(),
        )

    def closure(self, *packages: str, key: bytes | None = None) -> list[DebFile]:
        with AptResolver(self.base(), (self.cuda(key),), self.folder / "work", NETWORK) as root:
            debs = root.closure(packages)
            fetch(debs, self.folder / "got", NETWORK)
        return debs


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Fixture]:
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    with file_server() as site:
        yield Fixture(tmp_path, site)
    subprocess.run(["gpgconf", "--homedir", str(tmp_path / "gnupg"), "--kill", "all"], check=False)


def test_packages_of_base_and_extra_sources(archive: Fixture) -> None:
    archive.sign(valid_for=86400)
    debs = archive.closure("tool", "cuda-thing")
    assert [(d.file, d.origin) for d in debs] == [
        ("cuda-thing_11.8-1_amd64.deb", "apt:cuda"),
        ("libtool1_1.0_amd64.deb", "apt:base"),
        ("tool_1.0-0ubuntu1_amd64.deb", "apt:base"),
    ]
    assert sorted(p.name for p in (archive.folder / "got").iterdir()) == [d.file for d in debs]


def assert_refused(
    archive: Fixture, package: str, said: str, key: bytes | None = None
) -> FetchError:
    """Assert that APT refuses the archive and that its own output has a line like ``said``."""
    with pytest.raises(FetchError) as caught:
        archive.closure(package, key=key)
    assert re.search(said, "\n".join(fault.problem for fault in caught.value.faults))
    return caught.value


def test_wrong_key_is_refused(archive: Fixture, tmp_path: Path) -> None:
    archive.sign()
    home, other = make_key(tmp_path / "other", "stranger")
    assert_refused(archive, "cuda-thing", "NO_PUBKEY", other.read_bytes())
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def test_expired_and_future_indexes_are_refused(
    archive: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.sign(dated=-90000, valid_for=-3600)
    error = assert_refused(archive, "tool", "expired")
    assert apt_errors.ACCEPT_EXPIRED in error.hint
    monkeypatch.setenv(apt_errors.ACCEPT_EXPIRED, "1")
    assert [d.package for d in archive.closure("tool")] == ["libtool1", "tool"]
    monkeypatch.delenv(apt_errors.ACCEPT_EXPIRED)
    archive.sign(dated=500000, valid_for=900000)
    assert_refused(archive, "tool", "is not valid yet")


def test_changed_and_unsigned_archives_are_refused(archive: Fixture) -> None:
    archive.sign()
    deb = archive.folder / "ubuntu/pool/tool_1.0-0ubuntu1_amd64.deb"
    archive.site.add("/ubuntu/pool/" + deb.name, deb.read_bytes()[:-1] + b"x")
    with pytest.raises(FetchError) as caught:
        archive.closure("tool")
    assert [f.where for f in caught.value.faults] == [deb.name]
    dist = archive.folder / "ubuntu/dists/jammy"
    index = (dist / "main/binary-amd64/Packages").read_bytes()
    archive.site.add(
        "/ubuntu/dists/jammy/main/binary-amd64/Packages", index.replace(b"tool1", b"evil1")
    )
    assert_refused(archive, "tool", "Hash Sum mismatch|unexpected size")
    release = (dist / "InRelease").read_bytes()
    archive.site.add(
        "/ubuntu/dists/jammy/InRelease", release.replace(b"Origin: Fixture", b"Origin: Fixtune")
    )
    assert_refused(archive, "tool", "BADSIG|invalid signature")
    del archive.site.paths["/ubuntu/dists/jammy/InRelease"]
    assert_refused(archive, "tool", "is not signed|does not have a Release file")
