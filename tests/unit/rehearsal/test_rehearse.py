"""Rehearse with everything real except the engine and the build, ready and with every failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import samples
from bundles import PRESET, RUN_ENV, Sender, carry, hashes, receive, sender, site_at
from fabricated_artifacts import fabricate
from gapforge.base import process
from gapforge.base.errors import (
    ERROR_CLASSES,
    BuildError,
    EngineError,
    Fault,
    GapforgeError,
    SecretError,
    SmokeError,
    ToolError,
    TrustError,
    VerifyError,
)
from gapforge.base.files import sha256_bytes, sha256_file
from gapforge.base.marked_folders import MARKER, mark_folder
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.base.sudo_caller import Caller
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.repository_files import MANIFEST, render_manifest
from gapforge.cli import main as cli
from gapforge.engine import private_daemon, private_daemon_state
from gapforge.model import preset as presets
from gapforge.rehearsal import rehearse as rehearsal
from gapforge.rehearsal import run_gapforge, site_folder
from gapforge.rehearsal.run_gapforge import Python, SiteRunner
from gapforge.rehearsal.site_folder import create_site, list_repository, site_of
from gapforge.store.inventory import Inventory
from gapforge.trust import ssh_signatures, trusted_signers
from gapforge.trust.ssh_signatures import CUSTODY, LOCK
from samples import ROOT
from signers import fingerprint, make_key, needs_ssh_keygen, pub, signature

# Stands for build.py: does what stub.json beside it states, and reports its arguments.
STUB = """
import hashlib, json, os, pathlib, sys
here = pathlib.Path(__file__).resolve().parent
stub = json.loads((here / "stub.json").read_text())
preset, kind = sys.argv[sys.argv.index("--preset") + 1], sys.argv[sys.argv.index("--type") + 1]
files = sorted(str(p.relative_to(here)) for p in here.rglob("*") if "src" not in p.parts)
seen = {"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "files": files}
seen["user"] = os.getuid()
pathlib.Path(stub["seen"]).write_text(json.dumps(seen))
if stub["code"]:
    print(stub["text"], file=sys.stderr)
    if stub["error"]:
        error = json.dumps(stub["error"]).replace("SITE", str(here))
        pathlib.Path(os.environ["GAPFORGE_ERROR_FILE"]).write_text(error)
    sys.exit(stub["code"])
folder = here / "dist" / preset / kind
folder.mkdir(parents=True)
lock = (here / "artifacts" / preset / "lock.json").read_bytes()
report = {
    "preset": preset,
    "type": kind,
    "passed": True,
    "image": "gapforge/x:" + kind,
    "image_ids": ["sha256:" + "4" * 64],
    "size_bytes": 12345678,
    "checks": [{"ok": True}, {"ok": True}],
    "plan_sha256": "5" * 64,
    "lock_sha256": hashlib.sha256(lock).hexdigest(),
    "preset_sha256": json.loads(lock)["preset_sha256"],
    "application": {"folder": str(here / "examples"), "chosen_by": "preset"},
    "seconds": {"build": 1.0},
    "engine": {
        "name": "docker-buildkit",
        "builder": "buildkit (built in)",
        "client_version": "20.10.24",
    },
}
(folder / "report.json").write_text(json.dumps({**report, **stub["report"]}))
"""


USER = 12345  # a number without a name, as in a container


class Office:
    """An online machine: a project with its own copy of gapforge, without git."""

    def __init__(self, folder: Path, made: Sender) -> None:
        self.folder, self.made, self.project = folder, made, made.project
        self.root, self.stick = made.project.root, folder / "stick"
        self.dist = self.project.dist_of(PRESET)
        self.site = site_of(self.project, PRESET)
        shutil.copytree(
            ROOT / "src", self.root / "src", ignore=shutil.ignore_patterns("__pycache__")
        )
        (self.root / "build.py").write_text(STUB)
        self.build()
        files = [path for path in self.root.rglob("*") if path.is_file()]
        names = [path.relative_to(self.root).as_posix() for path in files]
        manifest = render_manifest(name for name in names if not name.startswith("artifacts/"))
        (self.root / MANIFEST).write_bytes(manifest)

    def build(
        self, code: int = 0, text: str = "", error: GapforgeError | None = None, **report: Any
    ) -> None:
        """Set what the build will do."""
        stub = {
            "code": error.exit_code if error else code,
            "text": text,
            "error": error.to_json() if error else None,
            "report": report,
            "seen": str(self.folder / "seen.json"),
        }
        (self.root / "stub.json").write_text(json.dumps(stub))

    @property
    def seen(self) -> Any:
        return json.loads((self.folder / "seen.json").read_text())

    def pack(self, *, size: int = 70_000, **more: Any) -> list[Path]:
        carry(self.made, self.stick, size=size, **more)
        return sorted(self.stick.glob("*.gfv"))

    def rehearse(self, *words: str, preset: str = PRESET) -> int:
        return cli.main(["rehearse", preset, *words])

    def from_stick(self, *words: str) -> int:
        return self.rehearse("--bundle", str(self.stick), *words)

    def record(self) -> Any:
        return json.loads((self.dist / "rehearsal.json").read_text())

    def page(self) -> str:
        return (self.dist / "rehearsal.txt").read_text()

    def not_ready(self, code: int, step: str) -> Any:
        """Return the recorded failure after checking the page and that the site was removed."""
        record, page = self.record(), self.page()
        assert record["ready"] is False and not self.site.root.exists()
        assert (record["failure"]["exit_code"], record["failure"]["step"]) == (code, step), record[
            "failure"
        ]
        assert page.startswith(f"NOT ready: {PRESET}\n") and "ready to travel" not in page
        assert (
            record["failure"]["message"].splitlines()[0] in page
            and record["failure"]["next"] in page
        )
        return record["failure"]


@pytest.fixture
def office(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Office]:
    if getattr(request, "param", None) != "for all users":
        yield _office(tmp_path, monkeypatch)
        return
    with tempfile.TemporaryDirectory() as name:  # other users cannot enter pytest's folder
        Path(name).chmod(0o755)
        yield _office(Path(name), monkeypatch)


def _office(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    made = Office(folder, sender(folder))
    monkeypatch.setenv("GAPFORGE_ROOT", str(made.root))
    state = private_daemon_state.State(
        pid=1, started=1, boot="", socket="/run/fake.sock", offline=True, version="20.10.24"
    )
    monkeypatch.setattr(private_daemon, "start", lambda project, **_: state)
    monkeypatch.setattr(private_daemon, "require_tools", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(run_gapforge, "can_leave_network", lambda: False)
    monkeypatch.setattr(rehearsal, "can_leave_network", lambda: False)
    monkeypatch.setattr(
        rehearsal, "site_python", lambda user: run_gapforge.Python(sys.executable, "3.10.99")
    )
    return made


# -- ready


def test_complete_bundle_is_ready(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    volumes = office.pack()
    assert office.from_stick() == 0
    record, page = office.record(), office.page()
    assert record["ready"] is True and record["failure"] is None and record["warnings"] == []
    assert page.startswith(f"ready to travel: {PRESET}\n") and page in capsys.readouterr().out
    assert record["lock_sha256"] == sha256_file(office.project.lock_file(PRESET))
    bundle = record["bundle"]
    assert [v["file"] for v in bundle["volumes"]] == [path.name for path in volumes] and len(
        volumes
    ) > 3
    assert [v["size"] for v in bundle["volumes"]] == [path.stat().st_size for path in volumes]
    assert bundle["index"]["sha256"] == sha256_file(office.stick / bundle["index"]["file"])
    assert bundle["receiver"]["sha256"] == sha256_bytes(receiver_bytes())
    assert record["images"][0]["checks_passed"] == record["images"][0]["checks"] == 2
    assert record["images"][0]["application"]["folder"] == "examples"
    assert record["repository"] is None and record["practice"] is True
    for digest in (
        record["lock_sha256"],
        record["preset_sha256"],
        bundle["index"]["sha256"],
        "sha256:" + "4" * 64,
        *(v["index_sha256"] for v in bundle["volumes"]),
    ):
        assert digest in page
    assert not office.site.root.exists() and hashes(office.project) == set()


def test_gapforge_of_bundle_is_rehearsed(office: Office) -> None:
    assert (
        cli.main(
            ["pack", PRESET, "--with-tool", "--to", str(office.stick), "--volume-size", "300k"]
        )
        == 0
    )
    good = (office.root / "build.py").read_text()
    (office.root / "build.py").write_text("raise SystemExit('not the one that was packed')")
    (office.root / "components").mkdir()
    (office.root / "components/newer").write_text("x")
    assert office.from_stick() == 0
    tool = office.record()["bundle"]["tool_sha256"]
    assert len(tool) == 64 and tool in office.page()
    assert (
        "components/newer" not in office.seen["files"]
        and ".gapforge/tool.json" in office.seen["files"]
    )
    (office.root / "build.py").write_text(good)
    (
        office.stick / RECEIVER
    ).unlink()  # then the site needs one of its own, which is a copy of this
    assert office.from_stick() == 0 and "components/newer" in office.seen["files"]
    (office.root / "components/newer").unlink()
    cli.main(["pack", PRESET, "--with-tool", "--to", str(office.stick), "--volume-size", "300k"])
    sorted(office.stick.glob("*.gfv"))[-1].unlink()
    assert office.from_stick() == 21
    words = office.not_ready(21, "unpack")["next"].split()
    assert "--with-tool" in words and cli.main(words[1:]) == 0 and office.from_stick() == 0


def test_bundle_below_given_folder_is_found(office: Office) -> None:
    """Like unpack, the rehearsal searches below the given folders, also for the receiver."""
    media = office.folder / "media"
    assert (
        cli.main(
            ["pack", PRESET, "--with-tool", "--to", str(media / "one"), "--volume-size", "300k"]
        )
        == 0
    )
    assert office.rehearse("--bundle", str(media)) == 0 and office.record()["warnings"] == []
    assert (
        office.record()["bundle"]["receiver"] is not None
        and ".gapforge/tool.json" in office.seen["files"]
    )
    sorted(media.rglob("*.gfv"))[-1].unlink()
    assert office.rehearse("--bundle", str(media)) == 21
    words = office.not_ready(21, "unpack")["next"].split()
    assert words[words.index("--to") + 1 :] == [str(media / "one")] and cli.main(words[1:]) == 0
    assert [path.name for path in media.iterdir()] == ["one"]
    assert office.rehearse("--bundle", str(media)) == 0


def test_preset_changed_after_pack_is_warned_about(office: Office) -> None:
    """The site builds the preset in the bundle, so the page must be about that one."""
    cli.main(["pack", PRESET, "--with-tool", "--to", str(office.stick), "--volume-size", "300k"])
    packed = presets.find(office.project.presets, PRESET)
    file = office.project.preset_file(PRESET)
    document = json.loads(file.read_text())
    document["epoch"] = 1_700_000_000
    file.write_text(json.dumps(document))
    changed = presets.find(office.project.presets, PRESET)
    fabricate(office.project, changed)
    assert changed.sha256 != packed.sha256
    assert office.from_stick() == 0, office.page()
    record = office.record()
    assert record["preset_sha256"] == packed.sha256
    assert len(record["warnings"]) == 1 and PRESET in record["warnings"][0]


def test_site_with_gapforge_needs_no_receiver(office: Office) -> None:
    cli.main(["pack", PRESET, "--with-tool", "--to", str(office.folder / "first")])
    site = site_at(office.folder / "site")
    receive(site, office.folder / "first")
    held = {p.name: p.stat().st_size for p in (site.store / "sha256").rglob("*") if p.is_file()}
    inventory = office.folder / "inventory.txt"
    inventory.write_text(Inventory.of("0.1.0", {}, held).render())
    assert (
        cli.main(
            ["pack", PRESET, "--with-tool", "--for", str(inventory), "--to", str(office.stick)]
        )
        == 0
    )
    assert office.from_stick("--for", str(inventory)) == 0
    assert office.record()["inventory"]["found_here"] == len(held)


def test_copied_artifacts_are_ready_and_unchanged(office: Office) -> None:
    artifacts = office.project.artifacts_of(PRESET)
    before = {
        p: (p.stat().st_ino, p.stat().st_mtime_ns, p.stat().st_mode)
        for p in artifacts.rglob("*")
        if p.is_file()
    }
    assert office.rehearse("--type", "all") == 0
    record = office.record()
    assert record["bundle"] is None and [image["type"] for image in record["images"]] == [
        "runtime",
        "dev",
    ]
    after = {
        p: (p.stat().st_ino, p.stat().st_mtime_ns, p.stat().st_mode)
        for p in artifacts.rglob("*")
        if p.is_file()
    }
    assert after == before


def test_json_prints_only_the_record(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    office.build(application=None)  # as the report of an image without one
    assert office.rehearse("--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record == office.record()
    assert record["images"][0]["application"] is None and record["warnings"] == []
    office.build(12, "error: no")
    assert office.rehearse("--json") == 12
    told = capsys.readouterr()
    assert json.loads(told.out) == office.record() and "NOT ready" in told.err


def test_page_is_in_reader_language(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert office.rehearse() == 0 and office.page().startswith(f"운반할 수 있습니다: {PRESET}\n")
    office.build(12, "error: no")
    assert office.rehearse() == 12 and office.page().startswith(
        f"아직 운반할 수 없습니다: {PRESET}\n"
    )


def test_programs_get_only_site_variables(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    key = presets.find(office.project.presets, PRESET).application.secrets[0].key
    for name, value in {
        "GAPFORGE_ARTIFACTS": str(office.project.artifacts),
        "GAPFORGE_INDEX_URL": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "GITHUB_TOKEN": "x",
        "DOCKER_CONTEXT": "other",
        "XAIVA_MEDIA_SOURCE": "/elsewhere",
        "PYTHONPATH": "/elsewhere",
        key: "from-ci",
    }.items():
        monkeypatch.setenv(name, value)
    assert office.rehearse("--app-source", "some/where") == 0
    env = office.seen["env"]
    assert (
        env[key] == "from-ci"
        and env["DOCKER_HOST"] == "unix:///run/fake.sock"
        and env["GAPFORGE_LANG"] == "en"
    )
    gone = {
        "GAPFORGE_ROOT",
        "GAPFORGE_ARTIFACTS",
        "GAPFORGE_INDEX_URL",
        "https_proxy",
        "GITHUB_TOKEN",
        "DOCKER_CONTEXT",
        "XAIVA_MEDIA_SOURCE",
        "PYTHONPATH",
    }
    assert not gone & set(env)
    assert office.seen["cwd"] == str(office.site.root)
    assert office.seen["argv"][-2:] == ["--app-source", str(Path("some/where").absolute())]


def test_application_in_repository_is_read_from_site(office: Office) -> None:
    (office.root / MANIFEST).unlink()  # a copy of the folder, not an installed repository
    (office.root / "my-app").mkdir()
    (office.root / "my-app/CMakeLists.txt").write_text("")
    assert office.rehearse("--app-source", str(office.root / "my-app")) == 0
    assert (
        office.seen["argv"][-1] == str(office.site.root / "my-app")
        and not office.record()["warnings"]
    )
    (office.root / ".gapforge/my-app").mkdir()  # not carried
    assert office.rehearse("--app-source", str(office.root / ".gapforge/my-app")) == 0
    assert str(office.root / ".gapforge/my-app") in office.record()["warnings"][0]


def test_application_outside_project_is_warned_about(office: Office) -> None:
    office.build(application={"folder": "/srv/app", "chosen_by": "flag"})
    assert office.rehearse() == 0
    assert (
        any("/srv/app" in warning for warning in office.record()["warnings"])
        and "/srv/app" in office.page()
    )


# -- not ready: what was carried


def test_missing_volume_fails_unpack(office: Office) -> None:
    volumes = office.pack()
    volumes[1].unlink()
    assert office.from_stick() == 21
    failure = office.not_ready(21, "unpack")
    assert office.record()["bundle"]["missing"] == [2]
    lacking = {fault["where"] for fault in failure["faults"] if fault["problem"] == "missing"}
    assert lacking and all(name.startswith(f"{PRESET}/") for name in lacking)
    words = failure["next"].split()
    assert words == [
        "./gapforge",
        "pack",
        PRESET,
        "--volume-size",
        "70000",
        "--to",
        str(office.stick),
    ]
    assert cli.main(words[1:]) == 0 and office.from_stick() == 0, "the next command makes it good"


@pytest.mark.parametrize("place", [40, -10])
def test_broken_volume_fails_unpack(office: Office, place: int) -> None:
    volumes = office.pack()
    data = bytearray(volumes[2].read_bytes())
    data[place] ^= 8
    volumes[2].write_bytes(data)
    assert office.from_stick() == 21
    failure = office.not_ready(21, "unpack")
    assert any(volumes[2].name in fault["where"] for fault in failure["faults"])
    assert cli.main(failure["next"].split()[1:]) == 0 and office.from_stick() == 0


def test_changed_volume_with_good_copy_is_ready(office: Office) -> None:
    office.pack()
    other = office.folder / "other"
    shutil.copytree(office.stick, other)
    data = bytearray(sorted(other.glob("*.gfv"))[0].read_bytes())
    data[30] ^= 1
    sorted(other.glob("*.gfv"))[0].write_bytes(data)
    assert office.rehearse("--bundle", str(other), str(office.stick)) == 0


def pack_signed(office: Office, key: Path) -> str:
    """Pack with this key; gives its fingerprint."""
    assert cli.main(["pack", PRESET, "--sign", str(key), "--to", str(office.stick)]) == 0
    return fingerprint(key)


@needs_ssh_keygen
def test_signatures_of_unknown_signers_are_verified(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = pack_signed(office, make_key(office.folder, "release"))
    assert office.from_stick() == 0
    assert office.record()["signatures"] == {"signed_by": [signer], "trusted_here": False}
    assert signer in office.page()
    assert not list(office.site.root.parent.glob("*.signers"))
    # As it would be refused at the site: the index's signature, then a lock's.
    signature = next(office.stick.glob("*.json.sig"))
    good = signature.read_bytes()
    signature.write_bytes(next(office.stick.glob("*.lock.sig")).read_bytes())
    assert office.from_stick() == 22
    assert "gapforge-lock" in str(office.not_ready(22, "unpack")["faults"])
    signature.unlink()
    assert office.from_stick() == 22
    signature.write_bytes(good)
    lock = next(office.stick.glob("*.lock.sig"))
    lock.write_bytes(good)
    assert office.from_stick() == 22
    for path in office.stick.glob("*.sig"):
        path.write_bytes(b"junk")
    assert office.from_stick() == 22
    failure = office.not_ready(22, "signatures")
    assert len(failure["faults"]) == 3 and "--sign KEY" in failure["next"]


@needs_ssh_keygen
def test_trusted_signers_of_machine_are_used(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, other = make_key(office.folder, "release"), make_key(office.folder, "other")
    signer = pack_signed(office, release)
    monkeypatch.setenv("GAPFORGE_TRUST", str(office.folder / "signers"))
    assert cli.main(["trust", "add", str(pub(other))]) == 0
    assert office.from_stick() == 22 and signer in str(office.not_ready(22, "unpack")["faults"])
    assert cli.main(["trust", "add", str(pub(release))]) == 0
    assert office.from_stick() == 0
    assert office.record()["signatures"] == {"signed_by": [signer], "trusted_here": True}
    (office.folder / "signers").write_text("what\n")
    assert office.from_stick() == 22
    (fault,) = office.not_ready(22, "signatures")["faults"]
    assert fault["where"].startswith(str(office.folder / "signers"))


@needs_ssh_keygen
def test_copied_artifacts_with_bad_signature_fail(office: Office) -> None:
    key = make_key(office.folder, "release")
    assert cli.main(["trust", "sign", PRESET, "--key", str(key)]) == 0
    assert office.rehearse() == 0 and len(office.record()["signatures"]["signed_by"]) == 1
    signature = office.project.artifacts_of(PRESET) / "lock.json.sig"
    lines = signature.read_text().splitlines()
    lines[3] = lines[3][::-1]
    signature.write_text("\n".join(lines) + "\n")
    assert office.rehearse() == 22


@pytest.mark.parametrize("what", ["absent", "empty", "two bundles", "another preset"])
def test_unusable_bundle_folder_fails(office: Office, what: str) -> None:
    if what == "empty":
        office.stick.mkdir()
    elif what == "two bundles":
        office.pack()
        office.pack(size=80_000)
    elif what == "another preset":
        office.pack(presets=(office.made.second(),))
    assert office.from_stick() == 21
    assert f"./gapforge pack {PRESET} --to DIR" in office.not_ready(21, "bundle")["next"]


def test_bundle_with_other_lock_fails_verify(office: Office) -> None:
    office.pack()
    office.made.change({"sources/new.tar": b"new" * 1000})
    assert office.from_stick() == 5
    failure = office.not_ready(5, "verify")
    assert any("lock.json" in fault["where"] for fault in failure["faults"])
    assert failure["next"].startswith(f"./gapforge pack {PRESET} ")


def test_changed_artifact_fails_verify(office: Office) -> None:
    file = office.project.artifacts_of(PRESET) / "sources/ffmpeg_5.1.9.orig.tar.xz"
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    (file.parent / "stranger").write_bytes(b"x")
    assert office.rehearse() == 5
    failure = office.not_ready(5, "verify")
    assert {fault["where"] for fault in failure["faults"]} == {
        "sources/ffmpeg_5.1.9.orig.tar.xz",
        "sources/stranger",
    }
    assert file.read_bytes() == data


def test_missing_artifacts_refused_before_anything_is_made(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(office.project.artifacts)
    assert office.rehearse() == 5
    message, following = capsys.readouterr().err.splitlines()
    assert PRESET in message and following.endswith(f"./deps_sync.sh {PRESET}")
    assert not office.project.dist_of(PRESET).exists() and not office.site.root.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:5000],
        lambda data: data.replace(b"gapforge", b"gapfurge", 1),
        lambda data: b"",
    ],
)
def test_damaged_receiver_is_warned_about(office: Office, damage: Callable[[bytes], bytes]) -> None:
    office.pack()
    file = office.stick / RECEIVER
    file.write_bytes(damage(file.read_bytes()))
    assert office.from_stick() == 0
    record = office.record()
    assert record["bundle"]["receiver"] is None
    damaged, missing = record["warnings"]
    assert str(file) in damaged and RECEIVER in missing and str(file) not in missing


def change_receiver(office: Office) -> bytes:
    """Change the receiver on the stick, as somebody does who had it in hand. Return its bytes."""
    with open(office.stick / RECEIVER, "ab") as file:  # a comment at the end of the archive
        file.seek(-2, os.SEEK_END)
        file.truncate()
        file.write(b"\x01\x00x")
    return (office.stick / RECEIVER).read_bytes()


def started(office: Office, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes, bool]]:
    """Note of each program of a rehearsal: its name, its bytes, and whether .env was there."""
    seen = []
    run = SiteRunner.run

    def noted(self: SiteRunner, program: Path, *words: str) -> None:
        seen.append((program.name, program.read_bytes(), (self.site / ".env").exists()))
        run(self, program, *words)

    monkeypatch.setattr(SiteRunner, "run", noted)
    (office.root / ".env").write_text("A=canary\n")
    (office.root / ".env").chmod(0o600)
    return seen


def test_secrets_are_at_the_site_for_builds_only(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.pack()
    seen = started(office, monkeypatch)
    assert office.from_stick() == 0
    receiver, verify, build = seen
    assert receiver[0].endswith(RECEIVER) and receiver[1] == receiver_bytes()
    assert [receiver[2], verify[2], build[2]] == [False, False, True]
    assert not list(office.site.root.parent.glob("*")), "the copy of the receiver is removed"


def test_receiver_of_unknown_origin_is_not_run(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.pack()
    change_receiver(office)
    seen = started(office, monkeypatch)
    assert office.from_stick() == TrustError.exit_code
    failure = office.not_ready(TrustError.exit_code, "bundle")
    assert seen == []
    assert [fault["where"] for fault in failure["faults"]] == [str(office.stick / RECEIVER)]
    assert "./gapforge pack" in failure["next"] and str(office.stick) in failure["next"]
    office.pack()  # what the message says
    assert office.from_stick() == 0 and seen


@needs_ssh_keygen
def test_receiver_that_a_signed_page_names_is_run(
    office: Office, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    office.pack()
    changed = change_receiver(office)
    page = office.stick / "page.txt"
    page.write_text(f"receiver program  {sha256_bytes(changed)}\n")
    alice, mallory = (make_key(tmp_path / "keys", name) for name in ("alice", "mallory"))
    trusted = office.folder / "signers"
    monkeypatch.setenv("GAPFORGE_TRUST", str(trusted))
    seen = started(office, monkeypatch)

    def sign(key: Path, purpose: str = CUSTODY) -> None:
        data = signature(key, purpose, page.read_bytes(), tmp_path)
        (office.stick / "page.txt.sig").write_bytes(data)

    sign(alice)
    assert office.from_stick() == TrustError.exit_code, "no key is trusted on this machine"
    trusted_signers.add(trusted, ssh_signatures.read_public(pub(alice)), "alice")
    for key, purpose in ((mallory, CUSTODY), (alice, LOCK)):
        sign(key, purpose)
        assert office.from_stick() == TrustError.exit_code
    sign(alice)
    page.write_text(page.read_text() + "changed\n")
    assert office.from_stick() == TrustError.exit_code and seen == []
    sign(alice)
    office.from_stick()  # the site itself accepts only volumes that alice signed
    assert [program[1] for program in seen] == [changed]
    assert office.record()["bundle"]["receiver"]["of_this_gapforge"] is False
    assert str(office.stick / RECEIVER) in office.record()["warnings"][0]


def test_repository_of_unknown_origin_is_not_run(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gapforge in a bundle verifies and builds: it is a program like the receiver."""
    cli.main(["pack", PRESET, "--with-tool", "--to", str(office.stick), "--volume-size", "300k"])
    seen = started(office, monkeypatch)
    kept = list((office.project.state / "bundles").glob("*"))
    assert kept
    for file in kept:
        file.write_bytes(file.read_bytes() + b"x")
    assert office.from_stick() == TrustError.exit_code
    assert seen == [] and len(office.not_ready(TrustError.exit_code, "bundle")["faults"]) == 1
    for file in kept:
        file.unlink()
    assert office.from_stick() == TrustError.exit_code and seen == []
    cli.main(["pack", PRESET, "--with-tool", "--to", str(office.stick), "--volume-size", "300k"])
    assert office.from_stick() == 0 and len(seen) == 3


# -- a site that has things already


def inventory_of(office: Office, held: set[str]) -> Path:
    sizes = {e.sha256: e.size for e in office.made.lock().entries}
    file = office.folder / "inventory.txt"
    file.write_text(Inventory.of("0.1.0", {}, {h: sizes.get(h, 1) for h in held}).render())
    return file


def site_with_the_first_bundle(office: Office) -> Path:
    site = site_at(office.folder / "site")
    carry(office.made, office.folder / "first", size=10**9)
    receive(site, office.folder / "first")
    held = {p.name: p.stat().st_size for p in (site.store / "sha256").rglob("*") if p.is_file()}
    file = office.folder / "inventory.txt"
    file.write_text(Inventory.of("0.1.0", {}, held).render())
    return file


def test_site_objects_are_added_before_unpack(office: Office) -> None:
    inventory = site_with_the_first_bundle(office)
    office.made.change({"sources/new.tar": b"new" * 1000})
    office.pack(inventory=inventory)
    assert office.from_stick() == 21, "without the inventory it is no whole bundle"
    assert office.from_stick("--for", str(inventory)) == 0
    record = office.record()
    assert record["inventory"]["sha256"] == Inventory.read(inventory).sha256
    assert record["inventory"]["digest"] in office.page()


def test_missing_site_objects_are_named(office: Office) -> None:
    inventory = site_with_the_first_bundle(office)
    office.made.change({"sources/new.tar": b"new" * 1000})
    office.pack(inventory=inventory)
    (office.project.artifacts_of(PRESET) / "debs/Packages").unlink()
    assert office.from_stick("--for", str(inventory)) == 21
    failure = office.not_ready(21, "stock")
    assert [fault["where"] for fault in failure["faults"]] == [f"{PRESET}/debs/Packages"]


def test_damaged_site_object_fails_unpack(office: Office) -> None:
    inventory = site_with_the_first_bundle(office)
    office.made.change({"sources/new.tar": b"new" * 1000})
    office.pack(inventory=inventory)
    file = office.project.artifacts_of(PRESET) / "debs/nasm_2.16.01-1_amd64.deb"
    file.write_bytes(b"X" * file.stat().st_size)
    assert office.from_stick("--for", str(inventory)) == 21
    failure = office.not_ready(21, "unpack")
    assert any("nasm" in fault["where"] for fault in failure["faults"])
    assert f"--for {inventory}" in failure["next"]
    assert file.read_bytes().startswith(b"X"), "what is here stays as it is"


def test_invalid_inventory_fails_rehearsal(office: Office) -> None:
    office.pack()
    (office.folder / "i").write_text("nothing\n")
    assert office.from_stick("--for", str(office.folder / "i")) == 5
    (fault,) = office.not_ready(5, "stock")["faults"]
    assert fault["where"].startswith(str(office.folder / "i"))


# -- not ready: what is done with it


@pytest.mark.parametrize("kind", ERROR_CLASSES, ids=lambda kind: kind.cause)
def test_error_document_becomes_same_error(kind: type[GapforgeError]) -> None:
    faults = [Fault("x", "is bad; worse", "good"), Fault("y z", "z")]
    for error in (
        kind("in three\n    lines\nerror: x", hint="./gapforge list; next: more", faults=faults),
        kind("short"),
        kind("no faults", hint="x"),
        kind("no hint", faults=faults),
    ):
        document = json.loads(json.dumps(error.to_json()))
        found = run_gapforge.error_of(kind.exit_code, document, ["another line"])
        assert type(found) is kind
        assert (found.message, found.faults, found.hint) == (
            error.message,
            error.faults,
            error.hint,
        )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_programs_write_error_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    file = tmp_path / "error.json"
    for words, code in ((["verify", "absent"], 3), (["unpack", str(tmp_path / "absent")], 21)):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(ROOT / "src/gapforge/__main__.py"), *words],
            env={**RUN_ENV, "GAPFORGE_LANG": language, "GAPFORGE_ERROR_FILE": str(file)},
            check=False,
            capture_output=True,
            cwd=tmp_path,
        )
        document = json.loads(file.read_text())
        assert done.returncode == document["exit_code"] == code
        error = run_gapforge.error_of(code, document)
        assert error.render() == done.stderr.decode().rstrip("\n")
        file.unlink()


