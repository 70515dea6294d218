"""Only bundles and locks of trusted signers are imported and built, and none that is older."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundles import PRESET, RUN_ENV, carried, hashes, sender, site_at
from fabricated_artifacts import fabricate
from gapforge.base import sudo_caller
from gapforge.base.errors import BusyError, TrustError
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.bundle import pack as packing
from gapforge.bundle.bundle_index import read_index, render_index
from gapforge.bundle.volume_format import HEAD, trailer_bytes, volume_index
from gapforge.bundle.volume_reader import read_volume
from gapforge.engine import detect
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.store import sha256sums
from gapforge.store.store import Store
from gapforge.store.verify_artifacts import verify
from gapforge.trust import ssh_signatures, trusted_signers
from raised_errors import assert_error, values_of
from samples import ROOT
from signers import (
    SIGNED_AT,
    Machine,
    at_a_terminal,
    fingerprint,
    make_key,
    needs_ssh_keygen,
    pub,
    signature,
    ssh_agent,
)

pytestmark = needs_ssh_keygen
SIZE = "66000"
DAY = 86400
THEN = 1_750_000_000  # 2025-06-15


def at(days: int) -> dict[str, str]:
    return {SIGNED_AT: str(THEN + days * DAY)}


class Air:
    """Sender, site and attacker, each with a key; the site trusts the sender."""

    def __init__(self, folder: Path, *, trusting: bool = True, kind: str = "ed25519") -> None:
        self.folder, self.made = folder, sender(folder)
        self.sender = Machine(self.made.project, folder / "home-sender")
        self.site = Machine(site_at(folder / "site"), folder / "home-site")
        self.key = make_key(folder / "keys", "sender", kind=kind)
        self.foreign = make_key(folder / "keys", "mallory")
        if trusting:
            self.site.ok("trust", "add", pub(self.key))

    def stick(self, name: str) -> Path:
        return self.folder / name

    def pack(
        self, name: str, *words: object, days: int = 0, key: Path | None = None, signed: bool = True
    ) -> str:
        sign = ("--sign", key or self.key) if signed else ()
        return self.sender.ok(
            "pack",
            PRESET,
            "--volume-size",
            SIZE,
            "--to",
            self.stick(name),
            *sign,
            *words,
            env=at(days),
        )

    def nothing_came(self) -> None:
        assert not self.site.project.store.exists() or hashes(self.site.project) == set()
        assert not self.site.project.artifacts_of(PRESET).exists()


@pytest.fixture
def air(tmp_path: Path) -> Air:
    return Air(tmp_path)


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gfv"))


def the(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def index_of(folder: Path) -> Path:
    (found,) = (p for p in folder.glob("*.json") if re.fullmatch(r"[0-9a-f]{24}", p.stem))
    return found


def forge(folder: Path, change: Callable[[bytes], bytes]) -> None:
    """Change an object, and correct every checksum in volumes and index."""
    index = read_index(index_of(folder))
    sealed = list(index.volumes)
    for number, file in enumerate(volumes(folder)):
        volume, pieces = read_volume(file)
        data = bytearray(file.read_bytes())
        parts = []
        for piece in pieces:
            old = bytes(data[piece.position : piece.position + piece.part.length])
            parts.append(old if piece.part.whole else change(old))
        if parts == [bytes(data[p.position : p.position + p.part.length]) for p in pieces]:
            continue
        body = HEAD + b"".join(parts)
        own = volume_index(
            volume.identity, [p.part for p in pieces], [sha256_bytes(part) for part in parts]
        )
        file.write_bytes(body + own + trailer_bytes(own, len(body)))
        sealed[number] = type(sealed[number])(number + 1, sealed[number].size, sha256_bytes(own))
    assert sealed != list(index.volumes)
    index_of(folder).write_bytes(render_index(index.plan, sealed, index.made))


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


# -- the whole way


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_bundle_of_trusted_signer_is_imported(tmp_path: Path, kind: str) -> None:
    air = Air(tmp_path, kind=kind)
    told = air.pack("stick")
    assert fingerprint(air.key) in told and "2025-06-15T15:06:40Z" in told
    bundle = index_of(air.stick("stick")).stem
    assert {p.name for p in air.stick("stick").iterdir()} >= {
        f"{bundle}.json",
        f"{bundle}.json.sig",
        f"{bundle}.{PRESET}.lock.sig",
        "gapforge-receive.pyz",
    }
    air.sender.ok("pack", PRESET, "--to", air.stick("apart"), "--sign", air.key, apart=True)
    done = air.site.json("unpack", air.stick("stick"))
    assert done["signed"] == [
        {
            "bundle": bundle,
            "made": "2025-06-15T15:06:40Z",
            "signer": "sender@example",
            "fingerprint": fingerprint(air.key),
        }
    ]
    assert "signed by sender@example" in air.site.ok("verify", PRESET)
    assert air.site.json("verify", PRESET)["presets"][0]["signer"] == "sender@example"
    # By hand, with OpenSSH alone.
    folder = air.site.project.artifacts_of(PRESET)
    for data, namespace in (
        (folder / "lock.json", "gapforge-lock"),
        (index_of(air.stick("stick")), "gapforge-bundle"),
    ):
        beside = data.with_name(data.name + ".sig")
        done = subprocess.run(
            [
                "ssh-keygen",
                "-Y",
                "verify",
                "-f",
                air.site.trusted,
                "-I",
                "sender@example",
                "-n",
                namespace,
                "-s",
                beside,
            ],
            input=data.read_bytes(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "lock.json.sig" not in (folder / "SHA256SUMS").read_text()
    assert (made := made_artifacts(air) / "lock.json.sig").is_file() and made.read_bytes() == (
        folder / "lock.json.sig"
    ).read_bytes()


def made_artifacts(air: Air) -> Path:
    return air.made.project.artifacts_of(PRESET)


def test_signature_files_disturb_no_other_verb(air: Air) -> None:
    air.pack("stick")
    done = air.site.json("unpack", air.stick("stick"))
    assert done["strangers"] == {}
    assert json.loads(air.site.ok("list", "--json"))["presets"][0]["state"] == "ready"
    inventory = air.folder / "inventory.txt"
    air.site.ok("inventory", "--output", inventory)
    text = inventory.read_text()
    sig = sha256_bytes((air.site.project.artifacts_of(PRESET) / "lock.json.sig").read_bytes())
    assert sig not in text and all(sha256 in text for sha256 in hashes(air.site.project))
    assert air.site.json("gc", "--yes")["left_alone"] == []
    assert air.site.record.is_file() and list((air.site.project.store / "signed").iterdir())
    assert air.site.json("unpack", air.stick("stick"))["imported"] == 0
    # --for leaves out what is there, the lock too; what comes is signed all the same.
    air.made.change({"sources/new.tar": b"new" * 1000})
    air.pack("second", "--for", inventory, days=1)
    air.site.ok("unpack", air.stick("second"))
    air.site.ok("verify", PRESET)


def test_killed_pack_continues_with_same_bytes(tmp_path: Path) -> None:
    air = Air(tmp_path, kind="ecdsa")  # whose signatures are never twice the same
    air.made.change({f"sources/{n}.tar": os.urandom(2_000_000) for n in range(6)})
    command = [
        sys.executable,
        "-m",
        "gapforge",
        "pack",
        PRESET,
        "--volume-size",
        "3M",
        "--sign",
        str(air.key),
        "--to",
    ]
    (tmp_path / "temporary").mkdir()
    env = {
        **RUN_ENV,
        "HOME": str(air.sender.home),
        "GAPFORGE_ROOT": str(air.made.project.root),
        "TMPDIR": str(tmp_path / "temporary"),
    }
    seen: dict[str, set[bytes]] = {}
    for wait in (0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.2):
        child = subprocess.Popen(
            [*command, tmp_path / "stick"],
            env=env,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        for path in (tmp_path / "stick").glob("*"):
            if path.name[0] != "." and ".custody.txt" not in path.name and path.is_file():
                seen.setdefault(path.name, set()).add(path.read_bytes())
    subprocess.run([*command, tmp_path / "stick"], env=env, check=True, capture_output=True)
    final = {name: (tmp_path / "stick" / name).read_bytes() for name in carried(tmp_path / "stick")}
    assert all(versions == {final[name]} for name, versions in seen.items())
    subprocess.run([*command, tmp_path / "stick"], env=env, check=True, capture_output=True)
    subprocess.run([*command, tmp_path / "other"], env=env, check=True, capture_output=True)
    shutil.rmtree(air.made.project.state)  # the stick itself tells then
    subprocess.run([*command, tmp_path / "stick"], env=env, check=True, capture_output=True)
    assert carried(tmp_path / "stick") == carried(tmp_path / "other")
    assert {name: (tmp_path / "stick" / name).read_bytes() for name in final} == final
    air.site.ok("unpack", tmp_path / "stick")


def test_interrupted_pack_continues_with_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two of the files beside the volumes: what was given out once is what stays."""
    air = Air(tmp_path, kind="ecdsa")
    put = packing.write_companion
    monkeypatch.setenv("HOME", str(air.sender.home))
    for cut in range(1, 10):
        calls = iter(range(1, 100))

        def cutting(
            target: Path, data: bytes, cut: int = cut, calls: Iterator[int] = calls
        ) -> None:
            if next(calls) == cut:
                raise KeyboardInterrupt
            put(target, data)

        shutil.rmtree(air.made.project.state, ignore_errors=True)
        (made_artifacts(air) / "lock.json.sig").unlink(missing_ok=True)
        monkeypatch.setattr(packing, "write_companion", cutting)
        done = air.sender.run(
            "pack", PRESET, "--to", air.stick(f"cut{cut}"), "--sign", air.key, env=at(cut)
        )
        monkeypatch.setattr(packing, "write_companion", put)
        assert done.returncode == (130 if next(calls) == cut + 1 else 0)
        given = carried(air.stick(f"cut{cut}"))
        air.sender.ok(
            "pack", PRESET, "--to", air.stick(f"cut{cut}"), "--sign", air.key, env=at(cut + 50)
        )
        final = carried(air.stick(f"cut{cut}"))
        assert given.items() <= final.items() and len(final) == 5
        air.sender.ok(
            "pack", PRESET, "--to", air.stick(f"again{cut}"), "--sign", air.key, env=at(cut + 99)
        )
        assert carried(air.stick(f"again{cut}")) == final
    assert done.returncode == 0, "every file was cut at once"


