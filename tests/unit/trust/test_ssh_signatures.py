"""Sign and verify with SSH keys, and refuse everything that is no key or signature."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import RUN_ENV
from gapforge.base import process
from gapforge.base.errors import ToolError, TrustError, UsageError
from gapforge.trust import ssh_signatures
from gapforge.trust.ssh_signatures import (
    BUNDLE,
    LOCK,
    BadSignature,
    PublicKey,
    parse_public,
    parse_signature,
    signing_key,
)
from raised_errors import assert_error, values_of
from signers import (
    at_a_terminal,
    fingerprint,
    make_key,
    needs_ssh_keygen,
    pub,
    signature,
    ssh_agent,
)

pytestmark = needs_ssh_keygen
KINDS = ("ed25519", "ecdsa", "rsa")
DATA = "이름\r\n\x00".encode() + bytes(range(256))  # no text: no encoding may touch it


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for kind in KINDS:
        make_key(folder, kind, kind=kind)
    make_key(folder, "secret", passphrase="correct horse")
    return folder


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    with ssh_agent(tmp_path) as socket:
        yield socket


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key_signs(keys: Path, kind: str) -> None:
    key = signing_key(keys / kind)
    one, two = ssh_signatures.sign(key, LOCK, [DATA, b""])
    read = parse_signature(one)
    assert (
        read.key.fingerprint == fingerprint(keys / kind) == key.public.fingerprint
        and read.namespace == LOCK
    )
    assert ssh_signatures.made_by(read, DATA, LOCK) == read.key
    assert ssh_signatures.made_by(read, DATA, BUNDLE) is None  # another namespace
    assert ssh_signatures.made_by(read, DATA[:-1], LOCK) is None
    assert ssh_signatures.made_by(read, DATA.replace(b"\r\n", b"\n"), LOCK) is None
    assert ssh_signatures.made_by(parse_signature(two), b"", LOCK) is not None
    assert ssh_signatures.made_by(parse_signature(two), DATA, LOCK) is None


def test_ssh_keygen_signature_by_hand_is_equal(keys: Path, tmp_path: Path) -> None:
    made = parse_signature(signature(keys / "ed25519", BUNDLE, DATA, tmp_path))
    assert ssh_signatures.made_by(made, DATA, BUNDLE) is not None
    assert ssh_signatures.sign(signing_key(keys / "ed25519"), BUNDLE, [DATA]) == [made.data]


def test_passphrase_without_terminal_fails_at_once(keys: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from gapforge.trust import ssh_signatures as signing; "
        f"signing.sign(signing.signing_key(Path({str(keys / 'secret')!r})), 'x', [b'data'])"
    )
    for extra in ({}, {"DISPLAY": ":99", "SSH_ASKPASS": "/bin/false"}):
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**RUN_ENV, **extra},
            start_new_session=True,
            timeout=60,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "TrustError" in done.stderr and str(keys / "secret") in done.stderr
        assert time.monotonic() - begun < 30


def test_sign_asks_for_passphrase_once(keys: Path, tmp_path: Path) -> None:
    """A terminal of its own, as a person has one; stdout and stderr are elsewhere."""
    key = f"signing.signing_key(Path({str(keys / 'secret')!r}))"
    code = f"print(len(signing.sign({key}, 'x', [b'1', b'2', b'3'])))"
    said, status = run_at_a_terminal(code, tmp_path, ["correct horse"])
    assert said.count("passphrase") == 1 and said.split()[-1] == "3" and status == 0, said


HOLDING = """
import os
def words(process):
    try: return process.read_bytes().split(b"\\0")
    except OSError: return []  # it has ended meanwhile
with unlocked(signing.signing_key(Path({key!r}))) as key:
    commands = [words(p) for p in Path("/proc").glob("[0-9]*/cmdline")]
    print("socket", key.agent, "agents", sum(str(key.agent).encode() in c for c in commands))
    for space in ("x", "y", "z"): signing.sign(key, space, [b"data"])
    print("signed")
    {then}
