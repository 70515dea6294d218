"""Who is trusted to sign what is carried, and whether a signature is by one of them.

The list is a file of OpenSSH's own kind ("allowed signers"), so ``ssh-keygen -Y verify -f`` reads it by hand too. It
lies in the user's home, never in the project or the artifacts: whoever alters the carried disk must not alter trust.
A list that is there and cannot be read is an error; only one that names nobody, or is not there, means that nobody
is trusted.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault, TrustError, UsageError
from gapforge.base.files import exclusive, read_regular, sha256_bytes, write_text
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import unreadable
from gapforge.base.text import printable
from gapforge.model.lock import MAX_BYTES
from gapforge.trust import accepted_indexes, ssh_signatures
from gapforge.trust.ssh_signatures import BUNDLE, CUSTODY, LOCK, BadSignature, PublicKey, Signature

VARIABLE = "GAPFORGE_TRUST"
LOCK_FILE = "lock.json"
LOCK_SIGNATURE = LOCK_FILE + ssh_signatures.SUFFIX
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
MOST_BYTES = 4 << 20
_OPTION = r'(?:namespaces|valid-after|valid-before)="[^"]*"'
_LINE = re.compile(
    rf'(?P<names>[^\s"#!][^\s"]*)[ ]+(?:{_OPTION}(?:,{_OPTION})*[ ]+)?(?P<key>[a-z][a-z0-9@.-]+[ ]+[A-Za-z0-9+/=]+(?:[ ].*)?)'
)
_HEADER = "# Who may sign what gapforge imports and builds. Written by: ./gapforge trust add; format: man ssh-keygen"


class Untrusted(Exception):
    """Why a signature does not count. Callers add which file it is about."""


@dataclass(frozen=True)
class Signer:
    """Somebody who may sign."""

    name: str
    key: PublicKey

    @property
    def shown(self) -> str:
        return f"{self.name} ({self.key.fingerprint})"


@dataclass(frozen=True)
class Signers:
    """Everybody who may sign, and the file that says so. False when that is nobody."""

    file: Path
    signers: tuple[Signer, ...]

    def __bool__(self) -> bool:
        return bool(self.signers)

    def judge(self, signature: Signature, data: bytes, namespace: str) -> Signer:
        """Who signed ``data``. Raises Untrusted saying why nobody who counts did, ToolError without ssh-keygen."""
        if signature.namespace != namespace:
            other = printable(signature.namespace)[:60]
            raise Untrusted(_("has a signature of something else ({other})", other=other))
        known = [signer for signer in self.signers if signer.key.blob == signature.key.blob]
        if not known:
            raise Untrusted(
                _(
                    "is signed by {fingerprint}, which is not trusted here",
                    fingerprint=signature.key.fingerprint,
                )
            )
        reasons = []
        for signer in known:
            reason = ssh_signatures.why_not(signature, data, namespace, self.file, signer.name)
            if not reason:
                return signer
            reasons.append(reason)
        raise Untrusted(
            _(
                "was altered after {name} signed it, or the signature was ({reason})",
                name=known[0].name,
                reason=reasons[0],
            )
        )


def place(project: Project) -> Path:
    """Where the list is. Raises TrustError for a place that travels with what it shall judge."""
    named = os.environ.get(VARIABLE)
    if named:
        file = Path(named).absolute()
        home = _home()
        for folder in (project.artifacts, project.root):
            inside = folder.resolve() in file.resolve().parents
            if inside and folder.resolve() not in (home, *home.parents):
                raise TrustError(
                    _(
                        "{variable}={named} lies in {folder}, which is carried: whoever "
                        "alters what is carried could alter it too",
                        variable=VARIABLE,
                        named=named,
                        folder=folder,
                    ),
                    hint=_(
                        "export {variable}=/etc/gapforge/allowed_signers, or unset it",
                        variable=VARIABLE,
                    ),
                )
        return file
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    return (
        (settings if settings.is_absolute() else _home() / ".config")
        / "gapforge"
        / "allowed_signers"
    )


def load(project: Project) -> Signers:
    """Everybody who may sign here. Raises TrustError when that cannot be known.

    It cannot where a named list is not there, nor where signed bundles were accepted and the list has gone since (or
    is another user's: sudo changes the home).
    """
    file = place(project)
    if not _there(file):
        command = f"sudo env {VARIABLE}=$HOME/.config/gapforge/allowed_signers …"
        hint = _("./gapforge trust add KEY; with sudo name the list: {command}", command=command)
        gone = _("does not exist")
        if os.environ.get(VARIABLE):
            raise TrustError(
                _(
                    "the list of trusted signers that {variable} names is not there",
                    variable=VARIABLE,
                ),
                faults=[Fault(str(file), gone)],
                hint=hint,
            )
        record = accepted_indexes.file_of(project)
        if _there(record):
            raise TrustError(
                _(
                    "signed bundles were accepted here, and now the list of trusted "
                    "signers is not there"
                ),
                faults=[Fault(str(file), gone)],
                hint=_("{hint}; to trust nobody on purpose: rm {record}", hint=hint, record=record),
            )
        invoker = _invoker_s(file)
        if invoker is not None:
            raise TrustError(
                _(
                    "who calls sudo has a list of trusted signers, and root, who is "
                    "asked now, has none"
                ),
                faults=[Fault(str(file), gone, str(invoker))],
                hint=_(
                    "sudo env {variable}={invoker} …, the same command",
                    variable=VARIABLE,
                    invoker=invoker,
                ),
            )
        return Signers(file, ())
    return read(file)


def _invoker_s(file: Path) -> Path | None:
    """The list of the user who called sudo, if there is one and it is not the one that was looked for."""
    number = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not (number.isascii() and number.isdecimal()):
        return None
    try:
        theirs = Path(pwd.getpwuid(int(number)).pw_dir) / ".config" / "gapforge" / "allowed_signers"
    except (KeyError, OverflowError):
        return None
    return theirs if theirs != file and _there(theirs) else None


def read(file: Path) -> Signers:
    """The list in ``file``; nobody where it does not exist. Raises TrustError with every fault of it."""
    if not _there(file):
        return Signers(file, ())
    faults: list[Fault] = []
    signers: list[Signer] = []
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            signers.append(_signer(line))
        except ValueError as error:
            faults.append(
                Fault(
                    _("{file}: line {number}", file=file, number=number),
                    str(error),
                    _("NAME KIND KEY, as ./gapforge trust add writes it"),
                )
            )
    if faults:
        raise TrustError(
            _("the list of trusted signers is damaged, so nothing is trusted"),
            faults=faults,
            hint=_("correct {file}, or restore it; then: ./gapforge trust list", file=file),
        )
    return Signers(file, tuple(signers))


def add(file: Path, key: PublicKey, name: str) -> bool:
    """Trust a key under a name; False when it was trusted under it already.

    Raises UsageError when the name has another key: a signer's next key gets a name of its own until the old one
    has signed its last.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            _("{name!r} cannot be a signer's name", name=printable(name)),
            hint=_("--name with letters, digits and . _ @ + -"),
        )
    if any(signer.name == name and signer.key.blob == key.blob for signer in read(file).signers):
        return False
    with _changing(file):
        _add(file, key, name)
    return True


