"""Each check judges plain facts; all together work on a machine that lacks everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import samples
from gapforge.base.errors import EngineError, NotReadyError
from gapforge.base.project import Project
from gapforge.base.text_layout import width
from gapforge.cli.verbs import doctor as cli
from gapforge.compat.driver import DriverNeed
from gapforge.doctor import (
    diagnose,
    disk_checks,
    disk_estimate,
    gpu_checks,
    gpu_probes,
    machine_checks,
    machine_probes,
)
from gapforge.doctor.check_result import FAIL, OK, WARN
from gapforge.doctor.disk_checks import Place
from gapforge.doctor.gpu_checks import GpuNeeds
from gapforge.doctor.gpu_probes import Gpu, Nvidia
from gapforge.doctor.machine_probes import EnvFile, Socket, System, Volume
from gapforge.engine import detect
from gapforge.model import catalog as catalogs
from gapforge.model import preset as presets
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.store.download_preview import Preview, preview
from gapforge.store.known_sizes import KnownSizes
from gapforge.store.store import Store
from raised_errors import values_of
from samples import ROOT

CATALOG = catalogs.load(ROOT / "catalog")
GIB, GB = 2**30, 10**9
GOOD = System(
    os_id="ubuntu",
    os_version="22.04",
    architecture="x86_64",
    python=(3, 10, 12),
    cores=8,
    memory=64 * GIB,
    available=60 * GIB,
    umask=0o022,
    now=1.8e9,
    newest_file=1.7e9,
)
CU126 = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")  # PyTorch's builds for CUDA 12.6
CUDA118 = GpuNeeds(
    cuda="11.8",
    driver=DriverNeed(
        cuda="11.8",
        for_cuda="450.80.02",
        full="520.61.05",
        headers="11.1.5.2",
        for_headers="470.57.02",
    ),
    compiled_for=("7.0", "7.5", "8.0", "8.6"),
)


def volume(
    device: int = 1, free: int = 500 * GB, inodes: int = -1, writable: bool = True
) -> Volume:
    return Volume(path=f"/disk{device}", device=device, free=free, inodes=inodes, writable=writable)


def env_file(mode: int, readable: bool = True) -> EnvFile:
    return EnvFile(path=".env", exists=True, mode=mode, readable=readable)


@pytest.mark.parametrize(
    ("os_id", "version", "status"),
    [("ubuntu", "22.04", OK), ("ubuntu", "24.04", WARN), ("", "", WARN)],
)
def test_other_os_gives_a_warning(os_id: str, version: str, status: str) -> None:
    assert (
        machine_checks.operating_system(replace(GOOD, os_id=os_id, os_version=version)).status
        == status
    )


def test_processor_and_python_version() -> None:
    assert machine_checks.architecture(GOOD, "linux/amd64").status == OK
    assert (
        machine_checks.architecture(replace(GOOD, architecture="aarch64"), "linux/amd64").status
        == FAIL
    )
    assert machine_checks.python(replace(GOOD, python=(3, 8, 10))).status == FAIL
    assert machine_checks.python(replace(GOOD, python=(3, 10, 0))).status == OK


def test_engine_error_becomes_a_result() -> None:
    line = machine_checks.engine(EngineError("no docker here\nmore", hint="install it"))
    assert (line.status, line.found, line.action) == (FAIL, "no docker here", "install it")
    assert machine_checks.engine(detect.assumed().info).status == OK


def test_socket_names_the_missing_step() -> None:
    closed = Socket(path="/s", exists=True, group="docker")
    assert "usermod -aG docker" in machine_checks.socket(closed, False).action
    assert "newgrp docker" in machine_checks.socket(replace(closed, listed=True), False).action
    assert "systemctl start docker" in machine_checks.socket(Socket(path="/s"), False).action
    assert machine_checks.socket(Socket(path="/s"), True).status == OK
    assert machine_checks.socket(Socket(path="tcp://host", remote=True), False).status == WARN


@pytest.mark.parametrize(
    ("cores", "free", "status"),
    [
        (8, 12 * GIB, OK),
        (8, 12 * GIB - 1, WARN),
        (2, 3 * GIB // 2, WARN),
        (2, 3 * GIB // 2 - 1, FAIL),
        (2, 0, WARN),
    ],
)
def test_memory_limits_compile_jobs(cores: int, free: int, status: str) -> None:
    assert machine_checks.memory(replace(GOOD, cores=cores, available=free)).status == status


def test_job_memory_equals_the_build_scripts() -> None:
    assert (
        f"limit / {machine_checks.JOB_MEMORY} " in (ROOT / "components" / "common.sh").read_text()
    )


def test_wrong_clock_gives_a_warning() -> None:
    floor = 1.79e9
    assert machine_checks.clock(GOOD, floor).status == OK
    assert machine_checks.clock(replace(GOOD, now=0.0), floor).status == WARN
    assert (
        machine_checks.clock(replace(GOOD, newest_file=GOOD.now + 3 * 86400), floor).status == WARN
    )
    assert machine_checks.clock(replace(GOOD, now=4e9), floor).status == WARN
    assert machine_checks.clock(GOOD, floor, GOOD.now + 3600).status == OK, "a wrong time zone"
    assert machine_checks.clock(GOOD, floor, GOOD.now + 3 * 86400).status == FAIL


def test_permissions_of_folders_and_umask() -> None:
    assert machine_checks.permissions(0o022, [volume(), None]).status == OK
    assert machine_checks.permissions(0o000, [volume()]).status == WARN
    assert machine_checks.permissions(0o777, [volume()]).status == FAIL
    assert "/disk1" in machine_checks.permissions(0o022, [volume(writable=False)]).found


@pytest.mark.parametrize(
    ("mode", "status"), [(0o600, OK), (0o400, OK), (0o640, WARN), (0o644, WARN)]
)
def test_env_readable_by_others_warns(mode: int, status: str) -> None:
    assert machine_checks.env(env_file(mode), [], "").status == status


def test_signers_that_cannot_be_used_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No signers are fine; an unreadable list, or signers without ssh-keygen, are not."""
    project = Project(tmp_path / "project", tmp_path / "artifacts")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    line = diagnose._check_trust(project)
    assert line.status == OK
    file = tmp_path / "settings/gapforge/allowed_signers"
    file.parent.mkdir(parents=True)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
    file.write_text(f"release-team {key}\nbackup {key}\n")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/ssh-keygen")
    line = diagnose._check_trust(project)
    assert (line.status, line.found) == (OK, "release-team, backup")
    monkeypatch.setattr("shutil.which", lambda name: None)
    line = diagnose._check_trust(project)
    assert line.status == FAIL and line.action == "apt-get install openssh-client"
    file.write_text("release-team ssh-ed25519 AAAA\n")
    line = diagnose._check_trust(project)
    assert line.status == FAIL and f"{file}: line 1" in line.found
    assert "./gapforge trust list" in line.action