print("gone", not key.agent.exists())
"""


def test_unlocked_key_asks_for_passphrase_once(keys: Path, tmp_path: Path) -> None:
    """Also after a mistyped one; the agent that holds the key meanwhile is gone afterwards."""
    code = HOLDING.format(key=str(keys / "secret"), then="")
    said, status = run_at_a_terminal(code, tmp_path, ["wrong", "correct horse"])
    assert (
        status == 0
        and said.count("passphrase") == 2
        and "agents 1" in said
        and "signed" in said
        and "gone True" in said
    ), said
    end = time.monotonic() + 8  # one that nobody ended would look for its parent after ten seconds
    while agents(said) and time.monotonic() < end:
        time.sleep(0.01)
    assert not agents(said)


def test_agent_socket_in_deep_temporary_folder(keys: Path, tmp_path: Path) -> None:
    """A unix socket's path ends at 107 bytes."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    code = HOLDING.format(key=str(keys / "secret"), then="")
    said, status = run_at_a_terminal(code, tmp_path, ["correct horse"], TMPDIR=str(deep))
    assert status == 0 and "agents 1" in said and "gone True" in said, said
    assert not list(deep.iterdir())


def test_public_key_uses_private_key_beside_it(keys: Path, tmp_path: Path) -> None:
    """No agent holds it, so ssh-keygen takes the private half, as if that had been named."""
    said, status = run_at_a_terminal(
        HOLDING.format(key=str(pub(keys / "secret")), then=""), tmp_path, ["correct horse"]
    )
    assert (
        status == 0 and said.count("passphrase") == 1 and "agents 1" in said and "signed" in said
    ), said
    done = subprocess.run(
        [sys.executable, "-c", SIGNING.format(key=str(pub(keys / "secret")))],
        env=RUN_ENV,
        start_new_session=True,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (
        f"ssh-add {keys / 'secret'}; then the same command with {pub(keys / 'secret')}\n"
        in done.stdout
    ), done
    # An unrelated or unreadable file of that name is not used.
    other = tmp_path / "other"
    other.with_suffix(".pub").write_bytes(pub(keys / "secret").read_bytes())
    for data in (b"no key", (keys / "ed25519").read_bytes()):
        other.write_bytes(data)
        other.chmod(0o600)
        assert signing_key(other.with_suffix(".pub")).file == other.with_suffix(".pub")
    other.write_bytes((keys / "secret").read_bytes())
    other.chmod(0o644)
    assert signing_key(other.with_suffix(".pub")).file == other.with_suffix(".pub")


SIGNING = """
from pathlib import Path
from gapforge.base.errors import GapforgeError
from gapforge.trust import ssh_signatures as signing
try: signing.sign(signing.signing_key(Path({key!r})), "x", [b"data"])
except GapforgeError as error: print(error.render())
"""


def test_missing_passphrase_raises_trust_error(keys: Path, tmp_path: Path) -> None:
    said, status = run_at_a_terminal(
        HOLDING.format(key=str(keys / "secret"), then=""), tmp_path, [""]
    )
    assert status != 0 and "TrustError: no passphrase for" in said and "signed" not in said, said


@pytest.mark.parametrize("how", ["interrupted", "late"])
@pytest.mark.parametrize("what", ["unlocked", "sign"])
def test_terminal_echo_is_restored_without_answer(
    keys: Path, tmp_path: Path, what: str, how: str
) -> None:
    work = {"unlocked": "unlocked(key).__enter__()", "sign": "signing.sign(key, 'x', [b'data'])"}[
        what
    ]
    code = MUTE.format(
        key=str(keys / "secret"),
        work=work,
        patience=4 if how == "late" else 600,
        kill=how != "late",
    )
    said, status = run_at_a_terminal(code, tmp_path, [])
    assert (
        "TrustError" in said and "within 4 s" in said
        if how == "late"
        else "KeyboardInterrupt" in said
    ), said
    assert "shown False True" in said and status == 0, said


MUTE = """
import os, signal, termios, threading, time
def shown(): return bool(termios.tcgetattr(0)[3] & termios.ECHO)
def watch():
    global muted
    while shown(): time.sleep(0.05)
    muted = False
    if {kill}: os.kill(os.getpid(), signal.SIGTERM)
def stop(*_): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
signing.SIGN_TIMEOUT, muted = {patience}, True
key = signing.signing_key(Path({key!r}))
threading.Thread(target=watch, daemon=True).start()
try: {work}
except BaseException as error: print(repr(error))
print("shown", muted, shown())
"""


def test_agent_ends_with_killed_run(keys: Path, tmp_path: Path) -> None:
    code = HOLDING.format(key=str(keys / "secret"), then="os.kill(os.getpid(), 9)")
    said, _ = run_at_a_terminal(code, tmp_path, ["correct horse"])
    assert "agents 1" in said and "signed" in said and "gone" not in said, said
    end = time.monotonic() + 90  # it looks every ten seconds
    while agents(said) and time.monotonic() < end:
        time.sleep(0.5)
    assert not agents(said)


def test_key_without_passphrase_starts_no_agent(keys: Path, tmp_path: Path, agent: str) -> None:
    """No passphrase; one that the user's agent knows already."""
    subprocess.run(
        [sys.executable, "-c", ADD, keys / "secret"],
        check=True,
        env={**RUN_ENV, "SSH_AUTH_SOCK": agent},
    )
    for name in ("ed25519", "secret"):
        path = str(keys / name)
        code = (
            f"with unlocked(signing.signing_key(Path({path!r}))) as key:\n"
            "    print(key.agent, len(signing.sign(key, 'x', [b'1'])))"
        )
        said, status = run_at_a_terminal(code, tmp_path, [], SSH_AUTH_SOCK=agent)
        assert status == 0 and said.strip() == "None 1", said
    # Without a terminal there is nobody to ask, and nothing waits.
    assert (
        signing_key(keys / "secret").has_passphrase
        and not signing_key(keys / "ed25519").has_passphrase
    )


ADD = """
import os, pty, sys
pid, fd = pty.fork()
if pid == 0: os.execvp("ssh-add", ["ssh-add", "-q", sys.argv[1]])
os.read(fd, 1000)
os.write(fd, b"correct horse\\n")
try:
    while os.read(fd, 1000): pass
except OSError: pass
sys.exit(os.waitpid(pid, 0)[1] != 0)
"""


def agents(said: str) -> list[Path]:
    """The agent that HOLDING told of, when it is still there."""
    words = said.split()
    socket = words[words.index("socket") + 1]
    return [p for p in Path("/proc").iterdir() if p.name.isdigit() and runs(p, socket)]


def runs(process: Path, socket: str) -> bool:
    try:
        return socket.encode() in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def run_at_a_terminal(code: str, folder: Path, answers: list[str], **env: str) -> tuple[str, int]:
    code = (
        "from pathlib import Path\nfrom gapforge.trust import ssh_signatures as signing\n"
        "from gapforge.trust.private_ssh_agent import unlocked\n" + code
    )
    return at_a_terminal([sys.executable, "-c", code], folder, answers, {**RUN_ENV, **env})


def test_key_in_agent_signs(
    keys: Path, tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone.pub"
    alone.write_bytes(pub(keys / "ecdsa").read_bytes())
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(TrustError) as caught:
        ssh_signatures.sign(signing_key(alone), LOCK, [DATA])
    assert "ssh-add -l" in caught.value.hint
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    subprocess.run(
        ["ssh-add", "-q", keys / "ecdsa"], check=True, env={**os.environ, "SSH_AUTH_SOCK": agent}
    )
    made = parse_signature(ssh_signatures.sign(signing_key(alone), LOCK, [DATA])[0])
    assert made.key.fingerprint == fingerprint(keys / "ecdsa") and ssh_signatures.made_by(
        made, DATA, LOCK
    )


def test_unusable_keys_are_refused(keys: Path, tmp_path: Path) -> None:
    cases: dict[str, bytes | None] = {
        "absent": None,
        "empty": b"",
        "junk": os.urandom(900),
        "-n": b"hello\n",
    }
    for name, data in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError) as caught:
            signing_key(tmp_path / name)
        assert caught.value.hint
    with pytest.raises(UsageError, match="not a file"):
        signing_key(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a file"):
        signing_key(tmp_path / "pipe")
    open_key = tmp_path / "open"
    open_key.write_bytes((keys / "ed25519").read_bytes())
    open_key.chmod(0o644)
    with pytest.raises(UsageError) as caught:
        signing_key(open_key)
    assert_error(caught.value, UsageError, file=open_key, mode="644")
    damaged = tmp_path / "damaged"
    text = (keys / "ed25519").read_text().splitlines()
    damaged.write_text("\n".join([*text[:-2], text[-1]]) + "\n")
    damaged.chmod(0o600)
    with pytest.raises(TrustError) as damage:
        ssh_signatures.sign(signing_key(damaged), LOCK, [DATA])
    assert_error(damage.value, TrustError, file=damaged)


def test_wrong_pub_file_beside_private_key(keys: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path, "k")
    pub(key).write_bytes(pub(keys / "ecdsa").read_bytes())
    # The private file contains its public key, so a wrong .pub is not used, or refused.
    try:
        made = ssh_signatures.sign(signing_key(key), LOCK, [DATA])
    except TrustError:
        return
    assert parse_signature(made[0]).key.blob == signing_key(key).public.blob


def test_missing_ssh_keygen_is_a_tool_error(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = parse_signature(ssh_signatures.sign(signing_key(keys / "ed25519"), LOCK, [DATA])[0])
    monkeypatch.setenv("PATH", "/nonexistent")
    for call in (
        lambda: ssh_signatures.sign(signing_key(keys / "ed25519"), LOCK, [DATA]),
        lambda: ssh_signatures.made_by(made, DATA, LOCK),
    ):
        with pytest.raises(ToolError, match="ssh-keygen is not installed") as caught:
            call()
        assert "apt-get install openssh-client" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_equals_that_of_ssh_keygen(keys: Path, kind: str) -> None:
    key = parse_public(pub(keys / kind).read_text().rstrip("\n"))
    assert key.fingerprint == fingerprint(keys / kind) and key.comment == f"{kind}@example"
    assert signing_key(keys / kind).public.blob == key.blob


def ssh_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def line(kind: str, *fields: bytes, first: str = "") -> str:
    blob = b"".join(map(ssh_string, [(first or kind).encode(), *fields]))
    return f"{kind} {base64.b64encode(blob).decode()}"


GOOD = line("ssh-ed25519", b"k" * 32)


def test_valid_public_keys_are_read() -> None:
    assert parse_public(GOOD).comment == "" and parse_public(GOOD + " a  b ").comment == "a  b"
    assert parse_public(line("sk-ssh-ed25519@openssh.com", b"k" * 32, b"ssh:")).needs_touch
    assert parse_public(
        line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", b"\4" + b"p" * 64, b"ssh:")
    ).needs_touch
    assert not parse_public(line("ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 256)).needs_touch


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ssh-ed25519",
        "ssh-ed25519 ",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 AAAA",
        GOOD[:-4],
        GOOD + "=",
        GOOD.replace("ssh-ed25519 ", "ssh-rsa "),
        'command="x" ' + GOOD,
        "a@b " + GOOD,
        GOOD + "\n" + GOOD,
        GOOD + "\rx",
        "# " + GOOD,
        line("ssh-ed25519", b"k" * 31),
        line("ssh-ed25519", b"k" * 32, b"more"),
        line("ssh-dss", *[b"1"] * 4),
        line("ssh-ed25519", b"k" * 32, first="ssh-rsa"),
        line("ssh-rsa", b"\1\0\1", b"\xff" * 128),
        line("ecdsa-sha2-nistp256", b"nistp384", b"\4" + b"p" * 64),
        line("ssh-ed25519-cert-v01@openssh.com", b"k" * 32),
        "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----",
        GOOD + " \x1b[31m",
        GOOD + "\0",
    ],
)
def test_invalid_public_keys_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".{9}"):
        parse_public(text)


def armour(raw: bytes) -> bytes:
    return (
        b"-----BEGIN SSH SIGNATURE-----\n"
        + base64.b64encode(raw)
        + b"\n-----END SSH SIGNATURE-----\n"
    )


def test_invalid_signature_files_are_refused(keys: Path, tmp_path: Path) -> None:
    good = ssh_signatures.sign(signing_key(keys / "ed25519"), LOCK, [DATA])[0]
    blob = parse_signature(good).key.blob
    rest = b"".join(map(ssh_string, [b"gapforge-lock", b"", b"sha512", b"sig"]))
    cases = [
        b"",
        b"x",
        good[:-10],
        good[1:],
        b"x" + good,
        good + b"x",
        good + good,
        b"\0" * 300,
        good.replace(b"U1NI", b"U1NJ"),
        armour(b""),
        armour(b"SSHSIG"),
        armour(b"SSHSIG\0\0\0\2" + ssh_string(blob) + rest),
        armour(b"SSHSIG\0\0\0\1" + ssh_string(blob)),
        armour(b"SSHSIG\0\0\0\1" + ssh_string(b"") + rest),
        armour(b"SSHSIG\0\0\0\1\xff\xff\xff\xff"),
        armour(b"SSHSIG\0\0\0\1" + ssh_string(blob) + rest + b"\0"),
        armour(b"SSHSIG\0\0\0\1" + ssh_string(blob) + ssh_string(b"a\nb") + rest),
        good.replace(b"SIGNATURE", b"MESSAGE"),
        b"-----BEGIN SSH SIGNATURE-----\n" + b"A" * (70 << 10) + b"\n-----END SSH SIGNATURE-----\n",
    ]
    for number, data in enumerate(cases):
        with pytest.raises(BadSignature):
            parse_signature(data)
        (tmp_path / str(number)).write_bytes(data)
        with pytest.raises(BadSignature):
            ssh_signatures.read_signature(tmp_path / str(number))
    assert parse_signature(armour(b"SSHSIG\0\0\0\1" + ssh_string(blob) + rest)).namespace == LOCK
    assert (
        parse_signature(good.replace(b"\n", b"\r\n")).key.blob == blob
    )  # what a mail program does


def test_unusable_signature_files_are_not_opened(keys: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(ssh_signatures.sign(signing_key(keys / "ed25519"), LOCK, [DATA])[0])
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    for name, why in (
        ("link", "symbolic link"),
        ("pipe", "regular file"),
        ("folder", "regular file|directory"),
        ("huge", "more than"),
        ("absent", "missing"),
    ):
        with pytest.raises(BadSignature, match=why):
            ssh_signatures.read_signature(tmp_path / name)


def test_fingerprint_depends_on_key_bytes() -> None:
    assert PublicKey("ssh-rsa", b"1").fingerprint != PublicKey("ssh-rsa", b"2").fingerprint


def test_unusable_key_names_file_and_remedy(keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "k.pub"
    kind, blob = pub(keys / "ed25519").read_text().split()[:2]
    file.write_text(f"{kind} {blob[:40]}\n")
    with pytest.raises(UsageError) as caught:
        signing_key(file)
    assert_error(caught.value, UsageError, file=file)
    lone = tmp_path / "lone"
    lone.write_bytes((keys / "rsa").read_bytes())
    lone.chmod(0o644)
    with pytest.raises(UsageError) as caught:
        signing_key(lone)
    assert_error(caught.value, UsageError, file=lone, mode="644")
    assert caught.value.hint == f"chmod 600 {lone}"
    with pytest.raises(UsageError) as caught:
        ssh_signatures.read_public(lone)
    assert_error(caught.value, UsageError, file=lone, name="lone.pub", hint={"file": lone})


def test_failed_signing_names_its_reason(
    keys: Path, tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_signatures, "at_terminal", lambda: False)
    secret = keys / "secret"
    with pytest.raises(TrustError) as caught:
        ssh_signatures.sign(signing_key(secret), LOCK, [DATA])
    assert_error(caught.value, TrustError, file=secret, hint={"file": secret})
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    alone = tmp_path / "alone.pub"
    alone.write_bytes(pub(keys / "ed25519").read_bytes())
    with pytest.raises(TrustError) as caught:
        ssh_signatures.sign(signing_key(alone), LOCK, [DATA])
    assert_error(caught.value, TrustError, file=alone)
    assert values_of(caught.value.message)["why"] and "ssh-add -l" in caught.value.hint


# -- without ssh-keygen


def blob(kind: str, *fields: bytes) -> bytes:
    return b"".join(map(ssh_string, (kind.encode(), *fields)))


RSA_2048 = b"\0" + b"\x80" + bytes(255)  # the smallest number of 2048 bits
ED25519 = PublicKey("ssh-ed25519", blob("ssh-ed25519", b"k" * 32), "a comment")


@pytest.mark.parametrize(
    ("kind", "fields", "good"),
    [
        ("ssh-ed25519", (b"k" * 32,), True),
        ("ssh-ed25519", (b"k" * 33,), False),
        ("ssh-rsa", (b"\1\0\1", RSA_2048), True),
        ("ssh-rsa", (b"\1\0\1", b"\x7f" + b"\xff" * 255), False),
        ("ssh-rsa", (b"\1\0\1",), False),
        ("ecdsa-sha2-nistp256", (b"nistp256", b"p"), True),
        ("ecdsa-sha2-nistp384", (b"nistp384", b"p"), True),
        ("ecdsa-sha2-nistp521", (b"nistp521", b"p"), True),
        ("ecdsa-sha2-nistp521", (b"nistp256", b"p"), False),
        ("sk-ssh-ed25519@openssh.com", (b"k" * 32, b"ssh:"), True),
        ("sk-ssh-ed25519@openssh.com", (b"k" * 31, b"ssh:"), False),
        ("sk-ecdsa-sha2-nistp256@openssh.com", (b"nistp256", b"p", b"ssh:"), True),
        ("sk-ecdsa-sha2-nistp256@openssh.com", (b"nistp256", b"p"), False),
        ("ssh-dss", (b"1",), False),
    ],
)
def test_key_has_the_fields_of_its_kind(kind: str, fields: tuple[bytes, ...], good: bool) -> None:
    text = f"{kind} {base64.b64encode(blob(kind, *fields)).decode()}"
    if not good:
        with pytest.raises(ValueError, match=r".{9}"):
            parse_public(text)
        return
    key = parse_public(f"\t{text}\tof  me ")
    assert key == PublicKey(kind, blob(kind, *fields), "of  me")
    assert key.text == text and key.needs_touch is kind.startswith("sk-")


def test_small_rsa_key_says_its_size() -> None:
    with pytest.raises(ValueError, match="RSA") as caught:
        parse_public(line("ssh-rsa", b"\1\0\1", b"\x7f" + b"\xff" * 255))
    assert values_of(caught.value.args[0]) == {"bits": 2047, "minimum": 2048}
    long = parse_public(GOOD + " " + "c" * 300).comment
    assert long == "c" * 200


def test_strings_of_ssh_fill_the_data() -> None:
    fields = ssh_signatures._fields
    sixteen = [bytes([n]) for n in range(16)]
    data = b"".join(map(ssh_string, sixteen))
    assert fields(data) == sixteen
    with pytest.raises(ValueError, match="length"):
        fields(data + ssh_string(b"17"))
    assert fields(data, at_most=3) == sixteen[:3]
    assert fields(ssh_string(b"")) == [b""]
    for bad in (b"", data[:-1], data + b"\0"):
        with pytest.raises(ValueError, match=r"length|truncated"):
            fields(bad)
    with pytest.raises(ValueError, match="length"):
        fields(b"", at_most=1)


def test_signature_of_exactly_the_limit_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = b"".join(map(ssh_string, [b"gapforge-lock", b"", b"sha512", b"sig"]))
    good = armour(b"SSHSIG\0\0\0\1" + ssh_string(ED25519.blob) + rest)
    (tmp_path / "x").write_bytes(good)
    monkeypatch.setattr(ssh_signatures, "MAX_SIGNATURE", len(good))
    read = ssh_signatures.read_signature(tmp_path / "x")
    assert (read.data, read.namespace, read.key.blob) == (good, LOCK, ED25519.blob)
    monkeypatch.setattr(ssh_signatures, "MAX_SIGNATURE", len(good) - 1)
    for parse in (parse_signature, lambda _: ssh_signatures.read_signature(tmp_path / "x")):
        with pytest.raises(BadSignature) as caught:
            parse(good)
        assert values_of(caught.value.args[0])
    with pytest.raises(BadSignature) as caught:
        parse_signature(b"x" * len(good))
    assert values_of(caught.value.args[0]) == {"count": len(good) - 1}


def private(*, cipher: bytes = b"none", key: PublicKey = ED25519) -> bytes:
    """Return the begin of a private key in OpenSSH's format."""
    head = b"".join(map(ssh_string, (cipher, b"none", b"")))
    raw = b"openssh-key-v1\0" + head + (1).to_bytes(4, "big") + ssh_string(key.blob) + b"secret"
    text = base64.encodebytes(raw)
    return b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + text + b"-----END OPENSSH PRIVATE KEY-----\n"


def pem(kind: str, *lines: str) -> bytes:
    body = "\n".join((*lines, "AAAA"))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()


@pytest.mark.parametrize(
    ("data", "passphrase", "has_public"),
    [
        (private(), False, True),
        (private(cipher=b"aes256-ctr"), True, True),
        (pem("RSA PRIVATE KEY"), False, False),
        (pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED", ""), True, False),
        (pem("PRIVATE KEY"), False, False),
        (pem("ENCRYPTED PRIVATE KEY"), True, False),
        (private()[:60] + b"-----END", True, False),
    ],
)
def test_passphrase_is_known_from_the_file(
    tmp_path: Path, data: bytes, passphrase: bool, has_public: bool
) -> None:
    file = tmp_path / "k"
    file.write_bytes(data)
    file.chmod(0o600)
    assert ssh_signatures._has_passphrase(data) is passphrase
    public = ssh_signatures._public_part(data)
    assert (public is not None and public.blob == ED25519.blob) is has_public
    pub(file).write_text(ED25519.text + " beside\n")
    key = signing_key(file)
    assert (key.file, key.has_passphrase, key.agent) == (file, passphrase, None)
    assert key.public.blob == ED25519.blob and key.public.comment == "beside" * (not has_public)


@pytest.mark.parametrize(
    ("mode", "owner", "refused"),
    [
        (0o600, 0, False),
        (0o400, 0, False),
        (0o640, 0, True),
        (0o604, 0, True),
        (0o610, 0, True),
        (0o644, 1, False),  # ssh-keygen looks only at the user's own files
    ],
)
def test_private_key_of_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, refused: bool
) -> None:
    file = tmp_path / "k"
    file.write_bytes(private())
    file.chmod(mode)
    user = os.stat(file).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: user + owner)
    if refused:
        with pytest.raises(UsageError) as caught:
            signing_key(file)
        assert_error(caught.value, UsageError, file=file, mode=f"{mode:o}")
    else:
        assert signing_key(file).public.blob == ED25519.blob


def test_public_key_file_contains_one_key(tmp_path: Path) -> None:
    file = tmp_path / "k.pub"
    text = ED25519.text
    file.write_text(f"# mine\n\n \t \n{text} me\r\n")
    assert ssh_signatures.read_public(file) == PublicKey(ED25519.kind, ED25519.blob, "me")
    for content, count in ((f"{text}\n{text}\n", 2), ("# nothing\n", 0), ("", 0)):
        file.write_text(content)
        with pytest.raises(UsageError) as caught:
            ssh_signatures.read_public(file)
        assert_error(caught.value, UsageError, file=file, count=count)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError) as caught:
        ssh_signatures.read_public(file)
    assert_error(caught.value, UsageError, file=file)
    file.write_text("x y\n")
    with pytest.raises(UsageError) as caught:
        ssh_signatures.read_public(file)
    assert set(values_of(caught.value.message)) == {"file", "problem"}


def answering(
    monkeypatch: pytest.MonkeyPatch, code: int, output: str = "", errors: str = ""
) -> list[tuple[tuple[str, ...], dict[str, object]]]:
    """Replace ssh-keygen; return the list of its calls."""
    calls: list[tuple[tuple[str, ...], dict[str, object]]] = []

    def run(argv: list[str], **named: object) -> process.Result:
        calls.append((tuple(argv), named))
        return process.Result(tuple(argv), code, output, errors)

    monkeypatch.setattr(process, "run", run)
    return calls


SIGNATURE = ssh_signatures.Signature(b"data", ED25519, LOCK)


def test_verifier_is_called_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, 0)
    assert ssh_signatures.made_by(SIGNATURE, DATA, BUNDLE) is None and calls == []
    assert ssh_signatures.made_by(SIGNATURE, DATA, LOCK) == ED25519
    allowed = Path("allowed")
    assert ssh_signatures.verify_error(SIGNATURE, DATA, LOCK, allowed, "me") == ""
    (one, named), (two, again) = calls
    assert one[:6] == ("ssh-keygen", "-Y", "check-novalidate", "-n", LOCK, "-s")
    assert two[:3] == ("ssh-keygen", "-Y", "verify")
    assert two[3:10] == ("-f", "allowed", "-I", "me", "-n", LOCK, "-s")
    assert named == again
    assert named == {
        "env": {"LC_ALL": "C"},
        "stdin": DATA,
        "check": False,
        "timeout": 60.0,
        "detached": True,
    }
    answering(monkeypatch, 1)
    assert ssh_signatures.made_by(SIGNATURE, DATA, LOCK) is None


@pytest.mark.parametrize(
    ("output", "errors", "reason"),
    [
        ("out\n", " first\nsecond\n", "first"),
        ("out\nmore\n", "\n", "out"),
        ("", "x" * 300, "x" * 200),
    ],
)
def test_reason_of_the_verifier_is_its_first_line(
    monkeypatch: pytest.MonkeyPatch, output: str, errors: str, reason: str
) -> None:
    answering(monkeypatch, 255, output, errors)
    assert ssh_signatures.verify_error(SIGNATURE, DATA, LOCK, Path("a"), "me") == reason
    answering(monkeypatch, 255)
    assert ssh_signatures.verify_error(SIGNATURE, DATA, LOCK, Path("a"), "me")


@pytest.mark.parametrize(
    ("output", "errors", "terminal", "values", "hint"),
    [
        ("", "Enter passphrase: incorrect passphrase supplied", True, {}, ""),
        ("", "Enter passphrase: incorrect passphrase supplied", False, {}, "ssh-add /k; "),
        ("", "first\nEnter passphrase: broken\n", True, {"why": "broken"}, "ssh-keygen -l -f /k"),
        ("only out", "", True, {"why": "only out"}, "ssh-keygen -l -f /k"),
        ("", "No private key found", True, {"why": "No private key found"}, "ssh-add -l"),
        ("", "y" * 400, True, {"why": "y" * 300}, ""),
        ("", "", True, {"why": "exit code 7"}, ""),
    ],
)
def test_failed_signing_says_why(
    output: str, errors: str, terminal: bool, values: dict[str, str], hint: str
) -> None:
    key = ssh_signatures.SigningKey(Path("/k"), ED25519)
    done = process.Result(("ssh-keygen",), 7, output, errors)
    error = ssh_signatures._cannot_sign(key, done, terminal)
    assert {name: str(value) for name, value in values_of(error.message).items()} == {
        "file": "/k",
        **values,
    }
    assert hint in error.hint


def test_sign_calls_ssh_keygen_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = ssh_signatures.SigningKey(tmp_path / "k", ED25519)
    calls = answering(monkeypatch, 0)
    assert ssh_signatures.sign(key, LOCK, []) == [] and calls == []
    monkeypatch.setattr(ssh_signatures, "at_terminal", lambda: True)
    rest = b"".join(map(ssh_string, [b"gapforge-lock", b"", b"sha512", b"sig"]))
    other = PublicKey("ssh-ed25519", blob("ssh-ed25519", b"x" * 32))
    for signer in (ED25519, other):
        made = armour(b"SSHSIG\0\0\0\1" + ssh_string(signer.blob) + rest)

        def run(argv: list[str], made: bytes = made, **named: object) -> process.Result:
            calls.append((tuple(argv), named))
            for name in argv[8:]:
                Path(f"{name}.sig").write_bytes(made)
            return process.Result(tuple(argv), 0, "", "")

        monkeypatch.setattr(process, "run", run)
        if signer is other:
            with pytest.raises(TrustError) as caught:
                ssh_signatures.sign(key, LOCK, [b"1", b"2"])
            assert_error(caught.value, TrustError, file=key.file, hint={"file": key.file})
        else:
            assert ssh_signatures.sign(key, LOCK, [b"1", b"2"]) == [made, made]
    (argv, named), *_more = calls
    assert argv[:8] == ("ssh-keygen", "-Y", "sign", "-q", "-f", str(key.file), "-n", LOCK)
    assert [Path(name).name for name in argv[8:]] == ["0", "1"]
    assert (named["check"], named["timeout"], named["detached"]) == (False, 600.0, False)


@pytest.mark.parametrize(
    ("foreground", "asks"), [(300_000, True), (300_001, False), (-1, False), (None, False)]
)
def test_only_the_foreground_asks_at_the_terminal(
    monkeypatch: pytest.MonkeyPatch, foreground: int | None, asks: bool
) -> None:
    opened, closed = [], []
    real = os.open

    def opens(path: str, flags: int) -> int:
        assert path == "/dev/tty"
        if foreground is None:
            raise OSError("no terminal")
        opened.append(real(os.devnull, flags))
        return opened[-1]

    def group(handle: int) -> int:
        if foreground == -1:
            raise OSError("closed")
        return int(str(foreground))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opens)
        patch.setattr(os, "tcgetpgrp", group)
        patch.setattr(os, "getpgrp", lambda: int("300000"))
        close = os.close
        patch.setattr(os, "close", lambda handle: (closed.append(handle), close(handle)))
        assert ssh_signatures.at_terminal() is asks
    assert closed == opened


def test_openssh_never_asks_in_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_ASKPASS_REQUIRE", raising=False)
    key = ssh_signatures.SigningKey(Path("/k"), ED25519)
    never = {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
    assert ssh_signatures.openssh_environment(key) == never
    agent = ssh_signatures.SigningKey(Path("/k"), ED25519, agent=Path("/a"))
    assert ssh_signatures.openssh_environment(agent) == {**never, "SSH_AUTH_SOCK": "/a"}
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    assert ssh_signatures.openssh_environment(key)["SSH_ASKPASS_REQUIRE"] == "force"
