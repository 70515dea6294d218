"""Judge the GPUs, their driver and the container toolkit against what a preset needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gapforge.base.i18n import _
from gapforge.compat.driver import LIMITED, TOO_OLD, UNKNOWN, DriverNeed
from gapforge.compat.gpu_code import runs, tensorrt_supports
from gapforge.doctor.check_result import Check, CheckResult
from gapforge.doctor.gpu_probes import Gpu, Nvidia
from gapforge.model import versions
from gapforge.model.catalog import Architecture, Catalog


@dataclass(frozen=True, kw_only=True)
class GpuNeeds:
    """What a preset needs of driver and GPU; "" and () for nothing.

    ``compiled_for`` lists the compute capabilities of OpenCV's CUDA code, ``torch_code`` those of
    PyTorch's build ``torch``; None if unknown.
    """

    cuda: str = ""
    driver: DriverNeed = field(default_factory=DriverNeed)
    compiled_for: tuple[str, ...] = ()
    tensorrt: str = ""
    torch: str = ""
    torch_code: tuple[str, ...] | None = None


def bare_gpu(found: Nvidia) -> list[CheckResult]:
    """Report what there is of NVIDIA when no preset says what is needed."""
    if not (found.driver or found.devices or found.problem):
        return []
    check = Check("driver", _("NVIDIA driver"), _("depends on the preset"))
    action = "./gapforge doctor PRESET"
    names = ", ".join(dict.fromkeys(f"{gpu.name} ({gpu.compute or '?'})" for gpu in found.gpus))
    text = " ".join(part for part in (found.driver, names) if part)
    if found.problem or not found.driver:
        return [check.warn(found.problem or text or _no_driver(found), action)]
    return [check.ok(text, action)]


def driver(found: Nvidia, needs: GpuNeeds) -> list[CheckResult]:
    """Judge the driver against CUDA and the NVENC headers; nothing for a preset without CUDA."""
    if not needs.cuda:
        return []
    results = [_cuda_driver(found, needs)]
    if not found.driver:
        return results
    if found.problem:
        results.append(
            Check("nvidia-smi", "nvidia-smi", _("answers")).fail(
                found.problem, _("after a driver update, restart the machine: sudo reboot")
            )
        )
    if needs.driver.for_headers:
        version = needs.driver.for_headers
        needed = f">= {version} (nv-codec-headers {needs.driver.headers})"
        check = Check("nvenc", "NVENC/NVDEC", needed)
        if needs.driver.runs_encoders(found.driver):
            results.append(check.ok(found.driver))
        else:
            action = _(
                "install driver {version} or newer; until then encoders do not work",
                version=version,
            )
            results.append(check.fail(found.driver, action))
    return results


def _cuda_driver(found: Nvidia, needs: GpuNeeds) -> CheckResult:
    need = needs.driver
    needed = f">= {need.lowest} ({need.reason})" if need.lowest else f"CUDA {needs.cuda}"
    check = Check("driver", _("NVIDIA driver"), needed)
    wanted = max(need.full, need.lowest, key=versions.key)
    install = _("install driver {version} or newer and restart the machine", version=wanted)
    if not found.driver:
        if found.devices or found.problem:
            return check.fail(found.problem or _no_driver(found), install)
        return check.warn(_("no GPU"), _("a build works; test the image on a machine with a GPU"))
    verdict = need.verdict(found.driver)
    if verdict == UNKNOWN:
        action = _("the catalog has no minimum driver for this CUDA")
        return check.warn(found.driver, action)
    if verdict == TOO_OLD:
        return check.fail(found.driver, install)
    if verdict == LIMITED:
        action = _(
            "works by CUDA's minor version compatibility (>= {least}); PTX code "
            "and new features need {wanted}; if the container is refused with "
            '"unsatisfied condition: cuda>={cuda}", start it with -e NVIDIA_DISABLE_REQUIRE=true',
            least=need.for_cuda,
            wanted=need.full,
            cuda=needs.cuda,
        )
        return check.warn(found.driver, action)
    return check.ok(found.driver)


def _no_driver(found: Nvidia) -> str:
    return _("{count} GPU, no driver", count=found.devices)


def toolkit(found: Nvidia, needs: GpuNeeds, usable_engine: bool) -> list[CheckResult]:
    """Judge whether containers can use the GPU; nothing without a GPU or CUDA."""
    if not needs.cuda or not found.driver:
        return []
    check = Check("toolkit", _("container toolkit"), _("the nvidia runtime, hook or CDI"))
    runtimes = [f"runtime {name}" for name in found.runtimes if "nvidia" in name]
    parts = [f"nvidia-ctk {found.toolkit}"] if found.toolkit else []
    parts += runtimes + ["hook"] * found.hook + ["CDI"] * found.cdi
    if found.hook or found.cdi or runtimes:
        return [check.ok(", ".join(parts))]
    action = _(
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure "
        "--runtime=docker; sudo systemctl restart docker"
    )
    text = ", ".join(parts) or _("none")
    return [check.fail(text, action) if usable_engine else check.warn(text, action)]


def gpus(found: Nvidia, needs: GpuNeeds, catalog: Catalog | None) -> list[CheckResult]:
    """Judge each kind of GPU against CUDA, TensorRT, PyTorch, and what OpenCV is compiled for."""
    if not needs.cuda:
        return []
    return [_gpu(gpu, needs, catalog) for gpu in dict.fromkeys(found.gpus)]


def _gpu(gpu: Gpu, needs: GpuNeeds, catalog: Catalog | None) -> CheckResult:
    title = f"GPU {gpu.name}"
    opencv = f", OpenCV {' '.join(needs.compiled_for)}" if needs.compiled_for else ""
    check = Check("gpu", title, f"CUDA {needs.cuda}{opencv}")
    if not gpu.compute:
        return check.warn(_("generation unknown (old driver)"))
    architecture = catalog.architectures.get(gpu.compute) if catalog else None
    text = gpu.compute + (f" ({architecture.name})" if architecture else "")
    for needed, action in _obstacles(gpu, needs, architecture, catalog):
        return Check("gpu", title, needed or check.needed).fail(text, action)
    if unknown := _unknown_support(gpu, needs, architecture, catalog):
        action = _(
            "the catalog does not know whether {products} supports this GPU; run the image's "
            "checks on it: ./gapforge smoke",
            products=", ".join(unknown),
        )
        return check.warn(text, action)
    return check.ok(text)


def _obstacles(
    gpu: Gpu, needs: GpuNeeds, architecture: Architecture | None, catalog: Catalog | None
) -> Iterator[tuple[str, str]]:
    """Yield what does not run on the GPU: what is needed ("" for CUDA and OpenCV), what to do."""
    if architecture and (action := _cuda_action(architecture, versions.key(needs.cuda))):
        yield "", action
    if _runs_tensorrt(gpu, needs, catalog) is False:
        yield (
            f"TensorRT {needs.tensorrt}",
            _(
                "TensorRT {version} does not support this GPU; choose a preset with another "
                "TensorRT",
                version=needs.tensorrt,
            ),
        )
    if needs.torch and needs.torch_code is not None and not runs(gpu.compute, needs.torch_code):
        yield (
            f"{needs.torch}: {' '.join(needs.torch_code)}",
            _(
                "{torch} has no code for this GPU; choose a preset with another PyTorch",
                torch=needs.torch,
            ),
        )
    if needs.compiled_for and not runs(gpu.compute, needs.compiled_for):
        yield (
            "",
            _(
                'OpenCV\'s CUDA code does not run on this GPU; online, add "{compute}" to '
                "opencv.architectures",
                compute=gpu.compute,
            ),
        )


def _unknown_support(
    gpu: Gpu, needs: GpuNeeds, architecture: Architecture | None, catalog: Catalog | None
) -> list[str]:
    """Return the products of which the catalog does not say whether they support the GPU."""
    known = {
        "CUDA": architecture is not None,
        f"TensorRT {needs.tensorrt}": _runs_tensorrt(gpu, needs, catalog) is not None,
        needs.torch: not needs.torch or needs.torch_code is not None,
    }
    return [product for product, is_known in known.items() if not is_known]


def _runs_tensorrt(gpu: Gpu, needs: GpuNeeds, catalog: Catalog | None) -> bool | None:
    """Return whether the preset's TensorRT, if any, supports the GPU; None if unknown."""
    if not needs.tensorrt or catalog is None:
        return True
    return tensorrt_supports(needs.tensorrt, gpu.compute, catalog)


def _cuda_action(architecture: Architecture, cuda: tuple[int, ...]) -> str:
    """Return what to do if this CUDA does not support the architecture, "" if it does."""
    if architecture.first_cuda and cuda < versions.key(architecture.first_cuda):
        return _(
            "this GPU needs CUDA {version} or newer; choose such a preset: ./gapforge list",
            version=architecture.first_cuda,
        )
    if architecture.dropped_in and cuda >= versions.key(architecture.dropped_in):
        return _(
            "CUDA {version} and newer do not support this GPU; choose a preset with an older CUDA",
            version=architecture.dropped_in,
        )
    return ""
