"""APT in an isolated root: its files, what it resolves, and its errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_repositories import STATUS, fetch, flat_repository, make_base, make_deb
from gapforge.base import process
from gapforge.base.errors import FetchError, ResolveError, ToolError, VerifyError
from gapforge.base.files import sha256_bytes
from gapforge.model import debian_control
from gapforge.model.preset import AptSource
from gapforge.sync import apt_errors, apt_sources
from gapforge.sync.apt_resolver import AptResolver, write_index
from gapforge.sync.base_image_facts import read_files
from gapforge.sync.isolated_apt import IsolatedApt
from gapforge.sync.network import Network
from gapforge.sync.oci_layout import read_layout
from raised_errors import assert_error, values_of
from servers import Site, file_server

needs_apt = pytest.mark.skipif(
    not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="apt is not installed"
)
NETWORK = Network(retries=0)
KEY = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxxxx\n-----END PGP PUBLIC KEY BLOCK-----\n"


def source(name: str, uri: str, **how: object) -> AptSource:
    return replace(AptSource(name=name, uri=uri, suite="./"), **how)  # type: ignore[arg-type]


@pytest.fixture
def site() -> Iterator[Site]:
    with file_server() as server:
        yield server


# -- control data


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True),
    st.sets(st.sampled_from(["a", "b", "c", "d", "e"])),
)
def test_filter_index_keeps_wanted_files(present: list[str], wanted: set[str]) -> None:
    stanzas = [
        debian_control.stanza_for(
            f"Package: {n}\nDescription: x\n more\n", file=f"{n}.deb", size=1, sha256=n * 64
        )
        for n in present
    ]
    text = debian_control.join_stanzas(stanzas)
    files = {f"{n}.deb" for n in wanted}
    missing = wanted - set(present)
    if missing:
        with pytest.raises(VerifyError) as caught:
            debian_control.filter_index(text, files)
        assert [f.where for f in caught.value.faults] == sorted(f"{n}.deb" for n in missing)
        return
    cut = debian_control.filter_index(text, files)
    assert [f["package"] for f in debian_control.parse(cut)] == [n for n in present if n in wanted]
    assert debian_control.filter_index(cut, files) == cut


def test_stanza_states_actual_file() -> None:
    control = (
        "Package: x\nVersion: 1\nSize: 7\nSHA256: lie\n"
        "Filename: ../../etc/passwd\n continued\nDescription: a\n b\n .\n"
    )
    values = debian_control.fields(
        debian_control.stanza_for(control, file="x.deb", size=3, sha256="0" * 64)
    )
    assert values == {
        "package": "x",
        "version": "1",
        "description": "a\nb\n.",
        "filename": "./x.deb",
        "size": "3",
        "sha256": "0" * 64,
    }


def test_release_has_checksum_and_fixed_date() -> None:
    text = debian_control.release_text(b"Package: x\n")
    assert f" {sha256_bytes(b'Package: x' + bytes([10]))} 11 Packages\n" in text
    assert "Date: Thu, 01 Jan 1970" in text


@needs_apt
def test_write_index_is_reproducible(tmp_path: Path) -> None:
    for place in ("1", "2"):
        names = ["b", "a", "c"] if place == "1" else ["c", "b", "a"]
        for name in names:
            make_deb(tmp_path / place, name, "1:2.0+x~1", Depends="libc6")
        write_index(tmp_path / place)
    first, second = (
        [(tmp_path / p / n).read_bytes() for n in ("Packages", "Release")] for p in "12"
    )
    assert first == second
    assert [s["version"] for s in debian_control.parse(first[0].decode())] == ["1:2.0+x~1"] * 3
    (tmp_path / "1" / "broken.deb").write_bytes(b"<html>")
    with pytest.raises(FetchError) as caught:
        write_index(tmp_path / "1")
    assert "broken.deb" in caught.value.faults[0].where


# -- source lists

ONE_LINE = """
# deb http://commented.example/ x main
deb http://a.example/debian bookworm main contrib  # why
deb [arch=amd64,arm64 signed-by=/k/a.gpg check-valid-until=no] https://b.example/x ./
deb-src http://a.example/debian bookworm main
deb cdrom:[Disk]/ bookworm main
nonsense
deb [ arch=arm64 ] http://arm.example/ x main
"""
DEB822 = """# a comment
Types: deb deb-src
URIs: http://a.example/u http://b.example/u
Suites: jammy jammy-updates
Components: main
 universe
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://off.example/
Suites: x
Components: main

