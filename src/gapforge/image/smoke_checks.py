"""Run each component's check inside the finished image, with no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base import limits, process
from gapforge.base.errors import Fault, SmokeError, ToolError
from gapforge.base.files import read_regular
from gapforge.base.i18n import N_, _
from gapforge.base.strict_json import parse_json
from gapforge.engine.protocol import Engine

TIME_LIMIT = 900  # seconds for one component; importing torch from a cold disk takes minutes
LIBRARY = "checklib.py"  # what a check.py imports
# Sent to `python3 -I -`: makes the library importable, then runs the check. Tracebacks name the
# project's files and show their lines. A check.py without imports, as format 1 had them, finds the
# library's names in place.
_PROGRAM = """\
import linecache, sys, traceback, types
library, library_text, check, check_text = {files}
for file, text in ((library, library_text), (check, check_text)):
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
sys.excepthook = lambda *error: sys.stderr.write("".join(traceback.format_exception(*error)))
module = sys.modules["checklib"] = types.ModuleType("checklib")
exec(compile(library_text, library, "exec"), module.__dict__)
scope = {{}} if "checklib" in check_text else dict(vars(module))
scope["__name__"] = "__main__"
sys.modules["__main__"].__dict__.update(scope)
exec(compile(check_text, check, "exec"), sys.modules["__main__"].__dict__)
"""
# The names of the checks that are not a component's own. Reports hold them as they are here.
_ENDS = N_("check runs to its end")
_REPORTS = N_("check reports something")
_READABLE = N_("output is readable")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check in the finished image. ``check`` is its fixed name.

    ``details`` is an object that only the report of the build shows.
    """

    component: str
    check: str
    ok: bool
    found: str
    expected: str
    details: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """Return the check's name, in the reader's language if it is not a component's own."""
        return _(self.check) if self.check in (_ENDS, _REPORTS, _READABLE) else self.check

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}


def run_checks(
    engine: Engine, image: str, expectations: Sequence[Mapping[str, Any]], components: Path
) -> tuple[CheckResult, ...]:
    """Return every result of every enabled component's check; no failed check raises an error.

    Where this machine has a GPU, the checks run a second time with it.
    """
    enabled = [expectation for expectation in expectations if expectation["enabled"]]
    return tuple(
        result
        for gpu in ((False, True) if _gpu_present() else (False,))
        for expectation in enabled
        for result in _run_one(engine, image, {**expectation, "gpu": gpu}, components)
    )


def raise_for_failures(results: Sequence[CheckResult], image: str) -> None:
    """Raise SmokeError naming every failed check, if there is any."""
    failed = [result for result in results if not result.ok]
    if failed:
        raise SmokeError(
            _(
                "{count} of {total} checks failed; the image was not tagged (it is "
                "kept as {image})",
                count=len(failed),
                total=len(results),
                image=image,
            ),
            faults=[
                Fault(f"{r.component}: {r.title}", _("found {found}", found=r.found), r.expected)
                for r in failed
            ],
            hint=_("look inside: docker run --rm -it --network none {image!q} bash", image=image),
        )


def _run_one(
    engine: Engine, image: str, expectation: Mapping[str, Any], components: Path
) -> list[CheckResult]:
    """Return the results of one component's check.

    A check that prints nothing, prints no JSON, or exits with a failure is itself a failed result.
    """
    name: str = expectation["component"]
    try:
        code, output, errors = engine.run(
            image,
            ["python3", "-I", "-"],
            stdin=program(components, name),
            env={"GAPFORGE_EXPECT": json.dumps(expectation, ensure_ascii=False)},
            gpus=expectation["gpu"],
            timeout=TIME_LIMIT,
        )
        results = list(_parse(name, output))
    except ToolError as error:
        code, errors, results = 1, error.message, []
    if code != 0:
        last = " | ".join(errors.strip().splitlines()[-4:]) or _("no message")
        found = _("exit code {code}: {last}", code=code, last=last)
        results.append(_failure(name, _ENDS, found, _("exit code 0")))
    elif not results:
        results.append(_failure(name, _REPORTS, _("no result"), _("at least one result")))
    return results


def program(components: Path, name: str) -> str:
    """Return the Python program that runs a component's check, for `python3 -I -`; ASCII only."""
    files = []
    for file in (components / LIBRARY, components / name / "check.py"):
        files += [
            f"components/{file.relative_to(components).as_posix()}",
            read_regular(file, limits.DESCRIPTION, follow=True).decode("utf-8"),
        ]
    return _PROGRAM.format(files=ascii(tuple(files)))


def _parse(component: str, output: str) -> Iterator[CheckResult]:
    for line in filter(str.strip, output.splitlines()):
        try:
            raw = parse_json(line.encode())
            yield CheckResult(
                component=component,
                check=str(raw["check"]),
                ok=raw["ok"] is True,
                found=str(raw["found"]),
                expected=str(raw["expected"]),
                details=dict(raw["details"]) if raw.get("details") else None,
            )
        except (ValueError, KeyError, TypeError):
            yield _failure(component, _READABLE, line[:200], _("one JSON object per line"))


def _failure(component: str, check: str, found: str, expected: str) -> CheckResult:
    return CheckResult(component=component, check=check, ok=False, found=found, expected=expected)


def _gpu_present() -> bool:
    """Return whether this machine has an NVIDIA GPU whose driver answers."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listing = process.run(["nvidia-smi", "-L"], check=False, timeout=30)
    except ToolError:
        return False
    return listing.code == 0 and "GPU" in listing.output