@pytest.mark.parametrize(
    "kind", [BuildError, SecretError, EngineError], ids=lambda kind: kind.cause
)
def test_failed_build_keeps_code_and_faults(office: Office, kind: type[GapforgeError]) -> None:
    error = kind(
        "it went wrong\nin two lines",
        hint="cp a SITE/b",
        faults=[Fault("SITE/x", "is bad", "good"), Fault("y", "z")],
    )
    office.build(text="some line", error=error)
    assert office.rehearse() == kind.exit_code
    failure = office.not_ready(kind.exit_code, "build runtime")
    assert failure["message"] == "it went wrong\nin two lines" and failure["error"] == kind.cause
    # What is wrong at the site is to be corrected in the project.
    assert failure["faults"] == [
        {"where": f"{office.root}/x", "problem": "is bad", "expected": "good"},
        {"where": "y", "problem": "z", "expected": ""},
    ]
    assert failure["next"] == f"cp a {office.root}/b"
    assert "some line" in (office.dist / "rehearsal.log").read_text()


def test_failed_smoke_check_hint_keeps_site(office: Office) -> None:
    office.build(error=SmokeError("1 of 9 checks failed", hint="look inside: docker run x"))
    assert office.rehearse() == 12
    assert (
        f"rehearse {PRESET} --keep; then: cd {office.site.root}"
        in office.not_ready(12, "build runtime")["next"]
    )