Types: deb
URIs: file:/var/repo http://c.example/
Suites: ./
"""


def test_usable_one_line_sources_are_read() -> None:
    entries = apt_sources.read_one_line(ONE_LINE)
    usable = [e for e in map(apt_sources.usable, entries) if e]
    assert [e.uris[0] for e in usable] == ["http://a.example/debian", "https://b.example/x"]
    assert usable[0].components == ("main", "contrib")
    assert usable[1].options == {"Signed-By": "/k/a.gpg", "Check-Valid-Until": "no"}


def test_deb822_sources_and_back() -> None:
    entries = apt_sources.read_deb822(DEB822)
    assert [e.uris for e in entries] == [
        ("http://a.example/u", "http://b.example/u"),
        ("file:/var/repo", "http://c.example/"),
    ]
    usable = [e for e in map(apt_sources.usable, entries) if e]
    assert usable[0].types == ("deb",)
    assert usable[0].components == ("main", "universe")
    assert usable[1].uris == ("http://c.example/",), (
        "a base image must not read files of this machine"
    )
    for entry in entries:
        assert apt_sources.read_deb822(entry.render()) == [entry]


# -- the isolated root


def isolated(
    tmp_path: Path,
    files: dict[str, bytes | str],
    extra: tuple[AptSource, ...] = (),
    work: str = "work",
    network: Network = NETWORK,
) -> IsolatedApt:
    layout = read_layout(make_base(tmp_path / "base", files))
    return IsolatedApt(read_files(layout), extra, tmp_path / work, network)


BASE = {
    "etc/apt/sources.list": "deb [signed-by=/usr/share/keyrings/k.asc] http://a.example/d x main\n",
    "etc/apt/sources.list.d/more.sources": (
        "Types: deb\nURIs: http://b.example/\nSuites: y\nComponents: main\n"
    ),
    "usr/share/keyrings/k.asc": KEY,
    "etc/apt/trusted.gpg.d/t.gpg": b"\x99binary",
    "etc/apt/preferences.d/pin": "Package: x\nPin: version 1\nPin-Priority: 900\n",
    "etc/apt/apt.conf.d/99evil": 'APT::Update::Pre-Invoke {"touch /tmp/owned";};\n',
}


@needs_apt
def test_root_copies_sources_keys_and_preferences(tmp_path: Path) -> None:
    apt = isolated(tmp_path, dict(BASE))
    text = (apt.root / "etc/apt/sources.list.d/gapforge.sources").read_text()
    assert "URIs: http://a.example/d" in text
    assert "URIs: http://b.example/" in text
    key = next(line.split()[1] for line in text.splitlines() if line.startswith("Signed-By"))
    assert Path(key).read_bytes() == KEY
    assert Path(key).is_relative_to(apt.root)
    assert (apt.root / "etc/apt/trusted.gpg.d/t.gpg").read_bytes() == b"\x99binary"
    assert (apt.root / "etc/apt/preferences.d/pin").exists()
    assert not list((apt.root / "etc/apt/apt.conf.d").iterdir())
    folder = apt.root
    apt.close()
    assert not folder.exists()
    apt.close()


@needs_apt
def test_root_ignores_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APT_CONFIG", "/etc/apt/apt.conf")
    apt = isolated(
        tmp_path,
        dict(BASE),
        network=replace(NETWORK, ca_bundle=Path("/ca.pem"), netrc=Path("/netrc")),
    )
    dump = apt.run(["apt-config", "dump"]).output
    apt.close()
    values = dict(
        line.rstrip(";").replace('"', "").split(" ", 1) for line in dump.splitlines() if " " in line
    )
    assert values["Dir"] == str(apt.root)
    assert values["APT::Install-Recommends"] == "false"
    assert values["Acquire::Check-Valid-Until"] == "true"
    assert values["Acquire::https::CAInfo"] == "/ca.pem"
    assert values["Dir::Etc::netrc"] == "/netrc"
    host = Path("/etc/apt/apt.conf.d")
    own = (
        {
            line.split()[0]
            for file in host.glob("*")
            for line in file.read_text(errors="replace").splitlines()
            if line.startswith(("Dpkg::", "DPkg::", "APT::NeverAutoRemove", "Unattended-Upgrade"))
        }
        if host.is_dir()
        else set()
    )
    assert not own & {line.split()[0] for line in dump.splitlines()}
    assert "Pre-Invoke" not in dump


@needs_apt
def test_mirror_replaces_sources_of_base(tmp_path: Path) -> None:
    network = replace(NETWORK, apt_mirrors=(("http://a.example/", "http://mirror.example/a/"),))
    apt = isolated(tmp_path, dict(BASE), network=network)
    text = (apt.root / "etc/apt/sources.list.d/gapforge.sources").read_text()
    apt.close()
    assert "http://mirror.example/a/d" in text
    assert "a.example/d x" not in text


@pytest.mark.parametrize(
    ("sources", "values"),
    [
        (
            "deb [signed-by=/no/such.gpg] http://a.example/ x main\n",
            {"where": "http://a.example/", "word": "/no/such.gpg"},
        ),
        ("", {}),
        ("deb file:/ x main\ndeb cdrom:/ x main\n", {}),
    ],
)
def test_base_image_without_usable_sources_fails(
    tmp_path: Path, sources: str, values: dict[str, str]
) -> None:
    with pytest.raises(ResolveError) as caught:
        isolated(tmp_path, {"etc/apt/sources.list": sources})
    assert values_of(caught.value.message) == values
    assert not list((tmp_path / "work").iterdir())


def test_base_image_without_dpkg_status_fails(tmp_path: Path) -> None:
    layout = read_layout(
        make_base(tmp_path / "base", {"etc/os-release": "ID=alpine\n"}, status=None)
    )
    with pytest.raises(ResolveError, match="var/lib/dpkg/status"):
        IsolatedApt(read_files(layout), (), tmp_path / "work", NETWORK)


def test_source_without_key_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="has no key"):
        isolated(tmp_path, {}, (source("cuda", "http://a.example/"),))


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize(
    "case", ["armored", "binary", "second-address", "changed", "web-page", "gone"]
)
def test_key_is_verified_and_stored(tmp_path: Path, site: Site, case: str) -> None:
    data = {"binary": b"\x99\x01binary", "web-page": b"<!doctype html><title>key</title>"}.get(
        case, KEY
    )
    good = site.add("/key", data)
    urls = (site.url + "/absent", good) if case in ("second-address", "changed") else (good,)
    if case == "gone":
        urls = (site.url + "/absent", site.url + "/absent2")
    wanted = "0" * 64 if case == "changed" else sha256_bytes(data)
    extra = source("cuda", site.url, key_urls=urls, key_sha256=wanted)
    if case in ("changed", "web-page", "gone"):
        with pytest.raises(FetchError) as caught:
            isolated(tmp_path, {}, (extra,))
        said = caught.value.render()
        assert {"changed": sha256_bytes(data), "web-page": "not an OpenPGP key", "gone": "absent2"}[
            case
        ] in said
        if case != "web-page":
            assert len(caught.value.faults) == 2, "every address is named"
        return
    apt = isolated(tmp_path, {}, (extra,))
    stored = apt.root / "keys" / ("extra-cuda.gpg" if case == "binary" else "extra-cuda.asc")
    assert stored.read_bytes() == data
    assert (
        f"Signed-By: {stored}" in (apt.root / "etc/apt/sources.list.d/gapforge.sources").read_text()
    )
    apt.close()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curlrc_is_ignored_for_keys(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".curlrc").write_text("proxy = http://127.0.0.1:9\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    extra = source(
        "cuda", site.url, key_urls=(site.add("/key", KEY),), key_sha256=sha256_bytes(KEY)
    )
    apt = isolated(tmp_path, {}, (extra,))
    assert [file.read_bytes() for file in (apt.root / "keys").glob("extra-cuda.*")] == [KEY]
    apt.close()


def test_expired_index_needs_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(apt_errors.ACCEPT_EXPIRED, "1")
    apt = isolated(tmp_path, dict(BASE))
    assert 'Acquire::Check-Valid-Until "false";' in (apt.root / "apt.conf").read_text()
    apt.close()


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (
            "E: Release file for http://u:pw@x/InRelease is expired (invalid since 9d). Updates",
            "no longer valid",
            "clock",
        ),
        (
            "E: Release file for http://x/InRelease is not valid yet (invalid for another 3d)",
            "clock is behind",
            "correct the clock",
        ),
        (
            "W: GPG error: http://x InRelease: The following signatures couldn't be verified: "
            "NO_PUBKEY A4B469963BF863CC",
            "A4B469963BF863CC",
            '"key"',
        ),
        (
            "E: The repository 'http://x ./ Release' does not have a Release file.",
            "no signed index",
            '"suite"',
        ),
        (
            "E: Failed to fetch http://x/Packages.gz  Hash Sum mismatch",
            "does not match its signed checksum",
            "minutes",
        ),
        (
            "Err:1 http://x InRelease\n  Could not resolve 'x'\nE: Failed to fetch http://x",
            "cannot be downloaded",
            "http_proxy",
        ),
    ],
)
def test_update_failure_has_next_step(said: str, message: str, hint: str) -> None:
    error = apt_errors.update_failure(said)
    assert message in error.message
    assert hint in error.hint
    assert error.faults
    assert "pw@" not in error.render()


# -- resolving, with real packages and no network

Closure = Callable[..., list[str]]


@pytest.fixture
def closure(tmp_path: Path) -> Closure:
    """Return a function that resolves against the .debs in tmp_path/repo."""

    def resolve(
        *packages: str,
        status: str = "",
        local: Path | None = None,
        work: str = "work",
        extra: tuple[AptSource, ...] = (),
    ) -> list[str]:
        sources = extra
        if (tmp_path / "repo").is_dir():
            sources += (source("fix", flat_repository(tmp_path / "repo")),)
        base = make_base(
            tmp_path / f"base{len(list(tmp_path.glob('base*')))}", {}, STATUS + "\n" + status
        )
        with AptResolver(base, sources, tmp_path / work, NETWORK, local) as root:
            debs = root.closure(packages)
            fetch(debs, tmp_path / "got", NETWORK)
        for deb in debs:
            data = (tmp_path / "got" / deb.file).read_bytes()
            assert (len(data), sha256_bytes(data)) == (deb.size, deb.sha256)
        return [f"{d.package} {d.version} {d.architecture} {d.origin}" for d in debs]

    return resolve


@needs_apt
def test_closure_is_what_base_lacks(tmp_path: Path, closure: Closure) -> None:
    repo = tmp_path / "repo"
    make_deb(repo, "app", "1:2.0-1", Depends="liba (>= 1), libb, base-files", Recommends="extra")
    for name in ("liba", "libb", "extra", "other", "base-files"):
        make_deb(
            repo,
            name,
            "1.0",
            "odd-name-of-" + name + ".deb",
            architecture="all" if name == "liba" else "amd64",
        )
    installed = "Package: libb\nStatus: install ok installed\nVersion: 1.0\nArchitecture: amd64\n"
    assert closure("app", status=installed) == ["app 1:2.0-1 amd64 apt:fix", "liba 1.0 all apt:fix"]
    assert sorted(p.name for p in (tmp_path / "got").iterdir()) == [
        "app_2.0-1_amd64.deb",
        "liba_1.0_all.deb",
    ]
    assert closure("libb", status=installed) == []
    assert closure() == []


@needs_apt
@pytest.mark.parametrize("release", ["", "Suite: x\nArchitectures: amd64\nSHA256:\n {} Packages\n"])
def test_repository_without_signature_is_refused(tmp_path: Path, site: Site, release: str) -> None:
    """A base image names it; a Release file without a signature changes nothing."""
    make_deb(tmp_path / "repo", "app", "1")
    flat_repository(tmp_path / "repo")
    for file in (tmp_path / "repo").iterdir():
        site.add(f"/{file.name}", file.read_bytes())
    index = (tmp_path / "repo" / "Packages").read_bytes()
    if release:
        site.add("/Release", release.format(f"{sha256_bytes(index)} {len(index)}").encode())
    base = make_base(tmp_path / "base", {"etc/apt/sources.list": f"deb {site.url}/ ./\n"})
    with (
        pytest.raises(FetchError) as error,
        AptResolver(base, (), tmp_path / "work", NETWORK) as root,
    ):
        root.closure(["app"])
    assert error.value.faults


@needs_apt
def test_no_setting_of_apt_allows_unsigned_packages(tmp_path: Path) -> None:
    """Each alone is enough today; the machine's own configuration may loosen any of them."""
    make_deb(tmp_path / "repo", "app", "1")
    local = source("fix", flat_repository(tmp_path / "repo"))
    with AptResolver(make_base(tmp_path / "base", {}), (local,), tmp_path / "w", NETWORK) as root:
        found = set(root.apt.run(["apt-config", "dump"]).output.splitlines())
    assert found >= {
        'APT::Get::AllowUnauthenticated "false";',
        'Acquire::AllowDowngradeToInsecureRepositories "false";',
        'Acquire::AllowInsecureRepositories "false";',
        'Acquire::AllowWeakRepositories "false";',
    }


