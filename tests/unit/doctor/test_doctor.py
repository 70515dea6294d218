"""doctor: each verdict on plain facts, and the whole on machines that lack everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import samples
from gapforge.base.errors import NotReadyError
from gapforge.base.project import Project
from gapforge.base.text import width
from gapforge.cli.verbs import doctor as cli
from gapforge.compat import catalog as catalogs
from gapforge.doctor import checks, diagnose, disk_estimate, machine_probes
from gapforge.doctor.checks import FAIL, OK, WARN, GpuNeeds
from gapforge.doctor.machine_probes import EngineFacts, EnvFile, Gpu, Nvidia, Socket, System, Volume
from gapforge.model import preset as presets
from gapforge.model.lock import Lock

ROOT = Path(__file__).resolve().parents[3]
CATALOG = catalogs.load(ROOT / "catalog")
GIB, GB = 2**30, 10**9
GOOD = System("ubuntu", "22.04", "x86_64", (3, 10, 12), 8, 64 * GIB, 60 * GIB, 0o022, 1.8e9, 1.7e9)
CUDA118 = GpuNeeds(
    "11.8", "520.61.05", "450.80.02", "11.1.5.2", "470.57.02", ("7.0", "7.5", "8.0", "8.6")
)


def volume(
    device: int = 1, free: int = 500 * GB, inodes: int = -1, writable: bool = True
) -> Volume:
    return Volume(f"/disk{device}", device, free, inodes, writable)


@pytest.mark.parametrize(
    ("os_id", "version", "status"),
    [("ubuntu", "22.04", OK), ("ubuntu", "24.04", WARN), ("", "", WARN)],
)
def test_another_os_is_noted_not_refused(os_id: str, version: str, status: str) -> None:
    assert checks.operating_system(replace(GOOD, os_id=os_id, os_version=version)).status == status


def test_processor_and_python() -> None:
    assert checks.architecture(GOOD, "linux/amd64").status == OK
    assert checks.architecture(replace(GOOD, architecture="aarch64"), "linux/amd64").status == FAIL
    assert checks.python(replace(GOOD, python=(3, 8, 10))).status == FAIL
    assert checks.python(replace(GOOD, python=(3, 10, 0))).status == OK


def test_engine_error_becomes_a_line_with_its_hint() -> None:
    line = checks.engine(EngineFacts(problem="no docker here\nmore", hint="install it"))
    assert (line.status, line.found, line.action) == (FAIL, "no docker here", "install it")
    assert (
        checks.engine(
            EngineFacts(
                "docker-buildkit", "/usr/bin/docker", "20", "20.10.24", "buildkit (built in)"
            )
        ).status
        == OK
    )


def test_socket_says_which_step_is_missing() -> None:
    closed = Socket("/s", exists=True, group="docker")
    assert "usermod -aG docker" in checks.socket(closed, False).action
    assert "newgrp docker" in checks.socket(replace(closed, listed=True), False).action
    assert "systemctl start docker" in checks.socket(Socket("/s"), False).action
    assert checks.socket(Socket("/s"), True).status == OK  # a private engine answers elsewhere
    assert checks.socket(Socket("tcp://host", remote=True), False).status == WARN


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
def test_memory_against_compile_jobs(cores: int, free: int, status: str) -> None:
    assert checks.memory(replace(GOOD, cores=cores, available=free)).status == status


def test_job_memory_is_what_the_build_scripts_reckon_with() -> None:
    assert f"limit / {checks.JOB_MEMORY} " in (ROOT / "components" / "common.sh").read_text()


def test_clock_before_the_catalog_behind_the_files_or_far_ahead() -> None:
    floor = 1.79e9
    assert checks.clock(GOOD, floor).status == OK
    assert checks.clock(replace(GOOD, now=0.0), floor).status == WARN
    assert checks.clock(replace(GOOD, newest_file=GOOD.now + 3 * 86400), floor).status == WARN
    assert checks.clock(replace(GOOD, now=4e9), floor).status == WARN


def test_permissions() -> None:
    assert checks.permissions(0o022, [volume(), None]).status == OK
    assert checks.permissions(0o000, [volume()]).status == WARN
    assert checks.permissions(0o777, [volume()]).status == FAIL
    assert "/disk1" in checks.permissions(0o022, [volume(writable=False)]).found


@pytest.mark.parametrize(
    ("mode", "status"), [(0o600, OK), (0o400, OK), (0o640, WARN), (0o644, WARN)]
)
def test_env_readable_by_others(mode: int, status: str) -> None:
    assert checks.env(EnvFile(".env", True, mode, True, True), [], "").status == status


def test_who_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is fine, and said so; a list that cannot be read, or signatures that cannot be checked, are not."""
    project = Project(tmp_path, tmp_path / "artifacts")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    line = diagnose._trust(project)
    assert (line.status, line.found) == (OK, "nobody: signatures are not checked")
    file = tmp_path / "settings/gapforge/allowed_signers"
    file.parent.mkdir(parents=True)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
    file.write_text(f"release-team {key}\nbackup {key}\n")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/ssh-keygen")
    line = diagnose._trust(project)
    assert (line.status, line.found) == (OK, "release-team, backup")
    monkeypatch.setattr("shutil.which", lambda name: None)
    line = diagnose._trust(project)
    assert line.status == FAIL and line.action == "apt-get install openssh-client"
    file.write_text("release-team ssh-ed25519 AAAA\n")
    line = diagnose._trust(project)
    assert (
        line.status == FAIL
        and "is damaged, so nothing is trusted" in line.found
        and f"{file}: line 1" in line.found
    )
    assert "./gapforge trust list" in line.action