def test_killed_program_reports_exit_code(office: Office) -> None:
    office.build(3 << 6, "Killed")
    assert office.rehearse() == 1
    assert "exit code 192" in office.not_ready(1, "build runtime")["message"]


@pytest.mark.parametrize(
    "report",
    [
        {"passed": False},
        {"checks": []},
        {"checks": [{"ok": True}, {"ok": False}]},
        {"type": "dev"},
        {"preset": "other"},
        {"lock_sha256": "0" * 64},
        {"preset_sha256": "0" * 64},
        {"engine": {}},
        {"image_ids": ...},
    ],
)
def test_report_without_success_fails_rehearsal(office: Office, report: dict[str, Any]) -> None:
    text = (office.root / "build.py").read_text()
    if ... in report.values():
        (office.root / "build.py").write_text(text.replace('"image_ids"', '"image-ids"'))
    else:
        office.build(**report)
    assert office.rehearse() == 1
    office.not_ready(1, "build runtime")


def test_missing_required_secret_fails_build(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real build.py, which stops before it needs an engine."""
    for name in ("build.py", "Dockerfile"):
        shutil.copy(ROOT / name, office.root)
    with open(office.root / MANIFEST, "a") as manifest:
        manifest.write("Dockerfile\n")  # read before the secrets
    for name in ("components", "examples", "schemas"):
        shutil.copytree(
            ROOT / name, office.root / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    file = office.project.preset_file(PRESET)
    raw = json.loads(file.read_text())
    raw["application"]["secrets"][0]["required"] = True
    key = raw["application"]["secrets"][0]["key"]
    file.write_text(json.dumps(raw))
    fabricate(office.project, presets.find(office.project.presets, PRESET))
    monkeypatch.delenv(key, raising=False)
    assert office.rehearse() == SecretError.exit_code
    failure = office.not_ready(SecretError.exit_code, "build runtime")
    assert [fault["where"] for fault in failure["faults"]] == [key]
    assert f"chmod 600 {office.root}/.env" in failure["next"]


def test_engine_start_failure_is_recorded(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(project: Project, **_: object) -> None:
        assert project.root == office.site.root
        raise BuildError("no engine", hint="read the log")

    monkeypatch.setattr(private_daemon, "start", start)
    assert office.rehearse() == 11
    assert office.not_ready(11, "engine")["next"] == "read the log"


def test_rehearsal_without_root_is_refused(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert office.rehearse("--type", "dev") == 10
    assert office.not_ready(10, "start")["next"] == f"sudo ./gapforge rehearse {PRESET} --type dev"


# -- what is left, and what was left before


def test_failure_removes_earlier_ready_page(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert office.rehearse() == 0 and "ready to travel" in office.page()
    office.build(11, "error: no")
    assert office.rehearse() == 11
    office.not_ready(11, "build runtime")
    office.build()
    assert office.rehearse() == 0

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(site_folder, "create_site", bug)
    assert office.rehearse() == 1
    assert (
        not (office.dist / "rehearsal.txt").exists()
        and not (office.dist / "rehearsal.json").exists()
    )
    assert not office.site.root.exists()


def test_interrupted_rehearsal_cleans_up(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[Path] = []

    def start(project: Project, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(private_daemon, "start", start)
    monkeypatch.setattr(private_daemon, "remove", lambda project: removed.append(project.root))
    assert office.rehearse() == 130
    office.not_ready(130, "engine")
    assert removed == [office.site.root] * 2, "before, and after"


def test_site_of_killed_rehearsal_is_recreated(office: Office) -> None:
    mark_folder(office.site.root, "left")
    (office.site.root / "stale").write_text("x")
    (office.site.root / "presets").mkdir()
    assert office.rehearse() == 0
    assert "stale" not in office.seen["files"] and not office.site.root.exists()


def test_folder_without_marker_is_kept(office: Office) -> None:
    office.site.root.mkdir(parents=True)
    (office.site.root / "thesis.txt").write_text("x")
    assert office.rehearse() == 15
    assert (
        office.record()["failure"]["step"] == "place"
        and MARKER in office.record()["failure"]["message"]
    )
    assert (office.site.root / "thesis.txt").read_text() == "x"


def test_keep_option_keeps_site(office: Office) -> None:
    office.build(12, "error: no")
    assert office.rehearse("--keep") == 12
    assert (office.site.root / "build.py").exists() and (
        office.site.artifacts_of(PRESET) / "lock.json"
    ).exists()
    assert office.rehearse() == 12 and not office.site.root.exists()


def test_failed_site_removal_is_warned_about(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = site_folder.remove_site, []

    def remove(project: Project) -> None:
        calls.append(project)
        if len(calls) == 2:
            raise VerifyError("still mounted")
        real(project)

    monkeypatch.setattr(site_folder, "remove_site", remove)
    assert office.rehearse() == 0
    assert any("still mounted" in warning for warning in office.record()["warnings"])


def test_second_rehearsal_is_busy(office: Office) -> None:
    assert office.rehearse() == 0
    with exclusive(office.project.state / "locks" / f"rehearse-{PRESET}", "x"):
        assert office.rehearse() == 19
    assert office.record()["ready"] is True, "it speaks for the other run"


@pytest.mark.parametrize(
    "words", [["--for", "i"], ["--type", "both"], ["--app-source"], ["--bundle"]]
)
def test_invalid_options_exit_with_2(office: Office, words: list[str]) -> None:
    assert office.rehearse(*words) == 2
    assert office.rehearse(preset="no-such-preset") == 3 and not office.dist.exists()


def test_project_without_gapforge_is_refused(office: Office) -> None:
    (office.root / "src/gapforge/__main__.py").unlink()
    assert office.rehearse() == 2
    assert "checkout" in office.not_ready(2, "place")["next"]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becoming another user needs root"
)
@pytest.mark.parametrize("office", ["for all users"], indirect=True)
@pytest.mark.parametrize("bundle", [True, False])
def test_sudo_runs_commands_of_site_as_caller(
    office: Office, monkeypatch: pytest.MonkeyPatch, bundle: bool
) -> None:
    monkeypatch.setenv("SUDO_UID", str(USER))
    monkeypatch.setenv("SUDO_GID", str(USER))
    for folder in (office.folder, office.root):
        os.chown(folder, USER, USER)
    # Another user may not reach a Python below the home of root.
    pythons = [os.path.realpath(sys.executable), "/usr/bin/python3"]
    who = Caller(USER, USER).prefix()
    python = next(p for p in pythons if subprocess.run([*who, p, "-c", ""]).returncode == 0)
    monkeypatch.setattr(rehearsal, "site_python", lambda user: Python(python, "3.10.99"))
    if bundle:
        office.pack()
    office.build(error=BuildError("no"))
    assert (office.from_stick() if bundle else office.rehearse()) == BuildError.exit_code
    assert office.not_ready(BuildError.exit_code, "build runtime")["message"] == "no"
    assert office.seen["env"]["HOME"] == str(office.site.root) and office.seen["user"] == USER
    assert office.record()["user"] == USER
    made = [office.root / "dist", office.dist, *office.dist.iterdir(), office.project.state]
    assert {path.stat().st_uid for path in made} == {USER}
    assert (office.root / "src/gapforge/__main__.py").stat().st_uid == 0


# -- the copy of the repository


@pytest.fixture
def checkout(tmp_path: Path) -> Project:
    """A git checkout with a bit of everything."""
    root = tmp_path / "checkout"
    for name, text in {
        "src/gapforge/__main__.py": "1",
        "src/a.py": "a",
        "deleted": "d",
        "sub/inner.txt": "i",
        ".gitignore": "/ignored\n/.env\n/artifacts\n/dist\n/.gapforge\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "src/a.py").chmod(0o755)
    git(root, "init", "-q")
    git(root / "sub", "init", "-q")
    git(root / "sub", "add", "-A")
    git(root / "sub", "commit", "-q", "-m", "x")
    git(root, "-c", "advice.addEmbeddedRepo=false", "add", "-A")
    git(root, "commit", "-q", "-m", "x")
    (root / "deleted").unlink()
    for name in (
        "ignored",
        "untracked",
        "artifacts/x/y",
        "dist/z",
        ".gapforge/tool",
        "elsewhere/x/big",
        ".env~",
        "src/.envrc",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return Project(root, root / "elsewhere")


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
        check=True,
    )


def test_files_of_git_are_copied(checkout: Project) -> None:
    left_out = create_site(checkout, site := site_of(checkout, PRESET))
    found = {str(p.relative_to(site.root)) for p in site.root.rglob("*") if not p.is_dir()}
    assert found == {
        ".gitignore",
        "src/gapforge/__main__.py",
        "src/a.py",
        "sub/inner.txt",
        MARKER,
    } and [line.split(":")[0] for line in left_out] == ["untracked"]
    assert (site.root / "src/a.py").stat().st_mode & 0o777 == 0o755
    assert (site.root / "src/a.py").stat().st_ino != (checkout.root / "src/a.py").stat().st_ino
    assert site.artifacts.is_dir() and not any(site.artifacts.iterdir())
    assert (
        rehearsal._repository(checkout) is not None
        and rehearsal._repository(checkout)["uncommitted_changes"]
    )


def test_git_hook_of_another_repository_changes_nothing(
    checkout: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rehearsal._repository(checkout), list_repository(checkout)
    git(tmp_path, "init", "-q", "other")
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "x")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert (rehearsal._repository(checkout), list_repository(checkout)) == expected


def test_without_git_all_but_tool_files_copied(checkout: Project) -> None:
    shutil.rmtree(checkout.root / ".git")
    (checkout.root / "src/__pycache__").mkdir()
    (checkout.root / "src/__pycache__/a.pyc").write_text("")
    assert set(list_repository(checkout)) == {
        ".gitignore",
        "src/gapforge/__main__.py",
        "src/a.py",
        "sub/inner.txt",
        "untracked",
        "ignored",
        *(f for f in list_repository(checkout) if f.startswith("sub/.git/")),
    }
    assert rehearsal._repository(checkout) is None


def test_checkout_that_git_refuses_is_not_copied(
    checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git refuses a folder of another user. A build must not depend on ignored files."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("HOME", "/nonexistent")  # whose settings call no folder safe
    with pytest.raises(ToolError):
        list_repository(checkout)
    names = ["src/gapforge/__main__.py", "src/a.py", "deleted"]
    (checkout.root / MANIFEST).write_bytes(render_manifest(names))
    assert set(list_repository(checkout)) == {MANIFEST, *names[:2]}


def test_project_inside_another_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*\n")
    root = tmp_path / "tools" / "gapforge"
    root.mkdir(parents=True)
    (root / "src" / "gapforge").mkdir(parents=True)
    (root / "src/gapforge/__main__.py").write_text("")
    assert list_repository(Project(root, root / "artifacts")) == ["src/gapforge/__main__.py"]


def test_links_leading_outside_are_not_copied(checkout: Project, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    root = checkout.root
    for name, target in {
        "good": "src/a.py",
        "src/up": "gapforge/__main__.py",
        "absolute": str(root / "src/gapforge/__main__.py"),
        "out": "../outside",
        "here": ".",
        "tricky": "here/../outside",
        "round": "../checkout/src/gapforge/__main__.py",
        "nowhere": "no/such",
        "circle": "circle",
    }.items():
        (root / name).symlink_to(target)
    git(checkout.root, "add", "--all")
    left_out = create_site(checkout, site := site_of(checkout, PRESET))
    assert {line.split(":")[0] for line in left_out} == {
        "absolute",
        "out",
        "tricky",
        "round",
        "circle",
    }
    assert {p.name for p in site.root.rglob("*") if p.is_symlink()} == {
        "good",
        "up",
        "here",
        "nowhere",
    }
    for link in (p for p in site.root.rglob("*") if p.is_symlink()):
        assert site.root in (link.resolve(), *link.resolve().parents)


def test_folder_replaced_by_link_is_not_copied(checkout: Project, tmp_path: Path) -> None:
    shutil.move(checkout.root / "src", tmp_path / "moved")
    (checkout.root / "src").symlink_to(tmp_path / "moved")
    left_out = create_site(checkout, site := site_of(checkout, PRESET))
    assert {line.split(":")[0] for line in left_out} == {
        "untracked",
        "src",
        "src/a.py",
        "src/gapforge/__main__.py",
    } and not (site.root / "src").exists()


def test_file_names_of_any_bytes_are_copied(checkout: Project) -> None:
    name = os.fsdecode(b"caf\xe9 \n.txt")
    (checkout.root / name).write_text("x")
    git(checkout.root, "add", "--all")
    create_site(checkout, site := site_of(checkout, PRESET))
    assert (site.root / name).read_text() == "x"


def test_env_is_a_hard_link(checkout: Project) -> None:
    checkout.env_file.write_text("A=b\n")
    checkout.env_file.chmod(0o600)
    create_site(checkout, site := site_of(checkout, PRESET))
    assert not site.env_file.exists()
    site_folder.link_env(checkout, site)
    assert (
        site.env_file.samefile(checkout.env_file) and site.env_file.stat().st_mode & 0o777 == 0o600
    )
    site_folder.remove_site(site)
    assert checkout.env_file.read_text() == "A=b\n" and not site.root.exists()


def test_env_on_other_file_system_is_copied(
    checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.env_file.write_text("A=b\n")
    checkout.env_file.chmod(0o600)

    def link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    create_site(checkout, site := site_of(checkout, PRESET))
    assert not site.env_file.exists()
    site_folder.link_env(checkout, site)
    assert site.env_file.read_text() == "A=b\n" and site.env_file.stat().st_mode & 0o777 == 0o600
    assert not site.env_file.samefile(checkout.env_file)


def test_env_link_stays_a_link(checkout: Project, tmp_path: Path) -> None:
    (tmp_path / "shm").write_text("A=b\n")
    checkout.env_file.symlink_to("../shm")
    create_site(checkout, site := site_of(checkout, PRESET))
    assert not site.env_file.exists()
    site_folder.link_env(checkout, site)
    assert site.env_file.is_symlink() and site.env_file.read_text() == "A=b\n"
    site_folder.remove_site(site)
    assert (tmp_path / "shm").exists()


# -- small things


@pytest.mark.parametrize("version", ["3.10.12", "3.11.2", "", "broken"])
def test_site_python_version_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(run_gapforge, "_FOLDERS", ())
    monkeypatch.setattr(run_gapforge.sys, "version_info", (3, 11, 2, "final", 0))
    for folder, text in (
        ("one", "exit 127"),
        ("two", f"echo {version}" if version != "broken" else "exit 1"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "python3.10").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / folder / "python3.10").chmod(0o755)
    found = run_gapforge.site_python()
    if version == "3.10.12":
        assert found == run_gapforge.Python(str(tmp_path / "two/python3.10"), version)
    else:
        assert found.path == sys.executable


@pytest.mark.parametrize(
    ("offline", "user"), [(True, None), (False, None), (True, Caller(USER, USER + 1))]
)
def test_programs_run_without_network_and_root_if_possible(
    office: Office, monkeypatch: pytest.MonkeyPatch, offline: bool, user: Caller | None
) -> None:
    started: list[list[str]] = []
    homes, given = set(), []

    def stream(argv: list[str], on_line: object, env: dict[str, str | None], **_: object) -> int:
        started.append(argv)
        homes.add((env["HOME"], env["XDG_RUNTIME_DIR"]))
        return 0

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    monkeypatch.setattr(site_folder, "user_of_site", lambda project: user)
    monkeypatch.setattr(site_folder, "give_site", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(rehearsal, "can_leave_network", lambda: offline)
    monkeypatch.setattr(run_gapforge.process, "stream", stream)
    office.pack()
    office.from_stick()  # the build that did not happen has no report
    assert office.record()["children_without_network"] is offline
    programs = [
        (office.site.root.with_name(f"{PRESET}.{RECEIVER}"), "unpack"),
        (office.site.root / "src/gapforge/__main__.py", "verify"),
        (office.site.root / "build.py", "--preset"),
    ]
    apart = ["unshare", "--net"] if offline else []
    if user is not None:
        apart += ["setpriv", f"--reuid={USER}", f"--regid={USER + 1}", "--clear-groups", "--"]
        assert homes == {(str(office.site.root), None)}
        assert given == [(office.project, office.site, user)] * 3
        assert office.record()["user"] == USER
    else:
        assert homes == {(os.environ["HOME"], "/run/user/0")} and given == []
        assert office.record()["user"] == 0
    assert [argv[: len(apart) + 6] for argv in started] == [
        [*apart, sys.executable, "-I", "-S", "-u", str(program), word] for program, word in programs
    ]


@pytest.mark.parametrize("lines", [[], ["a", "b"], ["error:no"], [f"line {n}" for n in range(50)]])
@pytest.mark.parametrize("document", [None, {}, [], {"exit_code": 16, "message": "x"}])
def test_exit_without_error_document(lines: list[str], document: object) -> None:
    error = run_gapforge.error_of(17, document, lines)
    assert error.exit_code == 17 and "17" in error.message
    assert error.message.endswith(lines[-1]) if lines else True
    assert run_gapforge.error_of(-9, document, lines).exit_code == 1


def test_site_gets_only_tokens_of_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "from-ci")
    application = samples.raw_preset()["application"]
    named = {
        **application,
        "secrets": [{"key": "GITHUB_TOKEN", "pass": "secret", "required": False}],
    }
    for raw, expected in ((named, "from-ci"), ({**application, "secrets": []}, None)):
        runner = SiteRunner(
            project=tmp_path,
            site=tmp_path,
            python=Python(sys.executable, "3.10"),
            preset=samples.preset(application=raw),
            offline=True,
            show=lambda line: None,
            log=lambda line: None,
        )
        assert process.environment(runner.environment()).get("GITHUB_TOKEN") == expected
