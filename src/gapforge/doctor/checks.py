"""Whether this machine can build a preset, said line by line before anything is built.

The functions here judge plain facts and start nothing; ``gapforge.doctor.machine_probes`` asks the machine and
``gapforge.doctor.diagnose`` brings both together. ``fail`` means that a build (or the finished image, here)
cannot work; ``warn`` that it will be slower, or that something could not be found out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gapforge.base.progress import human_bytes
from gapforge.base.text import josa, tr
from gapforge.compat import versions
from gapforge.compat.catalog import Architecture
from gapforge.doctor.machine_probes import EngineFacts, EnvFile, Gpu, Nvidia, Socket, System, Volume
from gapforge.model.preset import TARGET_OS

OK, WARN, FAIL = "ok", "warn", "fail"
LEAST_PYTHON = (3, 10)
JOB_MEMORY = 3 * 2**29  # bytes a compiler may take: the same 1.5 GiB that components/common.sh reckons with
SLACK = 0.7  # an estimate is no measurement: only below this share of it is a build refused
LEAST_FREE = 2 * 10**9  # bytes that any build takes, whatever the preset
DAY = 86400.0


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. ``check`` is its fixed name; the other texts are in the reader's language."""

    check: str
    title: str
    status: str
    found: str
    needed: str
    action: str = ""

    def to_json(self) -> dict[str, str]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class GpuNeeds:
    """What a preset asks of driver and GPU. Empty strings and tuples: nothing.

    ``toolkit_driver`` came with the preset's CUDA, ``least_driver`` is the lowest of its major version.
    """

    cuda: str = ""
    toolkit_driver: str = ""
    least_driver: str = ""
    headers: str = ""
    headers_driver: str = ""
    compiled_for: tuple[str, ...] = ()
    tensorrt: str = ""
    tensorrt_compute: str = ""  # the lowest compute capability that this TensorRT serves
    tensorrt_before: str = ""  # the TensorRT release that dropped the older ones


def operating_system(found: System) -> Line:
    text = f"{found.os_id or '?'} {found.os_version}".strip()
    good = (found.os_id, found.os_version) == TARGET_OS
    return Line("os", tr("운영체제", "operating system"), OK if good else WARN, text, "ubuntu 22.04",
                "" if good else tr("시험한 현장 환경은 Ubuntu 22.04입니다. Docker가 동작하면 빌드는 됩니다",
                                   "sites are expected to run Ubuntu 22.04; a build works wherever Docker does"))  # fmt: skip


def architecture(found: System, platform: str) -> Line:
    good = found.architecture in ("x86_64", "amd64")
    return Line("architecture", tr("프로세서", "processor"), OK if good else FAIL, found.architecture, platform,
                "" if good else tr("x86-64 컴퓨터에서 빌드하십시오", "build on an x86-64 machine"))  # fmt: skip


def python(found: System) -> Line:
    good = found.python[:2] >= LEAST_PYTHON
    return Line("python", "Python", OK if good else FAIL, ".".join(map(str, found.python)), ">= 3.10",
                "" if good else tr("Ubuntu 22.04의 /usr/bin/python3으로 실행하십시오", "run it with Ubuntu 22.04's /usr/bin/python3"))  # fmt: skip


def engine(found: EngineFacts) -> Line:
    needed = tr("BuildKit이 있는 Docker 20.10 이상", "Docker 20.10 or newer with BuildKit")
    if found.problem:
        return Line("engine", tr("엔진", "engine"), FAIL, found.problem.strip().splitlines()[0], needed, found.hint)
    return Line("engine", tr("엔진", "engine"), OK, f"{found.server_version}, {found.builder} ({found.client})", needed)


def socket(found: Socket, usable_engine: bool) -> Line:
    title, needed = tr("Docker 소켓", "docker socket"), tr("읽고 쓸 수 있음", "readable and writable")
    if found.remote:
        return Line("socket", title, OK if usable_engine else WARN, f"DOCKER_HOST={found.path}", needed)
    if found.usable or usable_engine:
        shown = found.path if found.usable else tr("다른 주소의 엔진을 씁니다", "the engine answers elsewhere")
        return Line("socket", title, OK, shown, needed)
    if not found.exists:
        return Line("socket", title, FAIL, tr(f"{found.path} 없음", f"no {found.path}"), needed,
                    tr("Docker를 시작하십시오: sudo systemctl start docker; 또는 ./gapforge engine start",
                       "start Docker: sudo systemctl start docker; or: ./gapforge engine start"))  # fmt: skip
    if found.member or found.listed:
        action = tr(f"그룹 {found.group} 적용을 위해 다시 로그인하거나: newgrp {found.group}",
                    f"log in again so that group {found.group} counts, or: newgrp {found.group}")  # fmt: skip
    else:
        action = tr(f"관리자에게 요청: sudo usermod -aG {found.group} $USER, 그다음 다시 로그인",
                    f"ask an administrator: sudo usermod -aG {found.group} $USER, then log in again")  # fmt: skip
    return Line("socket", title, FAIL, tr(f"{found.path}: 권한 없음 (그룹 {found.group})",
                                          f"{found.path}: permission denied (group {found.group})"), needed, action)  # fmt: skip