def test_env_missing_matters_only_when_a_key_is_required() -> None:
    assert checks.env(EnvFile(".env"), [], "").status == OK
    assert checks.env(EnvFile(".env"), ["TOKEN"], "TOKEN: is required").status == FAIL
    assert checks.env(EnvFile(".env", True, 0o600, False, False), [], "").status == FAIL


def test_places_on_one_file_system_add_up() -> None:
    one = checks.disk(
        [("engine", volume(1, 90 * GB), 60 * GB, 0), ("context", volume(1, 90 * GB), 20 * GB, 0)]
    )
    assert [line.status for line in one] == [OK]
    assert "80.0 GB" in one[0].needed
    two = checks.disk(
        [("engine", volume(1, 70 * GB), 60 * GB, 0), ("context", volume(2, 70 * GB), 20 * GB, 0)]
    )
    assert [line.status for line in two] == [OK, OK]
    tight = checks.disk(
        [("engine", volume(1, 70 * GB), 60 * GB, 0), ("context", volume(1, 70 * GB), 20 * GB, 0)]
    )
    assert [line.status for line in tight] == [WARN]
    full = checks.disk(
        [("engine", volume(1, 40 * GB), 60 * GB, 0), ("context", volume(1, 40 * GB), 20 * GB, 0)]
    )
    assert [line.status for line in full] == [FAIL]


def test_inodes_and_a_remote_engine() -> None:
    lines = checks.disk([("engine", volume(inodes=100), 10 * GB, 1000)])
    assert [line.check for line in lines if line.status == FAIL] == ["inodes"]
    assert [line.status for line in checks.disk([("engine", volume(inodes=-1), GB, 10**9)])] == [
        OK
    ]  # btrfs, xfs: no fixed number
    assert [line.status for line in checks.disk([("engine", None, GB, 0)])] == [WARN]


def test_hard_links() -> None:
    assert checks.hard_links(True, GB).status == OK
    assert "3.0 GB" in checks.hard_links(False, 3 * GB).action
    assert checks.hard_links(None, GB).status == WARN


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
def test_driver_against_cuda(driver: str, status: str) -> None:
    lines = checks.driver(Nvidia(driver, (Gpu("T4", "7.5"),)), CUDA118)
    assert lines[0].status == status