def test_absent_env_matters_for_required_keys() -> None:
    assert machine_checks.env(EnvFile(path=".env"), [], "").status == OK
    assert machine_checks.env(EnvFile(path=".env"), ["TOKEN"], "TOKEN: is required").status == FAIL
    assert machine_checks.env(env_file(0o600, readable=False), [], "").status == FAIL


def disk_statuses(engine: Volume, context: Volume) -> list[str]:
    places = [Place("engine", engine, 60 * GB), Place("context", context, 20 * GB)]
    return [result.status for result in disk_checks.disk(places)]


def test_places_on_one_device_add_up() -> None:
    assert disk_statuses(volume(1, 90 * GB), volume(1, 90 * GB)) == [OK]
    assert disk_statuses(volume(1, 70 * GB), volume(2, 70 * GB)) == [OK, OK]
    assert disk_statuses(volume(1, 70 * GB), volume(1, 70 * GB)) == [WARN]
    assert disk_statuses(volume(1, 40 * GB), volume(1, 40 * GB)) == [FAIL]
    places = [Place("engine", volume(), 60 * GB), Place("context", volume(), 20 * GB)]
    assert "80.0 GB" in disk_checks.disk(places)[0].needed


def test_inodes_and_unknown_volume() -> None:
    results = disk_checks.disk([Place("engine", volume(inodes=100), 10 * GB, 1000)])
    assert [result.check for result in results if result.status == FAIL] == ["inodes"]
    # btrfs and xfs have no fixed number of inodes.
    results = disk_checks.disk([Place("engine", volume(inodes=-1), GB, 10**9)])
    assert [result.status for result in results] == [OK]
    results = disk_checks.disk([Place("engine", None, GB)])
    assert [result.status for result in results] == [WARN]


