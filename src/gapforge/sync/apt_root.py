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
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import Fault, FetchError, ResolveError, StorageError
from gapforge.base.files import inside, mark_folder, remove_folder, sha256_bytes
from gapforge.base.i18n import _
from gapforge.model.preset import AptSource
from gapforge.sync import apt_sources
from gapforge.sync.apt_errors import ACCEPT_EXPIRED, update_failure
from gapforge.sync.apt_sources import SourceEntry
from gapforge.sync.base_image_facts import ImageFiles
from gapforge.sync.network import Network

LOCAL_REPO = (
    "local-repo"  # the name under which packages out of a local-repository .deb are recorded
)
KEY_LIMIT = 4 << 20  # bytes; keyrings are some kilobytes, so anything larger is something else
UPDATE_SECONDS = 1800.0
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+~@-]+")


class IsolatedApt:
    """APT working in a folder of its own. ``close`` removes that folder.

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
                _(
                    "the base image has no package list (var/lib/dpkg/status); it is no "
                    "Debian or Ubuntu image"
                ),
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
            raise StorageError(
                _(
                    "neither {folder} nor {home} is a path that APT can use; it may hold "
                    "no blanks or quotes",
                    folder=folder,
                    home=home,
                ),
                hint="TMPDIR=/tmp ./deps_sync.sh PRESET",
            )
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
                where = without_credentials(entry.uris[0])
                raise ResolveError(
                    _(
                        "the base image's APT source {where} is signed by {word}, which "
                        "the image does not hold",
                        where=where,
                        word=word,
                    ),
                    hint=_("choose a base image whose APT sources work"),
                )
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
            raise FetchError(
                _(
                    "{origin} is no OpenPGP key: it begins with {start!r}",
                    origin=origin,
                    start=start,
                ),
                hint=_('correct the key\'s "urls" in the preset; a web page is no key'),
            )
        path = self.root / "keys" / f"{name}.{ending}"
        path.write_bytes(data)
        return path

    def _copy_trust(self, files: ImageFiles) -> None:
        """Keyrings without a Signed-By, and the image's preferences (which version it would choose)."""
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
                    'APT source "{name}" has no key; anybody on the way could change its packages',
                    name=source.name,
                ),
                hint=_(
                    'add "key": {{"urls": […], "sha256": …}} to the source "{name}" in the preset',
                    name=source.name,
                ),
            )
        flat = source.suite.endswith("/")
        return SourceEntry(
            ("deb",),
            (uri,),
            (source.suite,),
            () if flat else source.components or ("main",),
            options,
        )

    def _fetch_key(self, source: AptSource) -> Path:
        self.network.require(_('fetching the key of APT source "{name}"', name=source.name))
        faults: list[Fault] = []
        target = self.root / "keys" / ".incoming"
        for url in source.key_urls:
            done = process.run(
                [
                    "curl",
                    "--disable",
                    "--fail",
                    "--silent",
                    "--show-error",
                    "--location",
                    "--max-filesize",
                    str(KEY_LIMIT),
                    "--proto",
                    "=http,https,file",
                    "--proto-redir",
                    "=http,https",
                    "--connect-timeout",
                    "30",
                    "--max-time",
                    "300",
                    "--retry",
                    str(self.network.retries),
                    *self.network.curl_options(),
                    "--output",
                    str(target),
                    "--url",
                    self.network.url(url),
                ],
                env=self.network.environment(),
                check=False,
            )
            if done.code != 0:
                said = done.errors.strip().splitlines()
                faults.append(Fault(without_credentials(url), said[-1] if said else _("no answer")))
                continue
            data = target.read_bytes()
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
            _('the key of APT source "{name}" cannot be had', name=source.name),
            faults=faults,
            hint=_("look whether the publisher changed the key, then correct the preset"),
        )

    def _local(self, deb: Path) -> SourceEntry:
        """The repository inside a local-repository .deb, whose own hash the preset has fixed."""
        target = self.root / "local"
        process.run(["dpkg-deb", "-x", str(deb), str(target)])
        found = sorted({path.parent for path in target.glob("var/*/**/*.deb") if path.is_file()})
        if not found:
            raise ResolveError(
                _(
                    "{name} is no local-repository package: it holds no .deb under /var",
                    name=deb.name,
                ),
                hint=_nvidias(),
            )
        # dpkg-deb keeps the archive's links; one that leads out of the folder is not followed.
        for folder in found:
            inside(target, str((folder / "Packages").relative_to(target)))
        folder = found[0]
        if not any(
            (folder / name).is_file() for name in ("Packages", "Packages.gz", "Packages.xz")
        ):
            raise ResolveError(
                _("{name} holds .debs but no package index", name=deb.name), hint=_nvidias()
            )
        uri = f"file://{quote(str(folder))}"
        self.origins[uri] = LOCAL_REPO
        return SourceEntry(("deb",), (uri,), ("./",), (), {"Trusted": "yes"})

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
        expired = os.environ.get(ACCEPT_EXPIRED, "") not in ("", "0")
        lines = [
            "#clear APT::Architectures;",
            "#clear DPkg;",
            f'Dir "{self.root}";',
            f'Dir::State::status "{self.root}/var/lib/dpkg/status";',
            'APT::Architecture "amd64";',
            'APT::Architectures { "amd64"; };',
            'APT::Install-Recommends "false";',
            'APT::Install-Suggests "false";',
            # The folder may lie where APT's own user cannot look; nothing here runs as part of a system.
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";',
            f'Acquire::Retries "{network.retries}";',
            'Acquire::http::Timeout "60";',
            'Acquire::https::Timeout "60";',
            'Acquire::AllowInsecureRepositories "false";',
            'Acquire::AllowDowngradeToInsecureRepositories "false";',
            f'Acquire::Check-Valid-Until "{"false" if expired else "true"}";',
            'Acquire::Check-Date "true";',
        ]
        if network.ca_bundle:
            lines.append(f'Acquire::https::CAInfo "{network.ca_bundle}";')
        if network.netrc:
            lines.append(f'Dir::Etc::netrc "{network.netrc}";')
        (self.root / "apt.conf").write_text("\n".join(lines) + "\n")

    # -- running it

    def run(self, argv: Sequence[str], *, check: bool = True) -> process.Result:
        """Run ``apt-get …`` or ``apt-cache …`` in the root."""
        env: dict[str, str | None] = {
            **self.network.environment(),
            "APT_CONFIG": str(self.root / "apt.conf"),
            "LC_ALL": "C.UTF-8",
            "LANGUAGE": None,
            "DEBIAN_FRONTEND": "noninteractive",
        }
        return process.run(argv, env=env, timeout=UPDATE_SECONDS, check=check)

    def update(self) -> None:
        """Fetch the signed indexes. Raises FetchError that says which source is at fault and why."""
        if self.remote:
            self.network.require(_("reading APT's package indexes"))
        done = self.run(["apt-get", "update", "--error-on=any"], check=False)
        if done.code != 0:
            raise update_failure(done.output + "\n" + done.errors)

    def add_source_indexes(self) -> None:
        """Read the base's source-package indexes too. They are large, so only when one is asked for."""
        sources = [entry.for_type("deb-src").render() for entry in self.base]
        (self.root / "etc/apt/sources.list.d/gapforge-src.sources").write_text(
            "\n".join(dict.fromkeys(sources))
        )
        self.update()

    def origin(self, uri: str) -> str:
        """ "apt:NAME" for a file of an extra source, "apt:base" for one of the base's own."""
        matches = [source for source in self.origins if _below(uri, source)]
        return f"apt:{self.origins[max(matches, key=len)]}" if matches else "apt:base"


def file_uri(uri: str) -> str:
    """``uri``, with APT's ``file:/path`` written as other programs want it: ``file:///path``."""
    return re.sub(r"^file:/+", "file:///", uri)


def _nvidias() -> str:
    return _("give the package that NVIDIA calls *-local-repo-*.deb")


def _below(uri: str, source: str) -> bool:
    return unquote(file_uri(uri)).startswith(unquote(file_uri(source)).rstrip("/") + "/")


def local_file(uri: str) -> Path | None:
    """The path that a file: address names, or None for other schemes."""
    return Path(os.path.normpath(unquote(urlsplit(uri).path))) if uri.startswith("file:") else None