def _add(file: Path, key: PublicKey, name: str) -> None:
    for signer in read(file).signers:
        if signer.name == name:
            raise UsageError(
                _(
                    "{name} is trusted with another key, {fingerprint}; this one is "
                    "{key_fingerprint}",
                    name=name,
                    fingerprint=signer.key.fingerprint,
                    key_fingerprint=key.fingerprint,
                ),
                hint=_(
                    "a further key: ./gapforge trust add KEY --name {name}-2; to replace "
                    "it: ./gapforge trust remove {name}, then add",
                    name=name,
                ),
            )
    before = _text(file) if _there(file) else _HEADER + "\n"
    namespaces = ",".join((BUNDLE, LOCK, CUSTODY))
    line = f'{name} namespaces="{namespaces}" {key.text}'
    write_text(
        _real(file), before + ("" if before.endswith("\n") or not before else "\n") + line + "\n"
    )


def remove(file: Path, name: str) -> list[Signer]:
    """Trust this name no longer; gives the keys that it had. Raises UsageError when nobody is called so."""
    with _changing(file):
        return _remove(file, name)


def _remove(file: Path, name: str) -> list[Signer]:
    gone = [signer for signer in read(file).signers if signer.name == name]
    if not gone:
        raise UsageError(
            _("nobody called {name} is trusted", name=printable(name)), hint="./gapforge trust list"
        )
    kept = [
        line
        for line in _text(file).split("\n")
        if not line.strip() or line.startswith("#") or _signer(line).name != name
    ]
    write_text(_real(file), "\n".join(kept))
    return gone


def _changing(file: Path) -> AbstractContextManager[None]:
    """One change of the list at a time: of two, the later one would bring back whom the other removed."""
    real = _real(file)
    return exclusive(real.with_name(f".{real.name}.lock"), f"{file}")


