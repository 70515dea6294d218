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
from gapforge.base.project import Project
from gapforge.base.system_errors import unreadable
from gapforge.base.text import josa, printable, tr
from gapforge.trust import accepted_indexes, ssh_signatures
from gapforge.trust.ssh_signatures import BUNDLE, CUSTODY, LOCK, BadSignature, PublicKey, Signature

VARIABLE = "GAPFORGE_TRUST"
LOCK_FILE = "lock.json"
LOCK_SIGNATURE = LOCK_FILE + ssh_signatures.SUFFIX
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
MOST_BYTES = 4 << 20
MAX_LOCK = 64 << 20  # bytes
_OPTION = r'(?:namespaces|valid-after|valid-before)="[^"]*"'
_LINE = re.compile(
    rf'(?P<names>[^\s"#!][^\s"]*)[ ]+(?:{_OPTION}(?:,{_OPTION})*[ ]+)?(?P<key>[a-z][a-z0-9@.-]+[ ]+[A-Za-z0-9+/=]+(?:[ ].*)?)'
)
# no tr: the first line of a file
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
            raise Untrusted(tr(f"다른 것의 서명임 ({other})", f"has a signature of something else ({other})"))
        known = [signer for signer in self.signers if signer.key.blob == signature.key.blob]
        if not known:
            raise Untrusted(tr(f"여기서 신뢰하지 않는 {signature.key.fingerprint}의 서명임",
                               f"is signed by {signature.key.fingerprint}, which is not trusted here"))  # fmt: skip
        reasons = []
        for signer in known:
            reason = ssh_signatures.why_not(signature, data, namespace, self.file, signer.name)
            if not reason:
                return signer
            reasons.append(reason)
        raise Untrusted(tr(f"{known[0].name}의 서명 뒤에 내용이나 서명이 바뀜 ({reasons[0]})",
                           f"was altered after {known[0].name} signed it, or the signature was ({reasons[0]})"))  # fmt: skip


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
                    tr(f"{VARIABLE}={named}: 날라 온 폴더 {folder} 안에 있습니다. 날라 온 것을 바꾸는 사람은 이 목록도 바꿀 수 있습니다",
                       f"{VARIABLE}={named} lies in {folder}, which is carried: whoever alters what is carried "
                       "could alter it too"),
                    hint=tr(f"export {VARIABLE}=/etc/gapforge/allowed_signers (또는 이 변수를 지우십시오)",
                            f"export {VARIABLE}=/etc/gapforge/allowed_signers, or unset it"))  # fmt: skip
        return file
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    return (settings if settings.is_absolute() else _home() / ".config") / "gapforge" / "allowed_signers"


def load(project: Project) -> Signers:
    """Everybody who may sign here. Raises TrustError when that cannot be known.

    It cannot where a named list is not there, nor where signed bundles were accepted and the list has gone since (or
    is another user's: sudo changes the home).
    """
    file = place(project)
    if not _there(file):
        command = f"sudo env {VARIABLE}=$HOME/.config/gapforge/allowed_signers …"
        hint = tr(f"./gapforge trust add KEY; sudo로 실행할 때는 목록을 지정하십시오: {command}",
                  f"./gapforge trust add KEY; with sudo name the list: {command}")  # fmt: skip
        gone = tr("없음", "does not exist")
        if os.environ.get(VARIABLE):
            raise TrustError(tr(f"{josa(VARIABLE, '으로', '로')} 지정한 신뢰하는 서명자의 목록이 없습니다",
                                f"the list of trusted signers that {VARIABLE} names is not there"),
                             faults=[Fault(str(file), gone)], hint=hint)  # fmt: skip
        record = accepted_indexes.file_of(project)
        if _there(record):
            raise TrustError(
                tr("전에 서명된 묶음을 받아들인 곳인데, 지금은 신뢰하는 서명자의 목록이 없습니다",
                   "signed bundles were accepted here, and now the list of trusted signers is not there"),
                faults=[Fault(str(file), gone)],
                hint=tr(f"{hint}; 일부러 아무도 신뢰하지 않으려면: rm {record}",
                        f"{hint}; to trust nobody on purpose: rm {record}"))  # fmt: skip
        invoker = _invoker_s(file)
        if invoker is not None:
            raise TrustError(
                tr("sudo를 부른 사용자에게는 신뢰하는 서명자의 목록이 있지만, 지금 실행하는 root에게는 없습니다",
                   "who calls sudo has a list of trusted signers, and root, who is asked now, has none"),
                faults=[Fault(str(file), gone, str(invoker))],
                hint=tr(f"sudo env {VARIABLE}={invoker} … 뒤에 같은 명령을 쓰십시오",
                        f"sudo env {VARIABLE}={invoker} …, the same command"))  # fmt: skip
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
                Fault(tr(f"{file}: {number}행", f"{file}: line {number}"), str(error),
                      tr("./gapforge trust add가 쓰는 형식인 NAME KIND KEY", "NAME KIND KEY, as ./gapforge trust add writes it"))
            )  # fmt: skip
    if faults:
        raise TrustError(tr("신뢰하는 서명자의 목록이 손상되어 아무것도 신뢰하지 않습니다",
                            "the list of trusted signers is damaged, so nothing is trusted"), faults=faults,
                         hint=tr(f"목록을 고치거나 되돌리십시오({file}). 그다음: ./gapforge trust list",
                                 f"correct {file}, or restore it; then: ./gapforge trust list"))  # fmt: skip
    return Signers(file, tuple(signers))


