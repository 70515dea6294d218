"""Sync online, `cp -r` to a site, and build there in an engine without a network.

The tests of this module run in order: each uses what the one before it built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import copy_repository, site_python
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.base.strict_json import canonical_json
from gapforge.model import lock as locks
from private_engine import CompilerCache, docker_command
from samples import PRESET, ROOT

CANARY = {
    "XAIVA_LICENSE_TOKEN": "canary-secret-5f2b9c7e41",
    "XAIVA_BUILD_TOKEN": "canary-arg-a81d03e6f9",
}
HOURS = 3600
STEP = re.compile(r"^#(\d+) \[(?:stage-\d+ )?([a-z]+) +\d+/\d+\] (RUN|COPY)")


def command(
    argv: list[str], *, cwd: Path, timeout: float = HOURS, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal and print its output for the report of a failure."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
    )
    print(f"$ {' '.join(argv)}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}")
    return done


class Site:
    """A site: copies of the repository and of one preset's artifacts, and an offline engine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = Project(root, root / "artifacts")
        self.artifacts = root / "artifacts" / PRESET

    def gapforge(self, *argv: str, timeout: float = HOURS) -> subprocess.CompletedProcess[str]:
        return command([str(self.root / "gapforge"), *argv], cwd=self.root, timeout=timeout)

    def build(self, kind: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the field engineer's command with a Python that sees no third-party package."""
        argv = [
            site_python(),
            "-I",
            "-S",
            str(self.root / "build.py"),
            "--preset",
            PRESET,
            "--type",
            kind,
            "--non-interactive",
        ]
        return command([*argv, *more], cwd=self.root)

    def docker(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        command = docker_command(self.project, *argv)
        return subprocess.run(command, capture_output=True, check=check)

    def ran(self, kind: str) -> set[str]:
        """Return the stages whose RUN steps the last build executed without the cache."""
        names: dict[str, str] = {}
        cached: set[str] = set()
        for line in (
            (self.root / "dist" / PRESET / kind / "build.log")
            .read_text(encoding="utf-8")
            .splitlines()
        ):
            if (found := STEP.match(line)) and found[3] == "RUN":
                names[found[1]] = found[2]
            elif found := re.match(r"^#(\d+) CACHED", line):
                cached.add(found[1])
        assert names, "the log shows no step at all"
        return {stage for number, stage in names.items() if number not in cached}


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, compiler_cache: CompilerCache, practice_lock: Path
) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site") / "gapforge"
    root.mkdir()
    copy_repository(root)
    shutil.copy(practice_lock, root / "presets")
    (root / "artifacts").mkdir()
    subprocess.run(
        ["cp", "-r", str(ROOT / "artifacts" / PRESET), str(root / "artifacts")], check=True
    )
    (root / ".env").write_text("".join(f"{key}={value}\n" for key, value in CANARY.items()))
    (root / ".env").chmod(0o600)
    there = Site(root)
    started = there.gapforge("engine", "start", "--offline")
    assert started.returncode == 0, started.stderr
    try:
        yield there
        compiler_cache.keep(there.project)
    finally:
        there.gapforge("engine", "remove")


class ProcessWatch(threading.Thread):
    """Search the arguments of every process for the canaries while a build runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.seen: list[str] = []
        self.rounds = 0

    def run(self) -> None:
        needles = [value.encode() for value in CANARY.values()]
        while not self.stop.is_set():
            for process in filter(str.isdigit, os.listdir("/proc")):
                try:
                    data = Path("/proc", process, "cmdline").read_bytes()
                except OSError:
                    continue
                if any(needle in data for needle in needles):
                    self.seen.append(data.replace(b"\0", b" ").decode(errors="replace"))
            self.rounds += 1
            time.sleep(0.05)


def test_engine_has_only_loopback(site: Site) -> None:
    state = json.loads(site.gapforge("engine", "status", "--json").stdout)
    assert state["offline"] is True
    interfaces = Path(f"/proc/{state['pid']}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_verify_and_sha256sum_report_no_fault(site: Site) -> None:
    done = site.gapforge("verify", PRESET, "--json")
    assert done.returncode == 0
    sums = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=site.artifacts)
    assert sums.returncode == 0


def test_runtime_image_builds_offline(site: Site) -> None:
    watch = ProcessWatch()
    watch.start()
    done = site.build("runtime")
    watch.stop.set()
    watch.join()
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((site.root / "dist" / PRESET / "runtime" / "report.json").read_text())
    assert report["passed"] and report["practice"]
    components = {check["component"] for check in report["checks"]}
    assert {"ffmpeg", "opencv", "wheels", "python", "application"} <= components
    assert watch.rounds > 20 and watch.seen == []


def test_dev_image_shares_stages_of_runtime(site: Site) -> None:
    done = site.build("dev")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not site.ran("dev") & {"toolchain", "ffmpeg", "opencv", "wheels"}, (
        "stages of the first build ran again"
    )
    where = site.docker(
        "run",
        "--rm",
        "--network=none",
        f"gapforge/{PRESET}:dev",
        "sh",
        "-c",
        "which g++ cmake ffmpeg",
    )
    assert len(where.stdout.split()) == 3


def test_runtime_image_is_minimal_and_unprivileged(site: Site) -> None:
    script = (
        "id -u; for p in gcc g++ cc ld make cmake; do command -v $p; done; "
        # What the RECORD of a Python package lists stays.
        "find / -xdev \\( -name '*.h' -o -name '*.hpp' \\) ! -name pyconfig.h"
        " ! -path '*/python3*/dist-packages/*'; "
        "ls /var/lib/apt/lists; ls -d /in /out /needs 2>/dev/null"
    )
    done = site.docker(
        "run",
        "--rm",
        "--network=none",
        f"gapforge/{PRESET}:runtime",
        "sh",
        "-c",
        script,
        check=False,
    )
    assert done.stdout.decode().split() == ["1000"]


def test_secrets_are_in_no_output(site: Site) -> None:
    needles = [value.encode() for value in CANARY.values()]
    for kind in ("runtime", "dev"):
        image = f"gapforge/{PRESET}:{kind}"
        history = (
            site.docker("history", "--no-trunc", image).stdout
            + site.docker("inspect", image).stdout
        )
        assert not any(needle in history for needle in needles)
        looked = 0
        save = subprocess.Popen(docker_command(site.project, "save", image), stdout=subprocess.PIPE)
        with save, tarfile.open(fileobj=save.stdout, mode="r|") as outer:
            for member in outer:
                if not member.isfile():  # a layer that occurs twice is a link
                    continue
                file, tail = outer.extractfile(member), b""
                while chunk := file.read(1 << 22):
                    assert not any(needle in tail + chunk for needle in needles), member.name
                    tail, looked = chunk[-64:], looked + len(chunk)
            save.stdout.read()  # what follows the end of the archive
        assert save.returncode == 0 and looked > 50_000_000, "the layers were not read"
    places = [site.root / "dist", site.root / ".gapforge" / "context"]
    for place in places:
        read = 0
        for file in place.rglob("*"):
            if file.is_file():
                data = file.read_bytes()
                read += 1
                assert not any(needle in data for needle in needles), file
        assert read > 3
    # The example application records that it got both secrets, without their values.
    told = site.docker(
        "run", "--rm", "--network=none", f"gapforge/{PRESET}:runtime", "xaiva-media", "--version"
    ).stdout
    assert json.loads(told)["built_with"] == {"build_token": True, "license_token": True}


def test_changed_source_rebuilds_only_the_application(site: Site) -> None:
    source = site.root / "examples" / "xaiva-media"
    file = next(source.rglob("*.cpp"))
    file.write_text(file.read_text() + "\n// touched\n")
    done = site.build("runtime")
    assert done.returncode == 0, done.stderr[-3000:]
    ran = site.ran("runtime")
    assert "application" in ran
    assert not ran & {"toolchain", "ffmpeg", "opencv", "wheels", "tensorrt", "devbase"}


def test_change_of_equal_size_and_time_rebuilds(site: Site) -> None:
    """BuildKit would take the old bytes, but the context's file times depend on the content."""
    file = next((site.root / "examples" / "xaiva-media").rglob("*.cpp"))
    before = file.stat()
    file.write_text(file.read_text().replace("// touched", "// TOUCHED"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert site.build("runtime").returncode == 0
    assert "application" in site.ran("runtime")


def test_base_override_by_name_and_archive(site: Site, tmp_path: Path) -> None:
    lock = locks.load(site.artifacts / "lock.json")
    own = (
        "localhost/gapforge/base:"
        + lock.images["runtime"].config_digest.removeprefix("sha256:")[:24]
    )
    archive = tmp_path / "base.tar"
    site.docker("tag", own, "example.org/site/base:1")
    site.docker("save", "-o", str(archive), "example.org/site/base:1")
    for value in ("example.org/site/base:1", str(archive)):
        done = site.build("runtime", "--base", value, "--tag", "example.org/site/media:1")
        assert done.returncode == 0, done.stderr[-3000:]
        report = json.loads((site.root / "dist" / PRESET / "runtime" / "report.json").read_text())
        assert report["image"] == "example.org/site/media:1"
        assert {base["reference"] for base in report["bases"]} == {f"--base {value}"}
    refused = site.build("runtime", "--base", "example.org/not/there:1")
    assert refused.returncode == 10 and "example.org/not/there:1" in refused.stderr


def test_failed_smoke_check_leaves_no_tag(site: Site) -> None:
    check = site.root / "components" / "ffmpeg" / "check.py"
    good = check.read_text()
    check.write_text(good + '\nreport("deliberate", False, "this", "that")\n')
    try:
        done = site.build("runtime", "--tag", "example.org/site/never:1")
    finally:
        check.write_text(good)
    assert done.returncode == 12 and "deliberate" in done.stderr
    assert site.docker("image", "inspect", "example.org/site/never:1", check=False).returncode != 0


def replace_wheel(site: Site, package: str) -> None:
    """Replace one wheel by one with other bytes and update the locks, as another sync would."""
    lock = locks.load(site.artifacts / "lock.json")
    entry = next(e for e in lock.of("wheel") if e.name.lower() == package)
    wheel = site.artifacts / entry.path
    changed = wheel.with_suffix(".new")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            new.writestr(item, old.read(item))
        new.comment = b"rebuilt"
    os.replace(changed, wheel)
    data = wheel.read_bytes()
    raw = json.loads((site.artifacts / "lock.json").read_text())
    requirements = site.artifacts / "requirements.txt"
    requirements.chmod(0o644)
    requirements.write_text(requirements.read_text().replace(entry.sha256, sha256_bytes(data)))
    fresh = {entry.path: data, "requirements.txt": requirements.read_bytes()}
    for item in raw["entries"]:
        if item["path"] in fresh:
            item["sha256"], item["size"] = (
                sha256_bytes(fresh[item["path"]]),
                len(fresh[item["path"]]),
            )
    for target in (site.artifacts / "lock.json", site.root / "presets" / f"{PRESET}.lock.json"):
        target.unlink(missing_ok=True)
        target.write_text(canonical_json(raw))
    sums = site.artifacts / "SHA256SUMS"
    lines = []
    for line in sums.read_text().splitlines():
        name = line[66:]
        lines.append(f"{sha256_bytes((site.artifacts / name).read_bytes())}  {name}\n")
    sums.unlink()
    sums.write_text("".join(lines))


def test_changed_wheel_compiles_nothing(site: Site) -> None:
    replace_wheel(site, "tqdm")
    done = site.build("runtime")
    assert done.returncode == 0, done.stderr[-3000:]
    ran = site.ran("runtime")
    assert "wheels" in ran
    assert not ran & {"toolchain", "ffmpeg", "opencv"}


def test_every_kind_of_damage_is_reported(site: Site) -> None:
    lock = locks.load(site.artifacts / "lock.json")
    flipped = {
        kind: next(e for e in lock.entries if e.kind == kind and e.size > 100).path
        for kind in ("image", "deb", "wheel", "source", "index")
    }
    others = [e.path for e in lock.of("deb") if e.path not in flipped.values()]
    kept: dict[str, bytes] = {}

    def write(path: str, data: bytes) -> None:
        target = site.artifacts / path
        kept.setdefault(path, target.read_bytes())
        target.unlink()
        target.write_bytes(data)

    for path in flipped.values():
        data = bytearray((site.artifacts / path).read_bytes())
        data[len(data) // 2] ^= 0x10
        write(path, bytes(data))
    cut, gone = others[0], others[1]
    write(cut, (site.artifacts / cut).read_bytes()[:-7])
    kept[gone] = (site.artifacts / gone).read_bytes()
    (site.artifacts / gone).unlink()
    (site.artifacts / "debs" / "stranger.deb").write_bytes(b"x")
    try:
        done = site.gapforge("verify", PRESET, "--json")
        assert done.returncode == 5
        named = {
            fault["file"]: fault["kind"]
            for preset in json.loads(done.stdout)["presets"]
            for fault in preset["faults"]
        }
        expected = dict.fromkeys(flipped.values(), "changed")
        expected |= {cut: "short", gone: "missing", "debs/stranger.deb": "extra"}
        assert named == expected
        refused = site.build("runtime")
        assert refused.returncode == 5
        assert all(path in refused.stderr for path in expected)
    finally:
        (site.artifacts / "debs" / "stranger.deb").unlink()
        for path, data in kept.items():
            (site.artifacts / path).unlink(missing_ok=True)
            (site.artifacts / path).write_bytes(data)
    assert site.gapforge("verify", PRESET).returncode == 0