@needs_apt
def test_working_folder_with_blanks_and_quotes(tmp_path: Path, closure: Closure) -> None:
    make_deb(tmp_path / "repo", "app", "1")
    assert closure("app", work='my "own" work') == ["app 1 amd64 apt:fix"]
    assert not list((tmp_path / 'my "own" work').iterdir())


@needs_apt
def test_unknown_packages_get_suggestions(tmp_path: Path, closure: Closure) -> None:
    repo = tmp_path / "repo"
    make_deb(repo, "cmake", "3.25.1-1")
    make_deb(repo, "nasm", "2.16.01-1")
    make_deb(repo, "exim", "4", Provides="mail-agent")
    with pytest.raises(ResolveError) as caught:
        closure("cmkae", "nasm=2.16.0-1", "mail-agent", "ninja")
    said = {fault.where: fault.problem + fault.expected for fault in caught.value.faults}
    assert 'did you mean "cmake"' in said["cmkae"]
    assert "2.16.01-1" in said["nasm=2.16.0-1"]
    assert "ninja" in said
    with pytest.raises(ResolveError) as caught:
        make_deb(repo, "postfix", "3", Provides="mail-agent")
        closure("mail-agent")
    assert "one of: exim, postfix" in caught.value.render()


@needs_apt
@pytest.mark.parametrize("name", ["python3.1", "vim+", "libfoo.+", "mail-agent+"])
def test_name_is_no_pattern_and_no_instruction(tmp_path: Path, closure: Closure, name: str) -> None:
    """APT takes each as other packages that exist, and succeeds."""
    repo = tmp_path / "repo"
    for package in ("python3.10", "python3.11", "vim", "libfoo1", "libfoo2"):
        make_deb(repo, package, "1")
    make_deb(repo, "exim", "1", Provides="mail-agent (= 2), other")
    with pytest.raises(ResolveError) as caught:
        closure("vim", name)
    assert [fault.where for fault in caught.value.faults] == [name]