def test_hard_links_or_copies() -> None:
    assert disk_checks.hard_links(True, GB).status == OK
    assert "3.0 GB" in disk_checks.hard_links(False, 3 * GB).action
    assert disk_checks.hard_links(None, GB).status == WARN


@pytest.mark.parametrize(
    ("driver", "status"),
    [
        ("535.129.03", OK),
        ("520.61.05", OK),
        ("515.105.01", WARN),
        ("450.80.02", WARN),
        ("440.33", FAIL),
    ],
)
def test_driver_must_fit_cuda(driver: str, status: str) -> None:
    lines = gpu_checks.driver(Nvidia(driver=driver, gpus=(Gpu("T4", "7.5"),)), CUDA118)
    assert lines[0].status == status


def test_driver_missing_broken_or_unneeded() -> None:
    assert gpu_checks.driver(Nvidia(), CUDA118)[0].status == WARN
    assert gpu_checks.driver(Nvidia(devices=2), CUDA118)[0].status == FAIL
    assert (
        gpu_checks.driver(Nvidia(problem="Driver/library version mismatch"), CUDA118)[0].status
        == FAIL
    )
    half = gpu_checks.driver(
        Nvidia(driver="535.1", problem="Driver/library version mismatch"), CUDA118
    )
    assert [line.check for line in half if line.status == FAIL] == ["nvidia-smi"]
    assert gpu_checks.driver(Nvidia(driver="300.1"), GpuNeeds()) == []
    assert (
        gpu_checks.driver(Nvidia(driver="535.1"), GpuNeeds(cuda="99.9"))[0].status == WARN
    )  # not in the catalog


def test_encoder_needs_newer_driver() -> None:
    need = replace(CUDA118.driver, headers="12.0.16.1", for_headers="520.56.06")
    needs = replace(CUDA118, driver=need)
    found = {
        line.check: line.status
        for line in gpu_checks.driver(Nvidia(driver="470.256.02", gpus=(Gpu("T4", "7.5"),)), needs)
    }
    assert found == {"driver": WARN, "nvenc": FAIL}


def test_container_toolkit_or_cdi() -> None:
    assert gpu_checks.toolkit(Nvidia(driver="535.1"), CUDA118, True)[0].status == FAIL
    assert gpu_checks.toolkit(Nvidia(driver="535.1"), CUDA118, False)[0].status == WARN
    for found in (
        Nvidia(driver="535.1", runtimes=("nvidia", "runc")),
        Nvidia(driver="535.1", hook=True),
        Nvidia(driver="535.1", cdi=True),
    ):
        assert gpu_checks.toolkit(found, CUDA118, True)[0].status == OK
    assert gpu_checks.toolkit(Nvidia(), CUDA118, True) == []