def memory(found: System) -> Line:
    jobs = min(found.cores, found.available // JOB_MEMORY)
    title = tr("메모리와 코어", "memory and cores")
    shown = tr(
        f"여유 {human_bytes(found.available)}, 코어 {found.cores}개",
        f"{human_bytes(found.available)} free, {found.cores} cores",
    )
    needed = tr(f"컴파일 작업당 {human_bytes(JOB_MEMORY)}", f"{human_bytes(JOB_MEMORY)} for each compile job")
    if not found.available:
        return Line(
            "memory", title, WARN, tr(f"알 수 없음, 코어 {found.cores}개", f"unknown, {found.cores} cores"), needed
        )
    if jobs < 1:
        return Line("memory", title, FAIL, shown, needed,
                    tr("다른 프로그램을 닫거나 스왑을 늘리십시오 (free -h)", "end other programs or add swap (free -h)"))  # fmt: skip
    if jobs < found.cores:
        return Line("memory", title, WARN, shown, needed,
                    tr(f"컴파일을 {jobs}개씩 합니다. 메모리가 늘면 빨라집니다", f"compiles {jobs} at a time; more memory makes it faster"))  # fmt: skip
    return Line("memory", title, OK, shown, needed)


def clock(found: System, floor: float) -> Line:
    """``floor`` is a moment that has passed for certain: the date of the catalog that came along."""
    title = tr("시계", "clock")
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.now))
    action = tr("시계를 맞추십시오: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'",
                "set it: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'")  # fmt: skip
    least = time.strftime("%Y-%m-%d", time.gmtime(floor))
    needed = tr(f"{least} 이후", f"{least} or later")
    if found.now < floor:
        return Line("clock", title, WARN, shown, needed, action)
    if found.newest_file > found.now + DAY:
        newest = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.newest_file))
        return Line(
            "clock",
            title,
            WARN,
            shown,
            tr(f"프로젝트 파일의 시각 {newest} 이후", f"after the project's files, {newest}"),
            action,
        )
    if found.now > floor + 20 * 365 * DAY:
        return Line("clock", title, WARN, shown, tr(f"{least} 이후 20년 이내", f"within 20 years of {least}"), action)
    return Line("clock", title, OK, shown, needed)


def permissions(umask: int, folders: Sequence[Volume | None]) -> Line:
    title = tr("쓰기 권한", "permissions")
    needed = tr("프로젝트 폴더에 쓸 수 있음, umask 022 또는 077", "project folder writable, umask 022 or 077")
    closed = [v.path for v in folders if v is not None and not v.writable]
    if closed:
        names = ", ".join(closed)
        return Line("permissions", title, FAIL, tr(f"쓸 수 없음: {names}", f"not writable: {names}"), needed,
                    tr("쓸 수 있는 곳에 복사하십시오: cp -r", "copy the project to where you may write: cp -r"))  # fmt: skip
    if umask & 0o700:
        return Line("permissions", title, FAIL, f"umask {umask:03o}", needed, "umask 022")
    if not umask & 0o002:
        return Line("permissions", title, WARN, f"umask {umask:03o}", needed,
                    tr("누구나 파일을 바꿀 수 있게 됩니다: umask 022", "anybody may change new files: umask 022"))  # fmt: skip
    return Line("permissions", title, OK, f"umask {umask:03o}", needed)


def env(found: EnvFile, required: Sequence[str], problem: str) -> Line:
    """``problem`` is what reading .env gave as an error, "" for none."""
    title = ".env"
    needed = tr("없어도 됩니다", "may be absent") if not required else ", ".join(required)
    if problem:
        return Line("env", title, FAIL, problem, needed,
                    tr(f".env.template을 복사해 채우십시오: cp .env.template {found.path}; chmod 600 {found.path}",
                       f"cp .env.template {found.path}; chmod 600 {found.path}; fill in the keys"))  # fmt: skip
    if not found.exists:
        return Line("env", title, OK, tr("없음", "absent"), needed)
    shown = f"{found.mode:04o}"
    if found.mode & 0o077:
        return Line("env", title, WARN, shown, "0600", f"chmod 600 {found.path}")
    if not found.readable:
        return Line("env", title, FAIL, tr(f"{shown}, 읽을 수 없음", f"{shown}, not readable"), "0600",
                    f"sudo chown $USER {found.path}")  # fmt: skip
    return Line("env", title, OK, shown, "0600")