@needs_apt
def test_version_is_no_pattern(tmp_path: Path, closure: Closure) -> None:
    make_deb(tmp_path / "repo", "vim", "1.25")
    with pytest.raises(ResolveError) as caught:
        closure("vim=1.2*")
    (fault,) = caught.value.faults
    assert (fault.where, values_of(fault.expected)) == ("vim=1.2*", {"names": "1.25"})


@needs_apt
def test_installed_and_provided_packages_count(tmp_path: Path, closure: Closure) -> None:
    repo = tmp_path / "repo"
    make_deb(repo, "exim", "1", Provides="mail-agent (= 2), other")
    make_deb(repo, "g++", "12")
    installed = (
        "Package: awk\nStatus: install ok installed\nVersion: 1:5-1\nArchitecture: amd64\n"
        "Provides: texttool, more\n"
    )
    wanted = ("mail-agent", "g++:amd64", "awk=1:5-1", "texttool")
    assert closure(*wanted, status=installed) == ["exim 1 amd64 apt:fix", "g++ 12 amd64 apt:fix"]


@pytest.mark.parametrize(
    ("status", "absent"),
    [("install ok installed", []), ("deinstall ok config-files", ["awk", "awk=1", "texttool"])],
)
def test_only_installed_packages_count(status: str, absent: list[str]) -> None:
    stanza = {"package": "awk", "status": status, "version": "1", "provides": "texttool:any"}
    assert debian_control.absent(["awk", "awk=1", "texttool"], [stanza]) == absent
    assert debian_control.absent(["awk=2", "texttool=1", "tool"], [stanza]) == [
        "awk=2",
        "texttool=1",
        "tool",
    ]