@pytest.mark.parametrize(
    ("compute", "needs", "status"),
    [
        ("7.5", CUDA118, OK),
        ("8.9", CUDA118, OK),  # runs code for 8.6: same major
        ("9.0", CUDA118, FAIL),  # not compiled for
        ("12.0", CUDA118, FAIL),  # CUDA 12.8 is the first that knows it
        ("7.0", replace(CUDA118, cuda="13.0"), FAIL),  # dropped
        ("7.0", replace(CUDA118, tensorrt="10.5.0.18"), FAIL),
        ("7.0", replace(CUDA118, tensorrt="10.4.0.26"), OK),
        ("12.0", GpuNeeds(cuda="12.8", tensorrt="10.7.0.23"), FAIL),  # 10.8 is the first
        ("12.0", GpuNeeds(cuda="12.8", tensorrt="10.8.0.43"), OK),
        ("12.1", GpuNeeds(cuda="12.9", tensorrt="10.13.0.35"), WARN),  # not known
        ("12.0", GpuNeeds(cuda="12.8", torch="torch 2.6.0+cu126", torch_code=CU126), FAIL),
        ("8.9", GpuNeeds(cuda="12.8", torch="torch 2.6.0+cu126", torch_code=CU126), OK),
        ("8.9", GpuNeeds(cuda="12.8", torch="torch 99.0+cu126"), WARN),  # not known
        ("99.0", GpuNeeds(cuda="12.8"), WARN),  # not known
        ("6.1", CUDA118, FAIL),  # older than everything compiled
        ("12.0", GpuNeeds(cuda="12.8", compiled_for=("8.6", "12.0")), OK),
        ("8.6", GpuNeeds(cuda="11.8"), OK),  # OpenCV without CUDA
        ("", CUDA118, WARN),
    ],
)
def test_gpu_must_fit_compiled_code(compute: str, needs: GpuNeeds, status: str) -> None:
    (line,) = gpu_checks.gpus(
        Nvidia(driver="600.1", gpus=(Gpu("X", compute), Gpu("X", compute))), needs, CATALOG
    )
    assert line.status == status


@pytest.mark.parametrize(
    ("cuda", "compute", "status"),
    [("12.9", "7.0", OK), ("13.0", "7.0", FAIL), ("12.7", "12.0", FAIL), ("12.8", "12.0", OK)],
)
def test_gpu_at_the_very_release_that_adds_or_drops_it(
    cuda: str, compute: str, status: str
) -> None:
    (line,) = gpu_checks.gpus(
        Nvidia(driver="600.1", gpus=(Gpu("X", compute),)), GpuNeeds(cuda=cuda), CATALOG
    )
    assert line.status == status


def test_new_gpu_names_the_needed_cuda() -> None:
    (line,) = gpu_checks.gpus(
        Nvidia(driver="600.1", gpus=(Gpu("RTX 5090", "12.0"),)), CUDA118, CATALOG
    )
    assert "12.8" in line.action


def test_torch_without_code_for_the_gpu_fails() -> None:
    raw = samples.raw_preset(
        cuda="12.8", pytorch={"torch": "2.6.0+cu126", "index": "https://h.example/whl/cu126"}
    )
    needs = diagnose.gpu_needs(presets.parse(raw, samples.COMPONENTS), CATALOG)
    assert (needs.torch, needs.torch_code) == ("torch 2.6.0+cu126", CU126)
    for compute, status in (("12.0", FAIL), ("9.0", OK)):
        found = Nvidia(driver="600.1", gpus=(Gpu("X", compute),))
        (line,) = gpu_checks.gpus(found, needs, CATALOG)
        assert line.status == status
    raw["pytorch"] = {"torch": "2.6.0+cpu", "index": "https://h.example/whl/cpu"}
    assert diagnose.gpu_needs(presets.parse(raw, samples.COMPONENTS), CATALOG).torch == ""


def test_gpu_needs_come_from_the_catalog() -> None:
    preset = presets.load(ROOT / "presets" / "ubuntu22.04-cuda11.8-torch2.1.json")
    needs = diagnose.gpu_needs(preset, CATALOG)
    assert needs.driver == CUDA118.driver
    opencv = preset.component("opencv")
    assert opencv is not None
    assert needs.compiled_for == opencv.list("architectures") != ()


