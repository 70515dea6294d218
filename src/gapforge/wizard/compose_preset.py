"""Make a preset of the user's choices: the nearest preset with the chosen versions."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapforge.base.errors import CompatibilityError, Fault, PresetError
from gapforge.base.i18n import N_, _, in_both_languages
from gapforge.base.project import Project
from gapforge.compat import opencv, tensorrt
from gapforge.compat.findings import Finding, nearest_version
from gapforge.compat.gpu_code import runs, torch_code
from gapforge.compat.rules import check_preset
from gapforge.compat.torch import builds_for, cuda_build, wanted_build
from gapforge.model import preset as presets
from gapforge.model import preset_writer
from gapforge.model.catalog import Catalog
from gapforge.model.component import Component
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.preset_defaults import shortened, source_of
from gapforge.model.preset_rules import written_options
from gapforge.model.versions import NONE, begins_with, key, local, major, minor, public
from gapforge.wizard.choices import Choices, find_base

_NV_OPTIONS = (
    "--enable-ffnvcodec",
    "--enable-cuda",
    "--enable-cuvid",
    "--enable-nvdec",
    "--enable-nvenc",
    "--enable-cuda-nvcc",
    "--enable-libnpp",
)


def apply_overrides(
    preset_raw: Mapping[str, Any],
    choices: Choices,
    catalog: Catalog,
    components: tuple[Component, ...] | None,
) -> dict[str, Any]:
    """Return the raw preset with the chosen base image, Python, PyTorch and TensorRT.

    Raise CompatibilityError, with every reason and suggestion, if the result cannot work.
    """
    raw: dict[str, Any] = copy.deepcopy(dict(preset_raw))
    if choices.base is not None:
        _set_base(raw, choices.base, catalog)
    if choices.python is not None:
        _set_python(raw, choices.python)
    if choices.torch is not None:
        _set_torch(raw, choices.torch, catalog)
    elif choices.base is not None and raw.get("pytorch"):
        _set_torch(raw, public(raw["pytorch"]["torch"]), catalog)
    if choices.tensorrt is not None:
        _set_tensorrt(raw, choices.tensorrt, catalog)
    elif choices.base is not None and raw.get("tensorrt"):
        _set_tensorrt(raw, raw["tensorrt"]["version"], catalog)
    faults = presets.faults_of(raw, _("choices"), components)
    if faults:
        raise PresetError(_("these choices make no valid preset"), faults=faults)
    _leave_out_gpus(raw, presets.parse(raw, components), catalog)
    errors = [
        f for f in check_preset(presets.parse(raw, components), catalog) if f.severity == "error"
    ]
    if errors:
        raise _incompatible(errors)
    return raw


def _leave_out_gpus(raw: dict[str, Any], made: Preset, catalog: Catalog) -> None:
    """Compile OpenCV only for GPUs that the chosen PyTorch has code for, too."""
    torch = wanted_build(made.pytorch, catalog) if made.pytorch else None
    options = written_options(raw, "opencv")
    code = torch_code(torch.version, torch.build, catalog) if torch else None
    if options and options.get("cuda") and code:
        fitting = [gpu for gpu in options.get("architectures", []) if runs(gpu, code)]
        options["architectures"] = fitting or options["architectures"]


def _incompatible(findings: Sequence[Finding]) -> CompatibilityError:
    several = len(findings) > 1
    return CompatibilityError(
        _("the chosen versions are not compatible") if several else findings[0].text,
        faults=[Fault(f.path, f.text) for f in findings] if several else [],
        hint=_("choose the versions named above and run the command again"),
    )


def warnings_of(preset: Preset, catalog: Catalog) -> list[str]:
    """Return the texts of the warnings about a preset, in the reader's language."""
    return [f.text for f in check_preset(preset, catalog) if f.severity == "warning"]


def template_for(
    base: str, existing: Iterable[Preset], catalog: Catalog, torch: str = ""
) -> Preset:
    """Return the existing preset nearest to a base image: same CUDA, else next older, else any.

    It has CUDA exactly if the base image has. Of several with the same CUDA it is the one with this
    ``torch`` ("2.1.2"), else the one with the newest. Raise PresetError if there is none.
    """
    chosen = find_base(base, catalog)
    cuda = chosen.cuda if chosen else ""
    suitable = [p for p in existing if not p.practice and bool(p.cuda) == bool(cuda)]
    if not suitable:
        raise PresetError(
            _("there is no preset to use as a template"),
            hint=_("restore presets/ from the release"),
        )

    def distance(preset: Preset) -> tuple[bool, bool, tuple[int, ...], bool, tuple[int, ...], str]:
        own = key(public(preset.pytorch.torch)) if preset.pytorch else ()
        newer = key(preset.cuda) > key(cuda)
        return (
            newer,
            major(preset.cuda) != major(cuda),
            tuple(n if newer else -n for n in key(preset.cuda)),
            own[:2] != key(torch)[:2],
            tuple(-n for n in own),
            preset.name,
        )

    return min(suitable, key=distance)


