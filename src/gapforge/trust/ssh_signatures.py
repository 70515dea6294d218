"""Make, read and verify SSH signatures, with ``ssh-keygen -Y``.

A signature contains the public key that made it. ``gapforge.trust.trusted_signers`` decides whether
that key is trusted. Each kind of document has a namespace of its own, so that a signature of one
kind is never valid for another.
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
from gapforge.base.path_checks import given_path, real_path
from gapforge.base.system_errors import unreadable
from gapforge.base.text_layout import printable

BUNDLE, LOCK, CUSTODY = "gapforge-bundle", "gapforge-lock", "gapforge-custody"  # namespaces
SUFFIX = ".sig"
MAX_SIGNATURE = 64 << 10  # bytes; an RSA signature of 16384 bits takes 6 kB
MAX_KEY = 64 << 10
MIN_RSA = 2048  # bits
VERIFY_TIMEOUT = 60.0  # seconds
SIGN_TIMEOUT = 600.0  # seconds for a person to type a passphrase or touch a key

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
# The number of fields of a key after its kind.
_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    **dict.fromkeys(_CURVES, 2),
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
KINDS = tuple(_FIELDS)


class BadSignature(Exception):
    """A file is not a usable signature. The message is a fault without the file's name."""


@dataclass(frozen=True)
class PublicKey:
    """A public key. ``kind`` is SSH's name of the algorithm, ``comment`` a note for people."""

    kind: str
    blob: bytes
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint ``SHA256:…``, as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def text(self) -> str:
        """Return the key as one line, without its comment."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def needs_touch(self) -> bool:
        """Return whether signing waits until a person touches a security key."""
        return self.kind.startswith("sk-")


@dataclass(frozen=True)
class Signature:
    """The content of a signature file and the key in it. Nothing is verified yet."""

    data: bytes
    key: PublicKey
    namespace: str


@dataclass(frozen=True)
class SigningKey:
    """A key to sign with.

    ``file`` holds the private key, or the public key of one in ssh-agent. ``agent`` is the socket
    of an ssh-agent to use instead of the user's own.
    """

    file: Path
    public: PublicKey
    has_passphrase: bool = False
    agent: Path | None = None


def parse_public(text: str) -> PublicKey:
    """Return the public key in one line. Raises ValueError with the problem of any other text."""
    if _PRIVATE.search(text):
        raise ValueError(
            _("private key; expected the public key (.pub): a private key never leaves its owner")
        )
    line = text.replace("\t", " ").strip(" ")
    if not line.isprintable():
        raise ValueError(_("line ends or control characters; expected one line"))
    words = line.split(None, 2)
    if words and "-cert-v0" in words[0]:
        raise ValueError(_("certificate; expected the public key itself"))
    if len(words) < 2 or words[0] not in _FIELDS:
        raise ValueError(
            _(
                "not a public SSH key; expected one line that begins with {kinds}, …",
                kinds=", ".join(KINDS[:3]),
            )
        )
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if base64.b64encode(blob).decode() != words[1]:
        raise ValueError(_("truncated or damaged: not base64"))
    return _key(blob, words[0], words[2] if len(words) == 3 else "")


def read_public(file: Path) -> PublicKey:
    """Return the public key in a file, or in ``FILE.pub`` for a private key. Raises UsageError."""
    data = _read_key(file)
    if _PRIVATE.search(data.decode("latin-1")):
        beside = file.with_name(file.name + ".pub")
        if not beside.exists():
            raise UsageError(
                _(
                    "{file} is a private key, and there is no {name} beside it",
                    file=file,
                    name=beside.name,
                ),
                hint=_make_public_key(file),
            )
        file, data = beside, _read_key(beside)
    try:
        lines = [line.rstrip("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise UsageError(
            _("{file}: not a public SSH key", file=file), hint=_choose_public_key()
        ) from None
    lines = [line for line in lines if line.strip(" \t") and not line.startswith("#")]
    if len(lines) != 1:
        raise UsageError(
            _("{file} contains {count} keys; expected one", file=file, count=len(lines)),
            hint=_("put the key into a file of its own"),
        )
    try:
        return parse_public(lines[0])
    except ValueError as error:
        raise UsageError(
            _("{file}: {problem}", file=file, problem=error), hint=_choose_public_key()
        ) from None


def signing_key(file: Path) -> SigningKey:
    """Return the key in a file. Raises UsageError for anything else.

    Whether the key can sign is known only when it does.
    """
    file = given_path(file).absolute()
    data = _read_key(file)
    if not _PRIVATE.search(data.decode("latin-1")):
        public = read_public(file)
        return _private_beside(file, public) or SigningKey(file, public)
    status = os.stat(file)
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):o}"
        raise UsageError(
            _(
                "{file} is a private key that other users can read (mode {mode}); ssh-keygen "
                "refuses it",
                file=file,
                mode=mode,
            ),
            hint=process.quoted(["chmod", "600", str(file)]),
        )
    return SigningKey(
        file, _public_part(data) or read_public(file), has_passphrase=_has_passphrase(data)
    )


def _private_beside(file: Path, public: PublicKey) -> SigningKey | None:
    """Return the private key of a .pub: ssh-keygen uses it if no agent has the key."""
    private = file.with_suffix("")
    if file.suffix != ".pub" or not private.is_file():
        return None
    try:
        key = signing_key(private)
    except UsageError:  # perhaps unreadable, but an agent may have the key
        return None
    return key if key.public.blob == public.blob else None


def signing_key_of(text: str) -> SigningKey:
    """Return the key that a flag or variable names. An empty name is an error, often a script's."""
    if not text:
        raise UsageError(_("the name of the key to sign with is empty"), hint=_choose_key())
    return signing_key(Path(text))


