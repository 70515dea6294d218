"""From choices to a preset: the nearest preset as template, with what was chosen put in. Refuses contradictions."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gapforge.base.errors import CompatibilityError, Fault, PresetError
from gapforge.base.files import write_text
from gapforge.base.i18n import N_, _, in_both_languages
from gapforge.base.project import Project
from gapforge.compat import catalog as catalogs
from gapforge.compat import tensorrt
from gapforge.compat.catalog import Archive, Catalog
from gapforge.compat.findings import Problem, nearest_version
from gapforge.compat.rules import check_preset, torch_builds_for
from gapforge.compat.versions import key, local, major, minor, public
from gapforge.model import preset as presets
from gapforge.model import preset_text
from gapforge.model.component import Component
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.wizard.choices import NONE, Choices, base_of

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
    """The raw preset with base, Python, PyTorch and TensorRT as chosen; what was not chosen stays.

    Raises CompatibilityError, with every reason and what works instead, when the result cannot work.
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
    problems = [p for p in check_preset(presets.parse(raw), catalog) if p.severity == "error"]
    if problems:
        raise refusal(problems)
    return raw


def refusal(problems: Sequence[Problem]) -> CompatibilityError:
    """The error for combinations that cannot work, each with its reason."""
    return CompatibilityError(
        problems[0].text if len(problems) == 1 else _("the chosen versions cannot work together"),
        faults=[Fault(p.path, p.text) for p in problems] if len(problems) > 1 else [],
        hint=_("choose the versions named above and run the command again"),
    )


def warnings_of(raw: Mapping[str, Any], catalog: Catalog) -> list[str]:
    """What is unknown or has a price, in the reader's language."""
    return [p.text for p in check_preset(presets.parse(raw), catalog) if p.severity == "warning"]


def template_for(base: str, project: Project, catalog: Catalog, torch: str = "") -> Preset:
    """The shipped preset nearest to a base image: same CUDA, else the next older, else any with (or without) CUDA.

    Of several with the same CUDA it is the one with this ``torch`` ("2.1.2"), else the one with the newest.
    """
    chosen = base_of(base, catalog)
    cuda = chosen.cuda if chosen else ""
    known = [p for p in _readable(project) if not p.practice and bool(p.cuda) == bool(cuda)]
    if not known:
        raise PresetError(
            _("there is no preset to start from"), hint=_("restore presets/ from the release")
        )

    def distance(preset: Preset) -> tuple[bool, int, tuple[int, ...], bool, tuple[int, ...], str]:
        own = key(public(preset.pytorch.torch)) if preset.pytorch else ()
        newer = key(preset.cuda) > key(cuda)
        order = tuple(n if newer else -n for n in key(preset.cuda))
        other = own[:2] != key(torch)[:2]
        return (
            newer,
            int(major(preset.cuda) != major(cuda)),
            order,
            other,
            tuple(-n for n in own),
            preset.name,
        )

    return min(known, key=distance)


def name_for(raw: Mapping[str, Any]) -> str:
    """``OS-cudaX.Y-torchX.Y`` of a raw preset, without a number at the end."""
    os = raw["os"]["id"] + raw["os"]["version"]
    cuda = f"cuda{minor(raw['cuda'])}" if raw.get("cuda") else "cpu"
    torch = f"torch{minor(public(raw['pytorch']['torch']))}" if raw.get("pytorch") else "notorch"
    return f"{os}-{cuda}-{torch}"


def preset_for(
    project: Project, base: Preset, choices: Choices, *, write: bool, catalog: Catalog | None = None
) -> tuple[Preset, str | None]:
    """The preset that ``choices`` make of ``base``, and the new file's path relative to the project.

    The path is None when nothing changes or a preset of this content exists already. With ``write`` False
    nothing is written. Raises CompatibilityError for contradictions.
    """
    raw = apply_overrides(
        base.raw, choices, catalog or catalogs.load(project.catalog), base.described
    )
    if _content(raw) == _content(base.raw):
        return base, None
    stem = name_for(raw)
    taken = {p.name: p for p in _readable(project)}
    for preset in taken.values():
        if _content(preset.raw) == _content(raw):
            return preset, None
    number = 1
    while (name := stem if number == 1 else f"{stem}-{number}") in taken or project.preset_file(
        name
    ).exists():
        number += 1
    raw["name"] = name
    raw["summary"] = _summary(raw)
    made = presets.parse(raw)
    if write:
        write_text(project.preset_file(name), preset_text.render(raw))
    return made, f"presets/{name}.json"