def test_driver_missing_hanging_or_not_needed() -> None:
    assert checks.driver(Nvidia(), CUDA118)[0].status == WARN  # no GPU: a build machine
    assert checks.driver(Nvidia(devices=2), CUDA118)[0].status == FAIL
    assert (
        checks.driver(Nvidia(problem="Driver/library version mismatch"), CUDA118)[0].status == FAIL
    )
    half = checks.driver(Nvidia("535.1", problem="Driver/library version mismatch"), CUDA118)
    assert [line.check for line in half if line.status == FAIL] == ["nvidia-smi"]
    assert checks.driver(Nvidia("300.1"), GpuNeeds()) == []
    assert (
        checks.driver(Nvidia("535.1"), GpuNeeds("99.9"))[0].status == WARN
    )  # the catalog does not know it


def test_encoder_needs_a_newer_driver_than_cuda() -> None:
    needs = replace(CUDA118, headers="12.0.16.1", headers_driver="520.56.06")
    found = {
        line.check: line.status
        for line in checks.driver(Nvidia("470.256.02", (Gpu("T4", "7.5"),)), needs)
    }
    assert found == {"driver": WARN, "nvenc": FAIL}


def test_container_toolkit() -> None:
    assert checks.toolkit(Nvidia("535.1"), CUDA118, True)[0].status == FAIL
    assert checks.toolkit(Nvidia("535.1"), CUDA118, False)[0].status == WARN
    for found in (
        Nvidia("535.1", runtimes=("nvidia", "runc")),
        Nvidia("535.1", hook=True),
        Nvidia("535.1", cdi=True),
    ):
        assert checks.toolkit(found, CUDA118, True)[0].status == OK
    assert checks.toolkit(Nvidia(), CUDA118, True) == []


@pytest.mark.parametrize(
    ("compute", "needs", "status"),
    [
        ("7.5", CUDA118, OK),
        ("8.9", CUDA118, OK),  # runs code for 8.6: same major
        ("9.0", CUDA118, FAIL),  # not compiled for
        ("12.0", CUDA118, FAIL),  # CUDA 12.8 is the first that knows it
        ("7.0", replace(CUDA118, cuda="13.0"), FAIL),  # dropped
        (
            "7.0",
            replace(CUDA118, tensorrt="10.5.0.18", tensorrt_compute="7.5", tensorrt_before="10.5"),
            FAIL,
        ),
        ("6.1", CUDA118, FAIL),  # older than everything compiled
        ("12.0", GpuNeeds("12.8", compiled_for=("8.6", "12.0")), OK),
        ("8.6", GpuNeeds("11.8"), OK),  # OpenCV without CUDA
        ("", CUDA118, WARN),
    ],
)
def test_gpu_against_what_was_compiled(compute: str, needs: GpuNeeds, status: str) -> None:
    (line,) = checks.gpus(
        Nvidia("600.1", (Gpu("X", compute), Gpu("X", compute))), needs, CATALOG.architectures
    )
    assert line.status == status


def test_blackwell_on_cuda_118_names_the_cuda_to_take() -> None:
    (line,) = checks.gpus(
        Nvidia("600.1", (Gpu("RTX 5090", "12.0"),)), CUDA118, CATALOG.architectures
    )
    assert "12.8" in line.action


def test_needs_come_from_the_catalog() -> None:
    preset = presets.load(ROOT / "presets" / "ubuntu22.04-cuda11.8-torch2.1.json")
    needs = diagnose.gpu_needs(preset, CATALOG)
    assert (needs.toolkit_driver, needs.least_driver, needs.headers_driver) == (
        "520.61.05",
        "450.80.02",
        "470.57.02",
    )
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
def test_nvidia_smi_answers(text: str, driver: str, gpus: tuple[Gpu, ...]) -> None:
    assert machine_probes.parse_gpus(text) == (driver, gpus)