def add(file: Path, key: PublicKey, name: str) -> bool:
    """Trust a key under a name; False when it was trusted under it already.

    Raises UsageError when the name has another key: a signer's next key gets a name of its own until the old one
    has signed its last.
    """
    if not NAME.fullmatch(name):
        raise UsageError(tr(f"{printable(name)!r}: 서명자의 이름으로 쓸 수 없습니다", f"{printable(name)!r} cannot be a signer's name"),
                         hint=tr("--name에 쓸 수 있는 것: 영문자, 숫자, . _ @ + -", "--name with letters, digits and . _ @ + -"))  # fmt: skip
    if any(signer.name == name and signer.key.blob == key.blob for signer in read(file).signers):
        return False
    with _changing(file):
        _add(file, key, name)
    return True


def _add(file: Path, key: PublicKey, name: str) -> None:
    for signer in read(file).signers:
        if signer.name == name:
            raise UsageError(
                tr(f"{name}: 이미 다른 키 {josa(signer.key.fingerprint, '으로', '로')} 신뢰하고 있습니다(이번 키는 {key.fingerprint})",
                   f"{name} is trusted with another key, {signer.key.fingerprint}; this one is {key.fingerprint}"),
                hint=tr(f"키를 더하려면: ./gapforge trust add KEY --name {name}-2; 바꾸려면: ./gapforge trust remove {name}, "
                        "그다음 trust add",
                        f"a further key: ./gapforge trust add KEY --name {name}-2; to replace it: ./gapforge trust remove {name}, "
                        "then add"))  # fmt: skip
    before = _text(file) if _there(file) else _HEADER + "\n"
    namespaces = ",".join((BUNDLE, LOCK, CUSTODY))
    line = f'{name} namespaces="{namespaces}" {key.text}'
    write_text(_real(file), before + ("" if before.endswith("\n") or not before else "\n") + line + "\n")


def remove(file: Path, name: str) -> list[Signer]:
    """Trust this name no longer; gives the keys that it had. Raises UsageError when nobody is called so."""
    with _changing(file):
        return _remove(file, name)


def _remove(file: Path, name: str) -> list[Signer]:
    gone = [signer for signer in read(file).signers if signer.name == name]
    if not gone:
        raise UsageError(tr(f"{printable(name)}: 신뢰하는 서명자 가운데 이런 이름이 없습니다",
                            f"nobody called {printable(name)} is trusted"), hint="./gapforge trust list")  # fmt: skip
    kept = [line for line in _text(file).split("\n")
            if not line.strip() or line.startswith("#") or _signer(line).name != name]  # fmt: skip
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
        data = read_regular(lock, MAX_LOCK)
    except FileNotFoundError:
        raise _refused(preset, [Fault(str(lock), tr("없음", "is missing"))]) from None
    except OSError as error:
        problem = unreadable(error)
        raise _refused(preset, [Fault(str(lock), problem)]) from None
    except ValueError as error:
        raise _refused(preset, [Fault(str(lock), str(error))]) from None
    try:
        signer = signers.judge(ssh_signatures.read_signature(beside), data, LOCK)
    except BadSignature as error:
        expected = tr("lock.json의 서명", "the signature of lock.json")
        raise _refused(preset, [Fault(str(beside), str(error), expected)]) from None
    except Untrusted as error:
        raise _refused(preset, [Fault(str(lock), str(error), _trusted(signers))]) from None
    known = accepted_indexes.read(project).presets.get(preset)
    sha256 = sha256_bytes(data)
    if known is not None and sha256 in known.superseded:
        raise TrustError(
            tr(f"{preset}의 artifacts가 여기서 이미 받아들인 것보다 오래되었습니다",
               f"the artifacts of {preset} are older than what was accepted here"),
            faults=[Fault(str(lock), tr(f"sha256이 {sha256}임. 나중 묶음이 이것을 대체했음",
                                        f"has sha256 {sha256}, which a later bundle replaced"),
                          tr(f"{known.made}에 서명한 sha256 {known.lock}", f"sha256 {known.lock}, signed {known.made}"))],
            hint=tr(f"이 묶음을 다시 unpack 하십시오: {known.bundle}; 일부러 되돌리려면: ./gapforge unpack DIR --allow-older",
                    f"unpack bundle {known.bundle} again; to go back on purpose: ./gapforge unpack DIR --allow-older"))  # fmt: skip
    return signer


