"""Signatures with the SSH keys that people have: made and checked by ``ssh-keygen -Y``, read here.

A signature holds the public key that made it, so it says by itself whose it claims to be; whether that key is trusted
is the business of ``gapforge.trust.trusted_signers``. Each kind of document has its own namespace, so that a signature of one
can never pass for that of another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
import tempfile
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import TrustError, UsageError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.base.system_errors import os_says, unreadable
from gapforge.base.text import printable

BUNDLE, LOCK, CUSTODY = "gapforge-bundle", "gapforge-lock", "gapforge-custody"  # namespaces
SUFFIX = ".sig"
MAX_SIGNATURE = 64 << 10  # bytes; an RSA signature of 16384 bits takes 6 kB
MAX_KEY = 64 << 10
LEAST_RSA = 2048  # bits
PATIENCE = 60.0  # seconds for a check
SIGNING_PATIENCE = 600.0  # seconds for a person to type a passphrase or touch a key

_ARMOUR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END SSH SIGNATURE-----[\r\n]*",
    re.ASCII,
)
_MAGIC, _PRIVATE_MAGIC = b"SSHSIG", b"openssh-key-v1\0"
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_CURVES = {
    "ecdsa-sha2-nistp256": b"nistp256",
    "ecdsa-sha2-nistp384": b"nistp384",
    "ecdsa-sha2-nistp521": b"nistp521",
}
# How many fields the key has after its kind.
_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    **dict.fromkeys(_CURVES, 2),
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
KINDS = tuple(_FIELDS)


class BadSignature(Exception):
    """Why something is no signature. Callers add which file it is."""


@dataclass(frozen=True)
class PublicKey:
    """A public key. ``kind`` is SSH's name of its algorithm; ``comment`` is only for people."""

    kind: str
    blob: bytes
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """``SHA256:…``, as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def text(self) -> str:
        """The key as one line, without its comment."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def touched(self) -> bool:
        """Whether signing waits until a person touches a security key."""
        return self.kind.startswith("sk-")


@dataclass(frozen=True)
class Signature:
    """A signature as it lies in a file, with the key that it says made it. Nothing is verified yet."""

    data: bytes
    key: PublicKey
    namespace: str


@dataclass(frozen=True)
class SigningKey:
    """A key that may sign: ``file`` holds the private half, or the public one of a key that ssh-agent holds.

    ``locked`` keys ask for a passphrase; ``agent`` is the socket of an ssh-agent to ask instead of the user's own.
    """

    file: Path
    public: PublicKey
    locked: bool = False
    agent: Path | None = None


def parse_public(text: str) -> PublicKey:
    """The public key that one line is. Raises ValueError saying why it is none that can be trusted."""
    if _PRIVATE.search(text):
        raise ValueError(
            _("is a private key; it never leaves its owner, only the public half (.pub) is wanted")
        )
    line = text.replace("\t", " ").strip(" ")
    if not line.isprintable():
        raise ValueError(_("holds line ends or control characters; expected one line"))
    words = line.split(None, 2)
    if words and "-cert-v0" in words[0]:
        raise ValueError(_("is a certificate; expected the public key itself"))
    if len(words) < 2 or words[0] not in _FIELDS:
        raise ValueError(
            _(
                "is no public SSH key; expected one line that begins with {kinds}, …",
                kinds=", ".join(KINDS[:3]),
            )
        )
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if base64.b64encode(blob).decode() != words[1]:
        raise ValueError(_("is cut short or damaged: it is no base64"))
    return _key(blob, words[0], words[2] if len(words) == 3 else "")


