"""Whether this machine can build a preset, said line by line before anything is built.

The functions here judge plain facts and start nothing; ``gapforge.doctor.machine_probes`` asks the machine and
``gapforge.doctor.diagnose`` brings both together. ``fail`` means that a build (or the finished image, here)
cannot work; ``warn`` that it will be slower, or that something could not be found out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.base.progress import human_bytes
from gapforge.compat import versions
from gapforge.compat.catalog import Architecture
from gapforge.doctor.machine_probes import EngineFacts, EnvFile, Gpu, Nvidia, Socket, System, Volume
from gapforge.model.preset import TARGET_OS

OK, WARN, FAIL = "ok", "warn", "fail"
LEAST_PYTHON = (3, 10)
JOB_MEMORY = (
    3 * 2**29
)  # bytes a compiler may take: the same 1.5 GiB that components/common.sh reckons with
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
    return Line(
        "os",
        _("operating system"),
        OK if good else WARN,
        text,
        "ubuntu 22.04",
        ""
        if good
        else _("sites are expected to run Ubuntu 22.04; a build works wherever Docker does"),
    )


def architecture(found: System, platform: str) -> Line:
    good = found.architecture in ("x86_64", "amd64")
    return Line(
        "architecture",
        _("processor"),
        OK if good else FAIL,
        found.architecture,
        platform,
        "" if good else _("build on an x86-64 machine"),
    )


def python(found: System) -> Line:
    good = found.python[:2] >= LEAST_PYTHON
    return Line(
        "python",
        "Python",
        OK if good else FAIL,
        ".".join(map(str, found.python)),
        ">= 3.10",
        "" if good else _("run it with Ubuntu 22.04's /usr/bin/python3"),
    )


def engine(found: EngineFacts) -> Line:
    needed = _("Docker 20.10 or newer with BuildKit")
    if found.problem:
        return Line(
            "engine", _("engine"), FAIL, found.problem.strip().splitlines()[0], needed, found.hint
        )
    return Line(
        "engine",
        _("engine"),
        OK,
        f"{found.server_version}, {found.builder} ({found.client})",
        needed,
    )


def socket(found: Socket, usable_engine: bool) -> Line:
    title, needed = _("docker socket"), _("readable and writable")
    if found.remote:
        return Line(
            "socket", title, OK if usable_engine else WARN, f"DOCKER_HOST={found.path}", needed
        )
    if found.usable or usable_engine:
        shown = found.path if found.usable else _("the engine answers elsewhere")
        return Line("socket", title, OK, shown, needed)
    if not found.exists:
        return Line(
            "socket",
            title,
            FAIL,
            _("no {path}", path=found.path),
            needed,
            _("start Docker: sudo systemctl start docker; or: ./gapforge engine start"),
        )
    if found.member or found.listed:
        action = _(
            "log in again so that group {group} counts, or: newgrp {group}", group=found.group
        )
    else:
        action = _(
            "ask an administrator: sudo usermod -aG {group} $USER, then log in again",
            group=found.group,
        )
    return Line(
        "socket",
        title,
        FAIL,
        _("{path}: permission denied (group {group})", path=found.path, group=found.group),
        needed,
        action,
    )


def memory(found: System) -> Line:
    jobs = min(found.cores, found.available // JOB_MEMORY)
    title = _("memory and cores")
    shown = _(
        "{available} free, {cores} cores", available=human_bytes(found.available), cores=found.cores
    )
    needed = _("{job_memory} for each compile job", job_memory=human_bytes(JOB_MEMORY))
    if not found.available:
        return Line("memory", title, WARN, _("unknown, {cores} cores", cores=found.cores), needed)
    if jobs < 1:
        return Line(
            "memory", title, FAIL, shown, needed, _("end other programs or add swap (free -h)")
        )
    if jobs < found.cores:
        return Line(
            "memory",
            title,
            WARN,
            shown,
            needed,
            _("compiles {jobs} at a time; more memory makes it faster", jobs=jobs),
        )
    return Line("memory", title, OK, shown, needed)


def clock(found: System, floor: float) -> Line:
    """``floor`` is a moment that has passed for certain: the date of the catalog that came along."""
    title = _("clock")
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.now))
    action = _("set it: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'")
    least = time.strftime("%Y-%m-%d", time.gmtime(floor))
    needed = _("{least} or later", least=least)
    if found.now < floor:
        return Line("clock", title, WARN, shown, needed, action)
    if found.newest_file > found.now + DAY:
        newest = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.newest_file))
        return Line(
            "clock",
            title,
            WARN,
            shown,
            _("after the project's files, {newest}", newest=newest),
            action,
        )
    if found.now > floor + 20 * 365 * DAY:
        return Line(
            "clock", title, WARN, shown, _("within 20 years of {least}", least=least), action
        )
    return Line("clock", title, OK, shown, needed)


def permissions(umask: int, folders: Sequence[Volume | None]) -> Line:
    title = _("permissions")
    needed = _("project folder writable, umask 022 or 077")
    closed = [v.path for v in folders if v is not None and not v.writable]
    if closed:
        names = ", ".join(closed)
        return Line(
            "permissions",
            title,
            FAIL,
            _("not writable: {names}", names=names),
            needed,
            _("copy the project to where you may write: cp -r"),
        )
    if umask & 0o700:
        return Line("permissions", title, FAIL, f"umask {umask:03o}", needed, "umask 022")
    if not umask & 0o002:
        return Line(
            "permissions",
            title,
            WARN,
            f"umask {umask:03o}",
            needed,
            _("anybody may change new files: umask 022"),
        )
    return Line("permissions", title, OK, f"umask {umask:03o}", needed)


def env(found: EnvFile, required: Sequence[str], problem: str) -> Line:
    """``problem`` is what reading .env gave as an error, "" for none."""
    title = ".env"
    needed = _("may be absent") if not required else ", ".join(required)
    if problem:
        return Line(
            "env",
            title,
            FAIL,
            problem,
            needed,
            _("cp .env.template {path}; chmod 600 {path}; fill in the keys", path=found.path),
        )
    if not found.exists:
        return Line("env", title, OK, _("absent"), needed)
    shown = f"{found.mode:04o}"
    if found.mode & 0o077:
        return Line("env", title, WARN, shown, "0600", f"chmod 600 {found.path}")
    if not found.readable:
        return Line(
            "env",
            title,
            FAIL,
            _("{shown}, not readable", shown=shown),
            "0600",
            f"sudo chown $USER {found.path}",
        )
    return Line("env", title, OK, shown, "0600")


def trust(names: Sequence[str], problem: str, hint: str, *, can_check: bool) -> Line:
    """``names`` of trusted signers; ``problem`` is why who they are cannot be known, ``can_check`` whether ssh-keygen is here."""
    title = _("trusted signers")
    needed = _("may be nobody; else signatures are checked")
    if problem:
        return Line("trust", title, FAIL, problem, needed, hint)
    if not names:
        return Line("trust", title, OK, _("nobody: signatures are not checked"), needed)
    shown = ", ".join(names)
    if not can_check:
        return Line(
            "trust",
            title,
            FAIL,
            _("{shown}; ssh-keygen is missing", shown=shown),
            "ssh-keygen",
            "apt-get install openssh-client",
        )
    return Line("trust", title, OK, shown, needed)


def artifacts(
    problem: str, hint: str, files: int, total: int, faults: Sequence[str], size: int, name: str
) -> Line:
    """``problem`` is why there is no usable lock; else ``faults`` name files that are absent or of another size."""
    title = _("artifacts")
    needed = _("artifacts/{name} in the preset's state", name=name)
    if problem:
        return Line("artifacts", title, FAIL, problem, needed, hint)
    shown = _("{files} of {total} files, {size}", files=files, total=total, size=human_bytes(size))
    if faults:
        some = ", ".join(faults[:3]) + (" …" if len(faults) > 3 else "")
        return Line(
            "artifacts",
            title,
            FAIL,
            f"{shown}: {some}",
            needed,
            _("copy them again; the list: ./gapforge verify {name}", name=name),
        )
    return Line(
        "artifacts",
        title,
        OK,
        shown,
        needed,
        _("sizes only; the content: ./gapforge verify {name}", name=name),
    )


def hard_links(possible: bool | None, copies: int) -> Line:
    title = _("hard links")
    needed = _("artifacts and .gapforge on one file system")
    if possible is None:
        return Line("links", title, WARN, _("could not be tried"), needed)
    if possible:
        return Line("links", title, OK, _("possible"), needed)
    return Line(
        "links",
        title,
        WARN,
        _("not possible"),
        needed,
        _("copies are made instead: {copies}", copies=human_bytes(copies)),
    )


def disk(places: Sequence[tuple[str, Volume | None, int, int]]) -> list[Line]:
    """One line for each file system: ``places`` are (what it is for, where, bytes, inodes), and add up by device."""
    lines: list[Line] = []
    by_device: dict[int, list[tuple[str, Volume, int, int]]] = {}
    for label, where, size, inodes in places:
        if where is None:
            lines.append(
                Line(
                    "disk",
                    _("disk") + f" ({label})",
                    WARN,
                    _("unknown"),
                    human_bytes(size),
                    _("look on the engine's machine: df -h"),
                )
            )
        else:
            by_device.setdefault(where.device, []).append((label, where, size, inodes))
    for shares in by_device.values():
        where = shares[0][1]
        size = max(sum(share[2] for share in shares), LEAST_FREE)
        inodes = sum(share[3] for share in shares)
        title = _("disk") + " (" + ", ".join(share[0] for share in shares) + ")"
        detail = " + ".join(f"{share[0]} {human_bytes(share[2])}" for share in shares if share[2])
        needed = _("about {size}", size=human_bytes(size)) + (
            f" ({detail})" if len(shares) > 1 and detail else ""
        )
        status = OK if where.free >= size else WARN if where.free >= size * SLACK else FAIL
        action = (
            "" if status == OK else _("make room: df -h {path}; docker system df", path=where.path)
        )
        lines.append(
            Line(
                "disk",
                title,
                status,
                _("{free} free", free=human_bytes(where.free)),
                needed,
                action,
            )
        )
        if where.inodes >= 0 and inodes and where.inodes < inodes:
            status = WARN if where.inodes >= inodes * SLACK else FAIL
            lines.append(
                Line(
                    "inodes",
                    _("inodes") + f" ({shares[0][0]})",
                    status,
                    _("{inodes} free", inodes=where.inodes),
                    _("about {inodes}", inodes=inodes),
                    f"df -i {where.path}",
                )
            )
    return lines


def bare_gpu(found: Nvidia) -> list[Line]:
    """What there is of NVIDIA when no preset says what is needed; no line where there is nothing."""
    if not (found.driver or found.devices or found.problem):
        return []
    names = ", ".join(dict.fromkeys(f"{gpu.name} ({gpu.compute or '?'})" for gpu in found.gpus))
    shown = (
        found.problem
        or " ".join(part for part in (found.driver, names) if part)
        or _("{devices} GPU, no driver", devices=found.devices)
    )
    return [
        Line(
            "driver",
            _("NVIDIA driver"),
            WARN if found.problem or not found.driver else OK,
            shown,
            _("depends on the preset"),
            "./gapforge doctor PRESET",
        )
    ]


def driver(found: Nvidia, needs: GpuNeeds) -> list[Line]:
    """The driver against CUDA and the NVENC headers; no line for a preset without CUDA."""
    if not needs.cuda:
        return []
    title = _("NVIDIA driver")
    least = needs.least_driver or needs.toolkit_driver
    needed = (
        f">= {needs.toolkit_driver or least} (CUDA {needs.cuda})" if least else f"CUDA {needs.cuda}"
    )
    install = _(
        "install driver {toolkit_driver} or newer and restart the machine",
        toolkit_driver=needs.toolkit_driver or least,
    )
    if not found.driver:
        if found.devices or found.problem:
            shown = found.problem or _("{devices} GPU, no driver", devices=found.devices)
            return [Line("driver", title, FAIL, shown, needed, install)]
        return [
            Line(
                "driver",
                title,
                WARN,
                _("no GPU"),
                needed,
                _("a build works; try the image on a machine with a GPU"),
            )
        ]
    lines = []
    number = versions.key(found.driver)
    if least and number < versions.key(least):
        lines.append(Line("driver", title, FAIL, found.driver, needed, install))
    elif needs.toolkit_driver and number < versions.key(needs.toolkit_driver):
        lines.append(
            Line(
                "driver",
                title,
                WARN,
                found.driver,
                needed,
                _(
                    "works by CUDA's minor version compatibility (>= {least}); PTX code "
                    "and new features need {toolkit_driver}",
                    least=least,
                    toolkit_driver=needs.toolkit_driver,
                ),
            )
        )
    else:
        lines.append(
            Line(
                "driver",
                title,
                OK if least else WARN,
                found.driver,
                needed,
                "" if least else _("the catalog knows no least driver for this CUDA"),
            )
        )
    if found.problem:
        lines.append(
            Line(
                "nvidia-smi",
                "nvidia-smi",
                FAIL,
                found.problem,
                _("answers"),
                _("after a driver update, restart the machine: sudo reboot"),
            )
        )
    if needs.headers_driver:
        good = number >= versions.key(needs.headers_driver)
        lines.append(
            Line(
                "nvenc",
                "NVENC/NVDEC",
                OK if good else FAIL,
                found.driver,
                f">= {needs.headers_driver} (nv-codec-headers {needs.headers})",
                ""
                if good
                else _(
                    "install driver {headers_driver} or newer; until then no encoder opens",
                    headers_driver=needs.headers_driver,
                ),
            )
        )
    return lines


def toolkit(found: Nvidia, needs: GpuNeeds, usable_engine: bool) -> list[Line]:
    """Whether containers get at the GPU; no line without one, or for a preset without CUDA."""
    if not needs.cuda or not found.driver:
        return []
    title = _("container toolkit")
    parts = [f"nvidia-ctk {found.toolkit}"] if found.toolkit else []
    parts += [f"runtime {name}" for name in found.runtimes if "nvidia" in name]
    parts += ["hook"] if found.hook else []
    parts += ["CDI"] if found.cdi else []
    needed = _("the nvidia runtime, hook or CDI")
    if found.hook or found.cdi or any("nvidia" in name for name in found.runtimes):
        return [Line("toolkit", title, OK, ", ".join(parts), needed)]
    action = _(
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure "
        "--runtime=docker; sudo systemctl restart docker"
    )
    status = FAIL if usable_engine else WARN
    return [Line("toolkit", title, status, ", ".join(parts) or _("none"), needed, action)]


def gpus(found: Nvidia, needs: GpuNeeds, known: Mapping[str, Architecture]) -> list[Line]:
    """Each kind of GPU against CUDA, TensorRT, and the architectures that OpenCV is compiled for."""
    if not needs.cuda:
        return []
    return [_gpu(gpu, needs, known) for gpu in dict.fromkeys(found.gpus)]


def _gpu(gpu: Gpu, needs: GpuNeeds, known: Mapping[str, Architecture]) -> Line:
    title = f"GPU {gpu.name}"
    needed = f"CUDA {needs.cuda}" + (
        f", OpenCV {' '.join(needs.compiled_for)}" if needs.compiled_for else ""
    )
    if not gpu.compute:
        return Line("gpu", title, WARN, _("generation unknown (old driver)"), needed)
    fact = known.get(gpu.compute)
    shown = gpu.compute + (f" ({fact.name})" if fact else "")
    cuda = versions.key(needs.cuda)
    if fact and fact.first_cuda and cuda < versions.key(fact.first_cuda):
        return Line(
            "gpu",
            title,
            FAIL,
            shown,
            needed,
            _(
                "CUDA {first_cuda} is the first that knows this GPU; take a preset with "
                "it: ./gapforge list",
                first_cuda=fact.first_cuda,
            ),
        )
    if fact and fact.dropped_in and cuda >= versions.key(fact.dropped_in):
        return Line(
            "gpu",
            title,
            FAIL,
            shown,
            needed,
            _(
                "CUDA {dropped_in} dropped this GPU; take a preset with an older CUDA",
                dropped_in=fact.dropped_in,
            ),
        )
    if needs.tensorrt_compute and versions.key(gpu.compute) < versions.key(needs.tensorrt_compute):
        return Line(
            "gpu",
            title,
            FAIL,
            shown,
            f"TensorRT {needs.tensorrt}: >= {needs.tensorrt_compute}",
            _(
                "TensorRT {tensorrt_before} dropped this GPU; take a preset with an older TensorRT",
                tensorrt_before=needs.tensorrt_before,
            ),
        )
    if not needs.compiled_for:
        return Line("gpu", title, OK, shown, needed)
    major, minor = gpu.compute.split(".")
    same = [
        a
        for a in needs.compiled_for
        if a.split(".")[0] == major and int(a.split(".")[1]) <= int(minor)
    ]
    if same:
        return Line("gpu", title, OK, shown, needed)
    own = f'"{gpu.compute}"'
    return Line(
        "gpu",
        title,
        FAIL,
        shown,
        needed,
        _(
            "OpenCV's CUDA code does not run on this GPU; online, add {own} to "
            "opencv.architectures",
            own=own,
        ),
    )