def test_an_old_driver_is_asked_again_without_compute_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$1" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2;; esac\n'
        "echo 'Tesla T4, 450.80.02'\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = machine_probes.nvidia()
    assert (found.driver, found.gpus, found.problem) == ("450.80.02", (Gpu("Tesla T4", ""),), "")


def test_a_failing_and_a_hanging_nvidia_smi_are_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script.write_text(
        "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n"
    )
    script.chmod(0o755)
    assert "mismatch" in machine_probes.nvidia().problem
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(machine_probes, "QUESTION_TIMEOUT", 0.2)
    assert "did not finish" in machine_probes.nvidia().problem


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version: 11.4.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.129.03  Release Build\n",
    ],
)
def test_kernel_driver(tmp_path: Path, text: str) -> None:
    (tmp_path / "version").write_text(text)
    assert machine_probes._kernel_driver(tmp_path / "version") == "535.129.03"


def test_can_link_tries_for_real(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("x")
    assert machine_probes.can_link(source, tmp_path / "not" / "yet") is True
    assert machine_probes.can_link(tmp_path / "absent", tmp_path) is None
    shm = Path("/dev/shm")
    if shm.is_dir() and shm.stat().st_dev != tmp_path.stat().st_dev:
        assert machine_probes.can_link(source, shm) is False
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_space_counts_every_kind_and_copies_only_when_needed() -> None:
    preset = samples.preset()
    lock = samples.lock(preset)
    linked, copied = (
        disk_estimate.estimate(preset, lock, linked=True),
        disk_estimate.estimate(preset, lock, linked=False),
    )
    assert linked.context == 0 < copied.context
    assert linked.engine == copied.engine == sum(linked.engine_parts.values())
    assert linked.without_bases().engine == linked.engine - linked.engine_parts["base images"]
    wheel = samples.entry("wheel", "wheels/torch-2-py3-none-any.whl", name="torch", version="2")
    big = replace(wheel, size=2_600_000_000)
    more = disk_estimate.estimate(
        preset,
        Lock(
            preset=lock.preset,
            preset_sha256=lock.preset_sha256,
            images=lock.images,
            entries=(*lock.entries, big),
        ),
        linked=True,
    )
    assert 2 * big.size < more.engine - linked.engine < 10 * big.size


def test_korean_table_is_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    lines = [
        checks.operating_system(GOOD),
        checks.memory(GOOD),
        checks.python(GOOD),
        checks.engine(EngineFacts(problem="말 " * 60)),
    ]
    text = cli.render(lines).splitlines()
    starts = {
        width(line[: line.rindex(needed)])
        for needed in ("ubuntu 22.04", "컴파일", ">= 3.10")
        for line in text
        if needed in line and "→" not in line
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


def test_a_machine_with_nothing_gets_lines_and_no_traceback(tmp_path: Path) -> None:
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


def test_a_folder_on_path_that_may_not_be_entered_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", "/root/bin/docker")

    monkeypatch.setattr("gapforge.engine.detect.choose", refuse)
    engine, facts = diagnose._engine("")
    assert engine is None
    assert "Permission denied" in facts.problem


def test_an_unknown_preset_is_a_preset_error(tmp_path: Path) -> None:
    done = run_doctor(
        "ubuntu22.04-cuda11.8-torch2", env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    )
    assert done.returncode == 3
    assert "did you mean" in done.stderr


def test_artifacts_cut_short_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = presets.load(samples.QUICKSTART)
    lock = samples.lock(preset)
    folder = tmp_path / preset.name
    samples.lay_artifacts(folder, lock)
    (folder / "lock.json").write_text(lock.render())
    assert diagnose._size_faults(folder, lock) == []
    victims = sorted(entry.path for entry in lock.entries)[:2]
    (folder / victims[0]).unlink()
    (folder / victims[1]).chmod(0o644)
    (folder / victims[1]).write_bytes(b"")
    assert diagnose._size_faults(folder, lock) == victims
