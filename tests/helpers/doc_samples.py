"""Make the samples in docs/samples from fixed facts, with the code that writes the real records.

``PYTHONPATH=src .gapforge/tests/bin/python tests/helpers/doc_samples.py`` writes them.
The names, checksums and figures are invented; nothing depends on the presets of this project.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

from gapforge.base.i18n import _, use_language
from gapforge.base.strict_json import canonical_json
from gapforge.base.write_files import write_text
from gapforge.bundle import custody_page
from gapforge.bundle.custody_page import PACK, TRANSFERRED, Custody, Item, PresetFacts, VolumeFacts
from gapforge.engine.protocol import EngineInfo
from gapforge.image.plan import Plan, PlannedBase
from gapforge.image.read_inputs import Inputs
from gapforge.image.report import BuildResult, report_document
from gapforge.image.smoke_checks import CheckResult
from gapforge.rehearsal.record import Record
from gapforge.rehearsal.run_gapforge import facts_of_report

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "samples"
PRESET, VERSION = "site-7", "0.2.0"
BUNDLE = "0123456789abcdef01234567"
SIGNER = "SHA256:2jmj7l5rSw0yVb1sample0fingerprint00000000001"


def _sha(text: str) -> str:
    return hashlib.sha256(f"sample: {text}".encode()).hexdigest()


def _item(kind: str, name: str, version: str, licence: str, size: int, **more: Any) -> Item:
    return Item(
        kind=kind,
        name=name,
        version=version,
        licence=licence,
        size=size,
        sha256=_sha(name),
        **{"origin": "index:default", "state": TRANSFERRED, **more},
    )


CUSTODY = Custody(
    action=PACK,
    bundle=BUNDLE,
    moment="2026-11-27T18:00:00Z",
    version=VERSION,
    presets=(
        PresetFacts(
            name=PRESET,
            lock=_sha("lock"),
            practice=False,
            redistributable=None,
            items=(
                _item(
                    "image",
                    "builder: layer",
                    "",
                    "",
                    3_812_771_012,
                    origin="registry.example/cuda:12.4.1-cudnn-devel-ubuntu22.04",
                ),
                _item("deb", "libfftw3-dev", "3.3.8-2ubuntu8", "", 2_101_344, origin="apt:base"),
                _item("wheel", "numpy", "1.26.4", "BSD-3-Clause", 18_240_312),
                _item(
                    "wheel",
                    "nvidia-cublas-cu12",
                    "12.4.5.8",
                    "NVIDIA Proprietary Software",
                    363_438_208,
                ),
                _item(
                    "source",
                    "ffmpeg",
                    "5.1.9",
                    "LGPL-2.1-or-later",
                    10_034_840,
                    origin="https://mirror.example/ffmpeg-5.1.9.tar.xz",
                ),
                _item(
                    "source",
                    "opencv",
                    "4.10.0",
                    "Apache-2.0",
                    95_167_002,
                    origin="https://mirror.example/opencv-4.10.0.tar.gz",
                    first_use=True,
                ),
                _item(
                    "tensorrt",
                    "tensorrt",
                    "10.3.0.26",
                    "LicenseRef-NVIDIA-TensorRT-SLA",
                    4_310_882_117,
                    origin="https://vendor.example/TensorRT-10.3.0.26.tar.gz",
                    gated=True,
                ),
            ),
        ),
    ),
    volumes=(
        VolumeFacts(f"{BUNDLE}-0001.gfv", 4_294_901_760, _sha("volume 1")),
        VolumeFacts(f"{BUNDLE}-0002.gfv", 4_294_901_760, _sha("volume 2")),
        VolumeFacts(f"{BUNDLE}-0003.gfv", 23_401_216, _sha("volume 3")),
    ),
    operator="Hong Gildong",
    signer=f"{SIGNER} (release-team)",
    indexes=(_sha("index"),),
    receivers=(_sha("receiver"),),
    tool=_sha("tool"),
)


def _base(role: str, kind: str) -> PlannedBase:
    digest = "sha256:" + _sha(f"config {role}")
    return PlannedBase(
        role=role,
        name=f"localhost/gapforge/base:{digest[7:19]}",
        config_digest=digest,
        manifest_digest="sha256:" + _sha(f"manifest {role}"),
        reference=f"registry.example/cuda:12.4.1-cudnn-{kind}-ubuntu22.04",
        layout=f"images/{role}",
    )


PLAN = Plan(
    preset=PRESET,
    preset_sha256=_sha("preset"),
    lock_sha256=_sha("lock"),
    type="runtime",
    target="runtime",
    tag=f"gapforge/{PRESET}:runtime",
    bases=(_base("builder", "devel"), _base("runtime", "runtime")),
    build_args={},
    labels={},
    secrets=(),
    application_folder="apps/inspector",
    files=(),
    smoke=(),
)
ENGINE = EngineInfo(
    name="docker-buildx",
    client="/usr/bin/docker",
    client_version="24.0.7",
    server_version="24.0.7",
    builder="buildx 0.11.2",
    root_dir="/var/lib/docker",
    storage_driver="overlay2",
)


def report() -> dict[str, Any]:
    """Return the sample of report.json."""
    result = BuildResult(
        plan=PLAN,
        image_ids=("sha256:" + _sha("image"),),
        size=9_412_330_291,
        checks=tuple(
            CheckResult(component=component, check=check, ok=True, found=found, expected=expected)
            for component, check, found, expected in (
                ("ffmpeg", "version", "5.1.9", "5.1.9"),
                ("opencv", "version", "4.10.0", "4.10.0"),
                ("application", "check command", "exit code 0", "exit code 0"),
            )
        ),
        seconds=MappingProxyType({"verify": 21.4, "context": 3.2, "build": 5142.8, "smoke": 38.0}),
        source_sha256=_sha("source"),
        folder=Path("dist"),
    )
    inputs = SimpleNamespace(
        preset=SimpleNamespace(practice=False),
        source=SimpleNamespace(
            folder="/home/engineer/apps/inspector", chosen_by="application.source"
        ),
        secrets=SimpleNamespace(values={"INSPECTOR_TOKEN": ""}),
        warnings=[],
    )
    return report_document(result, cast(Inputs, inputs), ENGINE, finished="2026-11-27T17:04:05Z")


def rehearsal() -> Record:
    """Return the sample of rehearsal.json and rehearsal.txt."""
    written = report()
    image, engine = facts_of_report(written, {"type": "runtime"})
    image["application"] = {**image["application"], "folder": PLAN.application_folder}
    return Record(
        preset=PRESET,
        preset_sha256=PLAN.preset_sha256,
        practice=False,
        gapforge=VERSION,
        command=("./gapforge", "rehearse", PRESET, "--bundle", "/media/stick1"),
        types=("runtime",),
        lock_sha256=PLAN.lock_sha256,
        repository={"commit": "3f9c2d7a" * 5, "uncommitted_changes": False},
        bundle={
            "id": BUNDLE,
            "presets": {PRESET: {"lock_sha256": _sha("lock"), "sha256sums_sha256": _sha("sums")}},
            "index": {"file": f"{BUNDLE}.json", "sha256": _sha("index")},
            "made": CUSTODY.moment,
            "tool_sha256": CUSTODY.tool,
            "volumes": [
                {
                    "number": number,
                    "of": len(CUSTODY.volumes),
                    "file": volume.file,
                    "size": volume.size,
                    "index_sha256": volume.sha256,
                    "repairs": "",
                }
                for number, volume in enumerate(CUSTODY.volumes, start=1)
            ],
            "missing": [],
            "broken": {},
            "receiver": {
                "file": "gapforge-receive.pyz",
                "sha256": _sha("receiver"),
                "of_this_gapforge": True,
            },
        },
        signatures={"signed_by": [SIGNER], "trusted_here": True},
        images=[image],
        engine={
            "version": ENGINE.server_version,
            "storage_driver": "overlay2",
            "offline": True,
            **engine,
        },
        python={"path": "/usr/bin/python3.10", "version": "3.10.12", "flags": "-I -S"},
        children_without_network=True,
        seconds={"bundle": 12.0, "unpack": 61.5, "verify": 20.9, "build runtime": 5204.0},
        finished="2026-11-27T19:31:44Z",
    )


def samples() -> dict[str, str]:
    """Return the content of every file in docs/samples that is made here."""
    record = rehearsal()
    made = {
        "report.json": canonical_json(report()),
        "rehearsal.json": canonical_json(record.to_json()),
    }
    for language, end in (("ko", ".txt"), ("en", ".en.txt")):
        with use_language(language):
            facts = replace(CUSTODY, tool_state=_("in this bundle"))
            made[f"custody{end}"] = custody_page.render(facts)
            made[f"rehearsal{end}"] = record.page()
    return made


if __name__ == "__main__":
    for name, text in samples().items():
        write_text(FOLDER / name, text)