def read_public(file: Path) -> PublicKey:
    """The public key in a file, or beside a private one as ``FILE.pub``. Raises UsageError for anything else."""
    data = _read_key(file)
    if _PRIVATE.search(data.decode("latin-1")):
        beside = file.with_name(file.name + ".pub")
        if not beside.exists():
            raise UsageError(
                _(
                    "{file} is a private key and {name} does not lie beside it",
                    file=file,
                    name=beside.name,
                ),
                hint=_pair(file),
            )
        file, data = beside, _read_key(beside)
    try:
        lines = [line.rstrip("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise UsageError(_("{file} is no public SSH key", file=file), hint=_name_public()) from None
    lines = [line for line in lines if line.strip(" \t") and not line.startswith("#")]
    if len(lines) != 1:
        raise UsageError(
            _("{file} holds {count} keys; expected one", file=file, count=len(lines)),
            hint=_("put the key that is meant into a file of its own"),
        )
    try:
        return parse_public(lines[0])
    except ValueError as error:
        raise UsageError(_("{file} {error}", file=file, error=error), hint=_name_public()) from None


def signing_key(file: Path) -> SigningKey:
    """A key to sign with. Raises UsageError when the file is none; whether it can sign shows when it does."""
    file = Path(os.path.expanduser(file)).absolute()  # as it is where nobody has that name
    data = _read_key(file)
    if not _PRIVATE.search(data.decode("latin-1")):
        public = read_public(file)
        return _private_beside(file, public) or SigningKey(file, public)
    status = os.stat(file)
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):o}"
        raise UsageError(
            _(
                "{file} is a private key that others may read (mode {mode}); ssh-keygen refuses it",
                file=file,
                mode=mode,
            ),
            hint=f"chmod 600 {file}",
        )
    return SigningKey(file, _public_part(data) or read_public(file), locked=_locked(data))


def _private_beside(file: Path, public: PublicKey) -> SigningKey | None:
    """The private half of a .pub: ssh-keygen takes it when no agent holds the key, and may ask for its passphrase."""
    private = file.with_suffix("")
    if file.suffix != ".pub" or not private.is_file():
        return None
    try:
        key = signing_key(private)
    except UsageError:  # not ours to read, say; an agent may hold the key all the same
        return None
    return key if key.public.blob == public.blob else None


def signing_key_of(text: str) -> SigningKey:
    """The key that a flag or variable names. An empty name is an error: a script that lost it must not sign nothing."""
    if not text:
        raise UsageError(_("no key is named to sign with"), hint=_name_one())
    return signing_key(Path(text))


def sign(key: SigningKey, namespace: str, documents: Sequence[bytes]) -> list[bytes]:
    """A signature of each document. A passphrase is asked for at the terminal, once for all of them.

    Raises TrustError when the key cannot be used, ToolError without ssh-keygen.
    """
    if not documents:
        return []
    with tempfile.TemporaryDirectory(prefix="gapforge-sign-") as folder:
        files = [Path(folder, f"{number}") for number in range(len(documents))]
        for file, data in zip(files, documents, strict=True):
            file.write_bytes(data)
        terminal = at_terminal()
        done = asked(
            [
                "ssh-keygen",
                "-Y",
                "sign",
                "-q",
                "-f",
                str(key.file),
                "-n",
                namespace,
                *map(str, files),
            ],
            key,
            terminal,
        )
        if done.code != 0:
            raise _cannot_sign(key, done, terminal)
        made = [read_regular(file.with_name(file.name + SUFFIX), MAX_SIGNATURE) for file in files]
    for data in made:
        if parse_signature(data).key.blob != key.public.blob:
            raise TrustError(
                _("{file} and the public key beside it do not belong together", file=key.file),
                hint=_pair(key.file),
            )
    return made


def asked(argv: Sequence[str], key: SigningKey, terminal: bool) -> process.Result:
    """Run a program of OpenSSH's that may ask a person about ``key``: at the terminal, if there is one.

    Raises TrustError when nobody answers, ToolError when the program is missing.
    """
    with _terminal_as_it_was():
        try:
            return process.run(
                argv, env=asking(key), check=False, timeout=SIGNING_PATIENCE, detached=not terminal
            )
        except process.TimedOut:
            raise TrustError(
                _(
                    "nobody answered for {file} within {signing_patience:g} s",
                    file=key.file,
                    signing_patience=SIGNING_PATIENCE,
                ),
                hint=_("run the same command again"),
            ) from None


@contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """While a passphrase is asked for, the terminal does not show what is typed. Where that ends early (time is up, we
    are told to stop), the program that asks is killed, and nobody else would make it show it again."""
    try:
        handle = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        before = termios.tcgetattr(handle)
        try:
            yield
        except BaseException:
            with suppress(OSError, termios.error):  # it was hung up
                if os.tcgetpgrp(handle) == os.getpgrp():  # in the background we would be stopped
                    termios.tcsetattr(handle, termios.TCSADRAIN, before)
            raise
    finally:
        os.close(handle)