def trust(names: Sequence[str], problem: str, hint: str, *, can_check: bool) -> Line:
    """``names`` of trusted signers; ``problem`` is why who they are cannot be known, ``can_check`` whether ssh-keygen is here."""
    title = tr("신뢰하는 서명자", "trusted signers")
    needed = tr("없어도 됩니다. 있으면 서명을 확인합니다", "may be nobody; else signatures are checked")
    if problem:
        return Line("trust", title, FAIL, problem, needed, hint)
    if not names:
        return Line(
            "trust", title, OK, tr("없음: 서명을 확인하지 않습니다", "nobody: signatures are not checked"), needed
        )
    shown = ", ".join(names)
    if not can_check:
        return Line("trust", title, FAIL, tr(f"{shown}; ssh-keygen 없음", f"{shown}; ssh-keygen is missing"), "ssh-keygen",
                    "apt-get install openssh-client")  # fmt: skip
    return Line("trust", title, OK, shown, needed)


def artifacts(problem: str, hint: str, files: int, total: int, faults: Sequence[str], size: int, name: str) -> Line:
    """``problem`` is why there is no usable lock; else ``faults`` name files that are absent or of another size."""
    title = tr("아티팩트", "artifacts")
    needed = tr(f"프리셋과 같은 상태의 artifacts/{name}", f"artifacts/{name} in the preset's state")
    if problem:
        return Line("artifacts", title, FAIL, problem, needed, hint)
    shown = tr(f"파일 {files}/{total}개, {human_bytes(size)}", f"{files} of {total} files, {human_bytes(size)}")
    if faults:
        some = ", ".join(faults[:3]) + (" …" if len(faults) > 3 else "")
        return Line("artifacts", title, FAIL, f"{shown}: {some}", needed,
                    tr(f"다시 복사하십시오. 목록: ./gapforge verify {name}", f"copy them again; the list: ./gapforge verify {name}"))  # fmt: skip
    return Line("artifacts", title, OK, shown, needed,
                tr(f"크기만 보았습니다. 내용 확인: ./gapforge verify {name}", f"sizes only; the content: ./gapforge verify {name}"))  # fmt: skip


def hard_links(possible: bool | None, copies: int) -> Line:
    title = tr("하드 링크", "hard links")
    needed = tr("artifacts와 .gapforge가 같은 파일 시스템", "artifacts and .gapforge on one file system")
    if possible is None:
        return Line("links", title, WARN, tr("시험할 수 없음", "could not be tried"), needed)
    if possible:
        return Line("links", title, OK, tr("가능", "possible"), needed)
    return Line("links", title, WARN, tr("불가능", "not possible"), needed,
                tr(f"대신 복사합니다: {human_bytes(copies)}", f"copies are made instead: {human_bytes(copies)}"))  # fmt: skip


def disk(places: Sequence[tuple[str, Volume | None, int, int]]) -> list[Line]:
    """One line for each file system: ``places`` are (what it is for, where, bytes, inodes), and add up by device."""
    lines: list[Line] = []
    by_device: dict[int, list[tuple[str, Volume, int, int]]] = {}
    for label, where, size, inodes in places:
        if where is None:
            lines.append(Line("disk", tr("디스크", "disk") + f" ({label})", WARN, tr("알 수 없음", "unknown"), human_bytes(size),
                              tr("엔진이 있는 컴퓨터에서 확인하십시오: df -h", "look on the engine's machine: df -h")))  # fmt: skip
        else:
            by_device.setdefault(where.device, []).append((label, where, size, inodes))
    for shares in by_device.values():
        where = shares[0][1]
        size = max(sum(share[2] for share in shares), LEAST_FREE)
        inodes = sum(share[3] for share in shares)
        title = tr("디스크", "disk") + " (" + ", ".join(share[0] for share in shares) + ")"
        detail = " + ".join(f"{share[0]} {human_bytes(share[2])}" for share in shares if share[2])
        needed = tr(f"약 {human_bytes(size)}", f"about {human_bytes(size)}") + (
            f" ({detail})" if len(shares) > 1 and detail else ""
        )
        status = OK if where.free >= size else WARN if where.free >= size * SLACK else FAIL
        action = "" if status == OK else tr(f"공간을 비우십시오: df -h {where.path}; docker system df",
                                            f"make room: df -h {where.path}; docker system df")  # fmt: skip
        lines.append(
            Line(
                "disk",
                title,
                status,
                tr(f"여유 {human_bytes(where.free)}", f"{human_bytes(where.free)} free"),
                needed,
                action,
            )
        )
        if where.inodes >= 0 and inodes and where.inodes < inodes:
            status = WARN if where.inodes >= inodes * SLACK else FAIL
            lines.append(Line("inodes", tr("아이노드", "inodes") + f" ({shares[0][0]})", status,
                              tr(f"여유 {where.inodes}개", f"{where.inodes} free"), tr(f"약 {inodes}개", f"about {inodes}"),
                              f"df -i {where.path}"))  # fmt: skip
    return lines


