"""Change one place of a module at a time, and report the changes that its unit tests do not notice.

    ./test --mutants [--sample N] [--jobs N] [MODULE ...]     such as: store/verify_artifacts

cosmic-ray makes the changes: another operator, number or condition, an exception that is not
caught, a loop without rounds. ``RemoveStatement`` adds the removal of calls, raises and ``+=``. The
tests run in copies of the working tree. Exits with 1 if less than the goal was noticed.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.operators.operator import Operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome
from parso.python.tree import Keyword, PythonNode
from parso.tree import NodeOrLeaf

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.9  # share of the changes that tests must notice
# The modules that decide what is trusted, kept or accepted, and the unit tests of each.
TESTS = {
    "base/process": "base/test_process",
    "base/secret_files": "base/test_private_files model/test_env_file",
    "bundle/unpack": "bundle/test_damaged_volumes bundle/test_pack_and_unpack",
    "bundle/pack": "bundle/test_pack_and_unpack",
    "bundle/volume_writer": "bundle/test_pack_and_unpack bundle/test_planted_names",
    "bundle/import_objects": "bundle/test_import_objects bundle/test_damaged_volumes",
    "compat/base_image": "compat/test_rules compat/test_compatibility_table",
    "compat/driver": "compat/test_rules compat/test_compatibility_table",
    "compat/ffmpeg": "compat/test_rules compat/test_compatibility_table",
    "compat/gpus": "compat/test_rules compat/test_compatibility_table",
    "compat/host_compiler": "compat/test_rules compat/test_compatibility_table",
    "compat/opencv": "compat/test_rules compat/test_compatibility_table",
    "compat/tensorrt": "compat/test_rules compat/test_compatibility_table",
    "compat/torch": "compat/test_rules compat/test_compatibility_table",
    "image/dockerfile_lint": "image/test_dockerfile_lint",
    "image/smoke_checks": "image/test_smoke_checks",
    "model/credentials": "model/test_credentials",
    "model/env_file": "model/test_env_file",
    "store/gc": "store/test_gc store/test_gc_imports",
    "store/hash_files": "store/test_verify_artifacts",
    "store/sha256sums": "store/test_sha256sums store/test_verify_artifacts",
    "store/store": "store/test_store",
    "store/verify_artifacts": "store/test_verify_artifacts trust/test_trusted_signers",
    "sync/download": "sync/test_download",
    "trust/rollback_protection": "trust/test_trusted_signers",
    "trust/ssh_signatures": "trust/test_ssh_signatures trust/test_trusted_signers",
    "trust/trusted_signers": "trust/test_trusted_signers trust/test_lock_size",
}
# Another operator of the same kind is enough; "is" and "==" differ only for unusual objects.
_USELESS = re.compile(
    r"ReplaceBinaryOperator_(?!Add_Sub|Sub_Add|Mul_FloorDiv|Div_Mul|FloorDiv_Mul|Mod_Mul|"
    r"BitOr_BitAnd|BitAnd_BitOr|LShift_RShift|RShift_LShift)"
    r"|ReplaceComparisonOperator_(Eq_Is|NotEq_IsNot|Is_Eq|IsNot_NotEq)$"
    r"|ReplaceComparisonOperator_(Is|IsNot|In|NotIn)_(Lt|LtE|Gt|GtE)$"
)


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
class Result:
    """What became of one change."""

    place: str
    operator: str
    noticed: bool
    diff: str


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
    missed = []
    with tempfile.TemporaryDirectory(prefix="gapforge-mutants-") as folder:
        trees = [_copy_tree(Path(folder, str(n))) for n in range(args.jobs)]
        for module in args.modules or TESTS:
            if not _report(module, _test_module(module, trees, args.sample)):
                missed.append(module)
    if missed:
        print(f"below the goal of {GOAL:.0%}: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def _copy_tree(tree: Path) -> Path:
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
    python = ROOT / ".gapforge/tests/bin/python"
    subprocess.run([python, *compile_all], cwd=tree, check=True)
    return tree


def _test_module(module: str, trees: list[Path], sample: int | None) -> list[Result]:
    """Test the changes of a module, one process in each tree."""
    path = f"src/gapforge/{module}.py"
    changes = _changes(trees[0] / path, path)
    if sample is not None and sample < len(changes):
        changes = random.Random(0).sample(changes, sample)
    files = [f"tests/unit/{name}.py" for name in TESTS[module].split()]
    command = [f"{ROOT}/.gapforge/tests/bin/pytest", "-qx", "-n0", "-p", "no:cacheprovider", *files]
    started = time.monotonic()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    unchanged = subprocess.run(
        command, cwd=trees[0], env=environment, capture_output=True, text=True, check=False
    )
    if unchanged.returncode != 0:
        sys.exit(f"the tests of {module} fail without a change:\n{unchanged.stdout[-2000:]}")
    seconds = time.monotonic() - started
    print(f"== {module}: {len(changes)} changes, {seconds:.0f} s for all tests", flush=True)
    free: multiprocessing.Queue[Path] = multiprocessing.Queue()
    for tree in trees:
        free.put(tree)
    jobs = [(change, shlex.join(command), 60 + 5 * seconds) for change in changes]
    with multiprocessing.Pool(len(trees), _enter, (free,)) as pool:
        return list(pool.imap_unordered(_test_change, jobs))


def _enter(free: multiprocessing.Queue[Path]) -> None:
    os.chdir(free.get())


def _test_change(job: tuple[MutationSpec, str, float]) -> Result:
    change, command, timeout = job
    result = mutate_and_test([change], command, timeout)
    if result.test_outcome not in (TestOutcome.SURVIVED, TestOutcome.KILLED):
        raise RuntimeError(result.output)
    return Result(
        place=f"{change.module_path}:{change.start_pos[0]}",
        operator=change.operator_name.partition("/")[2],
        noticed=result.test_outcome is TestOutcome.KILLED,
        diff=result.diff or "",
    )


def _changes(file: Path, path: str) -> list[MutationSpec]:
    """Return the changes of a module that its tests can notice."""
    unread = _unread_lines(file)
    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/db") as database:
        init([file], database, {})
        specs = [item.mutations[0] for item in database.work_items]
    return [
        MutationSpec(
            module_path=path,
            operator_name=spec.operator_name,
            occurrence=spec.occurrence,
            start_pos=spec.start_pos,
            end_pos=spec.end_pos,
        )
        for spec in specs
        if not _USELESS.search(spec.operator_name)
        and not any(start <= spec.start_pos and spec.end_pos <= end for start, end in unread)
    ]


def _unread_lines(file: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the places of annotations, which Python does not evaluate."""
    annotations = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        annotations += [getattr(node, "annotation", None), getattr(node, "returns", None)]
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in annotations
        if isinstance(node, ast.expr)
    ]


def _report(module: str, results: list[Result]) -> bool:
    """Print what was not noticed, and return whether the goal was reached."""
    for result in sorted(results, key=lambda one: int(one.place.rpartition(":")[2])):
        if not result.noticed:
            print(f"{result.place}: {result.operator}")
            changed = [line for line in result.diff.splitlines() if re.match(r"[+-](?![+-])", line)]
            print("\n".join(f"    {line}" for line in changed))
    noticed = sum(result.noticed for result in results)
    share = noticed / len(results) if results else 1.0
    print(f"{module}: {noticed} of {len(results)} changes noticed ({share:.0%})\n", flush=True)
    return share >= GOAL


if __name__ == "__main__":
    sys.exit(main())