def test_signed_pack_asks_for_passphrase_once(air: Air) -> None:
    """The lock, the index and the page are signed one after another, with one passphrase."""
    secret = make_key(air.folder / "keys", "secret", passphrase="correct horse")
    words = ["pack", PRESET, "--volume-size", SIZE, "--to", air.stick("stick"), "--sign", secret]
    env = {
        **RUN_ENV,
        **at(0),
        "HOME": str(air.sender.home),
        "GAPFORGE_ROOT": str(air.sender.project.root),
    }
    said, code = at_a_terminal(
        [sys.executable, "-m", "gapforge", *map(str, words)], air.folder, ["correct horse"], env
    )
    assert code == 0 and said.count("passphrase") == 1, said
    assert said.index("passphrase") < said.index("objects in"), said
    air.site.ok("trust", "add", pub(secret))
    assert fingerprint(secret) in air.site.ok("unpack", air.stick("stick"))
    page = the(air.stick("stick"), "*.custody.txt")
    made = ssh_signatures.read_signature(page.with_name(page.name + ".sig"))
    assert ssh_signatures.made_by(made, page.read_bytes(), ssh_signatures.CUSTODY) is not None
    assert made.key.fingerprint == fingerprint(secret)


def test_unusable_key_stops_before_first_volume(air: Air) -> None:
    secret = make_key(air.folder / "keys", "secret", passphrase="correct horse")
    for key, code in (
        (secret, 22),
        (air.folder / "absent", 2),
        (made_artifacts(air) / "lock.json", 2),
        (pub(secret), 22),
    ):
        to = air.stick(f"stick-{code}-{key.name}")
        if key == pub(secret):  # no agent holds it
            key = shutil.copy(key, air.folder / "alone.pub")
        air.sender.refused(
            "pack", PRESET, "--volume-size", SIZE, "--to", to, "--sign", key, code=code, apart=True
        )
        assert not to.exists() or list(to.iterdir()) == []
    tools = air.folder / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    said = air.sender.refused(
        "pack", PRESET, "--to", air.stick("x"), "--sign", air.key, code=17, env={"PATH": str(tools)}
    )
    assert "apt-get install openssh-client" in said
    air.pack("stick")
    said = air.site.refused("unpack", air.stick("stick"), code=17, env={"PATH": str(tools)})
    assert "apt-get install openssh-client" in said
    air.nothing_came()
    # The variable does the same, and the flag beats it.
    env = {**at(0), "GAPFORGE_SIGN_KEY": str(air.foreign)}
    assert fingerprint(air.foreign) in air.sender.ok(
        "pack", PRESET, "--to", air.stick("y"), env=env
    )
    assert fingerprint(air.key) in air.sender.ok(
        "pack", PRESET, "--to", air.stick("z"), "--sign", air.key, env=env
    )


def test_key_in_agent_signs(air: Air) -> None:
    alone = air.folder / "alone.pub"
    shutil.copy(pub(air.key), alone)
    with ssh_agent(air.folder) as socket:
        env = {**at(0), "SSH_AUTH_SOCK": socket}
        subprocess.run(["ssh-add", "-q", air.key], check=True, env={**os.environ, **env})
        air.sender.ok(
            "pack", PRESET, "--to", air.stick("stick"), "--sign", alone, env=env, apart=True
        )
    air.site.ok("unpack", air.stick("stick"))
    air.site.ok("verify", PRESET)


def test_unsigned_pack_removes_stale_signature(air: Air) -> None:
    air.pack("stick")
    before = carried(air.stick("stick"))
    assert fingerprint(air.key) in air.pack(
        "stick", signed=False
    )  # the very same bundle: what was said is still true
    assert carried(air.stick("stick")) == before
    sig = the(air.stick("stick"), "*.json.sig")
    for place in (sig, air.made.project.state / "bundles" / sig.name):
        place.write_bytes(place.read_bytes().replace(b"A", b"B", 3))
    air.pack("stick", signed=False)
    assert (
        not list(air.stick("stick").glob("*.sig"))
        and read_index(index_of(air.stick("stick"))).made == ""
    )
    air.site.refused("unpack", air.stick("stick"))
    air.pack("stick", days=2, key=air.foreign)
    assert fingerprint(air.foreign) in air.site.refused("unpack", air.stick("stick"))
    air.pack("stick", days=3)
    air.site.ok("unpack", air.stick("stick"))


# -- what is refused


def unsigned(air: Air, stick: Path) -> None:
    for file in stick.glob("*.sig"):
        file.unlink()


def no_index(air: Air, stick: Path) -> None:
    index_of(stick).unlink()


def signed_by_another(air: Air, stick: Path) -> None:
    index = index_of(stick)
    the(stick, "*.json.sig").write_bytes(
        signature(air.foreign, "gapforge-bundle", index.read_bytes(), air.folder)
    )