def _readable(project: Project) -> list[Preset]:
    """Every preset that has no fault; ``check`` reports the others."""
    found = []
    for name in presets.names(project.presets):
        try:
            found.append(presets.load(project.preset_file(name)))
        except PresetError:
            continue
    return found


def _content(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in raw.items() if k not in ("$schema", "name", "summary")}


def _summary(raw: Mapping[str, Any]) -> dict[str, str]:
    trt, torch = raw.get("tensorrt"), raw.get("pytorch")
    parts = [
        f"CUDA {raw['cuda']}" if raw.get("cuda") else "CPU",
        f"Python {raw['python']['version']}",
    ]
    parts += [f"PyTorch {torch['torch']}"] if torch else []
    parts += [f"TensorRT {trt['version']}"] if trt else []
    listed = ", ".join(parts)
    return in_both_languages(N_("Chosen by hand: {listed}"), listed=listed)


def _set_base(raw: dict[str, Any], reference: str, catalog: Catalog) -> None:
    base = base_of(reference, catalog)
    if base is None:  # an image of the site's own: it is taken for what the preset says
        raw["base"] = {"builder": {"image": reference}, "runtime": {"image": reference}}
        return
    raw["base"] = {"builder": {"image": base.builder}, "runtime": {"image": base.runtime}}
    same = (raw.get("cuda") or "") == base.cuda and major(raw.get("cudnn") or "") == major(
        base.cudnn
    )
    raw["cuda"], raw["cudnn"] = base.cuda or None, base.cudnn or None
    opencv = presets.written_options(raw, "opencv")
    if not base.cuda:
        _without_cuda(raw)
    elif opencv and opencv.get("cuda") and not same:
        opencv["architectures"] = list(catalog.suggested_architectures(base.cuda)) or opencv.get(
            "architectures", []
        )
        _fit_opencv(raw, opencv, catalog)


def _without_cuda(raw: dict[str, Any]) -> None:
    """Take out what only a GPU uses: NVENC, CUDA modules, and their sources."""
    if ffmpeg := presets.written_options(raw, "ffmpeg"):
        ffmpeg["configure"] = [o for o in ffmpeg.get("configure", []) if o not in _NV_OPTIONS]
    for source in ("nv-codec-headers", "opencv-cache-nvidia_optical_flow"):
        raw["sources"].pop(source, None)
    if opencv := presets.written_options(raw, "opencv"):
        opencv["cuda"] = opencv["dnn"] = False
        opencv.pop("architectures", None)
        if "modules" in opencv:
            opencv["modules"] = [
                m for m in opencv["modules"] if not m.startswith("cuda") and m != "cudev"
            ]


def _fit_opencv(raw: dict[str, Any], opencv: dict[str, Any], catalog: Catalog) -> None:
    """Move OpenCV to the oldest release that builds with this CUDA and cuDNN, when the template's own does not."""
    cuda, cudnn, dnn = raw["cuda"], raw.get("cudnn") or "", opencv.get("dnn", False)
    needs = [
        n.opencv
        for n in catalog.opencv_needs
        if key(cuda) >= key(n.cuda) and (dnn or not n.dnn_only)
    ]
    needs += [
        version
        for start, version in catalog.opencv_cudnn
        if dnn and cudnn and key(cudnn) >= key(start)
    ]
    needs += [known] if (known := catalog.opencv_for(cuda)) else []
    least = max(needs, key=key, default="")
    if not least or key(opencv["version"]) >= key(least) or least not in catalog.opencv:
        return
    old_version = opencv["version"]
    opencv["version"] = least
    for source, archive in zip(("opencv", "opencv-contrib"), catalog.opencv[least], strict=True):
        if source in raw["sources"]:
            raw["sources"][source] = {
                **_archive(archive),
                "version": least,
                **_kept(raw["sources"][source]),
            }
    for download in catalog.downloads:
        name = f"opencv-cache-{download.id}"
        if (
            name in raw["sources"]
            and least in download.opencv
            and old_version not in download.opencv
        ):
            archive = Archive(download.file, download.url, download.sha256)
            raw["sources"][name] = {**_archive(archive), **_kept(raw["sources"][name])}


def _kept(source: Mapping[str, Any]) -> dict[str, Any]:
    return {k: source[k] for k in ("licence", "homepage") if k in source}


def _archive(archive: Archive) -> dict[str, Any]:
    result: dict[str, Any] = {"urls": [archive.url], "sha256": archive.sha256 or None}
    if not archive.sha256:
        result["trust"] = "first-use"
    if archive.url.rsplit("/", 1)[-1] != archive.file:
        result["file"] = archive.file
    return result