def name_for(raw: Mapping[str, Any]) -> str:
    """Return the name ``OS-cudaX.Y-torchX.Y`` for a raw preset, without a number at the end."""
    os = raw["os"]["id"] + raw["os"]["version"]
    cuda = f"cuda{minor(raw['cuda'])}" if raw.get("cuda") else "cpu"
    torch = f"torch{minor(public(raw['pytorch']['torch']))}" if raw.get("pytorch") else "notorch"
    return f"{os}-{cuda}-{torch}"


@dataclass(frozen=True)
class Composed:
    """The preset that choices make. A new one is not written yet."""

    preset: Preset
    is_new: bool

    @property
    def path(self) -> str:
        """Return the path of its file in the project."""
        return f"presets/{self.preset.name}.json"

    def write(self, project: Project) -> None:
        """Write the file of a new preset."""
        preset_writer.write_new(project.preset_file(self.preset.name), self.preset.raw)


def compose(
    project: Project,
    template: Preset,
    choices: Choices,
    catalog: Catalog,
    existing: Collection[Preset],
) -> Composed:
    """Return the preset that ``choices`` make of ``template``: an existing one or a new one.

    Raise CompatibilityError if the choices are not compatible.
    """
    raw = apply_overrides(template.raw, choices, catalog, template.described)
    for preset in (template, *existing):
        if _content(preset.raw) == _content(raw):
            return Composed(preset, is_new=False)
    stem, taken = name_for(raw), {p.name for p in existing}
    names = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
    name = next(n for n in names if n not in taken and not project.preset_file(n).exists())
    raw["name"] = name
    raw["summary"] = summary_of(raw)
    made = presets.parse(shortened(raw, catalog), template.described, catalog)
    return Composed(made, is_new=True)


def _content(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in raw.items() if k not in ("$schema", "name", "summary")}