def bare_gpu(found: Nvidia) -> list[Line]:
    """What there is of NVIDIA when no preset says what is needed; no line where there is nothing."""
    if not (found.driver or found.devices or found.problem):
        return []
    names = ", ".join(dict.fromkeys(f"{gpu.name} ({gpu.compute or '?'})" for gpu in found.gpus))
    shown = found.problem or " ".join(part for part in (found.driver, names) if part) or \
        tr(f"GPU {found.devices}개, 드라이버 없음", f"{found.devices} GPU, no driver")  # fmt: skip
    return [Line("driver", tr("NVIDIA 드라이버", "NVIDIA driver"), WARN if found.problem or not found.driver else OK, shown,
                 tr("프리셋에 따라 다름", "depends on the preset"), "./gapforge doctor PRESET")]  # fmt: skip


def driver(found: Nvidia, needs: GpuNeeds) -> list[Line]:
    """The driver against CUDA and the NVENC headers; no line for a preset without CUDA."""
    if not needs.cuda:
        return []
    title = tr("NVIDIA 드라이버", "NVIDIA driver")
    least = needs.least_driver or needs.toolkit_driver
    needed = f">= {needs.toolkit_driver or least} (CUDA {needs.cuda})" if least else f"CUDA {needs.cuda}"
    install = tr(f"드라이버 {needs.toolkit_driver or least} 이상을 설치하고 다시 시작하십시오",
                 f"install driver {needs.toolkit_driver or least} or newer and restart the machine")  # fmt: skip
    if not found.driver:
        if found.devices or found.problem:
            shown = found.problem or tr(f"GPU {found.devices}개, 드라이버 없음", f"{found.devices} GPU, no driver")
            return [Line("driver", title, FAIL, shown, needed, install)]
        return [Line("driver", title, WARN, tr("GPU 없음", "no GPU"), needed,
                     tr("빌드는 됩니다. GPU 시험은 현장 장비에서 하십시오", "a build works; try the image on a machine with a GPU"))]  # fmt: skip
    lines = []
    number = versions.key(found.driver)
    if least and number < versions.key(least):
        lines.append(Line("driver", title, FAIL, found.driver, needed, install))
    elif needs.toolkit_driver and number < versions.key(needs.toolkit_driver):
        lines.append(Line("driver", title, WARN, found.driver, needed,
                          tr(f"CUDA 마이너 호환성으로 동작합니다 (>= {least}). PTX 코드와 새 기능은 {needs.toolkit_driver} 이상이 필요합니다",
                             f"works by CUDA's minor version compatibility (>= {least}); PTX code and new features need {needs.toolkit_driver}")))  # fmt: skip
    else:
        lines.append(Line("driver", title, OK if least else WARN, found.driver, needed,
                          "" if least else tr("이 CUDA의 최소 드라이버를 카탈로그가 모릅니다", "the catalog knows no least driver for this CUDA")))  # fmt: skip
    if found.problem:
        lines.append(Line("nvidia-smi", "nvidia-smi", FAIL, found.problem, tr("응답함", "answers"),
                          tr("드라이버 갱신 뒤라면 다시 시작하십시오: sudo reboot", "after a driver update, restart the machine: sudo reboot")))  # fmt: skip
    if needs.headers_driver:
        good = number >= versions.key(needs.headers_driver)
        lines.append(Line("nvenc", "NVENC/NVDEC", OK if good else FAIL, found.driver,
                          f">= {needs.headers_driver} (nv-codec-headers {needs.headers})",
                          "" if good else tr(f"드라이버 {needs.headers_driver} 이상을 설치하십시오. 그 전에는 인코더가 열리지 않습니다",
                                             f"install driver {needs.headers_driver} or newer; until then no encoder opens")))  # fmt: skip
    return lines


