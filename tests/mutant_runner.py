"""Run unit tests in forks of a process that has loaded pytest and what the tests import.

``mutants.py`` starts it with the Python of the tests, in a copy of the working tree. It reads one
request per line of standard input and answers each with one line, both JSON:

    {"files": [...], "modules": [PATH, ...]}                         record which test runs what
    {"files": [...], "module": PATH, "source": TEXT, "tests": [...], "seconds": N}
                                     run these tests, in this order, up to the one that ``failed``

No gapforge code is loaded before a fork, so a test sees a changed module as a new process would.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

TREE = Path.cwd()
# What the command line of a process contains that may run gapforge: not ssh-keygen, git and so on.
_RUNS_GAPFORGE = re.compile(r"python|gapforge|\.pyz?\b|(^|/)(ba)?sh$")


class Recorder:
    """Record the lines of modules that each test runs, and the tests that start processes."""

    def __init__(self, modules: list[str]) -> None:
        """Measure ``modules``, paths in the working tree."""
        self.modules = modules
        include = [str(TREE / module) for module in modules]
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=include)
        self.seconds: dict[str, float] = defaultdict(float)
        self.files: dict[str, float] = {}  # seconds to read each file of tests
        self.shared: dict[str, set[str]] = {}  # the fixtures of each test that other tests share
        self.start_processes: set[str] = set()  # tests whose processes may run gapforge
        self.context = ""
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.fork", "os.forkpty") or (
            event in ("subprocess.Popen", "os.posix_spawn", "os.exec")
            and any(_RUNS_GAPFORGE.search(os.fsdecode(word)) for word in _words(*arguments[:2]))
        ):
            self.start_processes.add(self.context)

    def _switch(self, context: str) -> None:
        self.context = context
        self.coverage.switch_context(context)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Count what runs from here on for this test."""
        definitions = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
        self.shared[item.nodeid] = {
            f"fixture {one.argname}"
            for several in definitions.values()
            for one in several
            if one.scope != "function"
        }
        self._switch(item.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """Count a fixture that several tests share for each of them."""
        before = self.context
        if fixturedef.scope != "function":
            self._switch(f"fixture {fixturedef.argname}")
        try:
            return (yield)
        finally:
            self._switch(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[Any]:
        """Measure how long it takes to read each file of tests."""
        started = time.monotonic()
        report = yield
        if isinstance(collector, pytest.File):
            self.files[collector.nodeid] = time.monotonic() - started
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the seconds of one phase of a test."""
        self.seconds[report.nodeid] += report.duration

    def result(self) -> dict[str, Any]:
        """Return for each test its seconds, lines, and whether it starts processes; the files."""
        lines: dict[tuple[str, str], set[int]] = defaultdict(set)
        data = self.coverage.get_data()
        for module in self.modules:
            for line, contexts in data.contexts_by_lineno(str(TREE / module)).items():
                for context in contexts:
                    lines[context, module].add(line)
        tests = {}
        for name, shared in self.shared.items():
            counted = {name, *shared}
            tests[name] = {
                "seconds": self.seconds[name],
                "lines": {
                    module: sorted(set().union(*(lines[one, module] for one in counted)))
                    for module in self.modules
                },
                "starts_processes": not counted.isdisjoint(self.start_processes),
            }
        return {"tests": tests, "files": self.files}


def _words(program: Any, argv: Any) -> list[Any]:
    """Return the words of a command line that an audit event reports; it may be one string."""
    return [word for word in (program, *([argv] if isinstance(argv, str) else argv)) if word]


class Selection:
    """Run the named tests only, in the order of their names."""

    def __init__(self, tests: list[str]) -> None:
        """Give each test its place."""
        self.place = {name: place for place, name in enumerate(tests)}
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remove the other tests and sort these."""
        items[:] = [item for item in items if item.nodeid in self.place]
        items.sort(key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the test that failed."""
        if report.failed:
            self.failed = report.nodeid


def main() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "source" in request:
            file = TREE / request["module"]
            original = file.read_bytes()
            file.write_text(request["source"], encoding="utf-8")
            answer = _run_in_fork(request)
            file.write_bytes(original)
        else:
            answer = _run_in_fork(request)
            for name in answer.pop("libraries", ()):
                _load(name)
        print(json.dumps(answer), flush=True)


def _load(name: str) -> None:
    """Load a module that the tests import, so that the next forks need not.

    Not hypothesis, which warns if it is loaded before its plugin for pytest.
    """
    if "hypothesis" in name:
        return
    try:
        importlib.import_module(name)
    except Exception:  # noqa: S110 - such as a module that only a package can import
        pass


def _run_in_fork(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a fork, with its exit status as ``code``; null if it took too long."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        child = os.fork()
        if child == 0:
            code = 1
            try:  # a change may fill the disk or the memory
                code = _answer(request, folder)
            finally:
                os._exit(code)
        handle = os.pidfd_open(child)
        ended, _, _ = select.select([handle], [], [], request.get("seconds"))
        os.close(handle)
        try:
            os.killpg(child, signal.SIGKILL)  # what the tests started, too
        except ProcessLookupError:
            pass
        _, status = os.waitpid(child, 0)
        written, output = Path(folder, "answer"), Path(folder, "output")
        answer: dict[str, Any] = json.loads(written.read_bytes()) if written.exists() else {}
        text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        answer["output"] = text[-3000:]
        answer["code"] = os.waitstatus_to_exitcode(status) if ended else None
        return answer


def _answer(request: dict[str, Any], folder: str) -> int:
    """Run the tests of a request, write the answer, and return the exit status of pytest."""
    os.setsid()
    output = os.open(f"{folder}/output", os.O_WRONLY | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    temporary = Path(folder, "tmp")
    temporary.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - lasts as long as the process
    arguments = ["-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    arguments += [f"--basetemp={temporary}/pytest", *request["files"]]
    if "source" in request:
        selection = Selection(request["tests"])
        code = int(pytest.main(["-x", *arguments], [selection]))
        answer: dict[str, Any] = {"failed": selection.failed}
    else:
        before = set(sys.modules)
        recorder = Recorder(request["modules"])
        recorder.coverage.start()
        code = int(pytest.main(arguments, [recorder]))
        recorder.coverage.stop()
        answer = recorder.result()
        answer["libraries"] = [name for name in set(sys.modules) - before if _is_library(name)]
    Path(folder, "answer").write_text(json.dumps(answer))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _is_library(name: str) -> bool:
    """Return whether a loaded module is neither of this project nor made by a test."""
    file = getattr(sys.modules[name], "__file__", None)
    return file is not None and TREE not in Path(file).parents


if __name__ == "__main__":
    main()
