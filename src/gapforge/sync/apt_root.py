"""An isolated APT root: the base image's package state, sources and keys, and nothing of this machine.

Not taken from this machine: configuration, sources, keys, preferences, package lists. Not taken from the
image: its apt.conf, which may name programs to run.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gapforge.base import process
from gapforge.base.errors import Fault, FetchError, ResolveError, StorageError
from gapforge.base.files import inside, mark_folder, remove_folder, sha256_bytes
from gapforge.base.text import josa, tr
from gapforge.model.preset import AptSource
from gapforge.sync import apt_sources
from gapforge.sync.apt_errors import ACCEPT_EXPIRED, update_failure
from gapforge.sync.apt_sources import SourceEntry
from gapforge.sync.base_image_facts import ImageFiles
from gapforge.sync.network import Network, shown

LOCAL_REPO = "local-repo"  # the name under which packages out of a local-repository .deb are recorded
KEY_LIMIT = 4 << 20  # bytes; keyrings are some kilobytes, so anything larger is something else
UPDATE_SECONDS = 1800.0
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+~@-]+")


class IsolatedApt:
    """APT working in a folder of its own. ``close`` removes that folder.

    ``origins`` maps the address of each extra source to its name.
    """

    def __init__(self, files: ImageFiles, extra: Sequence[AptSource], workdir: Path, network: Network,
                 local_repo: Path | None = None) -> None:  # fmt: skip
        status = files.read("var/lib/dpkg/status")
        if not status:
            raise ResolveError(tr("기반 이미지에 패키지 목록(var/lib/dpkg/status)이 없습니다. Debian이나 Ubuntu 이미지가 아닙니다",
                                  "the base image has no package list (var/lib/dpkg/status); it is no Debian or Ubuntu image"),
                               hint=tr("프리셋에서 다른 기반 이미지를 고르십시오", "choose another base image in the preset"))  # fmt: skip
        workdir.mkdir(parents=True, exist_ok=True)
        # no tr: written into the folder's mark
        self._folder = mark_folder(Path(tempfile.mkdtemp(prefix="apt-", dir=workdir)), "an isolated APT root")
        self._link: Path | None = None
        self.network = network
        self.origins: dict[str, str] = {}
        try:
            self.root = self._plain(self._folder)
            for name in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
                         "etc/apt/auth.conf.d", "keys", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial",
                         "var/lib/dpkg", "var/log/apt"):  # fmt: skip
                (self.root / name).mkdir(parents=True)
            (self.root / "var/lib/dpkg/status").write_bytes(status)
            self.base = self._base_sources(files)
            self._copy_trust(files)
            entries = [*self.base, *(self._extra(source) for source in extra)]
            if local_repo is not None:
                entries.append(self._local(local_repo))
            self.remote = any(local_file(uri) is None for entry in entries for uri in entry.uris)
            self._write_sources(entries)
            self._write_config()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the folder. May be called twice."""
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.parent.rmdir()
            self._link = None
        remove_folder(self._folder)

    def _plain(self, folder: Path) -> Path:
        """``folder`` under a path that APT's files can name: they know no quoting for blanks in key paths."""
        folder = folder.absolute()
        if _PLAIN_PATH.fullmatch(str(folder)):
            return folder
        home = Path(tempfile.mkdtemp(prefix="gapforge-apt-"))
        if not _PLAIN_PATH.fullmatch(str(home)):
            home.rmdir()
            raise StorageError(tr(f"APT가 쓸 수 있는 경로가 아닙니다(빈칸이나 따옴표가 없어야 합니다): {folder}, {home}",
                                  f"neither {folder} nor {home} is a path that APT can use; it may hold no blanks or quotes"),
                               hint="TMPDIR=/tmp ./deps_sync.sh PRESET")  # fmt: skip
        self._link = home / "root"
        self._link.symlink_to(folder)
        return self._link

    # -- what goes into the root

    def _base_sources(self, files: ImageFiles) -> list[SourceEntry]:
        entries = apt_sources.read_one_line(files.text("etc/apt/sources.list"))
        for name in files.names("etc/apt/sources.list.d"):
            text = files.text(f"etc/apt/sources.list.d/{name}")
            if name.endswith(".list"):
                entries += apt_sources.read_one_line(text)
            elif name.endswith(".sources"):
                entries += apt_sources.read_deb822(text)
        kept = [entry for entry in map(apt_sources.usable, entries) if entry is not None]
        return [self._with_keys(entry, files).mapped(self.network.apt_uri) for entry in kept]

    def _with_keys(self, entry: SourceEntry, files: ImageFiles) -> SourceEntry:
        """``entry`` with the keyring files that it names taken out of the image into the root."""
        value = entry.options.get("Signed-By", "")
        if "\n" in value or "BEGIN PGP" in value:
            return entry  # the key itself
        words = []
        for word in value.replace(",", " ").split():
            if not word.startswith("/"):
                words.append(word)  # a fingerprint
                continue
            data = files.read(word)
            if data is None:
                where = shown(entry.uris[0])
                raise ResolveError(tr(f"기반 이미지의 APT 소스 {where}에 쓰이는 키 {josa(word, '이', '가')} 이미지에 없습니다",
                                      f"the base image's APT source {where} is signed by {word}, which the image does not hold"),
                                   hint=tr("APT 소스가 올바른 기반 이미지를 고르십시오", "choose a base image whose APT sources work"))  # fmt: skip
            words.append(str(self._add_key(data, f"base-{sha256_bytes(data)[:16]}", word)))
        options = {name: text for name, text in entry.options.items() if name != "Signed-By"}
        if words:
            options["Signed-By"] = " ".join(words)
        return SourceEntry(entry.types, entry.uris, entry.suites, entry.components, options)

    def _add_key(self, data: bytes, name: str, origin: str) -> Path:
        """Store a keyring under the ending that tells gpgv whether it is armored."""
        if data.lstrip().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK"):
            ending = "asc"
        elif data[:1] and data[0] & 0x80:
            ending = "gpg"
        else:
            start = data[:20]
            raise FetchError(tr(f"OpenPGP 키가 아닙니다: {origin} (시작: {start!r})",
                                f"{origin} is no OpenPGP key: it begins with {start!r}"),
                             hint=tr('프리셋에서 그 키의 "urls"를 고치십시오. 웹 페이지는 키가 아닙니다',
                                     'correct the key\'s "urls" in the preset; a web page is no key'))  # fmt: skip
        path = self.root / "keys" / f"{name}.{ending}"
        path.write_bytes(data)
        return path

    def _copy_trust(self, files: ImageFiles) -> None:
        """Keyrings without a Signed-By, and the image's preferences (which version it would choose)."""
        for folder, endings in (("etc/apt/trusted.gpg.d", (".gpg", ".asc")), ("etc/apt/preferences.d", ("", ".pref"))):
            for name in files.names(folder):
                data = files.read(f"{folder}/{name}")
                if data is not None and os.path.splitext(name)[1] in endings:
                    inside(self.root / folder, name).write_bytes(data)
        for path in ("etc/apt/trusted.gpg", "etc/apt/preferences"):
            data = files.read(path)
            if data:
                (self.root / path).write_bytes(data)

    def _extra(self, source: AptSource) -> SourceEntry:
        uri = self.network.apt_uri(source.uri)
        self.origins[uri] = source.name
        options: dict[str, str] = {}
        if source.key_urls:
            options["Signed-By"] = str(self._fetch_key(source))
        elif uri.startswith("file:"):
            options["Trusted"] = "yes"
        else:
            raise FetchError(tr(f'APT 소스 "{source.name}"에 키가 없습니다. 도중에 누구든 패키지를 바꿀 수 있습니다',
                                f'APT source "{source.name}" has no key; anybody on the way could change its packages'),
                             hint=tr(f'프리셋의 소스 "{source.name}"에 "key": {{"urls": […], "sha256": …}}를 더하십시오',
                                     f'add "key": {{"urls": […], "sha256": …}} to the source "{source.name}" in the preset'))  # fmt: skip
        flat = source.suite.endswith("/")
        return SourceEntry(("deb",), (uri,), (source.suite,), () if flat else source.components or ("main",), options)

    def _fetch_key(self, source: AptSource) -> Path:
        self.network.require(
            tr(f'APT 소스 "{source.name}"의 키 받기', f'fetching the key of APT source "{source.name}"')
        )
        faults: list[Fault] = []
        target = self.root / "keys" / ".incoming"
        for url in source.key_urls:
            done = process.run(
                ["curl", "--disable", "--fail", "--silent", "--show-error", "--location", "--max-filesize", str(KEY_LIMIT),
                 "--proto", "=http,https,file", "--proto-redir", "=http,https", "--connect-timeout", "30", "--max-time", "300",
                 "--retry", str(self.network.retries), *self.network.curl_options(), "--output", str(target),
                 "--url", self.network.url(url)], env=self.network.environment(), check=False)  # fmt: skip
            if done.code != 0:
                said = done.errors.strip().splitlines()
                faults.append(Fault(shown(url), said[-1] if said else tr("답이 없음", "no answer")))
                continue
            data = target.read_bytes()
            target.unlink()
            actual = sha256_bytes(data)
            if actual != source.key_sha256:
                faults.append(Fault(shown(url), tr(f"SHA-256이 {actual}임", f"SHA-256 is {actual}"), source.key_sha256))
                continue
            return self._add_key(data, f"extra-{source.name}", shown(url))
        raise FetchError(tr(f'APT 소스 "{source.name}"의 키를 받지 못했습니다', f'the key of APT source "{source.name}" cannot be had'),
                         faults=faults,
                         hint=tr("배포처가 키를 바꾸었는지 확인한 뒤 프리셋을 고치십시오",
                                 "look whether the publisher changed the key, then correct the preset"))  # fmt: skip

    def _local(self, deb: Path) -> SourceEntry:
        """The repository inside a local-repository .deb, whose own hash the preset has fixed."""
        target = self.root / "local"
        process.run(["dpkg-deb", "-x", str(deb), str(target)])
        found = sorted({path.parent for path in target.glob("var/*/**/*.deb") if path.is_file()})
        if not found:
            raise ResolveError(tr(f"로컬 저장소 패키지가 아닙니다(/var 아래에 deb 패키지가 없습니다): {deb.name}",
                                  f"{deb.name} is no local-repository package: it holds no .deb under /var"),
                               hint=_nvidias())  # fmt: skip
        # dpkg-deb keeps the archive's links; one that leads out of the folder is not followed.
        for folder in found:
            inside(target, str((folder / "Packages").relative_to(target)))
        folder = found[0]
        if not any((folder / name).is_file() for name in ("Packages", "Packages.gz", "Packages.xz")):
            raise ResolveError(tr(f"deb 패키지는 있지만 패키지 색인이 없습니다: {deb.name}",
                                  f"{deb.name} holds .debs but no package index"), hint=_nvidias())  # fmt: skip
        uri = f"file://{quote(str(folder))}"
        self.origins[uri] = LOCAL_REPO
        return SourceEntry(("deb",), (uri,), ("./",), (), {"Trusted": "yes"})

    def _write_sources(self, entries: Sequence[SourceEntry]) -> None:
        if not entries:
            raise ResolveError(tr("기반 이미지에 쓸 수 있는 APT 소스가 없고 프리셋에도 없습니다",
                                  "the base image has no usable APT source, and the preset names none"),
                               hint=tr('프리셋의 $.apt.sources에 소스를 "key"와 함께 더하십시오',
                                       'add one under $.apt.sources in the preset, with its "key"'))  # fmt: skip
        unique = list(dict.fromkeys(entry.render() for entry in entries))
        (self.root / "etc/apt/sources.list.d/gapforge.sources").write_text("\n".join(unique))

    def _write_config(self) -> None:
        network = self.network
        expired = os.environ.get(ACCEPT_EXPIRED, "") not in ("", "0")
        lines = [
            "#clear APT::Architectures;", "#clear DPkg;",
            f'Dir "{self.root}";', f'Dir::State::status "{self.root}/var/lib/dpkg/status";',
            'APT::Architecture "amd64";', 'APT::Architectures { "amd64"; };',
            'APT::Install-Recommends "false";', 'APT::Install-Suggests "false";',
            # The folder may lie where APT's own user cannot look; nothing here runs as part of a system.
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";', f'Acquire::Retries "{network.retries}";',
            'Acquire::http::Timeout "60";', 'Acquire::https::Timeout "60";',
            'Acquire::AllowInsecureRepositories "false";', 'Acquire::AllowDowngradeToInsecureRepositories "false";',
            f'Acquire::Check-Valid-Until "{"false" if expired else "true"}";', 'Acquire::Check-Date "true";',
        ]  # fmt: skip
        if network.ca_bundle:
            lines.append(f'Acquire::https::CAInfo "{network.ca_bundle}";')
        if network.netrc:
            lines.append(f'Dir::Etc::netrc "{network.netrc}";')
        (self.root / "apt.conf").write_text("\n".join(lines) + "\n")

    # -- running it

    def run(self, argv: Sequence[str], *, check: bool = True) -> process.Result:
        """Run ``apt-get …`` or ``apt-cache …`` in the root."""
        env: dict[str, str | None] = {
            **self.network.environment(), "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C.UTF-8",
            "LANGUAGE": None, "DEBIAN_FRONTEND": "noninteractive",
        }  # fmt: skip
        return process.run(argv, env=env, timeout=UPDATE_SECONDS, check=check)

    def update(self) -> None:
        """Fetch the signed indexes. Raises FetchError that says which source is at fault and why."""
        if self.remote:
            self.network.require(tr("APT 패키지 색인 읽기", "reading APT's package indexes"))
        done = self.run(["apt-get", "update", "--error-on=any"], check=False)
        if done.code != 0:
            raise update_failure(done.output + "\n" + done.errors)

    def add_source_indexes(self) -> None:
        """Read the base's source-package indexes too. They are large, so only when one is asked for."""
        sources = [entry.for_type("deb-src").render() for entry in self.base]
        (self.root / "etc/apt/sources.list.d/gapforge-src.sources").write_text("\n".join(dict.fromkeys(sources)))
        self.update()

    def origin(self, uri: str) -> str:
        """ "apt:NAME" for a file of an extra source, "apt:base" for one of the base's own."""
        matches = [source for source in self.origins if _below(uri, source)]
        return f"apt:{self.origins[max(matches, key=len)]}" if matches else "apt:base"


def file_uri(uri: str) -> str:
    """``uri``, with APT's ``file:/path`` written as other programs want it: ``file:///path``."""
    return re.sub(r"^file:/+", "file:///", uri)


def _nvidias() -> str:
    return tr(
        "NVIDIA가 *-local-repo-*.deb라고 부르는 패키지를 주십시오",
        "give the package that NVIDIA calls *-local-repo-*.deb",
    )


def _below(uri: str, source: str) -> bool:
    return unquote(file_uri(uri)).startswith(unquote(file_uri(source)).rstrip("/") + "/")


def local_file(uri: str) -> Path | None:
    """The path that a file: address names, or None for other schemes."""
    return Path(os.path.normpath(unquote(urlsplit(uri).path))) if uri.startswith("file:") else None