def toolkit(found: Nvidia, needs: GpuNeeds, usable_engine: bool) -> list[Line]:
    """Whether containers get at the GPU; no line without one, or for a preset without CUDA."""
    if not needs.cuda or not found.driver:
        return []
    title = tr("컨테이너 도구", "container toolkit")
    parts = [f"nvidia-ctk {found.toolkit}"] if found.toolkit else []
    parts += [f"runtime {name}" for name in found.runtimes if "nvidia" in name]
    parts += ["hook"] if found.hook else []
    parts += ["CDI"] if found.cdi else []
    needed = tr("nvidia 런타임, hook 또는 CDI", "the nvidia runtime, hook or CDI")
    if found.hook or found.cdi or any("nvidia" in name for name in found.runtimes):
        return [Line("toolkit", title, OK, ", ".join(parts), needed)]
    action = tr("nvidia-container-toolkit을 설치한 뒤: sudo nvidia-ctk runtime configure --runtime=docker; sudo systemctl restart docker",
                "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker; sudo systemctl restart docker")  # fmt: skip
    status = FAIL if usable_engine else WARN
    return [Line("toolkit", title, status, ", ".join(parts) or tr("없음", "none"), needed, action)]


def gpus(found: Nvidia, needs: GpuNeeds, known: Mapping[str, Architecture]) -> list[Line]:
    """Each kind of GPU against CUDA, TensorRT, and the architectures that OpenCV is compiled for."""
    if not needs.cuda:
        return []
    return [_gpu(gpu, needs, known) for gpu in dict.fromkeys(found.gpus)]


def _gpu(gpu: Gpu, needs: GpuNeeds, known: Mapping[str, Architecture]) -> Line:
    title = f"GPU {gpu.name}"
    needed = f"CUDA {needs.cuda}" + (f", OpenCV {' '.join(needs.compiled_for)}" if needs.compiled_for else "")
    if not gpu.compute:
        return Line(
            "gpu", title, WARN, tr("세대를 알 수 없음 (오래된 드라이버)", "generation unknown (old driver)"), needed
        )
    fact = known.get(gpu.compute)
    shown = gpu.compute + (f" ({fact.name})" if fact else "")
    cuda = versions.key(needs.cuda)
    if fact and fact.first_cuda and cuda < versions.key(fact.first_cuda):
        return Line("gpu", title, FAIL, shown, needed,
                    tr(f"이 GPU는 CUDA {fact.first_cuda}부터 지원됩니다. 그 이상의 프리셋을 고르십시오: ./gapforge list",
                       f"CUDA {fact.first_cuda} is the first that knows this GPU; take a preset with it: ./gapforge list"))  # fmt: skip
    if fact and fact.dropped_in and cuda >= versions.key(fact.dropped_in):
        return Line("gpu", title, FAIL, shown, needed,
                    tr(f"CUDA {fact.dropped_in}부터 지원이 끊겼습니다. 그 이전의 프리셋을 고르십시오",
                       f"CUDA {fact.dropped_in} dropped this GPU; take a preset with an older CUDA"))  # fmt: skip
    if needs.tensorrt_compute and versions.key(gpu.compute) < versions.key(needs.tensorrt_compute):
        return Line("gpu", title, FAIL, shown, f"TensorRT {needs.tensorrt}: >= {needs.tensorrt_compute}",
                    tr(f"TensorRT {needs.tensorrt_before}부터 지원이 끊겼습니다. 그 이전의 TensorRT가 필요합니다",
                       f"TensorRT {needs.tensorrt_before} dropped this GPU; take a preset with an older TensorRT"))  # fmt: skip
    if not needs.compiled_for:
        return Line("gpu", title, OK, shown, needed)
    major, minor = gpu.compute.split(".")
    same = [a for a in needs.compiled_for if a.split(".")[0] == major and int(a.split(".")[1]) <= int(minor)]
    if same:
        return Line("gpu", title, OK, shown, needed)
    own = f'"{gpu.compute}"'
    return Line("gpu", title, FAIL, shown, needed,
                tr(f'OpenCV의 CUDA 코드가 이 GPU에서 돌지 않습니다. 온라인에서 opencv.architectures에 {josa(own, "을", "를")} 더하십시오',
                   f'OpenCV\'s CUDA code does not run on this GPU; online, add {own} to opencv.architectures'))  # fmt: skip