def check_lock(project: Project, folder: Path, preset: str, signers: Signers) -> Signer:
    """Who signed ``folder``/lock.json, before a word of it is believed.

    Raises TrustError when nobody who is trusted did, or when this site accepted a newer lock since.
    """
    lock, beside = folder / LOCK_FILE, folder / LOCK_SIGNATURE
    try:
        data = read_regular(lock, MAX_BYTES)
    except FileNotFoundError:
        raise _refused(preset, [Fault(str(lock), _("is missing"))]) from None
    except OSError as error:
        problem = unreadable(error)
        raise _refused(preset, [Fault(str(lock), problem)]) from None
    except ValueError as error:
        raise _refused(preset, [Fault(str(lock), str(error))]) from None
    try:
        signer = signers.judge(ssh_signatures.read_signature(beside), data, LOCK)
    except BadSignature as error:
        expected = _("the signature of lock.json")
        raise _refused(preset, [Fault(str(beside), str(error), expected)]) from None
    except Untrusted as error:
        raise _refused(preset, [Fault(str(lock), str(error), _trusted(signers))]) from None
    known = accepted_indexes.read(project).presets.get(preset)
    sha256 = sha256_bytes(data)
    if known is not None and sha256 in known.superseded:
        raise TrustError(
            _("the artifacts of {preset} are older than what was accepted here", preset=preset),
            faults=[
                Fault(
                    str(lock),
                    _("has sha256 {sha256}, which a later bundle replaced", sha256=sha256),
                    _("sha256 {lock}, signed {made}", lock=known.lock, made=known.made),
                )
            ],
            hint=_(
                "unpack bundle {bundle} again; to go back on purpose: ./gapforge unpack "
                "DIR --allow-older",
                bundle=known.bundle,
            ),
        )
    return signer


def _refused(preset: str, faults: Sequence[Fault]) -> TrustError:
    return TrustError(
        _("the artifacts of {preset} are not signed by anybody who is trusted here", preset=preset),
        faults=faults,
        hint=_(
            "where they were made: ./gapforge trust sign {preset} --key KEY, and carry "
            "{lock_signature} too; who may sign: ./gapforge trust list",
            preset=preset,
            lock_signature=LOCK_SIGNATURE,
        ),
    )


def _trusted(signers: Signers) -> str:
    return _(" or ").join(signer.shown for signer in signers.signers[:4]) + (
        _(" or others") if len(signers.signers) > 4 else ""
    )


def _signer(line: str) -> Signer:
    line = line.replace("\t", " ")
    match = _LINE.fullmatch(line.strip(" ")) if line.isprintable() else None
    if match is None:
        certificates = "cert-authority" in line
        raise ValueError(
            _("has another form")
            + (_(", and certificates are not followed") if certificates else "")
        )
    name = match["names"].split(",")[0]
    if not NAME.fullmatch(name):
        raise ValueError(
            _("has a pattern or another form in place of a name: {name!r}", name=name[:60])
        )
    try:
        return Signer(name, ssh_signatures.parse_public(match["key"]))
    except ValueError as error:
        raise ValueError(_("holds a key that {error}", error=error)) from None


def _text(file: Path) -> str:
    real = _real(file)
    try:
        if stat.S_IMODE(os.stat(real).st_mode) & 0o002:
            raise TrustError(
                _("everybody on this machine may change the list of trusted signers"),
                faults=[Fault(str(file), _("may be written by all"))],
                hint=f"chmod o-w {file}",
            )
        return read_regular(real, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        problem = _("is not text")
    except OSError as error:
        problem = unreadable(error)
    except ValueError as error:
        problem = str(error)
    raise TrustError(
        _("the list of trusted signers cannot be read, so nothing is trusted"),
        faults=[Fault(str(file), problem)],
        hint=_("ls -l {file}; then: ./gapforge trust list", file=file),
    )


def _there(file: Path) -> bool:
    """Whether something has this name. What cannot be looked at counts as there: it must not pass for nothing."""
    try:
        os.lstat(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _real(file: Path) -> Path:
    """The file itself, where people keep their settings elsewhere and link them."""
    return Path(os.path.realpath(file))


def _home() -> Path:
    home = Path(os.environ.get("HOME") or "")
    if home.is_absolute():
        return home
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise TrustError(
            _("this user has no home, so there is no list of trusted signers"),
            hint=f"export {VARIABLE}=/etc/gapforge/allowed_signers",
        ) from None
