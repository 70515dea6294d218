"""What the rules say at their edges: the very version, unknown ones, and what is suggested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_rules import stack

import samples
from gapforge.compat import (
    base_image,
    driver,
    ffmpeg,
    gpu_code,
    host_compiler,
    opencv,
    redistribution,
    stated_archive_versions,
)
from gapforge.compat.driver import DriverNeed, driver_need, usual_need
from gapforge.compat.findings import Finding
from gapforge.compat.redistribution import ALLOWED, CONDITIONS, UNKNOWN
from gapforge.model import catalog as catalogs
from gapforge.model.catalog import CudaImage, Headers, NvccDefault, OpenCVNeed, TorchCode
from gapforge.model.lock import Entry
from gapforge.model.preset import Preset, parse
from raised_errors import values_of
from samples import ROOT

CATALOG = catalogs.load(ROOT / "catalog")
# A catalog whose facts are chosen for the tests.
SMALL = replace(
    CATALOG,
    images=(
        CudaImage(cuda="11.8.0", builder="b118", runtime="r118", cudnn="8.9", driver="520.0"),
        CudaImage(cuda="12.1.1", builder="b121", runtime="r121", driver="530.5"),
    ),
    drivers={"9.0.1": "384", "11.8.0": "520.0", "12.1.0": "530.0", "12.1.1": "530.5"},
    minor_drivers={"11": "450", "12": "525"},
    headers={
        version: Headers(version=version, driver=needed, archives=())
        for version, needed in (
            ("9.1", "300"),
            ("11.1.1", "470"),
            ("11.1.10", "470"),
            ("11.1.9", "470"),
            ("12.0", "520"),
            ("13.0", ""),
        )
    },
)


def preset(**changes: Any) -> Preset:
    return parse(stack(**changes), samples.COMPONENTS)


def told(findings: Any) -> list[tuple[str, str, dict[str, object], dict[str, object]]]:
    """Return severity, path, and the values of reason and suggestion of each finding."""
    return [
        (f.severity, f.path, dict(values_of(f.reason)), dict(values_of(f.suggestion)))
        for f in findings
    ]


# -- driver


@pytest.mark.parametrize(
    ("cuda", "for_cuda", "full"),
    [
        ("12.1", "525", "530.5"),  # that of the newest toolkit of the series
        ("12.1.0", "525", "530.5"),
        ("11.8", "450", "520.0"),
        ("9.0", "384", "384"),  # before CUDA 11, all of it
        ("12.9", "525", ""),
        ("13.0", "", ""),
        ("", "", ""),
    ],
)
def test_usual_need_is_that_of_the_usual_headers(cuda: str, for_cuda: str, full: str) -> None:
    """The newest of the headers from 11.1 on that need the oldest driver."""
    headers = {"headers": "11.1.10", "for_headers": "470"}
    need = usual_need(cuda, SMALL)
    assert need == DriverNeed(cuda=cuda, for_cuda=for_cuda, full=full, **headers)
    none = usual_need("11.8", replace(SMALL, headers={}))
    assert none == DriverNeed(cuda="11.8", for_cuda="450", full="520.0")


def test_need_of_a_preset() -> None:
    """The driver of its base image, else of the toolkit; headers count only with FFmpeg."""
    own = preset(cuda="12.1")
    headers = own.sources["nv-codec-headers"].version
    catalog = replace(SMALL, headers={headers: Headers(version=headers, driver="600", archives=())})
    need = DriverNeed(cuda="12.1", for_cuda="525", full="530.5", headers=headers, for_headers="600")
    assert driver_need(own, catalog) == need
    image = replace(SMALL.images[1], builder=own.builder.image, driver="531")
    assert driver_need(own, replace(catalog, images=(image,))).full == "531"
    image = replace(SMALL.images[1], runtime=own.runtime.image, driver="532")
    assert driver_need(own, replace(catalog, images=(image,))).full == "532"
    unused = preset(cuda="12.1", ffmpeg=None)
    assert driver_need(unused, catalog) == replace(need, headers="", for_headers="")
    assert driver_need(own, SMALL) == replace(need, headers="", for_headers="")
    unknown = replace(catalog, headers={headers: replace(catalog.headers[headers], driver="")})
    assert driver_need(own, unknown) == replace(need, headers="", for_headers="")
    cpu = preset(cuda=None, cudnn=None, opencv=None, pytorch=None, tensorrt=None)
    assert driver_need(cpu, catalog) == DriverNeed()
    # What is said of it.
    assert told(driver.check(own, catalog)) == [
        (
            "warning",
            "$.sources.nv-codec-headers",
            {"headers": headers, "driver": "600", "toolkit_driver": "530.5", "cuda": "12.1"},
            {"name": f"nv-codec-headers {headers}"},
        )
    ]
    for enough in ("530.5", "530"):
        fits = replace(catalog, headers={headers: replace(catalog.headers[headers], driver=enough)})
        assert list(driver.check(own, fits)) == []
    assert list(driver.check(unused, catalog)) == []
    assert list(driver.check(own, replace(catalog, drivers={}))) == []


@pytest.mark.parametrize(
    ("version", "severity", "suggested"),
    [
        ("449", "error", {}),
        ("524", "error", {"name": "CUDA 11.8"}),
        ("525", "warning", {"toolkit_driver": "530.5"}),
        ("530.4", "warning", {"toolkit_driver": "530.5"}),
        ("530.5", "", {}),
    ],
)
def test_driver_gets_the_newest_cuda_that_it_runs(
    version: str, severity: str, suggested: dict[str, str]
) -> None:
    own = preset(cuda="12.1", ffmpeg=None)
    found = driver.check_driver(own, version, SMALL)
    assert [f.severity for f in found] == [severity] * bool(severity)
    for finding in found:
        assert values_of(finding.suggestion) == suggested
        assert finding.path == "$.cuda"


def test_driver_is_not_judged_where_the_need_is_unknown() -> None:
    assert driver.check_driver(preset(cuda="13.0", ffmpeg=None), "1", SMALL) == []
    assert driver.check_driver(preset(cuda="11.8"), "449", SMALL)


# -- GPUs


@pytest.mark.parametrize(
    ("compute", "compiled", "runs"),
    [
        ("8.6", ("8.6",), True),
        ("8.6", ("8.0",), True),
        ("8.6", ("8.9",), False),
        ("8.6", ("7.5", "9.0"), False),
        ("8.6", ("7.9",), False),
        ("8.6", ("9.0", "8.0"), True),
        ("12.0", ("1.2",), False),
        ("8.6", (), False),
    ],
)
def test_gpu_runs_code_of_its_major_version(
    compute: str, compiled: tuple[str, ...], runs: bool
) -> None:
    assert gpu_code.runs(compute, compiled) is runs


@pytest.mark.parametrize(
    ("version", "build", "code"),
    [
        ("2.0", "cu118", ("8.0",)),
        ("2.7.9", "cu118", ("8.0",)),
        ("2.8", "cu118", ("9.0",)),
        ("2.10", "cu118", ("9.0",)),
        ("2.11", "cu118", None),
        ("1.13", "cu118", None),
        ("2.0", "cu117", None),
        ("2.8", "cu121", ("9.0",)),
    ],
)
def test_code_of_a_torch_build(version: str, build: str, code: tuple[str, ...] | None) -> None:
    known = (
        TorchCode("2.0", "2.8", ("cu118",), ("8.0",)),
        TorchCode("2.8", "2.11", ("cu118", "cu121"), ("9.0",)),
    )
    assert gpu_code.torch_code(version, build, replace(CATALOG, torch_code=known)) == code


@pytest.mark.parametrize(
    ("version", "compute", "supported"),
    [
        ("10.0", "6.1", False),
        ("9.9", "6.1", True),
        ("10.0", "7.0", True),
        ("8.5", "8.9", None),  # older than every release
        ("8.6", "8.9", False),
        ("9.0", "8.9", True),
        ("10.0", "12.0", None),
    ],
)
def test_gpus_of_a_tensorrt(version: str, compute: str, supported: bool | None) -> None:
    catalog = replace(
        CATALOG,
        tensorrt={"8.6": CATALOG.tensorrt["8.6.1.6"], "10.0": CATALOG.tensorrt["8.6.1.6"]},
        tensorrt_dropped=(("7.0", "10.0"),),
        tensorrt_first={"6.1": "8.6", "7.0": "8.6", "8.9": "9.0"},
    )
    assert gpu_code.tensorrt_supports(version, compute, catalog) is supported


# -- host compiler


@pytest.mark.parametrize(
    ("named", "version"),
    [
        ("", "11"),
        ("/usr/bin/g++-12", "12"),
        ("g++", "11"),
        ("cc", "11"),
        ("c++", "11"),
        ("/opt/x86_64-linux-gnu-gcc-9.4", "9"),
        ("clang++", ""),
        ("/usr/bin/gcc-", ""),
        ("g++-12/mine", ""),
    ],
)
def test_version_of_a_named_compiler(named: str, version: str) -> None:
    assert host_compiler._gcc_version(named, "11") == version


@pytest.mark.parametrize(
    ("packages", "version"),
    [
        (["g++=4:12.2.0-3"], "12"),
        (["gcc=13.1"], "13"),
        (["g++-9=9.4", "make"], "11"),
        (["make", "gcc=4:10.2", "g++=4:12.2"], "10"),
        ([], "11"),
    ],
)
def test_default_compiler_is_that_of_a_pin(packages: list[str], version: str) -> None:
    assert host_compiler._default_gcc(preset(apt__builder=packages), CATALOG) == version


@pytest.mark.parametrize(
    ("newest", "named", "path", "severity"),
    [
        ("11", "", "", ""),
        ("10", "", "$.apt.builder", "error"),
        ("11", "g++-12", "$.opencv.cmake", "error"),
        ("12", "g++-12", "", ""),
        ("10", "g++-11", "$.apt.builder", "error"),  # it is the default one
        ("9", "g++-10", "$.opencv.cmake", "error"),
        ("", "", "$.apt.builder", "warning"),
        ("12", "clang", "$.opencv.cmake", "warning"),
        ("", "g++-12", "$.opencv.cmake", "warning"),
    ],
)
def test_place_of_the_compiler_is_named(newest: str, named: str, path: str, severity: str) -> None:
    raw = stack(ffmpeg=None)
    if named:
        raw["opencv"]["cmake"].append(f"-DCUDA_HOST_COMPILER={named}")
    own = parse(raw, samples.COMPONENTS)
    catalog = replace(CATALOG, host_gcc={"11.8": newest} if newest else {})
    found = list(host_compiler.check(own, catalog))
    assert [(f.severity, f.path) for f in found] == [(severity, path)] * bool(severity)
    for finding in found:
        if severity == "error":
            assert values_of(finding.suggestion) == {
                "gcc": newest,
                "option": f"-DCUDA_HOST_COMPILER=/usr/bin/g++-{newest}",
                "place": "opencv.cmake",
            }
        else:
            shown = {"": "GCC 11", "clang": "clang", "g++-12": "GCC 12"}[named]
            assert values_of(finding.reason)["compiler"] == shown


def test_compiler_of_an_unknown_system_is_a_warning() -> None:
    own = parse(stack(ffmpeg=None), samples.COMPONENTS)
    (found,) = host_compiler.check(own, replace(CATALOG, os_gcc={}))
    assert (found.severity, found.path) == ("warning", "$.apt.builder")
    compiler: Any = values_of(found.reason)["compiler"]
    assert values_of(compiler) == {"os": "ubuntu 22.04"}


@pytest.mark.parametrize(
    ("configure", "judged"),
    [
        (["--enable-cuda-nvcc"], True),
        (["--enable-cuda-nvcc", "--nvccflags=-O2 --compiler-bindir=/usr/bin/g++-13"], True),
        ([], False),
    ],
)
def test_only_what_nvcc_compiles_is_judged(configure: list[str], judged: bool) -> None:
    raw = stack(opencv__cuda=False, opencv__dnn=False)
    raw["ffmpeg"]["configure"] = configure
    catalog = replace(CATALOG, host_gcc={"11.8": "10"})
    own = parse(raw, samples.COMPONENTS)
    found = list(host_compiler.check(own, catalog))
    assert [values_of(f.reason)["component"] for f in found] == ["ffmpeg"] * judged
    used = "13" if len(configure) > 1 else "11"
    assert [values_of(f.reason)["used"] for f in found] == [used] * judged


@pytest.mark.parametrize(
    ("version", "cuda", "fails"),
    [
        ("4.2", "11.8", True),
        ("4.3.9", "12.1", True),
        ("4.4", "11.8", False),
        ("4.1.9", "11.8", False),
        ("4.2", "11.7", False),
    ],
)
def test_default_architecture_of_ffmpeg_must_be_in_cuda(
    version: str, cuda: str, fails: bool
) -> None:
    catalog = replace(CATALOG, nvcc_default=(NvccDefault("4.2", "4.4", "3.0", "11.8"),))
    raw = stack(ffmpeg__version=version, cuda=cuda, opencv=None, pytorch=None, tensorrt=None)
    raw["ffmpeg"]["configure"] = ["--enable-cuda-nvcc"]
    found = ffmpeg.check(parse(raw, samples.COMPONENTS), catalog)
    assert [values_of(f.reason) for f in found if f.rule == "ffmpeg-nvcc"] == [
        {"version": version, "compute": "30", "cuda": cuda}
    ] * fails


# -- base image


@pytest.mark.parametrize(
    ("tag", "cudnn", "cuda", "found"),
    [
        ("12.3.2-cudnn8-devel-ubuntu22.04", "8.9", "12.3", ""),
        ("12.3.2-cudnn8-devel-ubuntu22.04", "9", "12.3", "8"),
        ("12.4.0-cudnn-devel-ubuntu22.04", "9.1", "12.4", ""),
        ("12.4.0-cudnn-devel-ubuntu22.04", "8", "12.4", "9"),
        ("12.3.0-cudnn-devel-ubuntu22.04", "8", "12.3", ""),  # unknown: the tag has no number
        ("12.4.0-cudnn-devel-ubuntu22.04", None, "12.4", ""),
        ("12.7.0-cudnn-devel-ubuntu22.04", "8", "12.7", "9"),
    ],
)
def test_cudnn_of_an_unknown_image_is_that_of_its_tag(
    tag: str, cudnn: str | None, cuda: str, found: str
) -> None:
    raw = stack(cuda=cuda, cudnn=cudnn, opencv=None, pytorch=None, tensorrt=None)
    raw["base"] = {role: {"image": f"nvidia/cuda:{tag}"} for role in ("builder", "runtime")}
    own = parse(raw, samples.COMPONENTS)
    wrong = [f for f in base_image.check(own, CATALOG) if f.rule == "base-cudnn"]
    assert [values_of(f.reason).get("image_cudnn") for f in wrong] == [found] * 2 * bool(found)


@pytest.mark.parametrize(
    ("builder", "runtime", "wrong"),
    [
        ([], [], ["builder", "runtime"]),
        (["libcudnn8-dev"], [], ["runtime"]),
        ([], ["libcudnn8=8.9"], ["builder"]),
        (["libcudnn8-dev"], ["libcudnn8"], []),
        (["mylibcudnn8"], ["libcudnn8"], ["builder"]),
    ],
)
def test_cudnn_may_come_as_a_package(
    builder: list[str], runtime: list[str], wrong: list[str]
) -> None:
    raw = stack(apt__builder=builder, apt__runtime=runtime)
    for role, kind in (("builder", "devel"), ("runtime", "runtime")):
        raw["base"][role] = {"image": f"nvidia/cuda:11.8.0-{kind}-ubuntu22.04"}
    found = [
        f
        for f in base_image.check(parse(raw, samples.COMPONENTS), CATALOG)
        if f.rule == "base-cudnn"
    ]
    assert [f.path for f in found] == [f"$.base.{role}.image" for role in wrong]
    raw["cudnn"] = None
    left = base_image.check(parse(raw, samples.COMPONENTS), CATALOG)
    assert [f for f in left if f.rule == "base-cudnn"] == []


def test_image_of_another_cuda_gets_a_fitting_one() -> None:
    def told_of(cuda: str | None) -> list[tuple[str, Any, Any]]:
        raw = stack(cuda=cuda, opencv=None, pytorch=None, tensorrt=None, cudnn=None)
        found = base_image.check(parse(raw, samples.COMPONENTS), CATALOG)
        return [
            (f.path, dict(values_of(f.reason)), dict(values_of(f.suggestion)))
            for f in found
            if f.rule == "base-cuda"
        ]

    roles = ("builder", "runtime")
    newest = [i for i in CATALOG.images if i.cuda.startswith("12.6.")][-1]
    assert told_of("12.6") == [
        (
            f"$.base.{role}.image",
            {"image_cuda": "11.8", "cuda": "12.6"},
            {"name": getattr(newest, role)},
        )
        for role in roles
    ]
    assert told_of("12.7") == [
        (f"$.base.{role}.image", {"image_cuda": "11.8", "cuda": "12.7"}, {"name": '"cuda": "11.8"'})
        for role in roles
    ]
    assert told_of("11.8.0") == []
    assert told_of(None) == [
        (
            f"$.base.{role}.image",
            {"image_cuda": "11.8"},
            {"first": '"cuda": "11.8"', "second": "ubuntu:22.04"},
        )
        for role in roles
    ]


@pytest.mark.parametrize(
    ("cuda", "near"),
    [("12.1", "12.1.1"), ("12.7", "12.6.3"), ("12.6", "12.6.3"), ("10.2", "11.7.1")],
)
def test_unknown_image_with_cudnn_gets_one_of_the_series(cuda: str, near: str) -> None:
    """The newest one that the catalog knows, or the newest of the series before."""
    raw = stack(cuda=cuda, opencv=None, pytorch=None, tensorrt=None)
    (image,) = (i for i in CATALOG.images if i.cuda == near)
    for role, other in (("builder", "runtime"), ("runtime", "builder")):
        raw["base"] = {
            role: {"image": f"nvidia/cuda:{cuda}.9-cudnn8-devel-ubuntu22.04"},
            other: {"image": f"nvidia/cuda:{cuda}.9-base-ubuntu22.04"},
        }
        own = parse(raw, samples.COMPONENTS)
        (found,) = (f for f in base_image.check(own, CATALOG) if f.rule == "unknown")
        assert found.path == f"$.base.{role}.image"
        assert values_of(found.suggestion) == {"name": getattr(image, role)}
    (found,) = (
        f for f in base_image.check(own, replace(CATALOG, images=())) if f.rule == "unknown"
    )
    assert found.suggestion == ""


def test_base_image_of_another_system_with_that_number() -> None:
    base = {role: {"image": "ubuntu:12.04"} for role in ("builder", "runtime")}
    raw = stack(os={"id": "debian", "version": "12"}, practice=True, cuda=None, cudnn=None)
    raw.update(opencv=None, pytorch=None, tensorrt=None, base=base)
    found = list(base_image.check(parse(raw, samples.COMPONENTS), CATALOG))
    assert [f.rule for f in found] == ["base-os"] * 2


# -- OpenCV


def test_oldest_opencv_for_a_cuda() -> None:
    need = {"why": {"ko": "", "en": ""}}
    catalog = replace(
        CATALOG,
        opencv_needs=(
            OpenCVNeed(cuda="12.0", opencv="4.7.0", dnn_only=False, **need),
            OpenCVNeed(cuda="12.2", opencv="4.9.0", dnn_only=True, **need),
        ),
        opencv_cudnn=(("9", "4.10.0"),),
    )
    cases = {
        ("11.9", "", False): catalog.opencv_for("11.9"),
        ("12.0", "", False): "4.7.0",
        ("12.2", "", False): "4.7.0",
        ("12.2", "", True): "4.9.0",
        ("12.2.1", "8.9", True): "4.9.0",
        ("12.2", "9", True): "4.10.0",
        ("12.2", "9.1", True): "4.10.0",
        ("12.2", "9.1", False): "4.7.0",
    }
    for (cuda, cudnn, dnn), oldest in cases.items():
        expected = max((oldest, catalog.opencv_for(cuda)), key=driver.key)
        assert opencv.oldest_for(cuda, cudnn, dnn, catalog) == expected, (cuda, cudnn, dnn)


def opencv_told(catalog: Any = CATALOG, **changes: Any) -> list[tuple[str, Mapping[str, object]]]:
    own = parse(stack(pytorch=None, tensorrt=None, **changes), samples.COMPONENTS)
    return [(f.severity, values_of(f.reason)) for f in opencv.check(own, catalog)]


def test_opencv_fails_with_the_newest_ffmpeg_that_it_cannot_build() -> None:
    catalog = replace(CATALOG, opencv_ffmpeg_fails=(("5.0", "4.9.0"), ("6.0", "4.6.0")))
    for version, newest, fails in (
        ("4.4.0", "6.1", "6.0"),
        ("4.6.0", "6.0", "6.0"),
        ("4.6.1", "6.0", "5.0"),
        ("4.5.5", "5.1", "5.0"),
    ):
        told = opencv_told(
            catalog, opencv__version=version, ffmpeg__version=newest, opencv__cuda=False
        )
        assert ("error", {"version": version, "fails": fails}) in told
    told = opencv_told(catalog, opencv__version="4.9.1", ffmpeg__version="6.1", opencv__cuda=False)
    assert "error" not in {severity for severity, _reason in told}


@pytest.mark.parametrize(
    ("cuda", "version", "fails"),
    [
        ("13.2", "4.13.0", True),
        ("13.3", "4.12.0", True),
        ("13.2", "4.14.0", False),
        ("13.1", "4.13.0", False),
    ],
)
def test_opencv_fails_with_a_new_cuda(cuda: str, version: str, fails: bool) -> None:
    told = opencv_told(opencv__version=version, cuda=cuda)
    assert (("error", {"version": version, "fails": "13.2"}) in told) is fails


# -- source archives


def archive(**facts: Any) -> Any:
    given = {"name": "ffmpeg", "sha256": "", "version": "", "urls": (), "file": "", "sdist": ""}
    return SimpleNamespace(**{**given, **facts})


def test_facts_of_an_archive_are_compared_in_order() -> None:
    found = stated_archive_versions._found(
        archive(
            sha256="1" * 64,
            version="1.1",
            sdist="x==2.2",
            urls=("https://example.com/x-3.3.tar.gz", "https://example.com/x.tar.gz"),
            file="x-4.4.tar.gz",
        ),
        {"1" * 64: "0.1"},
    )
    assert list(found) == [
        ("$.sources.ffmpeg.sha256", "0.1"),
        ("$.sources.ffmpeg.version", "1.1"),
        ("$.sources.ffmpeg.sdist", "2.2"),
        ("$.sources.ffmpeg.urls", "3.3"),
        ("$.sources.ffmpeg.file", "4.4"),
    ]
    assert list(stated_archive_versions._found(archive(), {})) == []


def test_checksums_of_every_archive_are_known() -> None:
    known = stated_archive_versions._versions_by_checksum(CATALOG)
    assert "" not in known
    for releases in (CATALOG.ffmpeg, CATALOG.opencv):
        for version, archives in releases.items():
            assert {known[each.sha256] for each in archives if each.sha256} <= {version}
    for headers in CATALOG.headers.values():
        assert {known[each.sha256] for each in headers.archives if each.sha256} <= {headers.version}
    for trt in CATALOG.tensorrt.values():
        assert {known[each.sha256] for each in trt.tars if each.sha256} <= {trt.version}


def test_only_the_first_contradiction_of_an_archive_is_named() -> None:
    raw = stack()
    raw["sources"]["ffmpeg"].update(version="3.3", file="ffmpeg-4.4.tar.gz")
    own = parse(raw, samples.COMPONENTS)

    def said() -> list[tuple[str, str, object]]:
        return [
            (f.path, str(values_of(f.reason)["found"]), values_of(f.suggestion)["option"])
            for f in stated_archive_versions.check(own, CATALOG)
        ]

    assert said() == [("$.sources.ffmpeg.version", "3.3", "ffmpeg.version")]
    raw["sources"]["ffmpeg"]["file"] = "ffmpeg-4.4.deb"  # packages, of no one version
    own = parse(raw, samples.COMPONENTS)
    assert said() == []
    raw["sources"]["opencv"]["file"] = "opencv-1.2.3.tar.gz"  # that of another one counts
    own = parse(raw, samples.COMPONENTS)
    assert said() == [("$.sources.opencv.file", "1.2.3", "opencv.version")]


# -- licences


@pytest.mark.parametrize(
    ("licence", "verdict"),
    [
        ("MIT and ISC or Zlib with Boost", ALLOWED),
        ("MIT/BSD;(HPND),", ALLOWED),
        ("MIT or GPL-3.0-only", CONDITIONS),
        ("AGPL-3.0", CONDITIONS),
        ("MPL-2.0", CONDITIONS),
        ("GNU Lesser General Public License", CONDITIONS),
        ("GPL-2.0 and Secret", UNKNOWN),
        ("mit licence", ALLOWED),
        (" and ", UNKNOWN),
        ("()", UNKNOWN),
    ],
)
def test_verdict_needs_every_term(licence: str, verdict: str) -> None:
    assert redistribution.verdict_of(licence) == verdict


def test_reason_of_a_judgement_follows_the_licence() -> None:
    reasons = [
        redistribution._by_licence("x", licence).reason for licence in ("MIT", "GPL", "Secret", "")
    ]
    assert len(set(reasons)) == 4
    again = redistribution._by_licence("x", "Other")
    assert (again.part, again.licence, again.verdict) == ("x", "Other", UNKNOWN)
    assert again.reason == reasons[2]


def test_parts_of_a_preset_are_judged() -> None:
    def parts(**changes: Any) -> dict[str, str]:
        own = parse(stack(**changes), samples.COMPONENTS)
        return {
            judgement.part: judgement.verdict
            for judgement in redistribution.judge(own, None, CATALOG)
        }

    whole = parts()
    assert {"FFmpeg", "CUDA 11.8", "nv-codec-headers", "opencv", "opencv-contrib"} < set(whole)
    assert any(name.startswith("TensorRT ") for name in whole)
    assert not {"ffmpeg", "tensorrt"} & set(whole)
    bare = parts(cuda=None, cudnn=None, opencv=None, pytorch=None, tensorrt=None, ffmpeg=None)
    assert not any(name.startswith(("CUDA", "TensorRT", "FFmpeg")) for name in bare)
    assert whole["Python packages"] == UNKNOWN
    wheel = Entry(
        kind="wheel",
        path="wheels/x.whl",
        sha256="1" * 64,
        size=1,
        origin="index:default",
        name="x",
        licence="MIT",
    )
    tool = replace(wheel, name="pip", roles=("install-tool",))
    lock: Any = SimpleNamespace(of=lambda kind: (wheel, tool) if kind == "wheel" else ())
    assert [(j.part, j.verdict) for j in redistribution._wheels(lock)] == [("x", ALLOWED)]
    raw = stack()
    raw["ffmpeg"]["configure"] = ["--enable-nonfree=yes"]
    (judged,) = redistribution._ffmpeg(parse(raw, samples.COMPONENTS), CATALOG)
    assert values_of(judged.reason) == {"option": "--enable-nonfree"}


def test_findings_name_rule_and_place() -> None:
    finding = Finding(rule="r", severity="error", path="$.x", reason="why")
    assert finding.text == "why" and finding.to_json()["en"] == "why"
    assert values_of(replace(finding, suggestion="do").text) == {
        "reason": "why",
        "suggestion": "do",
    }