def asking(key: SigningKey) -> dict[str, str]:
    """The environment of OpenSSH's programs that may need ``key``: they ask at the terminal, and the right agent."""
    asking = {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": os.environ.get("SSH_ASKPASS_REQUIRE", "never")}
    return {**asking, "SSH_AUTH_SOCK": str(key.agent)} if key.agent is not None else asking


def parse_signature(data: bytes) -> Signature:
    """What a signature says of itself. Raises BadSignature when it is none."""
    if len(data) > MAX_SIGNATURE:
        raise BadSignature(_("has more than {max_signature} bytes", max_signature=MAX_SIGNATURE))
    match = _ARMOUR.fullmatch(data)
    if match is None:
        raise BadSignature(_("is no SSH signature"))
    try:
        raw = base64.b64decode(re.sub(rb"[\r\n]", b"", match[1]), validate=True)
        if raw[:6] != _MAGIC or raw[6:10] != b"\0\0\0\1":
            raise BadSignature(_("is no SSH signature of a known version"))
        fields = _fields(raw[10:])
        if len(fields) != 5:
            raise BadSignature(_("is no SSH signature of a known form"))
        kind = _fields(fields[0], at_most=1)[0].decode("ascii")
        namespace = fields[1].decode("ascii")
        if not namespace.isprintable():
            raise BadSignature(_("has a namespace with control characters"))
        return Signature(data, _key(fields[0], kind), namespace)
    except (binascii.Error, ValueError, IndexError) as error:
        why = printable(str(error))[:100]
        raise BadSignature(_("is a damaged SSH signature: {why}", why=why)) from None


def read_signature(file: Path) -> Signature:
    """The signature in a file. Raises BadSignature saying why there is none, also for what cannot be read."""
    try:
        return parse_signature(read_regular(file, MAX_SIGNATURE))
    except FileNotFoundError:
        raise BadSignature(_("is missing")) from None
    except OSError as error:
        raise BadSignature(unreadable(error)) from None
    except ValueError as error:
        raise BadSignature(str(error)) from None


def made_by(signature: Signature, data: bytes, namespace: str) -> PublicKey | None:
    """The key that really made this signature of ``data``, trusted or not; None when it is no signature of it.

    Raises ToolError without ssh-keygen.
    """
    if signature.namespace != namespace:
        return None
    with _file(signature) as file:
        argv = ["ssh-keygen", "-Y", "check-novalidate", "-n", namespace, "-s", str(file)]
        done = process.run(
            argv, env={"LC_ALL": "C"}, stdin=data, check=False, timeout=PATIENCE, detached=True
        )
    return signature.key if done.code == 0 else None


def why_not(signature: Signature, data: bytes, namespace: str, allowed: Path, name: str) -> str:
    """ "" when ``name`` in the allowed signers file signed ``data``; otherwise ssh-keygen's reason.

    Raises ToolError without ssh-keygen.
    """
    with _file(signature) as file:
        done = process.run(
            [
                "ssh-keygen",
                "-Y",
                "verify",
                "-f",
                str(allowed),
                "-I",
                name,
                "-n",
                namespace,
                "-s",
                str(file),
            ],
            env={"LC_ALL": "C"},
            stdin=data,
            check=False,
            timeout=PATIENCE,
            detached=True,
        )
    if done.code == 0:
        return ""
    lines = [*done.errors.strip().splitlines(), *done.output.strip().splitlines()]
    return printable(lines[0])[:200] if lines else _("it does not verify")


@contextmanager
def _file(signature: Signature) -> Iterator[Path]:
    """The signature in a file that only we write."""
    with tempfile.TemporaryDirectory(prefix="gapforge-verify-") as folder:
        file = Path(folder, "signature")
        file.write_bytes(signature.data)
        yield file


def at_terminal() -> bool:
    """Whether a program that we start can ask a person: in the background it would be stopped instead."""
    try:
        handle = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(handle) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(handle)


def _cannot_sign(key: SigningKey, done: process.Result, at_terminal: bool) -> TrustError:
    said = (done.errors or done.output).strip().splitlines()
    last = printable(said[-1].replace("Enter passphrase: ", ""))[:300] if said else ""
    if "passphrase" in last:
        if at_terminal:
            return TrustError(
                _("the passphrase of {file} is another", file=key.file),
                hint=_("run the same command again"),
            )
        return TrustError(
            _("{file} has a passphrase, and there is no terminal to ask for it", file=key.file),
            hint=_("ssh-add {file}; then the same command with {file}.pub", file=key.file),
        )
    hint = f"ssh-keygen -l -f {key.file}"
    if "No private key" in last:
        hint = _("see whether ssh-add -l lists the key")
    last = last or _("exit code {code}", code=done.code)
    return TrustError(_("{file} cannot sign: {last}", file=key.file, last=last), hint=hint)


def _read_key(file: Path) -> bytes:
    try:
        if not file.is_file():  # a link is fine: it is the user's own
            what = _("is not a file") if file.exists() else _("does not exist")
            shown = printable(str(file))
            raise UsageError(_("{shown} {what}", shown=shown, what=what), hint=_name_one())
        return read_regular(file.resolve(), MAX_KEY)
    except ValueError as error:
        raise UsageError(_("{file} {error}", file=file, error=error), hint=_name_one()) from None
    except OSError as error:
        shown = printable(str(file))
        raise UsageError(
            _("{shown} cannot be read: {why}", shown=shown, why=os_says(error)), hint=_name_one()
        ) from None


def _pair(file: Path) -> str:
    """How the public half of a key comes to lie beside it."""
    return _("ssh-keygen -y -f {file} > {file}.pub; then the same command again", file=file)


def _name_one() -> str:
    return _("name a key of yours: ls ~/.ssh/*.pub")


def _name_public() -> str:
    return _("name the .pub file that ssh-keygen made")


def _public_part(data: bytes) -> PublicKey | None:
    """The public half that a private key in OpenSSH's own form shows without its passphrase; None for other forms."""
    lines = data.split(b"-----")
    try:
        raw = base64.b64decode(re.sub(rb"\s", b"", lines[2]), validate=True)
        if not raw.startswith(_PRIVATE_MAGIC):
            return None
        rest = raw[len(_PRIVATE_MAGIC) :]
        head = _fields(rest, at_most=3)  # cipher, key derivation, its options
        rest = rest[sum(4 + len(field) for field in head) + 4 :]  # and the number of keys
        blob = _fields(rest, at_most=1)[0]
        return _key(blob, _fields(blob, at_most=1)[0].decode("ascii"))
    except (ValueError, IndexError, binascii.Error):
        return None


def _locked(data: bytes) -> bool:
    """Whether a private key needs a passphrase: its cipher in OpenSSH's own form, a word in the headers of others."""
    try:
        raw = base64.b64decode(re.sub(rb"\s", b"", data.split(b"-----")[2]), validate=True)
    except (IndexError, binascii.Error):
        raw = b""
    if raw.startswith(_PRIVATE_MAGIC):
        return not raw[len(_PRIVATE_MAGIC) :].startswith(b"\0\0\0\x04none")
    return b"ENCRYPTED" in data[:400]


def _key(blob: bytes, kind: str, comment: str = "") -> PublicKey:
    """The key in ``blob``, which must be one of this kind to the last byte. Raises ValueError."""
    fields = _fields(blob)
    if kind not in _FIELDS:
        raise ValueError(
            _(
                "is of kind {kind!r}, which is not used here; expected {kinds}",
                kind=kind[:60],
                kinds=", ".join(KINDS),
            )
        )
    good = fields[0] == kind.encode() and len(fields) == _FIELDS[kind] + 1
    if (
        not good
        or fields[1] != _CURVES.get(kind, fields[1])
        or ("ed25519" in kind and len(fields[1]) != 32)
    ):
        raise ValueError(_("is damaged: its bytes are no key of the kind that it names"))
    if kind == "ssh-rsa" and (bits := int.from_bytes(fields[2], "big").bit_length()) < LEAST_RSA:
        raise ValueError(
            _(
                "is an RSA key of {bits} bits; expected {least_rsa} or more",
                bits=bits,
                least_rsa=LEAST_RSA,
            )
        )
    return PublicKey(kind, blob, printable(comment)[:200])


def _fields(data: bytes, at_most: int = 16) -> list[bytes]:
    """SSH's strings: four bytes of length each, then as many bytes. Raises ValueError unless they fill ``data``, or
    there are ``at_most`` of them."""
    fields: list[bytes] = []
    while data and len(fields) < at_most:
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length:
            raise ValueError(_("is cut short"))
        fields.append(data[4 : 4 + length])
        data = data[4 + length :]
    if (data and at_most == 16) or not fields:
        raise ValueError(_("holds more or less than it should"))
    return fields