@pytest.mark.parametrize(
    ("text", "driver", "gpus"),
    [
        (
            "Tesla T4, 535.129.03, 7.5\nNVIDIA A10, 535.129.03, 8.6\n",
            "535.129.03",
            (Gpu("Tesla T4", "7.5"), Gpu("NVIDIA A10", "8.6")),
        ),
        ("Tesla T4, 450.80.02\n", "450.80.02", (Gpu("Tesla T4", ""),)),
        ('Field "compute_cap" is not a valid field to query.\n', "", ()),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "", ()),
        ("", "", ()),
    ],
)
def test_nvidia_smi_output_is_parsed(text: str, driver: str, gpus: tuple[Gpu, ...]) -> None:
    assert gpu_probes.parse_gpus(text) == (driver, gpus)


def test_old_driver_is_asked_without_compute_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$1" in *compute_cap*) echo no valid field; exit 2;; esac\n'
        "echo 'Tesla T4, 450.80.02'\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = gpu_probes.nvidia()
    assert (found.driver, found.gpus, found.problem) == ("450.80.02", (Gpu("Tesla T4", ""),), "")


def test_failing_or_hanging_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script.write_text(
        "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n"
    )
    script.chmod(0o755)
    assert "mismatch" in gpu_probes.nvidia().problem
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gpu_probes, "ANSWER_TIMEOUT", 0.2)
    assert "nvidia-smi" in gpu_probes.nvidia().problem


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
        "GCC version: 11.4.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.129.03  Release Build\n",
    ],
)
def test_driver_version_of_the_kernel(tmp_path: Path, text: str) -> None:
    (tmp_path / "version").write_text(text)
    assert gpu_probes._kernel_driver(tmp_path / "version") == "535.129.03"


def test_hard_link_is_tried(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("x")
    assert machine_probes.can_link(source, tmp_path / "not" / "yet") is True
    assert machine_probes.can_link(tmp_path / "absent", tmp_path) is None
    shm = Path("/dev/shm")
    if shm.is_dir() and shm.stat().st_dev != tmp_path.stat().st_dev:
        assert machine_probes.can_link(source, shm) is False
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def files(preset: Preset, lock: Lock | None) -> Preview:
    return preview(preset, lock, KnownSizes(Store(Path("/nonexistent"))))


def test_estimate_counts_every_kind() -> None:
    preset = samples.preset()
    lock = samples.lock(preset)
    linked, copied = (
        disk_estimate.estimate(preset, files(preset, lock), linked=True),
        disk_estimate.estimate(preset, files(preset, lock), linked=False),
    )
    assert linked.context == 0 < copied.context
    assert linked.engine == copied.engine
    assert linked.without_bases().engine == linked.engine - linked.engine_parts["base images"]


@pytest.mark.parametrize(
    ("kind", "size", "unpacked", "part"),
    [
        ("wheel", 2.6 * GB, 4.8 * GB, "wheels"),  # measured: the torch 2.1.2 set
        ("tensorrt", 1.0 * GB, 2.0 * GB, "tensorrt"),
    ],
)
def test_estimate_counts_a_tree_in_every_stage_that_holds_it(
    kind: str, size: float, unpacked: float, part: str
) -> None:
    """Its own stage, the builder image and the runtime image, and the file in the context."""
    preset = samples.preset()
    lock = samples.lock(preset)
    big = replace(samples.entry(kind, f"{part}/big", name="big", version="2"), size=int(size))
    less, more = (
        disk_estimate.estimate(
            preset, files(preset, replace(lock, entries=entries)), linked=True
        ).engine_parts
        for entries in (lock.entries, (*lock.entries, big))
    )
    grown = {name: more[name] - less[name] for name in more if more[name] != less[name]}
    assert grown.keys() == {part, "context"}
    assert 3 * unpacked <= grown[part] <= 4 * unpacked
    assert grown["context"] == big.size


def test_estimate_counts_debs_in_every_role() -> None:
    preset = samples.preset()
    lock = samples.lock(preset)
    deb = samples.entry("deb", "debs/big.deb", name="big", version="2", roles=("builder",))
    none, one, two = (
        disk_estimate.estimate(preset, files(preset, replace(lock, entries=entries)), linked=True)
        for entries in (
            lock.entries,
            (*lock.entries, replace(deb, size=GB)),
            (*lock.entries, replace(deb, size=GB, roles=("builder", "runtime"))),
        )
    )
    assert two.engine - none.engine == 2 * (one.engine - none.engine) > 6 * GB


def test_disk_of_partial_lock_is_a_minimum() -> None:
    enough = Place("engine", volume(), 30 * GB, unknown="2 base images")
    (line,) = disk_checks.disk([enough])
    assert line.status == WARN
    assert values_of(line.action) == {"items": "2 base images"}
    assert "at least 30.0 GB" in line.needed
    (line,) = disk_checks.disk([replace(enough, volume=volume(free=GB))])
    assert line.status == FAIL and "df -h" in line.action
    (line,) = disk_checks.disk([replace(enough, unknown="")])
    assert (line.status, line.action) == (OK, "")


def test_korean_table_is_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    results = [
        machine_checks.operating_system(GOOD),
        machine_checks.memory(GOOD),
        machine_checks.python(GOOD),
        machine_checks.engine(EngineError("말 " * 60)),
    ]
    lines = [line for line in cli.render(results).splitlines() if "→" not in line]
    starts = {
        width(line[: line.rindex(needed)])
        for needed in ("ubuntu 22.04", "컴파일", ">= 3.10")
        for line in lines
        if needed in line
    }
    assert len(starts) == 1


def run_doctor(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "src/gapforge/__main__.py"), "doctor", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
        check=False,
    )