@needs_apt
def test_programs_that_the_build_runs_must_be_there(tmp_path: Path) -> None:
    """The site's first steps stop without apt-get or the Python of the preset."""
    repo = tmp_path / "repo"
    make_deb(repo, "python3.11", "3.11.2")
    sources = (source("fix", flat_repository(repo)),)
    with AptResolver(
        make_base(tmp_path / "a", {}, STATUS), sources, tmp_path / "w", NETWORK
    ) as root:
        with pytest.raises(ResolveError) as caught:
            root.check_programs("runtime", "3.11", [])
        assert [f.where for f in caught.value.faults] == ["$.base.runtime", "$.apt.runtime"]
    files = {"usr/bin/apt-get": b"program"}
    with AptResolver(
        make_base(tmp_path / "b", files, STATUS), sources, tmp_path / "w", NETWORK
    ) as root:
        debs = root.closure(["python3.11"])
        root.check_programs("runtime", "3.11", debs)
        with pytest.raises(ResolveError) as caught:
            root.check_programs("builder", "3.12", debs)
        assert [f.expected for f in caught.value.faults] == ["python3.12"]
    files["usr/bin/python3.12"] = b"built by hand"
    with AptResolver(
        make_base(tmp_path / "c", files, STATUS), sources, tmp_path / "w", NETWORK
    ) as root:
        root.check_programs("builder", "3.12", [])


