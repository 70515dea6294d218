"""Keep the list of trusted signers, and verify that one of them made a signature.

The list is an "allowed signers" file of OpenSSH, which ``ssh-keygen -Y verify -f`` reads too. It is
in the user's home, never in the project or the artifacts: whoever changes a carried medium must not
be able to change the list. An unreadable list is an error; an empty or missing one means that there
are no trusted signers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import Fault, TrustError, UsageError
from gapforge.base.files import read_regular, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.path_checks import real_path
from gapforge.base.process import quoted
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.base.sudo_caller import sudo_caller
from gapforge.base.system_errors import unreadable
from gapforge.base.text_layout import printable
from gapforge.base.write_files import write_text
from gapforge.model import lock as locks
from gapforge.model.lock import LOCK_FILE
from gapforge.trust import rollback_protection, ssh_signatures
from gapforge.trust.ssh_signatures import BUNDLE, CUSTODY, LOCK, BadSignature, PublicKey, Signature
from gapforge.trust.writable_by_others import writable_by_others

VARIABLE = "GAPFORGE_TRUST"
_LIST = "allowed_signers"
LOCK_SIGNATURE = LOCK_FILE + ssh_signatures.SUFFIX
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
MAX_LIST = 4 << 20  # bytes
_OPTION = r'(?:namespaces|valid-after|valid-before)="[^"]*"'
_KEY = r"[a-z][a-z0-9@.-]+[ ]+[A-Za-z0-9+/=]+(?:[ ].*)?"
_LINE = re.compile(
    rf'(?P<names>[^\s"#!][^\s"]*)[ ]+(?:{_OPTION}(?:,{_OPTION})*[ ]+)?(?P<key>{_KEY})'
)
_HEADER = (
    "# Who may sign what gapforge imports and builds. "
    "Written by: ./gapforge trust add; format: man ssh-keygen"
)


class Untrusted(Exception):
    """A signature is not trusted. The message is a fault without the file's name."""


@dataclass(frozen=True)
class Signer:
    """A trusted signer."""

    name: str
    key: PublicKey

    @property
    def shown(self) -> str:
        """Return the name and the fingerprint."""
        return f"{self.name} ({self.key.fingerprint})"


@dataclass(frozen=True)
class Signers:
    """The trusted signers and the file that lists them. False if there are none."""

    file: Path
    signers: tuple[Signer, ...]

    def __bool__(self) -> bool:
        return bool(self.signers)

    def verify(self, signature: Signature, data: bytes, namespace: str) -> Signer:
        """Return the signer of ``data``. Raises Untrusted, and ToolError without ssh-keygen."""
        if signature.namespace != namespace:
            other = printable(signature.namespace)[:60]
            raise Untrusted(_("signature for another purpose ({namespace})", namespace=other))
        known = [signer for signer in self.signers if signer.key.blob == signature.key.blob]
        if not known:
            raise Untrusted(
                _(
                    "signed by {fingerprint}, which is not a trusted signer on this machine",
                    fingerprint=signature.key.fingerprint,
                )
            )
        reasons = []
        for signer in known:
            reason = ssh_signatures.verify_error(signature, data, namespace, self.file, signer.name)
            if not reason:
                return signer
            reasons.append(reason)
        raise Untrusted(
            _(
                "changed after {name} signed it, or the signature was changed ({why})",
                name=known[0].name,
                why=reasons[0],
            )
        )


def signers_file(project: Project) -> Path:
    """Return the path of the list. Raises TrustError if it would be carried with the project."""
    path = os.environ.get(VARIABLE)
    file = Path(path).absolute() if path else rollback_protection.settings_folder() / _LIST
    home = _home()
    homes = (home, *home.parents) if home else ()  # a project may be all of the home folder
    for folder in (project.artifacts, project.root):
        real = real_path(folder)
        if real in real_path(file).parents and real not in homes:
            raise TrustError(
                _(
                    "the list of trusted signers, {file}, is in {folder}, which is carried: "
                    "whoever changes the medium could change the list too",
                    file=file,
                    folder=folder,
                ),
                hint=_("export {variable}=/etc/gapforge/allowed_signers", variable=VARIABLE),
            )
    return file


def _home() -> Path | None:
    """Return the user's home, None for a user without one."""
    try:
        return real_path(rollback_protection.home_folder())
    except TrustError:
        return None