def sign(key: SigningKey, namespace: str, documents: Sequence[bytes]) -> list[bytes]:
    """Return a signature of each document. A passphrase is asked for once, at the terminal.

    Raises TrustError if the key cannot be used, ToolError without ssh-keygen.
    """
    if not documents:
        return []
    with tempfile.TemporaryDirectory(prefix="gapforge-sign-") as folder:
        files = [Path(folder, f"{number}") for number in range(len(documents))]
        for file, data in zip(files, documents, strict=True):
            file.write_bytes(data)
        terminal = at_terminal()
        done = run_interactive(
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
                _("{file} and the public key beside it are not a pair", file=key.file),
                hint=_make_public_key(key.file),
            )
    return made


def run_interactive(argv: Sequence[str], key: SigningKey, terminal: bool) -> process.Result:
    """Run a program of OpenSSH that may ask a person about ``key`` at the terminal.

    Raises TrustError if nobody answers, ToolError if the program is missing.
    """
    with _terminal_restored():
        try:
            return process.run(
                argv,
                env=openssh_environment(key),
                check=False,
                timeout=SIGN_TIMEOUT,
                detached=not terminal,
            )
        except process.TimedOut:
            raise TrustError(
                _(
                    "no passphrase or touch for {file} within {seconds:g} s",
                    file=key.file,
                    seconds=SIGN_TIMEOUT,
                ),
                hint=_("run the same command again"),
            ) from None


@contextmanager
def _terminal_restored() -> Iterator[None]:
    """Restore the terminal's settings if the block raises.

    A program that asks for a passphrase switches the echo off. If it is killed, by a timeout or an
    interruption, nothing else would switch the echo on again.
    """
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
            with suppress(OSError, termios.error):  # the terminal was closed
                if os.tcgetpgrp(handle) == os.getpgrp():  # a background process would be stopped
                    termios.tcsetattr(handle, termios.TCSADRAIN, before)
            raise
    finally:
        os.close(handle)