def installed(*packages: str) -> str:
    """Return a dpkg status; a package is "name=version" and further lines."""
    parts = (package.partition("=") for package in packages)
    stanza = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n"
    return STATUS + "".join("\n" + stanza.format(name, rest) for name, _equals, rest in parts)


@needs_apt
def test_what_programs_can_link_to_is_locked_for_the_runtime(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    make_deb(repo, "liba-dev", "2", Depends="liba1 (= 2), libc-dev-bin, liba-doc | libb1, tool")
    make_deb(repo, "liba1", "2", Depends="liba-data", Section="libs")
    make_deb(repo, "liba-data", "2")
    make_deb(repo, "libb1", "1", Section="universe/libs")
    make_deb(repo, "libc-dev-bin", "1", Section="libdevel")
    make_deb(repo, "tool", "1", Depends="libtool1")
    make_deb(repo, "libtool1", "1", Section="libs")  # no development package needs it
    make_deb(repo, "libpin1", "1")
    make_deb(repo, "libpin1", "2")
    make_deb(repo, "librival1", "1", Conflicts="app")
    make_deb(repo, "app", "1")
    nvidia = "\nDepends: libcublas1\nMaintainer: x@NVIDIA.com"
    builder = installed(
        "libbase-dev=1\nDepends: libold1, libsame1, libpin1, librival1, libgone1, libcublas1",
        *("libold1=3", "libsame1=1", "libpin1=1", "librival1=1", "libgone1=1"),
        f"libcublas-dev=1{nvidia}",
        f"libcublas1=1{nvidia}",
    )
    make_deb(repo, "libold1", "3")
    make_deb(repo, "libsame1", "2")
    sources = (source("fix", flat_repository(repo)),)
    base = make_base(tmp_path / "builder", {}, builder)
    with AptResolver(base, sources, tmp_path / "w", NETWORK) as root:
        assert {d.package for d in root.closure(["liba-dev"])} >= {"liba1", "tool", "libtool1"}
        libraries = root.libraries(["liba-dev"])
    in_base = {"libold1": "3", "libsame1": "1", "libpin1": "1", "librival1": "1", "libgone1": "1"}
    assert libraries == {"liba1": "2", "libb1": "1", **in_base}
    # What was removed, except for its configuration, is not there.
    removed = "\nPackage: libgone1\nStatus: deinstall ok config-files\nVersion: 1\n"
    base = make_base(tmp_path / "runtime", {}, installed("libold1=2", "libsame1=1") + removed)
    with AptResolver(base, sources, tmp_path / "w", NETWORK) as root:
        debs, absent = root.with_libraries(["app"], libraries)
        assert root.with_libraries(["app"], {}) == (root.closure(["app"]), [])
    assert absent == ["libgone1", "librival1"]
    assert [f"{d.package} {d.version}" for d in debs] == [
        *("app 1", "liba-data 2", "liba1 2", "libb1 1", "libold1 3", "libpin1 1")
    ]


@needs_apt
def test_conflicts_are_told_apart(tmp_path: Path, closure: Closure) -> None:
    repo = tmp_path / "repo"
    make_deb(repo, "app", "1", Depends="missing-lib (>= 2), gone-too")
    make_deb(repo, "rival", "1", Conflicts="held")
    make_deb(repo, "held", "2")
    make_deb(repo, "held", "1")
    make_deb(repo, "newer", "1", Depends="held (>= 2)")
    held = "Package: held\nStatus: {} ok installed\nVersion: {}\nArchitecture: amd64\n"
    with pytest.raises(ResolveError) as caught:
        closure("app")
    assert caught.value.faults[0].where == "app"
    assert "missing-lib (>= 2)" in caught.value.faults[0].problem
    assert caught.value.faults[1].where == "app"
    assert "gone-too" in caught.value.faults[1].problem
    with pytest.raises(ResolveError, match="no set of") as caught:
        closure("rival", status=held.format("install", 2))
    assert "held\n      is in the base image and would have to be removed" in caught.value.render()
    with pytest.raises(ResolveError) as caught:
        closure("held=1", status=held.format("install", 2))
    assert_error(caught.value, ResolveError, where=["the base image"])
    with pytest.raises(ResolveError) as caught:
        closure("newer", "held=2", status=held.format("hold", 1))
    assert "apt-mark hold" in caught.value.render()


def nvidia(repo: Path, *builds: str) -> None:
    for build in builds:
        make_deb(repo, "libnvinfer8", build)
        make_deb(repo, "libnvinfer-plugin8", build, Depends="libnvinfer8 (>= 8)")
        make_deb(repo, "python3-libnvinfer", build, Depends="libnvinfer8, libnvinfer-plugin8")


@needs_apt
def test_dependencies_follow_the_pinned_cuda_build(tmp_path: Path, closure: Closure) -> None:
    nvidia(
        tmp_path / "repo",
        "8.6.1.6-1+cuda11.8",
        "8.6.1.6-1+cuda12.0",
        "8.5.3-1+cuda11.8",
        "8.7.0-1+cuda11.8",
        "10.0.1-1+cuda12.4",
    )
    got = closure("python3-libnvinfer=8.6.1.6-1+cuda11.8")
    assert [line.split()[1] for line in got] == ["8.6.1.6-1+cuda11.8"] * 3


@needs_apt
def test_dependency_for_other_cuda_is_rejected(tmp_path: Path, closure: Closure) -> None:
    repo = tmp_path / "repo"
    nvidia(repo, "8.6.1.6-1+cuda12.0")
    make_deb(repo, "tensorrt", "8.6.1.6-1+cuda11.8", Depends="libnvinfer-plugin8")
    with pytest.raises(ResolveError) as caught:
        closure("tensorrt=8.6.1.6-1+cuda11.8")
    assert "CUDA 11.8" in caught.value.message
    assert [fault.where for fault in caught.value.faults] == ["libnvinfer-plugin8", "libnvinfer8"]
    assert "8.6.1.6-1+cuda12.0" in caught.value.faults[0].problem
    assert values_of(caught.value.faults[0].expected) == {"cuda": "11.8"}


@needs_apt
def test_local_repository_inside_a_deb_is_used(tmp_path: Path, closure: Closure) -> None:
    inner = tmp_path / "inner"
    nvidia(inner, "8.6.1.6-1+cuda11.8", "8.6.1.6-1+cuda12.0")
    flat_repository(inner)
    place = "var/nv-tensorrt-local-repo-ubuntu2204-8.6.1-cuda-11.8"
    files = {f"{place}/{p.name}": p.read_bytes() for p in inner.iterdir()}
    local = make_deb(
        tmp_path, "nv-tensorrt-local-repo-ubuntu2204-8.6.1-cuda-11.8", "1.0-1", files=files
    )
    got = closure("libnvinfer-plugin8=8.6.1.6-1+cuda11.8", local=local)
    assert got == [
        "libnvinfer-plugin8 8.6.1.6-1+cuda11.8 amd64 apt:local-repo",
        "libnvinfer8 8.6.1.6-1+cuda11.8 amd64 apt:local-repo",
    ]
    with pytest.raises(ResolveError, match=r"plain_1_amd64\.deb"):
        closure("x", local=make_deb(tmp_path, "plain", "1", files={"usr/bin/x": b""}))


@needs_apt
def test_failure_removes_working_files(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", {})
    absent = source("absent", f"file://{tmp_path}/absent")
    with pytest.raises(FetchError):
        AptResolver(base, (absent,), tmp_path / "work", NETWORK)
    assert not list((tmp_path / "work").iterdir())


def test_offline_reads_no_index(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", dict(BASE))
    with (
        pytest.raises(FetchError, match="GAPFORGE_OFFLINE"),
        AptResolver(base, (), tmp_path / "work", replace(NETWORK, offline=True)),
    ):
        pass


def test_piped_output_is_exact(tmp_path: Path) -> None:
    def feed(pipe: IO[bytes]) -> None:
        pipe.write(b"\r\n\xff" * 99999)

    with process.piped(["cat"], feed=feed) as output:
        assert output.read() == b"\r\n\xff" * 99999
    with (
        pytest.raises(ToolError, match="no-such-file"),
        process.piped(["cat", "/no-such-file"]) as output,
    ):
        assert output.read() == b""
