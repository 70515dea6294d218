"""Find out what this machine has of NVIDIA, as plain data that the checks judge.

A missing, failing or hanging program is no error: its field stays empty or holds the reason.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import ToolError
from gapforge.base.files import system_text
from gapforge.base.i18n import _
from gapforge.base.strict_json import parse_json
from gapforge.base.system_errors import error_text
from gapforge.engine.protocol import EngineInfo

# Seconds. nvidia-smi takes several on a cold machine, and hangs when the driver does.
ANSWER_TIMEOUT = 20.0
NVIDIA_VENDOR = "0x10de"


@dataclass(frozen=True)
class Gpu:
    """One GPU; ``compute`` is its compute capability, "" where an old driver does not name it."""

    name: str
    compute: str


@dataclass(frozen=True, kw_only=True)
class Nvidia:
    """Driver, GPUs and container toolkit.

    ``driver`` is "" when none answers; ``problem`` is the error of nvidia-smi. ``devices`` counts
    NVIDIA display devices on the PCI bus, with or without a driver.
    """

    driver: str = ""
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    devices: int = 0
    runtimes: tuple[str, ...] = ()
    toolkit: str = ""
    hook: bool = False
    cdi: bool = False


def nvidia(engine: EngineInfo | None = None) -> Nvidia:
    """Return what there is of NVIDIA; ``engine`` is asked for its runtimes."""
    driver, gpus, problem = _nvidia_smi()
    if not driver:
        driver = _kernel_driver(Path("/proc/driver/nvidia/version"))
    return Nvidia(
        driver=driver,
        gpus=gpus,
        problem=problem,
        devices=_pci_devices(Path("/sys/bus/pci/devices")),
        runtimes=_runtimes(engine) if engine else (),
        toolkit=_toolkit_version(),
        hook=any(map(shutil.which, ("nvidia-container-runtime-hook", "nvidia-container-toolkit"))),
        cdi=any(list(Path(folder).glob("nvidia*")) for folder in ("/etc/cdi", "/var/run/cdi")),
    )


def parse_gpus(listing: str) -> tuple[str, tuple[Gpu, ...]]:
    """Return driver version and GPUs of CSV lines ``name, driver[, compute capability]``."""
    driver, gpus = "", []
    for line in listing.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 2 or not re.fullmatch(r"[0-9]+(\.[0-9]+)+", cells[1]):
            continue
        compute = cells[2] if len(cells) > 2 and re.fullmatch(r"[0-9]+\.[0-9]+", cells[2]) else ""
        driver = cells[1]
        gpus.append(Gpu(cells[0], compute))
    return driver, tuple(gpus)


def _nvidia_smi() -> tuple[str, tuple[Gpu, ...], str]:
    if not shutil.which("nvidia-smi"):
        return "", (), ""
    output = ""
    # Drivers before 510 do not know compute_cap and then answer nothing at all.
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):
        try:
            result = process.run(
                ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
                check=False,
                timeout=ANSWER_TIMEOUT,
            )
        except (ToolError, OSError) as error:
            return "", (), error_text(error)
        driver, gpus = parse_gpus(result.output)
        if gpus:
            return driver, gpus, ""
        output = output or (result.output + result.errors).strip()
    return "", (), output.splitlines()[-1] if output else _("nvidia-smi prints nothing")


def _kernel_driver(file: Path) -> str:
    try:
        match = re.search(r"Kernel Module.*?\s([0-9]+(?:\.[0-9]+)+)\s", system_text(file))
    except OSError:
        return ""
    return match[1] if match else ""


def _pci_devices(folder: Path) -> int:
    count = 0
    for device in folder.glob("*"):
        try:
            vendor, kind = (system_text(device / name).strip() for name in ("vendor", "class"))
            display = kind.startswith("0x03")
        except OSError:
            continue
        count += vendor == NVIDIA_VENDOR and display
    return count


def _runtimes(engine: EngineInfo) -> tuple[str, ...]:
    try:
        result = process.run(
            [engine.client, "info", "--format", "{{json .Runtimes}}"],
            check=False,
            timeout=ANSWER_TIMEOUT,
            env={"DOCKER_HOST": engine.host} if engine.host else None,
        )
        found = parse_json(result.output.encode() or b"{}")
    except (ToolError, OSError, ValueError):
        return ()
    return tuple(sorted(found)) if isinstance(found, dict) else ()


def _toolkit_version() -> str:
    if not shutil.which("nvidia-ctk"):
        return ""
    try:
        result = process.run(["nvidia-ctk", "--version"], check=False, timeout=ANSWER_TIMEOUT)
    except (ToolError, OSError):
        return ""
    match = re.search(r"version\s+v?([0-9]+(?:\.[0-9]+)+)", result.output)
    return match[1] if match else ""