def test_machine_with_nothing_gets_results(tmp_path: Path) -> None:
    env = {
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "GAPFORGE_ARTIFACTS": str(tmp_path / "none"),
        "GAPFORGE_LANG": "en",
    }
    done = run_doctor("ubuntu22.04-cuda11.8-torch2.1", "--json", env=env)
    assert done.returncode == NotReadyError.exit_code
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    failed = {line["check"] for line in document["lines"] if line["status"] == "fail"}
    assert {"engine", "artifacts"} <= failed
    assert all(line["action"] for line in document["lines"] if line["status"] == "fail")


def test_closed_folder_on_path_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", "/root/bin/docker")

    monkeypatch.setattr("gapforge.engine.detect.choose", refuse)
    error = diagnose._find_engine("")
    assert isinstance(error, EngineError) and "Permission denied" in error.message


@pytest.mark.parametrize(
    ("driver", "failed"), [("550.54.15", []), ("440.33", ["driver", "nvenc"]), ("", [])]
)
def test_a_build_warns_of_a_driver_that_cannot_run_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, failed: list[str]
) -> None:
    """As doctor judges it; a machine without a GPU builds for another one."""
    preset = presets.find(ROOT / "presets", "ubuntu22.04-cuda11.8-torch2.1")
    monkeypatch.setattr(machine_probes, "volume", lambda _path: volume(free=500 * GB))
    monkeypatch.setattr(gpu_probes, "nvidia", lambda *_words: Nvidia(driver=driver))
    project = Project(ROOT, tmp_path / "artifacts")
    found = diagnose.before_build(project, preset, samples.lock(preset), detect.assumed())
    assert [result.check for result in found] == failed


def test_unknown_preset_is_a_preset_error(tmp_path: Path) -> None:
    done = run_doctor(
        "ubuntu22.04-cuda11.8-torch2", env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    )
    assert done.returncode == 3
    assert "ubuntu22.04-cuda11.8-torch2.1" in done.stderr


def test_truncated_artifacts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = presets.load(samples.QUICKSTART)
    lock = samples.lock(preset)
    folder = tmp_path / preset.name
    samples.lay_artifacts(folder, lock)
    (folder / "lock.json").write_text(lock.render())
    assert diagnose._wrong_sizes(folder, lock) == []
    victims = sorted(entry.path for entry in lock.entries)[:2]
    (folder / victims[0]).unlink()
    (folder / victims[1]).chmod(0o644)
    (folder / victims[1]).write_bytes(b"")
    assert diagnose._wrong_sizes(folder, lock) == victims
