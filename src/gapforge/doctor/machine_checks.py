"""Judge the machine itself: system, engine, memory, clock, permissions, `.env`, trusted signers.

The functions judge plain facts and start nothing. ``gapforge.doctor.machine_probes`` finds the
facts and ``gapforge.doctor.diagnose`` brings both together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import _, pgettext
from gapforge.base.project import LEAST_PYTHON
from gapforge.base.units import DAY, human_bytes
from gapforge.doctor.check_result import Check, CheckResult
from gapforge.doctor.machine_probes import EnvFile, Socket, System, Volume
from gapforge.engine.protocol import LEAST_DOCKER, EngineInfo
from gapforge.image.read_inputs import CLOCK_TOLERANCE
from gapforge.model.credentials import Need
from gapforge.model.preset_rules import TARGET_OS

# Bytes that one compiler may take: the 1.5 GiB that components/common.sh counts with.
JOB_MEMORY = 3 * 2**29


def operating_system(found: System) -> CheckResult:
    check = Check("os", _("operating system"), " ".join(TARGET_OS))
    text = f"{found.os_id or '?'} {found.os_version}".strip()
    if (found.os_id, found.os_version) == TARGET_OS:
        return check.ok(text)
    return check.warn(
        text, _("sites are expected to run Ubuntu 22.04; a build works wherever Docker does")
    )


def architecture(found: System, platform: str) -> CheckResult:
    check = Check("architecture", _("processor"), platform)
    if found.architecture in ("x86_64", "amd64"):
        return check.ok(found.architecture)
    return check.fail(found.architecture, _("build on an x86-64 machine"))


def python(found: System) -> CheckResult:
    check = Check("python", "Python", ">= {}.{}".format(*LEAST_PYTHON))
    version = ".".join(map(str, found.python))
    if found.python[:2] >= LEAST_PYTHON:
        return check.ok(version)
    return check.fail(version, _("run it with Ubuntu 22.04's /usr/bin/python3"))


def engine(found: EngineInfo | GapforgeError) -> CheckResult:
    """Judge the engine, or the error of looking for one."""
    check = Check(
        "engine", _("engine"), _("Docker {version} or newer with BuildKit", version=LEAST_DOCKER)
    )
    if isinstance(found, GapforgeError):
        return check.fail(found.message.strip().splitlines()[0], found.hint)
    return check.ok(f"{found.server_version}, {found.builder} ({found.client})")


def socket(found: Socket, usable_engine: bool) -> CheckResult:
    """Judge the docker socket, which does not matter when an engine answers elsewhere."""
    check = Check("socket", _("docker socket"), _("readable and writable"))
    if found.remote:
        address = f"DOCKER_HOST={found.path}"
        return check.ok(address) if usable_engine else check.warn(address)
    if found.usable or usable_engine:
        return check.ok(found.path if found.usable else _("the engine answers elsewhere"))
    if not found.exists:
        return check.fail(
            _("no {path}", path=found.path),
            _("start Docker: sudo systemctl start docker; or: ./gapforge engine start"),
        )
    if found.member or found.listed:
        action = _(
            "log in again so that group {group} takes effect, or: newgrp {group}", group=found.group
        )
    else:
        action = _(
            "ask an administrator: sudo usermod -aG {group!q} $USER, then log in again",
            group=found.group,
        )
    return check.fail(
        _("{path}: permission denied (group {group})", path=found.path, group=found.group), action
    )


def memory(found: System) -> CheckResult:
    """Judge the available memory by how many compile jobs it allows."""
    check = Check(
        "memory",
        _("memory and cores"),
        _("{memory} for each compile job", memory=human_bytes(JOB_MEMORY)),
    )
    if not found.available:
        return check.warn(_("unknown, {cores} cores", cores=found.cores))
    jobs = min(found.cores, found.available // JOB_MEMORY)
    text = _(
        "{available} free, {cores} cores", available=human_bytes(found.available), cores=found.cores
    )
    if jobs < 1:
        return check.fail(text, _("end other programs or add swap (free -h)"))
    if jobs < found.cores:
        return check.warn(
            text, _("{jobs} compile jobs at a time; more memory makes it faster", jobs=jobs)
        )
    return check.ok(text)


def clock(found: System, floor: float, sources: float = 0.0) -> CheckResult:
    """Judge the clock by a time that has certainly passed: the date of the catalog (``floor``).

    ``sources`` is the newest time in the source archives, before which a build refuses to start.
    """
    title, name = _("clock"), "clock"
    text = _minute(found.now)
    action = _("set it: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'")
    least = time.strftime("%Y-%m-%d", time.gmtime(floor))
    check = Check(name, title, _("{least} or later", least=least))
    if sources > found.now + CLOCK_TOLERANCE:
        newest = _("after the source archives, {newest}", newest=_minute(sources))
        return Check(name, title, newest).fail(text, action)
    if found.now < floor:
        return check.warn(text, action)
    if found.newest_file > found.now + DAY:
        newest = _("after the project's files, {newest}", newest=_minute(found.newest_file))
        return Check(name, title, newest).warn(text, action)
    if found.now > floor + 20 * 365 * DAY:
        return Check(name, title, _("within 20 years of {least}", least=least)).warn(text, action)
    return check.ok(text)


def _minute(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def permissions(umask: int, folders: Sequence[Volume | None]) -> CheckResult:
    """Judge whether the folders can be written and what new files allow."""
    check = Check("permissions", _("permissions"), _("project folder writable, umask 022 or 077"))
    closed = [v.path for v in folders if v is not None and not v.writable]
    if closed:
        return check.fail(
            _("not writable: {names}", names=", ".join(closed)),
            _("copy the project to where you may write: cp -r"),
        )
    text = f"umask {umask:03o}"
    if umask & 0o700:
        return check.fail(text, "umask 022")
    if not umask & 0o002:
        return check.warn(text, _("new files can be changed by anyone: umask 022"))
    return check.ok(text)


def env(found: EnvFile, required: Sequence[str], problem: str) -> CheckResult:
    """Judge `.env`; ``problem`` is the error of reading it, "" for none."""
    check = Check("env", ".env", ", ".join(required) if required else _("optional"))
    if problem:
        return check.fail(
            problem,
            _("cp .env.template {path!q}; chmod 600 {path!q}; fill in the keys", path=found.path),
        )
    if not found.exists:
        return check.ok(_("absent"))
    mode = f"{found.mode:04o}"
    check = Check("env", ".env", "0600")
    if found.mode & 0o077:
        return check.warn(mode, f"chmod 600 {found.path}")
    if not found.readable:
        return check.fail(_("{mode}, not readable", mode=mode), f"sudo chown $USER {found.path}")
    return check.ok(mode)


def credentials(needs: Sequence[Need], problem: str, file: Path) -> CheckResult:
    """Judge the credentials of sync for private sources and base images.

    ``problem`` is the error of reading them, "" for none. A site needs none, so nothing fails.
    """
    wanted = "; ".join(f"{need.key} ({', '.join(need.of)})" for need in needs)
    check = Check("credentials", _("credentials for sync"), wanted)
    missing = sorted({need.key for need in needs if not need.present})
    if problem or missing:
        return check.warn(
            problem or _("not set: {keys}", keys=", ".join(missing)),
            _("before ./deps_sync.sh: fill in the keys in {path}; chmod 600 {path!q}", path=file),
        )
    return check.ok(pgettext("check", "ok"))


def trust(names: Sequence[str], problem: str, hint: str, *, can_verify: bool) -> CheckResult:
    """Judge the trusted signers.

    ``problem`` is why their list cannot be read, "" if it can; ``can_verify`` is whether ssh-keygen
    is installed.
    """
    title = _("trusted signers")
    check = Check("trust", title, _("optional; with any, signatures are verified"))
    if problem:
        return check.fail(problem, hint)
    if not names:
        return check.ok(_("none: signatures are not verified"))
    text = ", ".join(names)
    if not can_verify:
        return Check("trust", title, "ssh-keygen").fail(
            _("{names}; ssh-keygen is missing", names=text), "apt-get install openssh-client"
        )
    return check.ok(text)
