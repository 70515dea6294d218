"""An isolated APT root with the package state, sources and keys of a base image.

Nothing comes from this machine: no configuration, sources, keys, preferences or package lists. The
apt.conf of the image is not used either, because it may start programs.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gapforge.base import limits, process
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import Fault, FetchError, ResolveError, StorageError
from gapforge.base.files import read_regular, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.marked_folders import mark_folder, remove_folder
from gapforge.base.path_checks import inside
from gapforge.model.preset import AptSource
from gapforge.sync import apt_sources
from gapforge.sync.apt_errors import accepts_expired, update_failure
from gapforge.sync.apt_sources import SourceEntry
from gapforge.sync.base_image_facts import ImageFiles
from gapforge.sync.network import Network
from gapforge.sync.small_requests import last_line

LOCAL_REPO = "local-repo"  # the origin of packages from a local-repository .deb
KEY_LIMIT = 4 << 20  # bytes; keyrings have some kilobytes
UPDATE_SECONDS = 1800.0
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+~@-]+")


class IsolatedApt:
    """APT with a root folder of its own, which ``close`` removes.

    ``origins`` maps the address of each extra source to its name.
    """

    def __init__(
        self,
        files: ImageFiles,
        extra: Sequence[AptSource],
        workdir: Path,
        network: Network,
        local_repo: Path | None = None,
    ) -> None:
        status = files.read("var/lib/dpkg/status")
        if not status:
            raise ResolveError(
                _("the base image is not Debian or Ubuntu: it has no /var/lib/dpkg/status"),
                hint=_("choose another base image in the preset"),
            )
        workdir.mkdir(parents=True, exist_ok=True)
        self._folder = mark_folder(
            Path(tempfile.mkdtemp(prefix="apt-", dir=workdir)), "an isolated APT root"
        )
        self._link: Path | None = None
        self.network = network
        self.origins: dict[str, str] = {}
        try:
            self.root = self._plain(self._folder)
            for name in (
                "etc/apt/apt.conf.d",
                "etc/apt/preferences.d",
                "etc/apt/sources.list.d",
                "etc/apt/trusted.gpg.d",
                "etc/apt/auth.conf.d",
                "keys",
                "var/lib/apt/lists/partial",
                "var/cache/apt/archives/partial",
                "var/lib/dpkg",
                "var/log/apt",
            ):
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
        """Remove the folder. A second call does nothing."""
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.parent.rmdir()
            self._link = None
        remove_folder(self._folder)

    def _plain(self, folder: Path) -> Path:
        """Return ``folder`` under a path without blanks, which APT cannot quote in key paths."""
        folder = folder.absolute()
        if _PLAIN_PATH.fullmatch(str(folder)):
            return folder
        home = Path(tempfile.mkdtemp(prefix="gapforge-apt-"))
        if not _PLAIN_PATH.fullmatch(str(home)):
            home.rmdir()
            raise StorageError(
                _(
                    "APT cannot use paths with blanks or quotes: {folder}, {home}",
                    folder=folder,
                    home=home,
                ),
                hint="TMPDIR=/tmp ./deps_sync.sh PRESET",
            )
        self._link = home / "root"
        self._link.symlink_to(folder)
        return self._link

    # -- the content of the root

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
        """Return ``entry`` with its keyring files copied from the image into the root."""
        value = entry.options.get("Signed-By", "")
        if "\n" in value or "BEGIN PGP" in value:
            return entry  # it contains the key itself
        words = []
        for word in value.replace(",", " ").split():
            if not word.startswith("/"):
                words.append(word)  # a fingerprint
                continue
            data = files.read(word)
            if data is None:
                where = without_credentials(entry.uris[0])
                raise ResolveError(
                    _(
                        "the base image's APT source {where} is signed by {word}, which "
                        "the image does not contain",
                        where=where,
                        word=word,
                    ),
                    hint=_("choose a base image whose APT sources work"),
                )
            words.append(str(self._add_key(data, f"base-{sha256_bytes(data)[:16]}", word)))
        options = {name: text for name, text in entry.options.items() if name != "Signed-By"}
        if words:
            options["Signed-By"] = " ".join(words)
        return replace(entry, options=options)

    def _add_key(self, data: bytes, name: str, origin: str) -> Path:
        """Store a keyring with APT's file name extension for armored or binary keys."""
        if data.lstrip().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK"):
            ending = "asc"
        elif data[:1] and data[0] & 0x80:
            ending = "gpg"
        else:
            raise FetchError(
                _(
                    "{origin} is not an OpenPGP key: it begins with {start!r}",
                    origin=origin,
                    start=data[:20],
                ),
                hint=_('correct "urls" of the key in the preset; perhaps it is a web page'),
            )
        path = self.root / "keys" / f"{name}.{ending}"
        path.write_bytes(data)
        return path

    def _copy_trust(self, files: ImageFiles) -> None:
        """Copy the keyrings for sources without Signed-By, and the preferences of the image."""
        for folder, endings in (
            ("etc/apt/trusted.gpg.d", (".gpg", ".asc")),
            ("etc/apt/preferences.d", ("", ".pref")),
        ):
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
            raise FetchError(
                _(
                    'APT source "{name}" has no key: its packages could be changed on the way',
                    name=source.name,
                ),
                hint=_(
                    'add "key": {{"urls": […], "sha256": …}} to the source "{name}" in the preset',
                    name=source.name,
                ),
            )
        flat = source.suite.endswith("/")
        return SourceEntry(
            types=("deb",),
            uris=(uri,),
            suites=(source.suite,),
            components=() if flat else source.components or ("main",),
            options=options,
        )

    def _fetch_key(self, source: AptSource) -> Path:
        self.network.require(_('downloading the key of APT source "{name}"', name=source.name))
        faults: list[Fault] = []
        target = self.root / "keys" / ".incoming"
        for url in source.key_urls:
            done = process.run(
                self.network.curl(
                    *("--fail", "--max-filesize", str(KEY_LIMIT)),
                    *("--proto", "=http,https,file"),
                    *("--connect-timeout", "30", "--max-time", "300"),
                    *("--retry", str(self.network.retries)),
                    *("--output", str(target), "--url", self.network.url(url)),
                ),
                env=self.network.environment(),
                check=False,
            )
            if done.code != 0:
                faults.append(Fault(without_credentials(url), last_line(done.errors)))
                continue
            data = read_regular(target, limits.SYSTEM)
            target.unlink()
            actual = sha256_bytes(data)
            if actual != source.key_sha256:
                faults.append(
                    Fault(
                        without_credentials(url),
                        _("SHA-256 is {actual}", actual=actual),
                        source.key_sha256,
                    )
                )
                continue
            return self._add_key(data, f"extra-{source.name}", without_credentials(url))
        raise FetchError(
            _('the key of APT source "{name}" cannot be downloaded', name=source.name),
            faults=faults,
            hint=_("check whether the publisher changed the key, then correct the preset"),
        )

    def _local(self, deb: Path) -> SourceEntry:
        """Return the repository inside a local-repository .deb, whose checksum the preset has."""
        target = self.root / "local"
        process.run(["dpkg-deb", "-x", str(deb), str(target)])
        found = sorted({path.parent for path in target.glob("var/*/**/*.deb") if path.is_file()})
        if not found:
            raise ResolveError(
                _(
                    "{name} is not a local-repository package: it has no .deb under /var",
                    name=deb.name,
                ),
                hint=_use_local_repository(),
            )
        # dpkg-deb keeps symbolic links; one that leads out of the folder is rejected.
        for folder in found:
            inside(target, str((folder / "Packages").relative_to(target)))
        folder = found[0]
        if not any(
            (folder / name).is_file() for name in ("Packages", "Packages.gz", "Packages.xz")
        ):
            raise ResolveError(
                _("{name} contains .debs but no package index", name=deb.name),
                hint=_use_local_repository(),
            )
        uri = f"file://{quote(str(folder))}"
        self.origins[uri] = LOCAL_REPO
        return SourceEntry(
            types=("deb",), uris=(uri,), suites=("./",), components=(), options={"Trusted": "yes"}
        )

    def _write_sources(self, entries: Sequence[SourceEntry]) -> None:
        if not entries:
            raise ResolveError(
                _("the base image has no usable APT source, and the preset names none"),
                hint=_('add one under $.apt.sources in the preset, with its "key"'),
            )
        unique = list(dict.fromkeys(entry.render() for entry in entries))
        (self.root / "etc/apt/sources.list.d/gapforge.sources").write_text("\n".join(unique))

    def _write_config(self) -> None:
        network = self.network
        lines = [
            "#clear APT::Architectures;",
            "#clear DPkg;",
            f'Dir "{self.root}";',
            f'Dir::State::status "{self.root}/var/lib/dpkg/status";',
            'APT::Architecture "amd64";',
            'APT::Architectures { "amd64"; };',
            'APT::Install-Recommends "false";',
            'APT::Install-Suggests "false";',
            # APT's own user may be unable to read the folder; nothing here runs as part of a
            # system.
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";',
            f'Acquire::Retries "{network.retries}";',
            'Acquire::http::Timeout "60";',
            'Acquire::https::Timeout "60";',
            'Acquire::AllowInsecureRepositories "false";',
            'Acquire::AllowDowngradeToInsecureRepositories "false";',
            'Acquire::AllowWeakRepositories "false";',
            'APT::Get::AllowUnauthenticated "false";',
            f'Acquire::Check-Valid-Until "{"false" if accepts_expired() else "true"}";',
            'Acquire::Check-Date "true";',
        ]
        if network.ca_bundle:
            lines.append(f'Acquire::https::CAInfo "{network.ca_bundle}";')
        if network.netrc:
            lines.append(f'Dir::Etc::netrc "{network.netrc}";')
        (self.root / "apt.conf").write_text("\n".join(lines) + "\n")

    # -- running APT

    def run(self, argv: Sequence[str], *, check: bool = True) -> process.Result:
        """Run ``apt-get …`` or ``apt-cache …`` with the root."""
        env: dict[str, str | None] = {
            **self.network.environment(),
            "APT_CONFIG": str(self.root / "apt.conf"),
            "LC_ALL": "C.UTF-8",
            "LANGUAGE": None,
            "DEBIAN_FRONTEND": "noninteractive",
        }
        return process.run(argv, env=env, timeout=UPDATE_SECONDS, check=check)

    def update(self) -> None:
        """Download the signed indexes.

        Raise FetchError with the source that fails and the reason.
        """
        if self.remote:
            self.network.require(_("reading APT's package indexes"))
        done = self.run(["apt-get", "update", "--error-on=any"], check=False)
        if done.code != 0:
            raise update_failure(done.output + "\n" + done.errors)

    def add_source_indexes(self) -> None:
        """Read the source-package indexes of the base image too.

        They are large and rarely needed.
        """
        sources = [entry.for_type("deb-src").render() for entry in self.base]
        (self.root / "etc/apt/sources.list.d/gapforge-src.sources").write_text(
            "\n".join(dict.fromkeys(sources))
        )
        self.update()

    def origin(self, uri: str) -> str:
        """Return "apt:NAME" for a file of an extra source, "apt:base" for one of the image."""
        matches = [source for source in self.origins if _below(uri, source)]
        return f"apt:{self.origins[max(matches, key=len)]}" if matches else "apt:base"


def file_uri(uri: str) -> str:
    """Return ``uri`` with APT's ``file:/path`` in the usual form ``file:///path``."""
    return re.sub(r"^file:/+", "file:///", uri)


def _use_local_repository() -> str:
    return _("use the package that NVIDIA calls *-local-repo-*.deb")


def _below(uri: str, source: str) -> bool:
    return unquote(file_uri(uri)).startswith(unquote(file_uri(source)).rstrip("/") + "/")


def local_file(uri: str) -> Path | None:
    """Return the path of a file: address, None for other schemes."""
    return Path(os.path.normpath(unquote(urlsplit(uri).path))) if uri.startswith("file:") else None