def in_another_namespace(air: Air, stick: Path) -> None:
    index = index_of(stick)
    the(stick, "*.json.sig").write_bytes(
        signature(air.key, "gapforge-lock", index.read_bytes(), air.folder)
    )


def signed_something_else(air: Air, stick: Path) -> None:
    the(stick, "*.json.sig").write_bytes(
        signature(air.key, "gapforge-bundle", b"hello", air.folder)
    )


def index_altered(air: Air, stick: Path) -> None:
    index = read_index(index_of(stick))
    index_of(stick).write_bytes(render_index(index.plan, index.volumes, "2099-01-01T00:00:00Z"))


def without_moment(air: Air, stick: Path) -> None:
    index = read_index(index_of(stick))
    data = render_index(index.plan, index.volumes)
    index_of(stick).write_bytes(data)
    the(stick, "*.json.sig").write_bytes(signature(air.key, "gapforge-bundle", data, air.folder))


def volume_altered(air: Air, stick: Path) -> None:
    index = index_of(stick).read_bytes()
    forge(stick, flip)
    index_of(stick).write_bytes(index)


def volume_and_index_altered(air: Air, stick: Path) -> None:
    forge(stick, flip)


def all_altered_and_signed_by_another(air: Air, stick: Path) -> None:
    forge(stick, flip)
    signed_by_another(air, stick)


def huge_signature(air: Air, stick: Path) -> None:
    with open(the(stick, "*.json.sig"), "r+b") as file:
        file.truncate(1 << 36)


def signature_is_a_link(air: Air, stick: Path) -> None:
    sig = the(stick, "*.json.sig")
    sig.rename(air.folder / "kept.sig")
    sig.symlink_to(air.folder / "kept.sig")


def signature_is_a_pipe(air: Air, stick: Path) -> None:
    sig = the(stick, "*.json.sig")
    sig.unlink()
    os.mkfifo(sig)


def signature_of_another_bundle(air: Air, stick: Path) -> None:
    air.sender.ok(
        "pack",
        PRESET,
        "--volume-size",
        "70000",
        "--to",
        air.stick("other"),
        "--sign",
        air.key,
        env=at(0),
    )
    shutil.copy(the(air.stick("other"), "*.json.sig"), the(stick, "*.json.sig"))


REFUSED = {
    unsigned: "missing",
    no_index: "unsigned: ",
    signed_by_another: "not a trusted signer",
    in_another_namespace: "\\(gapforge-lock\\)",
    signed_something_else: "changed after sender@example signed it",
    index_altered: "changed after sender@example signed it",
    without_moment: "does not say when it was signed",
    volume_altered: "altered: the index of the bundle lists volume",
    volume_and_index_altered: "changed after",
    all_altered_and_signed_by_another: "not a trusted signer",
    huge_signature: "more than 65536 bytes",
    signature_is_a_link: "symbolic link",
    signature_is_a_pipe: "not a regular file",
    signature_of_another_bundle: "changed after",
}


def test_every_forgery_is_refused_before_import(air: Air) -> None:
    air.pack("good")
    for fraud, why in REFUSED.items():
        shutil.rmtree(air.stick("bad"), ignore_errors=True)
        shutil.copytree(air.stick("good"), air.stick("bad"))
        fraud(air, air.stick("bad"))
        said = air.site.refused("unpack", air.stick("bad"))
        assert re.search(why, said), f"{fraud.__name__}: {said}"
        assert "nothing was imported" in said, fraud.__name__
        air.nothing_came()
    told = json.loads(air.site.run("unpack", air.stick("bad"), "--json").stdout)
    assert told["error"] == "trust" and told["exit_code"] == 22 and told["faults"] and told["next"]
    air.site.ok("unpack", air.stick("good"))


def test_unpack_names_all_changed_volumes(air: Air) -> None:
    air.pack("good")
    stick = air.stick("good")
    index = index_of(stick).read_bytes()
    forge(stick, flip)
    index_of(stick).write_bytes(index)
    said = air.site.refused("unpack", stick)
    assert said.count("altered: the index of the bundle lists volume") > 1


def test_signed_repair_request_repairs_damage(air: Air) -> None:
    air.pack("stick")
    files = volumes(air.stick("stick"))
    for file, where in ((files[0], 300), (files[1], -70)):  # payload; index
        data = bytearray(file.read_bytes())
        data[where] ^= 1
        file.write_bytes(data)
    done = air.site.json("unpack", air.stick("stick"), code=21)
    request = Path(done["request"])
    repair = ("pack", "--repair", request, "--volume-size", SIZE, "--to")
    air.sender.ok(*repair, air.stick("unsigned"))
    assert "unsigned" in air.site.refused("unpack", air.stick("unsigned"))
    air.sender.ok(*repair, air.stick("repair"), "--sign", air.key, env=at(40))
    assert (
        read_index(index_of(air.stick("repair"))).made == "2025-06-15T15:06:40Z"
    )  # that of the mended bundle
    air.site.ok("unpack", air.stick("repair"))
    air.site.ok("verify", PRESET)
    # Late volumes of the accepted bundle are imported, even with a damaged index beside them.
    air.site.json("unpack", air.stick("stick"))
    for name in ("*.json.sig", "*.lock.sig"):
        the(air.stick("repair"), name).unlink()
    index_of(air.stick("repair")).write_bytes(b"{")
    air.site.ok("unpack", air.stick("repair"))


def test_repair_of_unknown_bundle_is_not_signed_anew(air: Air) -> None:
    air.pack("stick")
    volumes(air.stick("stick"))[0].unlink()
    request = air.site.json("unpack", air.stick("stick"), code=21)["request"]
    repair = ("pack", "--repair", request, "--volume-size", SIZE, "--sign", air.key, "--to")
    shutil.rmtree(air.made.project.state)
    shutil.rmtree(air.stick("stick"))
    air.sender.ok(
        *repair, air.stick("current"), env=at(5)
    )  # the presets are as they were: nothing old gets new
    assert read_index(index_of(air.stick("current"))).made == "2025-06-20T15:06:40Z"
    shutil.rmtree(air.made.project.state)
    # A sender's store keeps the lock and its SHA256SUMS until gc.
    store = Store(air.made.project.store)
    files = {entry.path: entry.sha256 for entry in air.made.lock().entries}
    files["lock.json"] = store.add_bytes((made_artifacts(air) / "lock.json").read_bytes())
    store.add_bytes(sha256sums.render(files))
    air.made.change({"sources/new.tar": b"new"})
    said = air.sender.refused(*repair, air.stick("old"), code=21)
    assert "would make an old bundle look new" in said and not volumes(air.stick("old"))


def test_volume_without_index_after_accepted_bundle(air: Air) -> None:
    air.pack("stick")
    later = air.stick("later")
    later.mkdir()
    volumes(air.stick("stick"))[-1].rename(later / "renamed.gfv")
    air.site.json("unpack", air.stick("stick"), code=21)
    air.site.ok("unpack", later / "renamed.gfv")
    air.site.ok("verify", PRESET)


def test_lock_without_good_signature_is_not_installed(air: Air) -> None:
    air.pack("stick")
    sig = the(air.stick("stick"), "*.lock.sig")
    good = sig.read_bytes()
    lock = (made_artifacts(air) / "lock.json").read_bytes()
    other = make_key(air.folder / "keys", "other")
    for bad in (
        b"",
        signature(other, "gapforge-lock", lock, air.folder),
        signature(air.key, "gapforge-bundle", lock, air.folder),
        signature(air.key, "gapforge-lock", lock + b" ", air.folder),
    ):
        sig.write_bytes(bad)
        said = air.site.refused("unpack", air.stick("stick"))
        assert f"lock of preset {PRESET}" in said
        assert not air.site.project.artifacts_of(PRESET).exists()
    told = air.site.json("unpack", air.stick("stick"), code=22)
    assert PRESET in told["untrusted"] and told["presets"] == [] and not told["ok"]
    sig.write_bytes(good)
    assert air.site.json("unpack", air.stick("stick"))["imported"] == 0
    air.site.ok("verify", PRESET)