def openssh_environment(key: SigningKey) -> dict[str, str]:
    """Return the environment for OpenSSH programs: ask at the terminal, use the key's agent."""
    env = {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": os.environ.get("SSH_ASKPASS_REQUIRE", "never")}
    return {**env, "SSH_AUTH_SOCK": str(key.agent)} if key.agent is not None else env


def parse_signature(data: bytes) -> Signature:
    """Return the signature in ``data``. Raises BadSignature for anything else."""
    if len(data) > MAX_SIGNATURE:
        raise BadSignature(_("more than {count} bytes", count=MAX_SIGNATURE))
    match = _ARMOUR.fullmatch(data)
    if match is None:
        raise BadSignature(_("not an SSH signature"))
    try:
        raw = base64.b64decode(re.sub(rb"[\r\n]", b"", match[1]), validate=True)
        if raw[:6] != _MAGIC or raw[6:10] != b"\0\0\0\1":
            raise BadSignature(_("SSH signature of an unknown version"))
        fields = _fields(raw[10:])
        if len(fields) != 5:
            raise BadSignature(_("SSH signature of an unknown form"))
        kind = _fields(fields[0], at_most=1)[0].decode("ascii")
        namespace = fields[1].decode("ascii")
        if not namespace.isprintable():
            raise BadSignature(_("namespace with control characters"))
        return Signature(data, _key(fields[0], kind), namespace)
    except (binascii.Error, ValueError, IndexError) as error:
        why = printable(str(error))[:100]
        raise BadSignature(_("damaged SSH signature: {why}", why=why)) from None


def read_signature(file: Path) -> Signature:
    """Return the signature in a file. Raises BadSignature also if the file cannot be read."""
    try:
        return parse_signature(read_regular(file, MAX_SIGNATURE))
    except FileNotFoundError:
        raise BadSignature(_("missing")) from None
    except OSError as error:
        raise BadSignature(unreadable(error)) from None


def made_by(signature: Signature, data: bytes, namespace: str) -> PublicKey | None:
    """Return the key that made this signature of ``data``, trusted or not; None if it is not valid.

    Raises ToolError without ssh-keygen.
    """
    if signature.namespace != namespace:
        return None
    with _file(signature) as file:
        done = _run_verifier(["check-novalidate", "-n", namespace, "-s", str(file)], data)
    return signature.key if done.code == 0 else None


def verify_error(
    signature: Signature, data: bytes, namespace: str, allowed: Path, name: str
) -> str:
    """Return "" if ``name`` in the allowed signers file signed ``data``, else ssh-keygen's reason.

    Raises ToolError without ssh-keygen.
    """
    with _file(signature) as file:
        options = ["-f", str(allowed), "-I", name, "-n", namespace, "-s", str(file)]
        done = _run_verifier(["verify", *options], data)
    if done.code == 0:
        return ""
    lines = [*done.errors.strip().splitlines(), *done.output.strip().splitlines()]
    return printable(lines[0])[:200] if lines else _("signature verification failed")


def _run_verifier(words: Sequence[str], data: bytes) -> process.Result:
    return process.run(
        ["ssh-keygen", "-Y", *words],
        env={"LC_ALL": "C"},
        stdin=data,
        check=False,
        timeout=VERIFY_TIMEOUT,
        detached=True,
    )


@contextmanager
def _file(signature: Signature) -> Iterator[Path]:
    """Yield a private temporary file with the signature."""
    with tempfile.TemporaryDirectory(prefix="gapforge-verify-") as folder:
        file = Path(folder, "signature")
        file.write_bytes(signature.data)
        yield file


def at_terminal() -> bool:
    """Return whether a program can ask a person; in the background it would be stopped instead."""
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
    lines = (done.errors or done.output).strip().splitlines()
    last = printable(lines[-1].replace("Enter passphrase: ", ""))[:300] if lines else ""
    if "passphrase" in last:
        if at_terminal:
            return TrustError(
                _("wrong passphrase for {file}", file=key.file),
                hint=_("run the same command again"),
            )
        return TrustError(
            _("{file} has a passphrase, but there is no terminal to ask for it", file=key.file),
            hint=_("ssh-add {file!q}; then the same command with {file}.pub", file=key.file),
        )
    hint = f"ssh-keygen -l -f {key.file}"
    if "No private key" in last:
        hint = _("check that ssh-add -l lists the key")
    last = last or _("exit code {code}", code=done.code)
    return TrustError(_("cannot sign with {file}: {why}", file=key.file, why=last), hint=hint)


def _read_key(file: Path) -> bytes:
    try:
        if file.is_file():  # a link is allowed: it is the user's own
            return read_regular(real_path(file), MAX_KEY)
        problem = _("not a file") if file.exists() else _("does not exist")
    except OSError as error:
        problem = unreadable(error)
    shown = printable(str(file))
    raise UsageError(_("{file}: {problem}", file=shown, problem=problem), hint=_choose_key())


def _make_public_key(file: Path) -> str:
    return _("ssh-keygen -y -f {file!q} > {file!q}.pub; then the same command again", file=file)


def _choose_key() -> str:
    return _("specify one of your keys: ls ~/.ssh/*.pub")


def _choose_public_key() -> str:
    return _("specify the .pub file that ssh-keygen made")


def _public_part(data: bytes) -> PublicKey | None:
    """Return the public key in a private key in OpenSSH's format; None for other formats."""
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


def _has_passphrase(data: bytes) -> bool:
    """Return whether a private key needs a passphrase, by its cipher or its headers."""
    try:
        raw = base64.b64decode(re.sub(rb"\s", b"", data.split(b"-----")[2]), validate=True)
    except (IndexError, binascii.Error):
        raw = b""
    if raw.startswith(_PRIVATE_MAGIC):
        return not raw[len(_PRIVATE_MAGIC) :].startswith(b"\0\0\0\x04none")
    return b"ENCRYPTED" in data[:400]


def _key(blob: bytes, kind: str, comment: str = "") -> PublicKey:
    """Return the key in ``blob``. Raises ValueError unless it is exactly one of this kind."""
    fields = _fields(blob)
    if kind not in _FIELDS:
        raise ValueError(
            _("unsupported kind {kind!r}; expected {kinds}", kind=kind[:60], kinds=", ".join(KINDS))
        )
    good = fields[0] == kind.encode() and len(fields) == _FIELDS[kind] + 1
    if (
        not good
        or fields[1] != _CURVES.get(kind, fields[1])
        or ("ed25519" in kind and len(fields[1]) != 32)
    ):
        raise ValueError(_("damaged: not a key of the stated kind"))
    if kind == "ssh-rsa" and (bits := int.from_bytes(fields[2], "big").bit_length()) < MIN_RSA:
        raise ValueError(
            _("RSA key of {bits} bits; expected {minimum} or more", bits=bits, minimum=MIN_RSA)
        )
    return PublicKey(kind, blob, printable(comment)[:200])


def _fields(data: bytes, at_most: int = 16) -> list[bytes]:
    """Return SSH's strings, each with its length in four bytes before it.

    Raises ValueError unless they fill ``data``, or there are ``at_most`` of them.
    """
    fields: list[bytes] = []
    while data and len(fields) < at_most:
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length:
            raise ValueError(_("truncated"))
        fields.append(data[4 : 4 + length])
        data = data[4 + length :]
    if (data and at_most == 16) or not fields:
        raise ValueError(_("unexpected length"))
    return fields
