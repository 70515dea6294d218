"""Change one place of a module at a time, and report the changes that its unit tests do not notice.

    ./test --mutants [--sample N] [--jobs N] [MODULE ...]     such as: store/verify_artifacts

cosmic-ray makes the changes: another operator, number or condition, an exception that is not
caught, a loop without rounds. ``RemoveStatement`` adds the removal of calls, raises and ``+=``.

``mutant_runner.py`` runs the tests in copies of the working tree: for each change those that run
the changed statement, the fastest first, up to the first failure. Tests that start other processes
always run, because nobody sees what those execute. For a change outside functions, all tests run,
because importing the module executes it.

``kept_mutants.json`` lists the changes that no test can or should notice, each with its reason.
They count as noticed. Exits with 1 if less than the goal was noticed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray import plugins
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec
from parso.python.tree import Keyword, PythonNode
from parso.tree import NodeOrLeaf

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".gapforge/tests/bin/python"
KEPT = ROOT / "tests/kept_mutants.json"
GOAL = 0.9  # share of the changes that tests must notice
# The modules that decide what is trusted, kept or accepted, and the unit tests of each.
TESTS = {
    "base/temporary_secrets": "base/test_temporary_secrets",
    "base/process": "base/test_process",
    "base/secret_file_patterns": "base/test_secret_file_patterns",
    "bundle/check_signatures": "bundle/test_check_signatures",
    "bundle/import_objects": "bundle/test_import_objects",
    "bundle/pack": "bundle/test_pack",
    "bundle/repair_request": "bundle/test_repair_request",
    "bundle/unpack": "bundle/test_unpack bundle/test_altered_between_steps",
    "bundle/volume_reader": "bundle/test_volume_reader",
    "bundle/volume_writer": "bundle/test_volume_writer",
    "compat/base_image": "compat/test_rule_edges compat/test_rules compat/test_compatibility_table",
    "compat/driver": "compat/test_rule_edges compat/test_rules compat/test_compatibility_table",
    "compat/ffmpeg": "compat/test_rule_edges compat/test_rules compat/test_compatibility_table",
    "compat/gpu_code": "compat/test_rule_edges compat/test_rules compat/test_compatibility_table",
    "compat/host_compiler": (
        "compat/test_rule_edges compat/test_rules compat/test_compatibility_table"
    ),
    "compat/opencv": "compat/test_rule_edges compat/test_rules compat/test_compatibility_table",
    "compat/doubled_modules": (
        "compat/test_rule_edges compat/test_rules compat/test_compatibility_table"
    ),
    "compat/redistribution": (
        "compat/test_redistribution compat/test_rule_edges compat/test_rules "
        "compat/test_compatibility_table"
    ),
    "compat/stated_archive_versions": (
        "compat/test_rule_edges compat/test_rules compat/test_compatibility_table"
    ),
    "compat/tensorrt": "compat/test_rule_edges compat/test_rules compat/test_compatibility_table",
    "compat/torch": "compat/test_rule_edges compat/test_rules compat/test_compatibility_table",
    "image/dockerfile_lint": "image/test_dockerfile_lint",
    "image/smoke_checks": "image/test_smoke_checks",
    "model/credentials": "model/test_credentials",
    "model/env_file": "model/test_env_file",
    "store/gc": "store/test_gc",
    "store/hash_files": "store/test_verify_artifacts",
    "store/inventory": "store/test_inventory",
    "store/sha256sums": "store/test_sha256sums store/test_verify_artifacts",
    "store/store": "store/test_store base/test_power_cut",
    "store/take_inventory": "store/test_inventory",
    "store/incomplete_bundles": "store/test_gc_imports store/test_gc",
    "store/verify_artifacts": "store/test_verify_artifacts trust/test_trusted_signers",
    "sync/download": "sync/test_download sync/test_network",
    "trust/private_ssh_agent": "trust/test_private_ssh_agent",
    "trust/rollback_protection": "trust/test_rollback_protection",
    "trust/ssh_signatures": "trust/test_ssh_signatures",
    "trust/trusted_signers": (
        "trust/test_trusted_signers trust/test_lock_size trust/test_writable_by_others"
    ),
    "trust/writable_by_others": "trust/test_writable_by_others",
}
_MEMORY = "/dev/shm"  # unit tests mostly wait for the disk to sync
_SLOW_FILE = 1.0  # seconds to read a file of tests, from which on its tests run after the others
# Kinds of changes that are not made, with the reason.
USELESS = {
    r"ReplaceBinaryOperator_(?!Add_Sub|Sub_Add|Mul_FloorDiv|Div_Mul|FloorDiv_Mul|Mod_Mul|"
    r"BitOr_BitAnd|BitAnd_BitOr|LShift_RShift|RShift_LShift)": (
        "one other operator of the same kind is enough"
    ),
    r"ReplaceComparisonOperator_(Eq_Is|NotEq_IsNot|Is_Eq|IsNot_NotEq)$": (
        "the same answer, except for unusual objects"
    ),
    r"ReplaceComparisonOperator_(Is|IsNot|In|NotIn)_(Lt|LtE|Gt|GtE)$": (
        "a TypeError for nearly all objects"
    ),
}


class RemoveStatement(Operator):
    """Replace a statement that only has an effect with ``pass``: a call, a raise or a ``+=``."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[tuple[object, object]]:
        """Yield the position of the statement in ``node``, if it is one of these."""
        if isinstance(node, PythonNode) and node.type == "simple_stmt":
            first = node.children[0]
            operators = [getattr(child, "value", "") for child in getattr(first, "children", [])]
            if first.type in ("atom_expr", "raise_stmt") or "+=" in operators:
                yield first.start_pos, first.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """Replace the statement."""
        first = node.children[0]
        node.children[0] = Keyword("pass", first.start_pos, first.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[object, ...]:
        """Return no examples: they are for the tests of cosmic-ray."""
        return ()


@dataclass(frozen=True)
class Change:
    """One change of a module: what it replaces, and the module's text with it."""

    place: int  # line
    operator: str
    line: str  # the lines that it removes, with single spaces
    becomes: str
    source: str
    statement: range | None  # the lines of the changed statement; None outside functions


@dataclass(frozen=True)
class Measured:
    """What a test does without a change."""

    seconds: float
    lines: dict[str, frozenset[int]]  # of each module
    starts_processes: bool


@dataclass(frozen=True)
class Recorded:
    """What the tests do without a change, and the seconds to read each file of tests."""

    tests: dict[str, Measured]
    files: dict[str, float]


class Runner:
    """``mutant_runner.py`` in a copy of the working tree."""

    def __init__(self, tree: Path, temporary: str) -> None:
        """Copy the working tree and start the process; tests make their files in ``temporary``."""
        _copy_tree(tree)
        self.tree = tree
        self.process = subprocess.Popen(
            [PYTHON, tree / "tests/mutant_runner.py"],
            cwd=tree,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": temporary},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to one request."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> None:
        """End the process after its last answer."""
        self.process.communicate()


def main() -> int:
    """Run the tests against every change of the modules."""
    parser = argparse.ArgumentParser(
        prog="./test --mutants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of: {', '.join(TESTS)}")
    parser.add_argument("--sample", type=int, help="at most this many changes of each module")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="changes at a time")
    args = parser.parse_args()
    if unknown := set(args.modules) - TESTS.keys():
        parser.error(f"no tests are listed in tests/mutants.py for: {', '.join(sorted(unknown))}")
    plugins.OPERATOR_PROVIDERS["gapforge"] = {"RemoveStatement": RemoveStatement}
    modules = args.modules or list(TESTS)
    rows, missed = [], []
    with ExitStack() as stack:
        folder, temporary = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gapforge-mutants-", dir=where))
            for where in (None, _MEMORY if os.access(_MEMORY, os.W_OK) else None)
        )
        runners = [Runner(Path(folder, str(number)), temporary) for number in range(args.jobs)]
        recorded = _record(modules, runners)
        for module in modules:
            row, enough = _test_module(module, recorded, runners, args.sample)
            rows.append(row)
            missed += [] if enough else [module]
        for runner in runners:
            runner.end()
    print("| module | changes tested | of | noticed | kept | share |\n|---|---|---|---|---|---|")
    print("\n".join(rows))
    if missed:
        print(f"below the goal of {GOAL:.0%}: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def _copy_tree(tree: Path) -> None:
    """Copy the working tree as it is, with compiled files that are checked by their content.

    A changed module has the size and the second of the original, as Python compares by default.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(ROOT / name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "gc.auto=0"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "copy"]):
        subprocess.run([*git, *command], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    compile_all = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "src", "tests"]
    subprocess.run([PYTHON, *compile_all], cwd=tree, check=True)


def _record(modules: list[str], runners: list[Runner]) -> Recorded:
    """Run the tests of the modules without a change; exit if one fails."""
    names = dict.fromkeys(name for module in modules for name in TESTS[module].split())
    request = {"files": list(map(_test_file, names)), "modules": list(map(_path, modules))}
    with ThreadPoolExecutor(len(runners)) as pool:  # each loads what the tests import
        answer, *_ = pool.map(lambda runner: runner.ask(**request), runners)
    if answer["code"] != 0:
        sys.exit(f"tests fail without a change:\n{answer['output']}")
    tests = {
        name: Measured(
            one["seconds"],
            {module: frozenset(lines) for module, lines in one["lines"].items()},
            one["starts_processes"],
        )
        for name, one in answer["tests"].items()
    }
    return Recorded(tests, answer["files"])


def _path(module: str) -> str:
    return f"src/gapforge/{module}.py"


def _test_file(name: str) -> str:
    return f"tests/unit/{name}.py"


def _test_module(
    module: str, recorded: Recorded, runners: list[Runner], sample: int | None
) -> tuple[str, bool]:
    """Test the changes of a module; return its row of the table, and whether they are enough."""
    path, files = _path(module), list(map(_test_file, TESTS[module].split()))
    text = (runners[0].tree / path).read_text(encoding="utf-8")
    possible = _possible(text)
    changes = [_change(text, ast.parse(text), spec) for spec in _sample(possible, sample)]
    tests = {
        name: test for name, test in recorded.tests.items() if name.partition("::")[0] in files
    }
    print(f"== {module}: {len(changes)} changes, {len(tests)} tests", flush=True)
    fastest = min(tests, key=lambda name: tests[name].seconds)
    for runner in runners:  # what fails without a change would notice every change
        request = {"files": files, "module": path, "source": text, "tests": [fastest]}
        if runner.ask(**request, seconds=300)["code"] != 0:
            sys.exit(f"{fastest} fails without a change")
    free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
    for runner in runners:
        free.put(runner)

    slow = [name for name in files if recorded.files[name] > _SLOW_FILE]
    quick = [name for name in files if name not in slow]
    noticed_by: Counter[str] = Counter()
    stages = [quick, *([name] for name in slow)]

    def is_noticed(change: Change) -> bool:
        chosen = _tests_of(change, path, tests, noticed_by)
        runner = free.get()
        try:
            for stage in stages:
                failed = _failed(runner, path, change, stage, chosen, tests)
                if failed is not None:
                    noticed_by[failed] += 1
                    return True
            return False
        finally:
            free.put(runner)
            print(".", end="", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(len(runners)) as pool:
        noticed = list(pool.map(is_noticed, changes))
    missed = [change for change, seen in zip(changes, noticed, strict=True) if not seen]
    kept = {(one["line"], one["becomes"]) for one in _kept() if one["module"] == module}
    accepted = [change for change in missed if (change.line, change.becomes) in kept]
    for change in sorted(missed, key=lambda one: one.place):
        if change not in accepted:
            print(f"{path}:{change.place}: {change.operator}")
            print(json.dumps({"line": change.line, "becomes": change.becomes}, ensure_ascii=False))
    count = len(changes) - len(missed) + len(accepted)
    share = count / len(changes) if changes else 1.0
    print(
        f"{module}: {count} of {len(changes)} changes noticed or kept ({share:.0%})\n", flush=True
    )
    return (
        f"| {module} | {len(changes)} | {len(possible)} | {len(changes) - len(missed)} | "
        f"{len(accepted)} | {share:.0%} |"
    ), share >= GOAL


def _failed(
    runner: Runner,
    path: str,
    change: Change,
    files: list[str],
    chosen: list[str],
    tests: dict[str, Measured],
) -> str | None:
    """Return which of the chosen tests in these files fails with a change; "" if none ends."""
    names = [name for name in chosen if name.partition("::")[0] in files]
    if not names:
        return None
    seconds = 60 + 5 * sum(tests[name].seconds for name in names)
    answer = runner.ask(
        files=files, module=path, source=change.source, tests=names, seconds=seconds
    )
    return None if answer["code"] == 0 else answer.get("failed", "")


def _kept() -> list[dict[str, str]]:
    """Return the changes that no test can or should notice."""
    kept: list[dict[str, str]] = json.loads(KEPT.read_text(encoding="utf-8"))
    return kept


def _tests_of(
    change: Change, path: str, tests: dict[str, Measured], noticed_by: Counter[str]
) -> list[str]:
    """Return the tests that execute the changed statement, then those that start processes.

    First come fast tests, and tests that noticed other changes.
    """

    def executes(name: str) -> bool:
        return change.statement is None or not tests[name].lines[path].isdisjoint(change.statement)

    def order(name: str) -> tuple[bool, float]:
        return not executes(name), tests[name].seconds / (1 + noticed_by[name]) ** 2

    names = sorted(tests, key=order)
    return [name for name in names if executes(name) or tests[name].starts_processes]


def _possible(text: str) -> list[MutationSpec]:
    """Return the changes of a module that its tests can notice."""
    unread = _unread_places(ast.parse(text))
    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/db") as database:
        file = Path(folder, "module.py")
        file.write_text(text, encoding="utf-8")
        init([file], database, {})
        specs = [item.mutations[0] for item in database.work_items]
    return [
        spec
        for spec in sorted(specs, key=lambda one: (one.operator_name, one.occurrence))
        if not any(re.search(kind, spec.operator_name) for kind in USELESS)
        and not any(a <= spec.start_pos and spec.end_pos <= b for a, b in unread)
    ]


def _sample(possible: list[MutationSpec], count: int | None) -> list[MutationSpec]:
    """Return ``count`` changes, the same ones for the same module, or all with None."""
    if count is None or count >= len(possible):
        return possible
    return random.Random(0).sample(possible, count)


def _change(text: str, tree: ast.Module, spec: MutationSpec) -> Change:
    source = mutate_code(text, plugins.get_operator(spec.operator_name)(), spec.occurrence)
    before, after = text.splitlines(), source.splitlines()
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return Change(
        place=spec.start_pos[0],
        operator=spec.operator_name.partition("/")[2],
        line=" ".join(" ".join(before).split()),
        becomes=" ".join(" ".join(after).split()),
        source=source,
        statement=_statement(tree, spec.start_pos[0]),
    )


def _statement(tree: ast.Module, line: int) -> range | None:
    """Return the lines of the statement at a line, without the body of an ``if``, ``for`` or so.

    None if importing the module executes it.
    """
    inside, found = False, range(0)
    nodes: list[tuple[ast.AST, bool]] = [(tree, False)]
    while nodes:
        node, in_function = nodes.pop()
        for child in ast.iter_child_nodes(node):
            is_body = in_function or (
                isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and child in node.body
            )
            nodes.append((child, is_body))
            if not isinstance(child, (ast.stmt, ast.ExceptHandler)):
                continue
            body = getattr(child, "body", None)
            end = body[0].lineno - 1 if body else child.end_lineno or child.lineno
            lines = range(child.lineno, max(end, child.lineno) + 1)
            if line in lines and (not found or len(lines) <= len(found)):
                inside, found = is_body, lines
    return found if inside and found else None


def _unread_places(tree: ast.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the places whose changes tests cannot notice.

    Python does not evaluate annotations. mypy judges the parameters of dataclasses: ``frozen``
    refuses code that changes them, ``kw_only`` calls with unnamed arguments. ``strict=True`` of
    ``zip`` asserts what the lines before it guarantee.
    """
    unread: list[ast.expr | None] = []
    for node in ast.walk(tree):
        unread += [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.ClassDef):
            unread += [
                word.value
                for decorator in node.decorator_list
                if isinstance(decorator, ast.Call)
                for word in decorator.keywords
            ]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
            unread += [word.value for word in node.keywords]
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in unread
        if isinstance(node, ast.expr)
    ]


if __name__ == "__main__":
    sys.exit(main())
