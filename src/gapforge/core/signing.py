"""Signatures with the SSH keys that people have: made and checked by ``ssh-keygen -Y``, read here.

A signature holds the public key that made it, so it says by itself whose it claims to be; whether that key is trusted
is the business of ``gapforge.core.trust``. Each kind of document has its own namespace, so that a signature of one
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gapforge.core import process
from gapforge.core.errors import TrustError, UsageError
from gapforge.core.files import read_regular
from gapforge.core.text import printable

BUNDLE, LOCK, CUSTODY = "gapforge-bundle", "gapforge-lock", "gapforge-custody"  # namespaces
SUFFIX = ".sig"
MAX_SIGNATURE = 64 << 10  # bytes; an RSA signature of 16384 bits takes 6 kB
MAX_KEY = 64 << 10
LEAST_RSA = 2048  # bits
PATIENCE = 60.0  # seconds for a check
SIGNING_PATIENCE = 600.0  # seconds for a person to type a passphrase or touch a key

_ARMOUR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END SSH SIGNATURE-----[\r\n]*", re.ASCII
)
_MAGIC, _PRIVATE_MAGIC = b"SSHSIG", b"openssh-key-v1\0"
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_CURVES = {"ecdsa-sha2-nistp256": b"nistp256", "ecdsa-sha2-nistp384": b"nistp384", "ecdsa-sha2-nistp521": b"nistp521"}
# How many fields the key has after its kind.
_FIELDS = {"ssh-ed25519": 1, "ssh-rsa": 2, **dict.fromkeys(_CURVES, 2),
           "sk-ssh-ed25519@openssh.com": 2, "sk-ecdsa-sha2-nistp256@openssh.com": 3}  # fmt: skip
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
        raise ValueError("is a private key; it never leaves its owner, only the public half (.pub) is wanted")
    line = text.replace("\t", " ").strip(" ")
    if not line.isprintable():
        raise ValueError("holds line ends or control characters; expected one line")
    words = line.split(None, 2)
    if words and "-cert-v0" in words[0]:
        raise ValueError("is a certificate; expected the public key itself")
    if len(words) < 2 or words[0] not in _FIELDS:
        raise ValueError(f"is no public SSH key; expected one line that begins with {', '.join(KINDS[:3])}, …")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if base64.b64encode(blob).decode() != words[1]:
        raise ValueError("is cut short or damaged: it is no base64")
    return _key(blob, words[0], words[2] if len(words) == 3 else "")


def read_public(file: Path) -> PublicKey:
    """The public key in a file, or beside a private one as ``FILE.pub``. Raises UsageError for anything else."""
    data = _read_key(file)
    hint = f"ssh-keygen -y -f {file} > {file}.pub; then the same command again"
    if _PRIVATE.search(data.decode("latin-1")):
        beside = file.with_name(file.name + ".pub")
        if not beside.exists():
            raise UsageError(f"{file} is a private key and {beside.name} does not lie beside it", hint=hint)
        file, data = beside, _read_key(beside)
    try:
        lines = [line.rstrip("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no public SSH key", hint="name the .pub file that ssh-keygen made") from None
    lines = [line for line in lines if line.strip(" \t") and not line.startswith("#")]
    if len(lines) != 1:
        raise UsageError(f"{file} holds {len(lines)} keys; expected one",
                         hint="put the key that is meant into a file of its own")  # fmt: skip
    try:
        return parse_public(lines[0])
    except ValueError as error:
        raise UsageError(f"{file} {error}", hint="name the .pub file that ssh-keygen made") from None


def signing_key(file: Path) -> SigningKey:
    """A key to sign with. Raises UsageError when the file is none; whether it can sign shows when it does."""
    file = file.expanduser().absolute()
    data = _read_key(file)
    if not _PRIVATE.search(data.decode("latin-1")):
        return SigningKey(file, read_public(file))
    status = os.stat(file)
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(f"{file} is a private key that others may read (mode {stat.S_IMODE(status.st_mode):o}); "
                         "ssh-keygen refuses it", hint=f"chmod 600 {file}")  # fmt: skip
    return SigningKey(file, _public_part(data) or read_public(file), locked=_locked(data))


def signing_key_of(text: str) -> SigningKey:
    """The key that a flag or variable names. An empty name is an error: a script that lost it must not sign nothing."""
    if not text:
        raise UsageError("no key is named to sign with", hint="name a key of yours: ls ~/.ssh/*.pub")
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
        done = process.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key.file), "-n", namespace, *map(str, files)],
            env=asking(key), check=False, timeout=SIGNING_PATIENCE, detached=not terminal,
        )  # fmt: skip
        if done.code != 0:
            raise _cannot_sign(key, done, terminal)
        made = [read_regular(file.with_name(file.name + SUFFIX), MAX_SIGNATURE) for file in files]
    for data in made:
        if parse_signature(data).key.blob != key.public.blob:
            raise TrustError(f"{key.file} and the public key beside it do not belong together",
                             hint=f"ssh-keygen -y -f {key.file} > {key.file}.pub; then the same command again")  # fmt: skip
    return made


def asking(key: SigningKey) -> dict[str, str]:
    """The environment of OpenSSH's programs that may need ``key``: they ask at the terminal, and the right agent."""
    asking = {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": os.environ.get("SSH_ASKPASS_REQUIRE", "never")}
    return {**asking, "SSH_AUTH_SOCK": str(key.agent)} if key.agent is not None else asking


def parse_signature(data: bytes) -> Signature:
    """What a signature says of itself. Raises BadSignature when it is none."""
    if len(data) > MAX_SIGNATURE:
        raise BadSignature(f"has more than {MAX_SIGNATURE} bytes")
    match = _ARMOUR.fullmatch(data)
    if match is None:
        raise BadSignature("is no SSH signature")
    try:
        raw = base64.b64decode(re.sub(rb"[\r\n]", b"", match[1]), validate=True)
        if raw[:6] != _MAGIC or raw[6:10] != b"\0\0\0\1":
            raise BadSignature("is no SSH signature of a known version")
        fields = _fields(raw[10:])
        if len(fields) != 5:
            raise BadSignature("is no SSH signature of a known form")
        kind = _fields(fields[0], at_most=1)[0].decode("ascii")
        namespace = fields[1].decode("ascii")
        if not namespace.isprintable():
            raise BadSignature("has a namespace with control characters")
        return Signature(data, _key(fields[0], kind), namespace)
    except (binascii.Error, ValueError, IndexError) as error:
        raise BadSignature(f"is a damaged SSH signature: {printable(str(error))[:100]}") from None


def read_signature(file: Path) -> Signature:
    """The signature in a file. Raises BadSignature saying why there is none, also for what cannot be read."""
    try:
        return parse_signature(read_regular(file, MAX_SIGNATURE))
    except FileNotFoundError:
        raise BadSignature("is missing") from None
    except OSError as error:
        raise BadSignature(f"cannot be read: {error.strerror}") from None
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
        done = process.run(argv, env={"LC_ALL": "C"}, stdin=data, check=False, timeout=PATIENCE, detached=True)
    return signature.key if done.code == 0 else None


def why_not(signature: Signature, data: bytes, namespace: str, allowed: Path, name: str) -> str:
    """ "" when ``name`` in the allowed signers file signed ``data``; otherwise ssh-keygen's reason.

    Raises ToolError without ssh-keygen.
    """
    with _file(signature) as file:
        done = process.run(
            ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", name, "-n", namespace, "-s", str(file)],
            env={"LC_ALL": "C"}, stdin=data, check=False, timeout=PATIENCE, detached=True,
        )  # fmt: skip
    if done.code == 0:
        return ""
    lines = [*done.errors.strip().splitlines(), *done.output.strip().splitlines()]
    return printable(lines[0])[:200] if lines else "it does not verify"


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
    last = printable(said[-1].replace("Enter passphrase: ", ""))[:300] if said else f"exit code {done.code}"
    if "passphrase" in last:
        if at_terminal:
            return TrustError(f"the passphrase of {key.file} is another", hint="run the same command again")
        return TrustError(f"{key.file} has a passphrase, and there is no terminal to ask for it",
                          hint=f"ssh-add {key.file}; then the same command with {key.file}.pub")  # fmt: skip
    hint = "see whether ssh-add -l lists the key" if "No private key" in last else f"ssh-keygen -l -f {key.file}"
    return TrustError(f"{key.file} cannot sign: {last}", hint=hint)


def _read_key(file: Path) -> bytes:
    try:
        if not file.is_file():  # a link is fine: it is the user's own
            what = "is not a file" if file.exists() else "does not exist"
            raise UsageError(f"{printable(str(file))} {what}", hint="name a key of yours: ls ~/.ssh/*.pub")
        return read_regular(file.resolve(), MAX_KEY)
    except ValueError as error:
        raise UsageError(f"{file} {error}", hint="name a key of yours: ls ~/.ssh/*.pub") from None
    except OSError as error:
        raise UsageError(f"{printable(str(file))} cannot be read: {error.strerror}",
                         hint="name a key of yours: ls ~/.ssh/*.pub") from None  # fmt: skip


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
        raise ValueError(f"is of kind {kind[:60]!r}, which is not used here; expected {', '.join(KINDS)}")
    if fields[0] != kind.encode() or len(fields) != _FIELDS[kind] + 1:
        raise ValueError("is damaged: its bytes are no key of the kind that it names")
    if fields[1] != _CURVES.get(kind, fields[1]) or ("ed25519" in kind and len(fields[1]) != 32):
        raise ValueError("is damaged: its bytes are no key of the kind that it names")
    if kind == "ssh-rsa" and (bits := int.from_bytes(fields[2], "big").bit_length()) < LEAST_RSA:
        raise ValueError(f"is an RSA key of {bits} bits; expected {LEAST_RSA} or more")
    return PublicKey(kind, blob, printable(comment)[:200])


def _fields(data: bytes, at_most: int = 16) -> list[bytes]:
    """SSH's strings: four bytes of length each, then as many bytes. Raises ValueError unless they fill ``data``, or
    there are ``at_most`` of them."""
    fields: list[bytes] = []
    while data and len(fields) < at_most:
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length:
            raise ValueError("is cut short")
        fields.append(data[4 : 4 + length])
        data = data[4 + length :]
    if (data and at_most == 16) or not fields:
        raise ValueError("holds more or less than it should")
    return fields