def summary_of(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the summary, in both languages, of a preset that was made of choices."""
    trt, torch = raw.get("tensorrt"), raw.get("pytorch")
    parts = (
        f"CUDA {raw['cuda']}" if raw.get("cuda") else "CPU",
        f"Python {raw['python']['version']}",
        f"PyTorch {torch['torch']}" if torch else "",
        f"TensorRT {trt['version']}" if trt else "",
    )
    listed = ", ".join(filter(None, parts))
    return in_both_languages(N_("Chosen by hand: {listed}"), listed=listed)


def _set_base(raw: dict[str, Any], reference: str, catalog: Catalog) -> None:
    base = find_base(reference, catalog)
    if base is None:  # an unknown image, which is assumed to have the preset's CUDA and cuDNN
        raw["base"] = {"builder": {"image": reference}, "runtime": {"image": reference}}
        return
    raw["base"] = {
        # The preset's own image keeps its digest.
        role: old if (old := raw["base"][role]).get("image") == image else {"image": image}
        for role, image in (("builder", base.builder), ("runtime", base.runtime))
    }
    before = (raw.get("cuda") or "", major(raw.get("cudnn") or ""))
    raw["cuda"], raw["cudnn"] = base.cuda or None, base.cudnn or None
    options = written_options(raw, "opencv")
    if not base.cuda:
        _remove_cuda(raw)
    elif options and options.get("cuda") and before != (base.cuda, major(base.cudnn)):
        suggested = list(catalog.suggested_architectures(base.cuda))
        options["architectures"] = suggested or options.get("architectures", [])
        _update_opencv(raw, options, catalog)


def _remove_cuda(raw: dict[str, Any]) -> None:
    """Remove what only a GPU uses: NVENC, CUDA modules, and their sources."""
    if ffmpeg := written_options(raw, "ffmpeg"):
        ffmpeg["configure"] = [o for o in ffmpeg.get("configure", []) if o not in _NV_OPTIONS]
    for source in ("nv-codec-headers", "opencv-cache-nvidia_optical_flow"):
        raw["sources"].pop(source, None)
    if options := written_options(raw, "opencv"):
        options.update({key: False for key in ("cuda", "dnn") if key in options})
        options.pop("architectures", None)
        if modules := options.get("modules"):
            options["modules"] = [m for m in modules if not m.startswith(("cuda", "cudev"))]


def _update_opencv(raw: dict[str, Any], options: dict[str, Any], catalog: Catalog) -> None:
    """Replace an OpenCV that is too old for the CUDA and cuDNN by the oldest that is not."""
    sources, old, dnn = raw["sources"], options["version"], options.get("dnn", False)
    new = opencv.oldest_for(raw["cuda"], raw.get("cudnn") or "", dnn, catalog)
    if key(old) >= key(new) or new not in catalog.opencv:
        return
    options["version"] = new
    for name, archive in zip(("opencv", "opencv-contrib"), catalog.opencv[new], strict=True):
        if name in sources:
            sources[name] = {**source_of(archive), "version": new, **_kept(sources[name])}
    for download in catalog.downloads:
        name = f"opencv-cache-{download.id}"
        if name in sources and new in download.opencv and old not in download.opencv:
            sources[name] = {**source_of(download), **_kept(sources[name])}


def _kept(source: Mapping[str, Any]) -> dict[str, Any]:
    return {k: source[k] for k in ("licence", "homepage") if k in source}


def _set_python(raw: dict[str, Any], python: str) -> None:
    old = re.escape(raw["python"]["version"])
    raw["python"]["version"] = python
    pattern = re.compile(rf"^(lib)?python{old}(?=$|[-=])")
    own = raw.get("apt", {})
    for role in (role for role in ROLES if role in own):
        renamed = [pattern.sub(rf"\g<1>python{python}", package) for package in own[role]]
        own[role] = list(dict.fromkeys(renamed))


def _set_torch(raw: dict[str, Any], wanted: str, catalog: Catalog) -> None:
    if wanted == NONE:
        raw["pytorch"] = None
        return
    cuda, python, version = raw.get("cuda") or "", raw["python"]["version"], public(wanted)
    matching = [r for v, r in catalog.torch.items() if begins_with(v, version)]
    fitting = [r for r in matching if builds_for(r, cuda) and python in r.pythons] or matching
    release = max(fitting, key=lambda r: key(r.torch), default=None)
    if release is None:
        # Newer than the catalog: its companions are unknown, so they are left out and check warns.
        build = local(wanted) or cuda_build(cuda)
        index = catalog.torch_index.format(build=build)
        raw["pytorch"] = {"torch": f"{version}+{build}", "index": index}
        return
    builds = builds_for(release, cuda)
    build = local(wanted) or (builds[0] if builds else release.default_build)
    uses_default_index = (raw.get("pytorch") or {}).get("index") == "default"
    if uses_default_index and build == release.default_build and not local(wanted):
        raw["pytorch"] = {**release.packages(), "index": "default"}
    else:
        index = catalog.torch_index.format(build=build)
        raw["pytorch"] = {**release.packages(build), "index": index}


def _set_tensorrt(raw: dict[str, Any], wanted: str, catalog: Catalog) -> None:
    old, old_source = raw.get("tensorrt") or {}, raw["sources"].pop("tensorrt", {})
    raw["tensorrt"] = None
    if wanted == NONE:
        return
    cuda, cudnn = raw.get("cuda") or "", raw.get("cudnn") or ""
    matching = [r for v, r in catalog.tensorrt.items() if begins_with(v, wanted)]
    fitting = {r.version for r in tensorrt.releases_for(cuda, cudnn, "", catalog)}
    release = max(matching, key=lambda r: (r.version in fitting, key(r.version)), default=None)
    if release is None:
        best = tensorrt.best_fits(cuda, cudnn, raw["python"]["version"], catalog)
        raise _unknown_tensorrt(wanted, cuda, nearest_version(wanted, (r.version for r in best)))
    fitting_tar = release.tar_for(cuda)
    if fitting_tar and not tensorrt.is_recommended(release.version, cuda):
        finding = tensorrt.not_recommended(release.version, presets.parse(raw), catalog)
        raise _incompatible([finding])
    tar = fitting_tar or release.tars[-1]  # check_preset then reports that it does not fit
    source = {**source_of(tar), "version": release.version, **catalog.about["tensorrt"]}
    source.update({k: old_source[k] for k in ("licence", "homepage", "gated") if k in old_source})
    raw["sources"]["tensorrt"] = source
    raw["tensorrt"] = {"version": release.version, "form": "tar"}
    if "python" in old:
        raw["tensorrt"]["python"] = old["python"]


def _unknown_tensorrt(wanted: str, cuda: str, near: str) -> CompatibilityError:
    hint = _("specify tensorrt and sources.tensorrt in a preset by hand")
    if near:
        hint = _(
            "use TensorRT {near} with CUDA {cuda}, or specify tensorrt and sources.tensorrt in a "
            "preset by hand",
            near=near,
            cuda=cuda,
        )
    message = _("TensorRT {version} is not in the catalog", version=wanted)
    return CompatibilityError(message, hint=hint)