def load(project: Project) -> Signers:
    """Return this machine's trusted signers.

    Raises TrustError if the list is missing although a variable names it, although signed bundles
    were accepted before, or although the user who called sudo has one (sudo changes the home).
    """
    file = signers_file(project)
    if _exists(file):
        return read(file)
    missing = _("does not exist")
    records = rollback_protection.existing_records(project, file)
    hint = _(
        "./gapforge trust add KEY; with sudo, specify the list: "
        "sudo env {variable}=$HOME/.config/gapforge/allowed_signers …",
        variable=VARIABLE,
    )
    if os.environ.get(VARIABLE):
        message = _("the list of trusted signers in {variable} does not exist", variable=VARIABLE)
        raise TrustError(message, faults=[Fault(str(file), missing)], hint=hint)
    if records:
        raise TrustError(
            _("signed bundles were accepted here, but there is no list of trusted signers"),
            faults=[Fault(str(file), missing)],
            hint=_(
                "{hint}; to remove the protection: {command}",
                hint=hint,
                command=quoted(["rm", *map(str, records)]),
            ),
        )
    if (of_caller := _list_of_sudo_caller(file)) is not None:
        raise TrustError(
            _("root has no list of trusted signers, but the user who called sudo has one"),
            faults=[Fault(str(file), missing, str(of_caller))],
            hint=_(
                "sudo env {variable}={file} …, with the same command",
                variable=VARIABLE,
                file=of_caller,
            ),
        )
    return Signers(file, ())


def _list_of_sudo_caller(file: Path) -> Path | None:
    """Return the list of the user who called sudo, if there is one and it is not ``file``."""
    caller = sudo_caller()
    if caller is None or caller.home is None:
        return None
    of_caller = caller.home / ".config" / "gapforge" / "allowed_signers"
    return of_caller if of_caller != file and _exists(of_caller) else None


def read(file: Path) -> Signers:
    """Return the list in ``file``, empty without one. Raises TrustError with every fault."""
    if not _exists(file):
        return Signers(file, ())
    faults: list[Fault] = []
    signers: list[Signer] = []
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            signers.append(_signer(line))
        except ValueError as error:
            if len(faults) == limits.FAULTS:
                break
            faults.append(
                Fault(
                    _("{file}: line {number}", file=file, number=number),
                    str(error),
                    _("NAME KIND KEY, as written by ./gapforge trust add"),
                )
            )
    if faults:
        raise TrustError(
            _("the list of trusted signers is damaged, so no signature is accepted"),
            faults=faults,
            hint=_("correct or restore {file}; then: ./gapforge trust list", file=file),
        )
    return Signers(file, tuple(signers))