# -- verify and build


def carried_by_hand(air: Air) -> Path:
    """cp -r, with a lock that was signed for it."""
    air.sender.ok("trust", "sign", PRESET, "--key", air.key)
    shutil.copytree(made_artifacts(air), air.site.project.artifacts_of(PRESET))
    return air.site.project.artifacts_of(PRESET)


def test_copied_artifacts_need_signed_lock(air: Air) -> None:
    folder = carried_by_hand(air)
    air.site.ok("verify", PRESET)
    sig, good = folder / "lock.json.sig", (folder / "lock.json.sig").read_bytes()
    lock = (folder / "lock.json").read_bytes()
    for bad, why in (
        (None, "missing"),
        (b"", "not an SSH signature"),
        (signature(air.foreign, "gapforge-lock", lock, air.folder), "not a trusted signer"),
        (signature(air.key, "gapforge-bundle", lock, air.folder), "another purpose"),
        (signature(air.key, "gapforge-lock", b"other", air.folder), "changed after"),
        (good * 400, "more than"),
    ):
        sig.unlink()
        if bad is not None:
            sig.write_bytes(bad)
        said = air.site.refused("verify", PRESET)
        assert why in said and "lock.json.sig" in said, said
        sig.touch()
    told = air.site.json("verify", PRESET, code=22)["presets"][0]
    assert told["error"]["error"] == "trust" and not told["ok"]
    for make in (lambda: sig.symlink_to(air.folder / "kept"), lambda: os.mkfifo(sig)):
        (air.folder / "kept").write_bytes(good)
        sig.unlink()
        make()
        air.site.refused("verify", PRESET)
    sig.unlink()
    sig.write_bytes(good)
    air.site.ok("verify", PRESET)