def _refused(preset: str, faults: Sequence[Fault]) -> TrustError:
    return TrustError(tr(f"{preset}의 artifacts에 여기서 신뢰하는 사람의 서명이 없습니다",
                         f"the artifacts of {preset} are not signed by anybody who is trusted here"), faults=faults,
                      hint=tr(f"만든 곳에서: ./gapforge trust sign {preset} --key KEY (그 뒤 {LOCK_SIGNATURE}도 함께 나르십시오); "
                              "서명할 수 있는 사람: ./gapforge trust list",
                              f"where they were made: ./gapforge trust sign {preset} --key KEY, and carry {LOCK_SIGNATURE} too; "
                              "who may sign: ./gapforge trust list"))  # fmt: skip


def _trusted(signers: Signers) -> str:
    return tr(" 또는 ", " or ").join(signer.shown for signer in signers.signers[:4]) + (
        tr(" 또는 그 밖의 서명자", " or others") if len(signers.signers) > 4 else ""
    )


def _signer(line: str) -> Signer:
    line = line.replace("\t", " ")
    match = _LINE.fullmatch(line.strip(" ")) if line.isprintable() else None
    if match is None:
        certificates = "cert-authority" in line
        raise ValueError(
            tr("형식이 다름", "has another form")
            + (tr(" (인증서는 쓰지 않음)", ", and certificates are not followed") if certificates else "")
        )
    name = match["names"].split(",")[0]
    if not NAME.fullmatch(name):
        raise ValueError(tr(f"이름 자리에 패턴이나 다른 형식이 있음: {name[:60]!r}",
                            f"has a pattern or another form in place of a name: {name[:60]!r}"))  # fmt: skip
    try:
        return Signer(name, ssh_signatures.parse_public(match["key"]))
    except ValueError as error:
        raise ValueError(tr(f"쓸 수 없는 키가 있음: {error}", f"holds a key that {error}")) from None


def _text(file: Path) -> str:
    real = _real(file)
    try:
        if stat.S_IMODE(os.stat(real).st_mode) & 0o002:
            raise TrustError(tr("이 컴퓨터의 누구나 신뢰하는 서명자의 목록을 바꿀 수 있습니다",
                                "everybody on this machine may change the list of trusted signers"),
                             faults=[Fault(str(file), tr("누구나 쓸 수 있음", "may be written by all"))],
                             hint=f"chmod o-w {file}")  # fmt: skip
        return read_regular(real, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        problem = tr("텍스트가 아님", "is not text")
    except OSError as error:
        problem = unreadable(error)
    except ValueError as error:
        problem = str(error)
    raise TrustError(tr("신뢰하는 서명자의 목록을 읽을 수 없어 아무것도 신뢰하지 않습니다",
                        "the list of trusted signers cannot be read, so nothing is trusted"),
                     faults=[Fault(str(file), problem)],
                     hint=tr(f"ls -l {file}; 그다음: ./gapforge trust list", f"ls -l {file}; then: ./gapforge trust list"))  # fmt: skip


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
        raise TrustError(tr("이 사용자는 홈이 없어 신뢰하는 서명자의 목록도 없습니다",
                            "this user has no home, so there is no list of trusted signers"),
                         hint=f"export {VARIABLE}=/etc/gapforge/allowed_signers") from None  # fmt: skip
