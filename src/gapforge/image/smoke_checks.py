"""Runs each component's check inside the finished image, with no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base import process
from gapforge.base.errors import Fault, SmokeError, ToolError
from gapforge.base.i18n import N_, _
from gapforge.engine.protocol import Engine

TIME_LIMIT = (
    900  # seconds for one component's check; importing torch from a cold disk takes minutes
)
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
# Checks of ours have fixed names, as those of the components have: reports hold these, people read ``title``.
_ENDS = N_("check runs to its end")
_REPORTS, _READABLE = N_("check reports something"), N_("output is readable")


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at in the finished image. ``check`` is its fixed name."""

    component: str
    check: str
    ok: bool
    found: str
    expected: str

    @property
    def title(self) -> str:
        """The check's name in the reader's language, where it is one of ours."""
        return _(self.check) if self.check in (_ENDS, _REPORTS, _READABLE) else self.check

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
    results: list[CheckResult] = []
    for expectation in expectations:
        name = expectation["component"]
        if not expectation["enabled"]:
            continue
        expect = json.dumps({**expectation, "gpu": gpu}, ensure_ascii=False)
        try:
            code, output, errors = engine.run(
                image,
                ["python3", "-I", "-"],
                stdin=program(components, name),
                env={"GAPFORGE_EXPECT": expect},
                gpus=gpu,
                timeout=TIME_LIMIT,
            )
            found = list(_parse(name, output))
        except ToolError as error:
            code, errors, found = 1, error.message, []
        if code != 0:
            last = " | ".join(errors.strip().splitlines()[-4:]) or _("no message")
            found.append(
                CheckResult(
                    name,
                    _ENDS,
                    False,
                    _("exit code {code}: {last}", code=code, last=last),
                    _("exit code 0"),
                )
            )
        elif not found:
            found.append(
                CheckResult(name, _REPORTS, False, _("no result"), _("at least one result"))
            )
        for result in found:
            results.append(result)
            on_result(result)
    return results


def program(components: Path, name: str) -> str:
    """Return the Python program that runs a component's check, for `python3 -I -`; ASCII only."""
    files = []
    for file in (components / LIBRARY, components / name / "check.py"):
        files += [
            f"components/{file.relative_to(components).as_posix()}",
            file.read_text(encoding="utf-8"),
        ]
    return _PROGRAM.format(files=ascii(tuple(files)))


def _parse(component: str, output: str) -> Iterable[CheckResult]:
    for line in output.splitlines():
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            yield CheckResult(
                component,
                str(raw["check"]),
                raw["ok"] is True,
                str(raw["found"]),
                str(raw["expected"]),
            )
        except (ValueError, KeyError, TypeError):
            yield CheckResult(component, _READABLE, False, line[:200], _("one JSON object a line"))


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
            _(
                "{count} of {results} checks failed; the image was not tagged (it is "
                "kept as {image})",
                count=len(failed),
                results=len(results),
                image=image,
            ),
            faults=[
                Fault(f"{r.component}: {r.title}", _("found {found}", found=r.found), r.expected)
                for r in failed
            ],
            hint=_("look inside: docker run --rm -it --network none {image} bash", image=image),
        )