def test_forged_checksums_are_refused_by_signature(
    air: Air, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in (air.made.project, air.site.project):  # their packages are part of the state
        shutil.copytree(ROOT / "components", project.root / "components")
    fabricate(air.made.project, presets.find(air.made.project.presets, PRESET))
    folder = carried_by_hand(air)
    lock = locks.load(folder / "lock.json")
    wheel = next(e for e in lock.entries if e.path.endswith(".whl"))
    evil = b"evil" + (folder / wheel.path).read_bytes()
    (folder / wheel.path).write_bytes(evil)
    text = (folder / "lock.json").read_text().replace(wheel.sha256, sha256_bytes(evil))
    raw = json.loads(text)
    next(e for e in raw["entries"] if e["path"] == wheel.path)["size"] = len(evil)
    text = json.dumps(raw, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "lock.json").write_text(text)
    (air.site.project.presets / f"{PRESET}.lock.json").write_text(text)
    files = {e["path"]: e["sha256"] for e in raw["entries"]} | {
        "lock.json": sha256_bytes(text.encode())
    }
    (folder / "SHA256SUMS").write_bytes(sha256sums.render(files))
    said = air.site.refused("verify", PRESET)
    assert "changed after sender@example signed it" in said
    shutil.copy(ROOT / "Dockerfile", air.site.project.root)
    (air.folder / "application").mkdir()
    (air.folder / "application/CMakeLists.txt").write_text("project(x)\n")
    build = (
        "build",
        "--preset",
        PRESET,
        "--non-interactive",
        "--app-source",
        air.folder / "application",
    )
    info = detect.assumed().info
    engine = SimpleNamespace(info=info, image_ids=lambda _name: [])  # found first
    monkeypatch.setattr(detect, "choose", lambda *_words, **_named: engine)
    said = air.site.refused(*build)
    assert "changed after sender@example signed it" in said
    (air.site.home / ".config/gapforge/allowed_signers").write_text("")
    air.site.ok("verify", PRESET)  # the sums are right: without trust nobody can tell


def test_lock_exchanged_after_its_signature_is_not_used(
    air: Air, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = carried_by_hand(air)
    good = (folder / "lock.json").read_bytes()
    signers = trusted_signers.read(air.site.trusted)
    check = trusted_signers.Signers.verify

    def exchange(*words: Any) -> trusted_signers.Signer:
        signer = check(*words)
        raw = json.loads(good)
        raw["entries"] = raw["entries"][:1]
        (folder / "lock.json").unlink()
        (folder / "lock.json").write_text(json.dumps(raw))
        return signer

    monkeypatch.setattr(trusted_signers.Signers, "verify", exchange)
    report = verify(folder, trusted=(air.site.project, signers))
    assert report.signer in signers.signers
    assert report.lock.render().encode() == good


def test_missing_lock_is_never_an_unsigned_one(air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may appear after the first look."""
    folder = carried_by_hand(air)
    (folder / "lock.json.sig").unlink()
    signers = trusted_signers.read(air.site.trusted)
    exists, hidden = Path.exists, [folder / "lock.json"]

    def late(path: Path) -> bool:
        return False if path in hidden and not hidden.remove(path) else exists(path)

    monkeypatch.setattr(Path, "exists", late)
    with pytest.raises(TrustError):
        verify(folder, trusted=(air.site.project, signers))


def test_project_lock_differing_from_signed_is_fault(air: Air) -> None:
    folder = carried_by_hand(air)
    beside = air.site.project.presets / f"{PRESET}.lock.json"
    shutil.copy(folder / "lock.json", beside)
    air.site.ok("verify", PRESET)
    document = json.loads(beside.read_text())
    document["entries"][0]["size"] += 1
    beside.write_text(json.dumps(document))
    faults = air.site.json("verify", PRESET, code=5)["presets"][0]["faults"]
    assert [(fault["file"], fault["kind"]) for fault in faults] == [
        (f"presets/{beside.name}", "lock")
    ]


def test_signed_lock_of_another_preset_is_refused(air: Air) -> None:
    other = air.made.second()
    air.sender.ok("trust", "sign", PRESET, other, "--key", air.key)
    folder = air.site.project.artifacts_of(PRESET)
    shutil.copytree(air.made.project.artifacts_of(other), folder)
    assert "lock of another preset" in air.site.refused("verify", PRESET, code=4)
    shutil.rmtree(folder)
    shutil.copytree(made_artifacts(air), folder)
    shutil.copy(air.made.project.artifacts_of(other) / "lock.json.sig", folder)
    air.site.refused("verify", PRESET)


def test_new_lock_removes_old_signature(air: Air) -> None:
    air.pack("one")
    air.site.ok("unpack", air.stick("one"))
    air.made.change({"sources/new.tar": b"new"})
    air.pack("two", days=1)
    air.site.ok("unpack", air.stick("two"))
    air.site.ok("verify", PRESET)
    # Where nobody is trusted, and the next bundle has no signature.
    air.site.trusted.write_text("")
    air.made.change({"sources/newer.tar": b"newer"})
    air.pack("three", signed=False)
    air.site.ok("unpack", air.stick("three"))
    assert not (air.site.project.artifacts_of(PRESET) / "lock.json.sig").exists()
    air.site.ok("verify", PRESET)


def test_killed_install_of_signature_is_cleaned_up(
    air: Air, monkeypatch: pytest.MonkeyPatch
) -> None:
    air.pack("one")
    air.site.ok("unpack", air.stick("one"))
    for machine in (air.sender, air.site):
        litter = (
            machine.project.artifacts_of(PRESET) / ".lock.json.sig.k1ll3d_x.tmp"
        )  # by atomic_file
        litter.write_bytes(b"half of a sig")
        machine.refused("verify", PRESET, code=5)
    assert "warning" not in air.site.ok("unpack", air.stick("one"))
    air.site.ok("verify", PRESET)
    (air.sender.project.artifacts_of(PRESET) / "lock.json.sig").unlink()
    air.sender.ok("trust", "sign", PRESET, "--key", air.key)
    air.sender.ok("verify", PRESET)
    # Interrupted after the new lock, of an unsigned bundle, without trusted signers.
    air.site.trusted.write_text("")
    air.made.change({"sources/new.tar": b"new"})
    air.pack("two", signed=False)
    view = Store.view

    def cut(*args: Any, **more: Any) -> Any:
        view(*args, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "view", cut)
        assert air.site.run("unpack", air.stick("two")).returncode == 130
    air.site.ok("unpack", air.stick("two"))
    assert not (air.site.project.artifacts_of(PRESET) / "lock.json.sig").exists()


# -- without trust


def test_without_trust_signer_is_only_shown(tmp_path: Path) -> None:
    air = Air(tmp_path, trusting=False)
    air.pack("stick")
    said = air.site.ok("unpack", air.stick("stick"))
    assert f"signed by {fingerprint(air.key)}; " in said and "trust add" in said
    assert not air.site.record.exists()
    air.site.ok("verify", PRESET)
    air.site.ok("trust", "add", pub(air.key))
    assert "signed by sender@example" in air.site.ok("verify", PRESET)
    air.site.trusted.unlink()
    shutil.rmtree(air.site.project.artifacts)
    tools = tmp_path / "tools"
    tools.mkdir()
    said = air.site.ok("unpack", air.stick("stick"), env={"PATH": str(tools)})
    assert "ssh-keygen is missing" in said
    index_altered(air, air.stick("stick"))
    shutil.rmtree(air.site.project.artifacts)
    assert "the signature is not valid" in air.site.ok("unpack", air.stick("stick"))
    air.pack("plain", "--volume-size", "70000", signed=False)
    assert "unsigned" in air.site.ok("unpack", air.stick("plain"))


# -- rollback


def test_older_bundle_needs_allow_older(air: Air) -> None:
    air.pack("old")
    shutil.copytree(made_artifacts(air), air.folder / "old artifacts")
    air.made.change({"sources/new.tar": b"new" * 30_000})
    air.pack("new", days=10)
    air.site.ok("unpack", air.stick("old"))
    air.site.ok("unpack", air.stick("new"))
    new = (air.site.project.artifacts_of(PRESET) / "lock.json").read_bytes()
    said = air.site.refused("unpack", air.stick("old"), apart=True)
    assert (
        "2025-06-15T15:06:40Z" in said
        and "2025-06-25T15:06:40Z" in said
        and "--allow-older" in said
    )
    assert (air.site.project.artifacts_of(PRESET) / "lock.json").read_bytes() == new
    # Broken volumes are no way around: all objects are here still.
    shutil.copytree(air.stick("old"), air.stick("broken"))
    for file in volumes(air.stick("broken")):
        os.truncate(file, 100)
    air.site.refused("unpack", air.stick("broken"))
    air.site.ok("unpack", air.stick("new"))  # a late stick of the accepted one
    # The old artifacts have a good signature, but the site knows the lock that replaced theirs.
    folder = air.site.project.artifacts_of(PRESET)
    shutil.rmtree(folder)
    shutil.copytree(air.folder / "old artifacts", folder)
    assert "older than the accepted ones" in air.site.refused("verify", PRESET)
    shutil.rmtree(folder)
    air.site.ok("unpack", air.stick("old"), "--allow-older")
    air.site.ok("verify", PRESET)
    air.site.ok("unpack", air.stick("old"))  # it is the accepted state now
    air.site.ok("unpack", air.stick("new"))
    air.site.ok("verify", PRESET)
    air.site.refused("unpack", air.stick("old"))


def test_older_gapforge_in_bundle_is_refused(air: Air) -> None:
    """The locks are the same; what came with them is not."""
    code = air.made.project.root / "src/gapforge/__init__.py"
    code.parent.mkdir(parents=True)
    (air.made.project.root / "MANIFEST").write_text("src/gapforge/__init__.py\n")
    for text, days, name in (("old = 1\n", 0, "old"), ("new = 2\n", 10, "new")):
        code.write_text(text)
        air.pack(name, "--with-tool", days=days)
    air.site.ok("unpack", air.stick("old"))
    air.site.ok("unpack", air.stick("new"))
    said = air.site.refused("unpack", air.stick("old"))
    assert "the gapforge repository" in said and "2025-06-25T15:06:40Z" in said
    air.site.ok("unpack", air.stick("new"))
    air.site.ok("unpack", air.stick("old"), "--allow-older")
    air.site.ok("unpack", air.stick("old"))
    air.site.ok("verify", PRESET)


def test_custody_page_names_signer(tmp_path: Path) -> None:
    air = Air(tmp_path)
    air.pack("stick")
    assert fingerprint(air.key) in the(air.stick("stick"), "*.custody.txt").read_text()
    air.site.ok("unpack", air.stick("stick"))
    (page,) = (air.site.project.root / "dist/custody").iterdir()
    assert f"sender@example ({fingerprint(air.key)})" in page.read_text()
    other = Air(tmp_path / "other", trusting=False)
    other.pack("stick")
    other.site.ok("unpack", other.stick("stick"))
    (page,) = (other.site.project.root / "dist/custody").iterdir()
    assert f"{fingerprint(other.key)} (not trusted here)" in page.read_text()
    assert "unsigned" not in page.read_text()


def test_custody_page_is_signed(tmp_path: Path) -> None:
    """OpenSSH alone verifies the page, and the page states the receiver's checksum."""
    air = Air(tmp_path)
    air.pack("stick")
    page, sig = (
        the(air.stick("stick"), pattern) for pattern in ("*.custody.txt", "*.custody.txt.sig")
    )
    receiver = sha256_bytes((air.stick("stick") / "gapforge-receive.pyz").read_bytes())
    assert receiver in page.read_text()

    def holds(data: bytes) -> bool:
        words = [
            "ssh-keygen",
            "-Y",
            "verify",
            "-f",
            air.site.trusted,
            "-I",
            "sender@example",
            "-n",
            "gapforge-custody",
            "-s",
            sig,
        ]
        return subprocess.run(words, input=data, capture_output=True).returncode == 0

    assert holds(page.read_bytes()) and not holds(
        page.read_bytes().replace(receiver.encode(), b"0" * 64)
    )
    air.pack("stick", days=1)  # another day, another page
    assert holds(page.read_bytes())
    air.pack("stick", signed=False)
    assert not sig.exists() and page.exists()


def test_same_lock_and_other_presets_are_accepted(air: Air) -> None:
    other = air.made.second()
    shutil.copy(air.made.project.presets / f"{other}.json", air.site.project.presets)
    air.pack("new", days=10)
    air.site.ok("unpack", air.stick("new"))
    # The same lock in volumes of another size, signed long before.
    air.sender.ok(
        "pack",
        PRESET,
        "--volume-size",
        "80000",
        "--to",
        air.stick("again"),
        "--sign",
        air.key,
        env=at(-50),
    )
    air.site.ok("unpack", air.stick("again"))
    assert air.site.accepted().presets[PRESET].made == "2025-06-25T15:06:40Z"
    air.sender.ok("pack", other, "--to", air.stick("other"), "--sign", air.key, env=at(-50))
    air.site.ok("unpack", air.stick("other"))
    assert set(air.site.accepted().presets) == {PRESET, other}


def test_incomplete_bundle_does_not_block_older_one(air: Air) -> None:
    air.pack("old")
    late = air.stick("late")
    late.mkdir()
    volumes(air.stick("old"))[-1].rename(late / "late.gfv")
    air.made.change({"sources/new.tar": b"new" * 30_000})
    air.pack("new", days=10)
    for file in volumes(air.stick("new"))[1:]:
        file.unlink()
    air.site.json("unpack", air.stick("old"), code=21)
    air.site.json("unpack", air.stick("new"), code=21)
    air.site.ok("unpack", late)
    air.site.ok("verify", PRESET)


def test_bundle_from_wrong_clock_needs_allow_older(air: Air) -> None:
    air.pack("future", days=30_000)
    assert "is in the future" in air.site.ok("unpack", air.stick("future"))
    air.made.change({"sources/new.tar": b"new"})
    air.pack("now")
    said = air.site.refused("unpack", air.stick("now"))
    assert "the clock was wrong" in said
    air.site.ok("unpack", air.stick("now"), "--allow-older")
    air.made.change({"sources/new.tar": b"newer"})
    air.pack("next", days=1)
    air.site.ok("unpack", air.stick("next"))


def test_damaged_record_stops_unpack_and_verify(air: Air) -> None:
    air.pack("stick")
    air.site.ok("unpack", air.stick("stick"))
    record = air.site.record
    for damage in (
        lambda: record.write_text("{"),
        lambda: (record.unlink(), record.symlink_to("/dev/null")),
    ):
        damage()
        assert "accepted.json" in air.site.refused("unpack", air.stick("stick"))
        assert "accepted.json" in air.site.refused("verify", PRESET)
    record.unlink()
    record.write_text("{")
    air.site.ok("unpack", air.stick("stick"), "--allow-older")
    air.site.ok("verify", PRESET)
    assert air.site.accepted().presets[PRESET].made == "2025-06-15T15:06:40Z"


def test_epoch_does_not_set_the_time_of_signing(air: Air) -> None:
    epoch = {"SOURCE_DATE_EPOCH": "1000000000"}
    words = ("pack", PRESET, "--sign", air.key, "--to")
    air.sender.ok(*words, air.stick("one"), env=epoch)
    made = read_index(index_of(air.stick("one"))).made
    assert made > "2026-"


def test_equal_time_of_signing_is_refused(air: Air) -> None:
    air.pack("one")
    air.site.ok("unpack", air.stick("one"))
    air.made.change({"sources/new.tar": b"new"})
    air.pack("two")
    assert "--allow-older" in air.site.refused("unpack", air.stick("two"))
    air.site.ok("unpack", air.stick("two"), "--allow-older")


def test_superseded_lock_signed_again_is_refused(air: Air) -> None:
    air.pack("old")
    root, before = air.made.project.root, air.folder / "before"
    shutil.copytree(root, before)
    air.site.ok("unpack", air.stick("old"))
    air.made.change({"sources/new.tar": b"new"})
    air.pack("new", days=10)
    air.site.ok("unpack", air.stick("new"))
    again = air.folder / "again"
    shutil.rmtree(root)
    before.rename(root)
    words = ("pack", PRESET, "--volume-size", "80000", "--sign", air.key, "--to", again)
    air.sender.ok(*words, env=at(20))
    assert "--allow-older" in air.site.refused("unpack", again)


def test_record_survives_the_removal_of_artifacts(air: Air) -> None:
    air.pack("old")
    air.made.change({"sources/new.tar": b"new"})
    air.pack("new", days=10)
    air.site.ok("unpack", air.stick("new"))
    shutil.rmtree(air.site.project.artifacts)
    assert "--allow-older" in air.site.refused("unpack", air.stick("old"))


def test_lost_record_is_made_of_the_kept_index(air: Air) -> None:
    air.pack("old")
    air.made.change({"sources/new.tar": b"new"})
    air.pack("new", days=10)
    air.site.ok("unpack", air.stick("new"))
    air.site.record.unlink()
    assert "--allow-older" in air.site.refused("unpack", air.stick("old"))


def test_record_of_earlier_versions_is_moved(air: Air) -> None:
    air.pack("old")
    air.made.change({"sources/new.tar": b"new"})
    air.pack("new", days=10)
    air.site.ok("unpack", air.stick("new"))
    former = air.site.project.store / "accepted.json"
    air.site.record.rename(former)
    shutil.rmtree(air.site.project.store / "signed")
    assert "--allow-older" in air.site.refused("unpack", air.stick("old"))
    air.made.change({"sources/new.tar": b"newer"})
    air.pack("newest", days=20)
    air.site.ok("unpack", air.stick("newest"))
    assert air.site.record.is_file() and not former.exists()


# -- the list of signers


def test_trust_verb_adds_lists_removes(tmp_path: Path) -> None:
    machine = Machine(site_at(tmp_path / "site"), tmp_path / "home")
    one, two = make_key(tmp_path, "one"), make_key(tmp_path, "two", kind="ecdsa")
    assert "./gapforge trust add KEY" in machine.ok("trust", "list")
    said = machine.ok("trust", "add", one)  # the private key's .pub lies beside it
    assert fingerprint(one) in said and "./gapforge trust remove" in said
    assert machine.json("trust", "add", pub(one))["added"] is False
    assert machine.trusted.read_text().count("ssh-ed25519") == 1
    said = machine.refused("trust", "add", pub(two), "--name", "one@example", code=2)
    assert fingerprint(one) in said and fingerprint(two) in said and "one@example-2" in said
    machine.ok("trust", "add", pub(two).read_text().strip(), "--name", "one@example-2")
    machine.refused("trust", "add", pub(one), "--name", "one@example-2", code=2)
    listed = machine.json("trust", "list")["signers"]
    assert [(s["name"], s["fingerprint"]) for s in listed] == [
        ("one@example", fingerprint(one)),
        ("one@example-2", fingerprint(two)),
    ]
    machine.refused("trust", "remove", "nobody", code=2)
    machine.ok("trust", "remove", "one@example")
    said = machine.ok("trust", "remove", "one@example-2")
    assert "./gapforge trust add KEY" in said
    assert machine.trusted.read_text().startswith("#")  # what people noted there stays
    dos = tmp_path / "dos.pub"
    dos.write_bytes(pub(one).read_bytes().replace(b"\n", b"\r\n"))
    assert machine.json("trust", "add", dos)["added"] is True
    assert "PRIVATE" not in machine.trusted.read_text()


def test_concurrent_changes_of_list_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signer that one removes must not be restored by the other's older list."""
    one, two = make_key(tmp_path, "one"), make_key(tmp_path, "two")
    file = tmp_path / "home" / "allowed_signers"
    trusted_signers.add(file, ssh_signatures.read_public(one), "one")
    write = trusted_signers.write_text

    def meanwhile(target: Path, text: str) -> None:
        monkeypatch.setattr(trusted_signers, "write_text", write)
        with pytest.raises(BusyError):
            trusted_signers.remove(file, "one")
        write(target, text)

    monkeypatch.setattr(trusted_signers, "write_text", meanwhile)
    trusted_signers.add(file, ssh_signatures.read_public(two), "two")
    trusted_signers.remove(file, "one")
    assert [signer.name for signer in trusted_signers.read(file).signers] == ["two"]


def test_trust_verb_with_unusual_paths(tmp_path: Path) -> None:
    machine = Machine(site_at(tmp_path / "site"), tmp_path / "home")
    key = make_key(tmp_path, "k")
    absent = {"GAPFORGE_TRUST": str(tmp_path / "absent")}
    assert absent["GAPFORGE_TRUST"] in machine.refused("trust", "list", env=absent)
    for words in (
        ("trust", "add", "~nobody-is-called-so/k.pub"),
        ("trust", "sign", PRESET, "--key", "~nobody-is-called-so/k"),
    ):
        assert "does not exist" in machine.refused(*words, code=2)
    shutil.copy(pub(key), tmp_path / "ssh-ed25519.pub")
    done = subprocess.run(
        [sys.executable, "-m", "gapforge", "trust", "add", "ssh-ed25519.pub"],
        cwd=tmp_path,
        check=False,
        env={**RUN_ENV, **absent, "GAPFORGE_ROOT": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and fingerprint(key) in done.stdout


def test_trust_verb_refuses_invalid_input(tmp_path: Path) -> None:
    machine = Machine(site_at(tmp_path / "site"), tmp_path / "home")
    key = make_key(tmp_path, "k")
    text = pub(key).read_text().strip()
    alone = tmp_path / "alone"
    shutil.copy(key, alone)
    several = tmp_path / "several.pub"
    several.write_text(text + "\n" + text + "\n")
    optioned = tmp_path / "optioned.pub"
    optioned.write_text(f"cert-authority {text}\n")
    binary = tmp_path / "binary.pub"
    binary.write_bytes(b"\xff\xfe\0" * 100)
    (tmp_path / "huge.pub").write_bytes(b"#" * (1 << 20))
    os.mkfifo(tmp_path / "pipe.pub")
    bad: list[tuple[object, ...]] = [
        (),
        (pub(key), pub(key)),
        ("",),
        (tmp_path / "absent",),
        (tmp_path,),
        (key.read_text(),),
        (alone,),
        (several,),
        (optioned,),
        (binary,),
        (tmp_path / "huge.pub",),
        (tmp_path / "pipe.pub",),
        (text + "\nmallory " + text,),
        (text + "\r" + text,),
        ("ssh-ed25519",),
        ("ssh-ed25519 AAAA",),
        (text.split()[0] + "-cert-v01@openssh.com " + text.split()[1],),
        (pub(key), "--name", "*"),
        (pub(key), "--name", ""),
        (pub(key), "--name", "a b"),
        (pub(key), "--name", "a\nb"),
        (pub(key), "--name", "!x"),
        (pub(key), "--name", "a,b"),
        (pub(key), "--name", "-x"),
        (pub(key), "--name", 'a"b'),
        (pub(key), "--key", key),
    ]
    for words in bad:
        machine.refused("trust", "add", *words, code=2)
    for words in (
        ("remove",),
        ("remove", "x", "y"),
        ("list", "x"),
        ("sign",),
        ("sign", PRESET),
        ("sign", "--key", key),
        ("sign", PRESET, "--key", key),
        ("sign", PRESET, "--key", tmp_path),
        ("list", "--name", "x"),
        ("shout",),
        (),
    ):
        machine.refused("trust", *words, code=2)
    machine.refused("trust", "sign", "absent", "--key", key, code=3)
    machine.refused("trust", "sign", "../x", "--key", key, code=3)
    assert not machine.trusted.exists()
    unnamed = tmp_path / "unnamed.pub"
    unnamed.write_text(" ".join(text.split()[:2]) + " \t; rm -rf ~ #\n")
    assert machine.json("trust", "add", unnamed)["name"] == "rm--rf"
    bare = tmp_path / "bare.pub"
    bare.write_text(" ".join(text.split()[:2]))
    assert re.fullmatch(r"key-[A-Za-z0-9]{8}", machine.json("trust", "add", bare)["name"])


DAMAGED = [
    "junk",
    "name ssh-ed25519",
    "name ssh-ed25519 AAAA",
    'name command="x" {key}',
    "* {key}",
    "a b {key}",
    "name cert-authority {key}",
    "name {key}\x00",
    "name {cut}",
    '"a b" {key}',
    "!a {key}",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_signers_list_is_refused(tmp_path: Path, text: str) -> None:
    key = " ".join(pub(make_key(tmp_path, "k")).read_text().split()[:2])
    file = tmp_path / "list"
    file.write_text(f"ok {key}\n" + text.format(key=key, cut=key[:-9]) + "\n")
    with pytest.raises(TrustError) as caught:
        trusted_signers.read(file)
    assert f"{file}: line 2" in caught.value.render() and caught.value.hint


def test_handwritten_signers_list_is_read(tmp_path: Path) -> None:
    key = " ".join(pub(make_key(tmp_path, "k")).read_text().split()[:2])
    file = tmp_path / "list"
    file.write_text(
        '# who\n\n  \na@b,c@d namespaces="git,gapforge-lock",valid-after="20200101" '
        f"{key} a comment\nx\t{key}\n"
    )
    assert [s.name for s in trusted_signers.read(file).signers] == ["a@b", "x"]


def test_unusable_signers_list_refuses_everything(air: Air) -> None:
    air.pack("stick")
    good = air.site.trusted.read_text()
    expired = good.replace('namespaces="', 'valid-before="20200101",namespaces="')
    foreign_use = good.replace("gapforge-bundle,gapforge-lock,gapforge-custody", "git")
    for text in (expired, foreign_use):
        air.site.trusted.write_text(text)
        air.site.refused("unpack", air.stick("stick"))
    air.site.trusted.write_text(good)
    air.site.ok("unpack", air.stick("stick"))

    def junk() -> None:
        air.site.trusted.write_text("junk\n")

    def folder() -> None:
        air.site.trusted.unlink()
        air.site.trusted.mkdir()

    def pipe() -> None:
        air.site.trusted.rmdir()
        os.mkfifo(air.site.trusted)

    def dangling() -> None:
        air.site.trusted.unlink()
        air.site.trusted.symlink_to(air.folder / "absent")

    def writable() -> None:
        air.site.trusted.unlink()
        air.site.trusted.write_text(good)
        air.site.trusted.chmod(0o666)

    def gone() -> None:
        air.site.trusted.unlink()

    def no_folder() -> None:
        shutil.rmtree(air.site.home / ".config")
        (air.site.home / ".config").write_text("")

    for damage in (junk, folder, pipe, dangling, writable, gone, no_folder):
        damage()
        for words in (("unpack", air.stick("stick")), ("verify", PRESET)):
            assert "trusted signers" in air.site.refused(*words), damage.__name__
    (air.site.home / ".config").unlink()
    other = air.folder / "elsewhere"
    air.site.refused("verify", PRESET, env={"GAPFORGE_TRUST": str(other)})
    air.site.ok("trust", "add", pub(air.key), env={"GAPFORGE_TRUST": str(other)})
    air.site.ok("verify", PRESET, env={"GAPFORGE_TRUST": str(other)})
    air.site.ok("trust", "add", pub(air.key), env={"XDG_CONFIG_HOME": str(air.folder / "settings")})
    air.site.ok("verify", PRESET, env={"XDG_CONFIG_HOME": str(air.folder / "settings")})
    for travels in (air.site.project.root / "list", air.site.project.artifacts / "list"):
        travels.parent.mkdir(exist_ok=True)
        shutil.copy(other, travels)
        said = air.site.refused("verify", PRESET, env={"GAPFORGE_TRUST": str(travels)})
        assert "which is carried" in said
    # To trust nobody is possible, when it is said.
    air.site.trusted.parent.mkdir(parents=True)
    air.site.trusted.write_text("")
    air.site.ok("verify", PRESET)


def test_receiver_program_verifies_signatures(air: Air) -> None:
    told = air.pack("stick")
    receiver = air.stick("stick") / "gapforge-receive.pyz"
    assert sha256_bytes(receiver.read_bytes()) in told
    bare = air.folder / "bare"
    bare.mkdir()
    env = {
        key: value for key, value in RUN_ENV.items() if key not in ("XDG_CONFIG_HOME", "PYTHONPATH")
    }

    def receive() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", receiver, "unpack", air.stick("stick")],
            cwd=bare,
            text=True,
            check=False,
            env={**env, "HOME": str(air.site.home)},
            capture_output=True,
        )

    signed_by_another(air, air.stick("stick"))
    assert receive().returncode == 22
    shutil.rmtree(air.stick("stick"))
    air.pack("stick")
    assert receive().returncode == 0
    assert (bare / "artifacts" / PRESET / "lock.json.sig").is_file()


def test_superseded_indexes_are_removed(air: Air) -> None:
    kept = air.site.project.store / "signed"
    for day in range(4):
        air.made.change({"sources/new.tar": b"%d" % day})
        air.pack(f"stick{day}", days=day)
        air.site.ok("unpack", air.stick(f"stick{day}"))
    assert len(list(kept.glob("*.json"))) == 1 and len(list(kept.iterdir())) == 3


def test_path_of_signers_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "p", tmp_path / "p/artifacts")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert (
        trusted_signers.signers_file(project) == tmp_path / "home/.config/gapforge/allowed_signers"
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert trusted_signers.signers_file(project) == tmp_path / "x/gapforge/allowed_signers"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "")
    assert trusted_signers.signers_file(project).is_absolute()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GAPFORGE_TRUST", str(tmp_path / "home/list"))
    assert (
        trusted_signers.signers_file(Project(tmp_path / "home", tmp_path / "home/artifacts"))
        == tmp_path / "home/list"
    )


@pytest.mark.parametrize("inside", ["artifacts", "project", "artifacts/deep/er", "link"])
def test_signers_list_that_is_carried_is_refused(
    tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifacts may be on another disk than the project."""
    project = Project(tmp_path / "project", tmp_path / "artifacts")
    for folder in (project.root, project.artifacts / "deep/er"):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(project.artifacts)
    monkeypatch.setenv("GAPFORGE_TRUST", str(tmp_path / inside / "list"))
    with pytest.raises(TrustError) as caught:
        trusted_signers.signers_file(project)
    carried = project.root if inside == "project" else project.artifacts
    assert_error(caught.value, TrustError, file=tmp_path / inside / "list", folder=carried)
    monkeypatch.setenv("GAPFORGE_TRUST", str(tmp_path / "artifacts-list"))
    assert trusted_signers.signers_file(project) == tmp_path / "artifacts-list"


def test_sudo_without_signers_list_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = site_at(tmp_path / "site")
    (tmp_path / "user").mkdir()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "root"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        sudo_caller.pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path / "user"))
    )
    for number in ("", "x", "1000"):
        monkeypatch.setenv("SUDO_UID", number)
        monkeypatch.setenv("SUDO_GID", "1000")
        assert not trusted_signers.load(project)
    theirs = tmp_path / "user/.config/gapforge/allowed_signers"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("")
    with pytest.raises(TrustError) as caught:
        trusted_signers.load(project)
    assert_error(caught.value, TrustError, hint={"file": theirs})
    assert caught.value.faults[0].expected == str(theirs)
    monkeypatch.setenv("GAPFORGE_TRUST", str(theirs))
    assert trusted_signers.load(project).file == theirs


def test_several_bundles_need_bundle_option(air: Air) -> None:
    air.pack("stick")
    signed = index_of(air.stick("stick")).stem
    air.sender.ok("pack", PRESET, "--volume-size", "70000", "--to", air.stick("stick"))
    assert "--bundle" in air.site.refused("unpack", air.stick("stick"), code=21)
    other = next(p.stem for p in air.stick("stick").glob("*.json") if p.stem != signed)
    air.site.refused("unpack", air.stick("stick"), "--bundle", other)
    air.site.ok("unpack", air.stick("stick"), "--bundle", signed)


def test_empty_key_name_is_refused(air: Air) -> None:
    air.sender.refused("pack", PRESET, "--to", air.stick("x"), "--sign", "", code=2)
    air.sender.refused("trust", "sign", PRESET, "--key", "", code=2)
    assert not air.stick("x").exists()


def test_changed_preset_differs_from_signed_lock(air: Air) -> None:
    carried_by_hand(air)
    file = air.site.project.presets / f"{PRESET}.json"
    file.write_text(file.read_text().replace("--disable-network", "--enable-network"))
    assert f"presets/{PRESET}.json" in air.site.refused("verify", PRESET, code=4)


def test_without_trust_object_hashes_stop_forgery(tmp_path: Path) -> None:
    """Without trusted signers, only the checksums of the objects stop a forged bundle."""
    air = Air(tmp_path, trusting=False)
    air.pack("stick")
    forge(air.stick("stick"), flip)
    done = air.site.json("unpack", air.stick("stick"), code=21)
    assert all("do not form the object" in why for why in done["broken"].values()), done["broken"]


def test_damaged_list_names_every_line(tmp_path: Path) -> None:
    key = " ".join(pub(make_key(tmp_path, "k")).read_text().split()[:2])
    file = tmp_path / "list"
    file.write_text(f"ok {key}\nname cert-authority {key}\nname {key[:-9]}\n")
    with pytest.raises(TrustError) as caught:
        trusted_signers.read(file)
    assert [values_of(fault.where) for fault in caught.value.faults] == [
        {"file": file, "number": 2},
        {"file": file, "number": 3},
    ]


def unsigned_lock_error(folder: Path, count: int = 1) -> TrustError:
    project = site_at(folder / "site")
    key = ssh_signatures.read_public(pub(make_key(folder, "k")))
    artifacts = project.artifacts_of(PRESET)
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "lock.json").write_text("{}")
    people = tuple(trusted_signers.Signer(f"s{number}", key) for number in range(count))
    signers = trusted_signers.Signers(folder / "list", people)
    with pytest.raises(TrustError) as caught:
        trusted_signers.check_lock(project, artifacts, PRESET, signers)
    return caught.value


def test_unsigned_lock_names_missing_signature(tmp_path: Path) -> None:
    signature = tmp_path / "site/artifacts" / PRESET / "lock.json.sig"
    error = unsigned_lock_error(tmp_path)
    assert_error(error, TrustError, preset=PRESET, where=[str(signature)], hint={"preset": PRESET})


@pytest.mark.parametrize(("count", "named"), [(1, 1), (4, 4), (5, 4)])
def test_lock_of_a_stranger_names_trusted_signers(tmp_path: Path, count: int, named: int) -> None:
    beside = tmp_path / "site/artifacts" / PRESET / "lock.json.sig"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(
        signature(make_key(tmp_path, "stranger"), ssh_signatures.LOCK, b"{}", tmp_path)
    )
    error = unsigned_lock_error(tmp_path, count)
    lock = str(beside.with_name("lock.json"))
    assert_error(error, TrustError, preset=PRESET, where=[lock], hint={"preset": PRESET})
    expected = error.faults[0].expected
    assert re.findall(r"\bs\d (?=\()", expected) == [f"s{number} " for number in range(named)]
    assert expected.endswith(")") is (named == count), "whether there are others"


def test_korean_error_of_unsigned_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    lines = unsigned_lock_error(tmp_path).render().splitlines()
    assert PRESET in lines[0] and f"trust sign {PRESET}" in lines[-1]
    assert not any(lines[number].isascii() for number in (0, 2, 3))
