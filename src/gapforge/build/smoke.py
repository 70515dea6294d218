"""Runs each component's check inside the finished image, with no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.core import process
from gapforge.core.errors import Fault, SmokeError, ToolError
from gapforge.engine.base import Engine

TIME_LIMIT = 900  # seconds for one component's check; importing torch from a cold disk takes minutes


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at in the finished image."""

    component: str
    check: str
    ok: bool
    found: str
    expected: str

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def run_checks(
    engine: Engine,
    image: str,
    expectations: Sequence[Mapping[str, Any]],
    components: Path,
    *,
    gpu: bool = False,
    on_result: Callable[[CheckResult], None] = lambda result: None,
) -> list[CheckResult]:
    """Every result of every enabled component's check; never raises for a check that fails.

    A check that prints nothing, prints no JSON, or exits with a failure is itself a failed result.
    """
    prelude = (components / "check_prelude.py").read_text(encoding="utf-8")
    results: list[CheckResult] = []
    for expectation in expectations:
        name = expectation["component"]
        if not expectation["enabled"]:
            continue
        script = prelude + "\n" + (components / name / "check.py").read_text(encoding="utf-8")
        expect = json.dumps({**expectation, "gpu": gpu}, ensure_ascii=False)
        try:
            code, output, errors = engine.run(
                image, ["python3", "-I", "-"], stdin=script, env={"GAPFORGE_EXPECT": expect}, gpus=gpu,
                timeout=TIME_LIMIT,
            )  # fmt: skip
            found = list(_parse(name, output))
        except ToolError as error:
            code, errors, found = 1, error.message, []
        if code != 0:
            last = " | ".join(errors.strip().splitlines()[-4:]) or "no message"
            found.append(CheckResult(name, "check runs to its end", False, f"exit code {code}: {last}", "exit code 0"))
        elif not found:
            found.append(CheckResult(name, "check reports something", False, "no result", "at least one result"))
        for result in found:
            results.append(result)
            on_result(result)
    return results


def _parse(component: str, output: str) -> Iterable[CheckResult]:
    for line in output.splitlines():
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            yield CheckResult(component, str(raw["check"]), raw["ok"] is True, str(raw["found"]), str(raw["expected"]))
        except (ValueError, KeyError, TypeError):
            yield CheckResult(component, "output is readable", False, line[:200], "one JSON object a line")


def gpu_present() -> bool:
    """Whether this machine has an NVIDIA GPU whose driver answers."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listing = process.run(["nvidia-smi", "-L"], check=False, timeout=30)
    except ToolError:
        return False
    return listing.code == 0 and "GPU" in listing.output


def raise_for(results: Sequence[CheckResult], image: str) -> None:
    """Raise SmokeError naming every failed check; do nothing when all passed."""
    failed = [result for result in results if not result.ok]
    if failed:
        raise SmokeError(
            f"{len(failed)} of {len(results)} checks failed; the image was not tagged (it is kept as {image})",
            faults=[Fault(f"{r.component}: {r.check}", f"found {r.found}", r.expected) for r in failed],
            hint=f"look inside: docker run --rm -it --network none {image} bash",
        )
