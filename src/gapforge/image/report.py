"""Write the report of a build: what was built, from what, and what its smoke checks found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.files import read_regular, sha256_bytes
from gapforge.base.strict_json import canonical_json, parse_json
from gapforge.base.text_layout import utc
from gapforge.base.write_files import write_text
from gapforge.engine.protocol import EngineInfo
from gapforge.image.plan import Plan
from gapforge.image.read_inputs import Inputs
from gapforge.image.smoke_checks import CheckResult
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset

REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """A built image.

    ``size`` is its unpacked bytes, ``seconds`` the duration of each step, ``source_sha256`` the
    checksum of the application's source, "" without an application. ``folder`` is where log and
    report lie (dist/NAME/TYPE).
    """

    plan: Plan
    image_ids: tuple[str, ...]
    size: int
    checks: tuple[CheckResult, ...]
    seconds: Mapping[str, float]
    source_sha256: str
    folder: Path

    @property
    def report(self) -> Path:
        return self.folder / REPORT

    @property
    def passed(self) -> bool:
        return all(check.ok for check in self.checks)


def write_report(result: BuildResult, inputs: Inputs, engine: EngineInfo) -> None:
    """Write Dockerfile, plan and report, and settings for an editor in a dev image.

    The report names the keys of secrets, never their values, and an image only if it passed.
    """
    plan = result.plan
    write_text(result.folder / "Dockerfile", inputs.texts.dockerfile)
    write_text(result.folder / "plan.json", plan.render())
    if plan.type == "dev" and result.passed:
        settings = canonical_json(dev_container(plan, inputs.preset))
        write_text(result.folder / "devcontainer.json", settings)
    document = report_document(result, inputs, engine, finished=utc())
    write_text(result.report, canonical_json(document))


def report_document(
    result: BuildResult, inputs: Inputs, engine: EngineInfo, *, finished: str
) -> dict[str, Any]:
    """Return the content of report.json. ``finished`` is a time as ``utc`` writes it."""
    plan = result.plan
    application = None
    if inputs.source is not None:
        application = {
            "folder": str(inputs.source.folder),
            "chosen_by": inputs.source.chosen_by,
            "tree_sha256": result.source_sha256,
        }
    return {
        "format": 1,
        "image": plan.tag if result.passed else "",
        "image_ids": list(result.image_ids),
        "size_bytes": result.size,
        "passed": result.passed,
        "preset": plan.preset,
        "preset_sha256": plan.preset_sha256,
        "lock_sha256": plan.lock_sha256,
        "plan_sha256": sha256_bytes(plan.render().encode()),
        "practice": inputs.preset.practice,
        "type": plan.type,
        "bases": [base.to_json() for base in plan.bases],
        "engine": dict(vars(engine)),
        "application": application,
        "secrets": sorted(inputs.secrets.values),
        "warnings": inputs.warnings,
        "checks": [check.to_json() for check in result.checks],
        "seconds": {step: round(value, 1) for step, value in result.seconds.items()},
        "finished": finished,
    }


def needed_libraries(folder: Path, preset: Preset, lock: Lock) -> dict[str, tuple[str, str]]:
    """Return a file and the library that it needs, by the package that owns the library.

    They are those that the checks of the last build found in the image. ``folder`` has its report;
    return {} if there is none, or if it is of another state of the preset or the lock.
    """
    try:
        report = parse_json(read_regular(folder / REPORT, limits.STATE))
        made_of = (report["preset_sha256"], report["lock_sha256"])
        if not report["passed"] or made_of != (preset.sha256, lock.sha256):
            return {}
        details = [c["details"] for c in report["checks"] if c["component"] == "libraries"]
        return {
            package: min((file, library) for library, files in users.items() for file in files)
            for package, users in details[0].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def dev_container(plan: Plan, preset: Preset) -> dict[str, Any]:
    """Return a devcontainer.json for work on the application in the dev image.

    The format is that of https://containers.dev/implementors/json_reference/. What is compiled
    stays in a volume when the container is removed.
    """
    application = preset.application
    folder = f"/workspace/{application.name}" if application else "/workspace"
    settings: dict[str, Any] = {
        "name": f"{preset.name} (dev)",
        "image": plan.tag,
        "workspaceFolder": folder,
        "workspaceMount": f"source=${{localWorkspaceFolder}},target={folder},type=bind",
        "runArgs": ["--network=none"],
    }
    if application is not None:
        volume = f"source=gapforge-build-{preset.name},target=/workspace/.build,type=volume"
        settings["mounts"] = [volume]
        settings["postCreateCommand"] = "build-application"
    if preset.cuda:
        settings["hostRequirements"] = {"gpu": "optional"}
    return settings