def _set_python(raw: dict[str, Any], python: str) -> None:
    old = raw["python"]["version"]
    raw["python"]["version"] = python
    pattern = re.compile(rf"^(lib)?python{re.escape(old)}(?=$|[-=])")
    for role in ROLES:
        renamed = [
            pattern.sub(lambda m: f"{m.group(1) or ''}python{python}", p) for p in raw["apt"][role]
        ]
        raw["apt"][role] = list(dict.fromkeys(renamed))


def _set_torch(raw: dict[str, Any], wanted: str, catalog: Catalog) -> None:
    if wanted == NONE:
        raw["pytorch"] = None
        return
    cuda, python, asked = raw.get("cuda") or "", raw["python"]["version"], public(wanted)
    matching = [r for v, r in catalog.torch.items() if v == asked or v.startswith(asked + ".")]
    fitting = [r for r in matching if torch_builds_for(r, cuda) and python in r.pythons] or matching
    release = max(fitting, key=lambda r: key(r.torch), default=None)
    if release is None:
        # Newer than the catalog: its companions are unknown, so the resolver picks none and check warns.
        build = local(wanted) or (f"cu{minor(cuda).replace('.', '')}" if cuda else "cpu")
        raw["pytorch"] = {
            "torch": f"{asked}+{build}",
            "index": catalog.torch_index.format(build=build),
        }
        return
    builds = torch_builds_for(release, cuda)
    build = local(wanted) or (builds[0] if builds else release.default_build)
    old = raw.get("pytorch") or {}
    by_default = (
        old.get("index") == "default" and build == release.default_build and not local(wanted)
    )
    suffix = "" if by_default else f"+{build}"
    raw["pytorch"] = {"torch": release.torch + suffix, "torchvision": release.torchvision + suffix}
    if release.torchaudio:
        raw["pytorch"]["torchaudio"] = release.torchaudio + suffix
    raw["pytorch"]["index"] = "default" if by_default else catalog.torch_index.format(build=build)


def _set_tensorrt(raw: dict[str, Any], wanted: str, catalog: Catalog) -> None:
    had = raw.get("tensorrt") or {}
    old = raw["sources"].pop("tensorrt", {})
    raw["tensorrt"] = None
    if wanted == NONE:
        return
    cuda, cudnn = raw.get("cuda") or "", raw.get("cudnn") or ""
    matching = [r for v, r in catalog.tensorrt.items() if v == wanted or v.startswith(wanted + ".")]
    fitting = {r.version for r in tensorrt.releases_for(cuda, cudnn, "", catalog)}
    release = max(matching, key=lambda r: (r.version in fitting, key(r.version)), default=None)
    if release is None:
        near = nearest_version(wanted, fitting)
        raise CompatibilityError(
            _("the catalog does not know where TensorRT {wanted} is", wanted=wanted)
            + (_("; with CUDA {cuda} take {near}", cuda=cuda, near=near) if near else ""),
            hint=_("or write tensorrt and sources.tensorrt into a preset by hand"),
        )
    if cuda and tensorrt.tar_for(release, cuda) and not tensorrt.paired(release.version, cuda):
        raise refusal([tensorrt.unpaired(release.version, presets.parse(raw), catalog)])
    tar = (
        tensorrt.tar_for(release, cuda) or release.tars[-1]
    )  # one that does not fit is refused with its reason
    source = {
        **_archive(Archive(tar.file, tar.url, tar.sha256)),
        "version": release.version,
        "licence": old.get("licence", "LicenseRef-NVIDIA-TensorRT-SLA"),
        "homepage": old.get("homepage", "https://developer.nvidia.com/tensorrt"),
        "gated": old.get(
            "gated",
            "NVIDIA may answer with a login page: sign in at developer.nvidia.com/tensorrt"
            " with a browser, accept the licence and download this file",
        ),
    }
    if tar.size:
        source["size"] = tar.size
    if tar.file.endswith(".zst") and "zstd" not in raw["apt"]["builder"]:
        raw["apt"]["builder"].append("zstd")
    raw["sources"]["tensorrt"] = source
    raw["tensorrt"] = {"version": release.version, "form": "tar", "python": had.get("python", True)}


def complete(
    project: Project, choices: Choices, catalog: Catalog, *, write: bool
) -> tuple[Preset, str | None]:
    """The preset that answers to all manual questions make, from the nearest shipped preset as template."""
    assert choices.base is not None
    template = template_for(choices.base, project, catalog, choices.torch or "")
    return preset_for(
        project, template, replace(choices, preset=None), write=write, catalog=catalog
    )
