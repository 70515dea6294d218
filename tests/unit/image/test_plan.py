"""Same inputs give the same plan, and a component's inputs are all that changes its stage."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import samples
from gapforge.base.errors import PresetError
from gapforge.image.inputs_of_stages import ContextTexts, requirements
from gapforge.image.plan import Plan, make_plan
from gapforge.model import component
from gapforge.model.lock import Entry, LockedImage

COMPONENTS = component.load_all(samples.ROOT / "components")
SCRIPTS = {
    "components/common.sh": "common\n",
    "components/split_runtime.py": "split\n",
    **{
        f"components/{c.name}/{script}": f"{script} of {c.name}\n"
        for c in COMPONENTS
        for script in ("build.sh", *c.helpers)
    },
}
INDEX = samples.content_of("debs/Packages").decode()


def plan(
    changes: dict[str, Any] | None = None,
    *,
    entries: tuple[Entry, ...] = (),
    type: str = "runtime",
    **more: Any,
) -> Plan:
    preset = samples.preset(**(changes or {}))
    lock = samples.lock(preset)
    swapped = {e.path: e for e in entries}
    lock = dataclasses.replace(lock, entries=tuple(swapped.get(e.path, e) for e in lock.entries))
    return make_plan(
        preset,
        lock,
        COMPONENTS,
        ContextTexts("FROM x\n", SCRIPTS, INDEX),
        type=type,
        application_folder="app",
        **more,
    )


def text_of(made: Plan, path: str) -> str:
    return next(file.text for file in made.files if file.path == path)


def inputs(of: Plan, name: str) -> set[tuple[str, str]]:
    return {(f.path, f.sha256) for f in of.files if f.path.startswith(f"inputs/{name}/")}


def changed_inputs(before: Plan, after: Plan) -> set[str]:
    names = {
        f.path.split("/")[1] for f in (*before.files, *after.files) if f.path.startswith("inputs/")
    }
    return {name for name in names if inputs(before, name) != inputs(after, name)}


def test_same_inputs_give_same_bytes() -> None:
    assert plan().render() == plan().render()


def test_changed_wheel_changes_only_its_stages() -> None:
    wheel = next(e for e in samples.lock(samples.preset()).entries if e.name == "PyYAML")
    other = dataclasses.replace(wheel, sha256="c" * 64)
    assert changed_inputs(plan(), plan(entries=(other,))) == {"wheels"}


def test_changed_runtime_deb_keeps_the_builder() -> None:
    deb = next(e for e in samples.lock(samples.preset()).entries if e.name == "libssl3")
    runtime_only = dataclasses.replace(deb, roles=("runtime",))
    newer = dataclasses.replace(runtime_only, sha256="c" * 64)
    assert changed_inputs(plan(entries=(runtime_only,)), plan(entries=(newer,))) == {"apt-runtime"}


def test_changed_opencv_flags_keep_ffmpeg() -> None:
    opencv = {**samples.raw_preset()["opencv"], "cmake": ["-DWITH_IPP=ON"]}
    assert changed_inputs(plan(), plan({"opencv": opencv})) == {"opencv"}


def test_disabled_component_adds_only_scripts() -> None:
    names = {path.removeprefix("inputs/tensorrt/") for path, _ in inputs(plan(), "tensorrt")}
    assert names == {"params/enabled", "params/python", "build.sh", "common.sh", "split_runtime.py"}
    text = text_of(plan(), "inputs/tensorrt/params/enabled")
    assert text == "0\n"


def test_values_reach_scripts_as_files() -> None:
    hostile = "--extra=$(touch /tmp/owned); `id` 'x' \"y\""
    ffmpeg = {**samples.raw_preset()["ffmpeg"], "configure": [hostile, "--enable-zlib"]}
    made = plan({"ffmpeg": ffmpeg})
    text = text_of(made, "inputs/ffmpeg/params/configure")
    assert text == f"{hostile}\n--enable-zlib\n"
    assert hostile not in text_of(made, "Dockerfile")


def test_files_that_only_the_dev_image_gets() -> None:
    python = {"version": "3.11", "not-in-runtime": {"torch": ["*.h", "*.cuh"], "cmake": ["*"]}}
    made = plan({"python": python})
    text = text_of(made, "inputs/wheels/params/not-in-runtime")
    assert text == "cmake *\ntorch *.h\ntorch *.cuh\n"
    assert not [f.path for f in made.files if "not-in" in f.path and "wheels" not in f.path]
    (wheels,) = [check for check in made.smoke if check["component"] == "wheels"]
    assert wheels["params"]["not-in-runtime"] == text.splitlines()
    assert not [f.path for f in plan().files if "not-in-runtime" in f.path]


def test_check_of_packages_knows_the_debs_of_its_image() -> None:
    for kind, names in (("runtime", ["libssl3"]), ("dev", ["gcc", "libssl3"])):
        found = {check["component"]: check["debs"] for check in plan(type=kind).smoke}
        assert found.pop("apt") == names
        assert not any(found.values())


def test_each_role_gets_its_own_debs() -> None:
    made = plan()
    index = text_of(made, "inputs/apt-runtime/debs/Packages")
    assert "Package: libssl3" in index and "Package: gcc" not in index
    assert {p for p, _ in inputs(made, "apt-runtime") if p.endswith(".deb")} == {
        "inputs/apt-runtime/debs/libssl3_1_amd64.deb"
    }


def test_requirements_pin_all_but_the_installer() -> None:
    lines = requirements(samples.lock(samples.preset()).of("wheel")).splitlines()
    assert [line.split("==")[0] for line in lines] == ["numpy", "pyyaml"]
    assert all("--hash=sha256:" in line for line in lines)


@pytest.mark.parametrize(
    ("own", "found", "pinned"),
    [
        ("", {"installer/pip-24.2-py3-none-any.whl"}, ""),
        (
            "23.0",
            {"installer/pip-24.2-py3-none-any.whl", "wheels/pip-23.0-py3-none-any.whl"},
            "pip==23.0",
        ),
        (
            "24.2",
            {"installer/pip-24.2-py3-none-any.whl", "wheels/pip-24.2-py3-none-any.whl"},
            "pip==24.2",
        ),
    ],
)
def test_pip_of_the_lock_installs_beside_one_of_the_preset(
    own: str, found: set[str], pinned: str
) -> None:
    preset = samples.preset()
    lock = samples.lock(preset)
    pip = next(e for e in lock.entries if e.name == "pip")
    both = dataclasses.replace(pip, roles=("install-tool", "runtime"))
    other = dataclasses.replace(
        pip, roles=(), version=own, path=f"wheels/pip-{own}-py3-none-any.whl"
    )
    pips = {"": (pip,), "23.0": (pip, other), "24.2": (both,)}[own]
    entries = (*(e for e in lock.entries if e is not pip), *pips)
    made = make_plan(
        preset,
        dataclasses.replace(lock, entries=entries),
        COMPONENTS,
        ContextTexts("FROM x\n", SCRIPTS, INDEX),
        type="runtime",
        application_folder="app",
    )
    paths = {path for path, _ in inputs(made, "wheels") if "/pip-" in path}
    assert paths == {f"inputs/wheels/{path}" for path in found}
    lines = text_of(made, "inputs/wheels/requirements.txt").splitlines()
    assert [line.split(" ")[0] for line in lines if line.startswith("pip")] == (
        [pinned] if pinned else []
    )
    opencv = {path for path, _ in inputs(made, "opencv") if "/pip-" in path}
    assert opencv == {"inputs/opencv/installer/pip-24.2-py3-none-any.whl"}


def test_type_chooses_stage_and_bases_are_replaced() -> None:
    assert plan(type="runtime").target == "runtime"
    assert plan(type="dev").target == "builder"
    digest = "sha256:" + "d" * 64
    other = LockedImage(
        reference="--base mine:1",
        manifest_digest=digest,
        config_digest=digest,
        os_id="debian",
        os_version="12",
    )
    made = plan(override=other)
    name = f"localhost/gapforge/base:{'d' * 24}"
    assert made.build_args == {"BUILDER_BASE": name, "RUNTIME_BASE": name}
    assert [(base.role, base.layout) for base in made.bases] == [("builder", ""), ("runtime", "")]
    assert {base.reference for base in made.bases} == {"--base mine:1"}


def test_practice_images_are_labelled() -> None:
    assert plan().labels["gapforge.practice"] == "true"
    assert "not for delivery" in plan().labels["gapforge.warning"]


def test_plan_names_secrets_without_values() -> None:
    assert [s["key"] for s in plan().to_json()["secrets"]] == [
        "XAIVA_LICENSE_TOKEN",
        "XAIVA_BUILD_TOKEN",
    ]


def test_tensorrt_debs_join_the_role_packages() -> None:
    trt = {
        "version": "8.6.1",
        "form": "deb",
        "builder": ["libnvinfer-dev=8.6.1.6-1+cuda11.8"],
        "runtime": ["libnvinfer8=8.6.1.6-1+cuda11.8"],
    }
    made = plan({"tensorrt": trt})
    runtime = text_of(made, "inputs/apt-runtime/params/packages")
    builder = text_of(made, "inputs/apt-builder/params/packages")
    assert "libnvinfer8=8.6.1.6-1+cuda11.8\n" in runtime and "libnvinfer-dev" not in runtime
    assert "libnvinfer-dev=8.6.1.6-1+cuda11.8\n" in builder


def packages_of(tensorrt: dict[str, Any], role: str) -> str:
    return text_of(plan({"tensorrt": tensorrt}), f"inputs/apt-{role}/params/packages")


def test_builder_without_list_gets_runtime_tensorrt() -> None:
    trt: dict[str, Any] = {
        "version": "8.6.1",
        "form": "deb",
        "runtime": ["libnvinfer8=8.6.1.6-1+cuda11.8"],
    }
    assert "libnvinfer8=8.6.1.6-1+cuda11.8\n" in packages_of(trt, "builder"), (
        "sync fetches it for the builder too"
    )


def test_tensorrt_tar_adds_no_packages() -> None:
    trt: dict[str, Any] = {
        "version": "8.6.1",
        "form": "tar",
        "builder": ["libnvinfer-dev"],
        "runtime": ["libnvinfer8"],
    }
    for role in ("builder", "runtime"):
        assert "nvinfer" not in packages_of(trt, role), "sync does not fetch it"


def test_unknown_component_names_the_nearest() -> None:
    raw = samples.raw_preset(components={"gstreamr": {"version": "1"}})
    raw["sources"]["opencv-contribb"] = raw["sources"]["opencv"]
    from gapforge.model.preset import parse

    faults = component.check_preset(parse(raw), COMPONENTS)
    assert [f.where.split("$")[1] for f in faults] == [
        ".components.gstreamr",
        ".sources.opencv-contribb",
    ]
    assert "opencv-contrib" in faults[1].problem


def test_invalid_component_is_named(tmp_path: Any) -> None:
    folder = tmp_path / "gst"
    folder.mkdir()
    (folder / "component.json").write_text(
        '{"format": 1, "name": "gts", "summary": {"ko": "x", "en": "x"}, "wheel": []}'
    )
    with pytest.raises(PresetError) as caught:
        component.load_all(tmp_path)
    shown = caught.value.render()
    assert 'did you mean "wheels"' in shown and "build.sh" in shown and "check.py" in shown