def add(file: Path, key: PublicKey, name: str) -> bool:
    """Add a trusted signer. Return False if the list has this name and key already.

    Raises UsageError if the name has another key: a signer's next key needs a name of its own while
    the old one is in use.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            _("{name!r} is not allowed as a signer's name", name=printable(name)),
            hint=_("use --name with letters, digits and . _ @ + -"),
        )
    if any(signer.name == name and signer.key.blob == key.blob for signer in read(file).signers):
        return False
    with _changing(file):
        for signer in read(file).signers:
            if signer.name == name:
                raise UsageError(
                    _(
                        "{name} has another key, {known}; this one is {new}",
                        name=name,
                        known=signer.key.fingerprint,
                        new=key.fingerprint,
                    ),
                    hint=_(
                        "to add a second key: ./gapforge trust add KEY --name {name!q}-2; to "
                        "replace the key: ./gapforge trust remove {name!q}, then add",
                        name=name,
                    ),
                )
        before = _text(file) if _exists(file) else _HEADER + "\n"
        if before and not before.endswith("\n"):
            before += "\n"
        namespaces = ",".join((BUNDLE, LOCK, CUSTODY))
        write_text(_real(file), f'{before}{name} namespaces="{namespaces}" {key.text}\n')
    return True


def remove(file: Path, name: str) -> list[Signer]:
    """Remove a trusted signer, and return what was removed. Raises UsageError without one."""
    with _changing(file):
        gone = [signer for signer in read(file).signers if signer.name == name]
        if not gone:
            raise UsageError(
                _("no trusted signer is called {name}", name=printable(name)),
                hint="./gapforge trust list",
            )
        kept = [
            line
            for line in _text(file).split("\n")
            if not line.strip() or line.startswith("#") or _signer(line).name != name
        ]
        write_text(_real(file), "\n".join(kept))
    return gone


def _changing(file: Path) -> AbstractContextManager[None]:
    """Allow one change of the list at a time, so that none undoes another."""
    real = _real(file)
    with storage_errors(real):
        real.parent.parent.mkdir(parents=True, exist_ok=True)
        real.parent.mkdir(mode=0o755, exist_ok=True)  # not for the group, whatever the umask is
    return exclusive(real.with_name(f".{real.name}.lock"), f"{file}")


def check_lock(
    project: Project, folder: Path, preset: str, signers: Signers
) -> tuple[Signer, bytes]:
    """Return the signer of ``folder``/lock.json, and the bytes that were signed.

    Use only these bytes: the file may be another one a moment later. Raises LockError without the
    file, and TrustError if no trusted signer signed it or if this site accepted a newer lock.
    """
    lock, beside = folder / LOCK_FILE, folder / LOCK_SIGNATURE
    try:
        data = read_regular(lock, limits.LOCK)
    except FileNotFoundError:
        raise locks.not_synced(str(lock), preset) from None
    except OSError as error:
        problem = unreadable(error)
        raise _refused(preset, [Fault(str(lock), problem)]) from None
    try:
        signer = signers.verify(ssh_signatures.read_signature(beside), data, LOCK)
    except BadSignature as error:
        expected = _("the signature of lock.json")
        raise _refused(preset, [Fault(str(beside), str(error), expected)]) from None
    except Untrusted as error:
        raise _refused(preset, [Fault(str(lock), str(error), _trusted(signers))]) from None
    known = rollback_protection.read(project, signers.file).presets.get(preset)
    sha256 = sha256_bytes(data)
    if known is not None and sha256 in known.superseded:
        raise TrustError(
            _("the artifacts of {preset} are older than the accepted ones", preset=preset),
            faults=[
                Fault(
                    str(lock),
                    _("sha256 {sha256}, replaced by a later bundle", sha256=sha256),
                    _("sha256 {lock}, signed {made}", lock=known.lock, made=known.made),
                )
            ],
            hint=_(
                "unpack bundle {bundle} again; to return to the older state: ./gapforge unpack DIR "
                "--allow-older",
                bundle=known.bundle,
            ),
        )
    return signer, data


def _refused(preset: str, faults: Sequence[Fault]) -> TrustError:
    return TrustError(
        _("the artifacts of {preset} are not signed by a trusted signer", preset=preset),
        faults=faults,
        hint=_(
            "online: ./gapforge trust sign {preset!q} --key KEY, and carry {file} too; trusted "
            "signers: ./gapforge trust list",
            preset=preset,
            file=LOCK_SIGNATURE,
        ),
    )


def _trusted(signers: Signers) -> str:
    shown = [signer.shown for signer in signers.signers[:4]]
    shown += [_("others")] if len(signers.signers) > 4 else []
    return _(" or ").join(shown)


def _signer(line: str) -> Signer:
    line = line.replace("\t", " ")
    match = _LINE.fullmatch(line.strip(" ")) if line.isprintable() else None
    if match is None:
        if "cert-authority" in line:
            raise ValueError(_("certificates are not supported"))
        raise ValueError(_("another form"))
    name = match["names"].split(",")[0]
    if not NAME.fullmatch(name):
        raise ValueError(_("not a plain name: {name!r}", name=name[:60]))
    try:
        return Signer(name, ssh_signatures.parse_public(match["key"]))
    except ValueError as error:
        raise ValueError(_("unusable key: {problem}", problem=error)) from None


def _text(file: Path) -> str:
    real = _real(file)
    try:
        if found := writable_by_others(file, _home() or Path("/")):
            path, why = found
            raise TrustError(
                _("other users of this machine can change the list of trusted signers"),
                faults=[Fault(str(path), why, _("writable by root and this user only"))],
                hint=_(
                    "ls -ld {path!q}; chmod go-w {path!q}, or chown it to root or this user",
                    path=path,
                ),
            )
        return read_regular(real, MAX_LIST).decode("utf-8")
    except UnicodeDecodeError:
        problem = _("not UTF-8 text")
    except OSError as error:
        problem = unreadable(error)
    raise TrustError(
        _("the list of trusted signers cannot be read, so no signature is accepted"),
        faults=[Fault(str(file), problem)],
        hint=_("ls -l {file!q}; then: ./gapforge trust list", file=file),
    )


def _exists(file: Path) -> bool:
    """Return whether something has this name. What cannot be examined counts as existing."""
    try:
        os.lstat(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _real(file: Path) -> Path:
    """Return the file itself: some people keep a link to settings elsewhere."""
    return Path(os.path.realpath(file))
