"""Test that a figure or version which several places state comes from one place.

In code it is one constant. In documents and messages a statement such as "Python 3.10 or newer" is
compared with the constant or the catalog that decides.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gapforge.base import limits, project
from gapforge.base.units import human_bytes
from gapforge.bundle import place_volumes, volume_format
from gapforge.cli.verbs import pack
from gapforge.compat import base_image
from gapforge.doctor import machine_checks
from gapforge.engine.protocol import LEAST_DOCKER
from gapforge.image import build_progress
from gapforge.model import catalog as catalogs
from gapforge.model import lock as locks
from gapforge.model.preset_rules import TARGET_OS
from gapforge.sync import target_python, wheel_tags
from gapforge.trust import ssh_signatures
from samples import ROOT

MODULES = sorted([*ROOT.glob("src/gapforge/**/*.py"), *ROOT.glob("components/**/*.py")])
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
LEAST_PYTHON = "{}.{}".format(*project.LEAST_PYTHON)

# Figures that several modules contain on purpose, each with its reason.
TWICE = {
    "20.04": "the operating systems are keys of tables of different facts, compared below",
    "22.04": "as 20.04; TARGET_OS is the one that decides",
    "24.04": "as 20.04",
    "124": "the exit codes that POSIX shells and timeout(1) give; components run in the image",
    "126": "as 124",
    "127": "as 124",
    "255": "the largest byte, and the longest name of a file on Linux",
}
_VERSION = re.compile(r"(?<![\w.-])\d+(?:\.\d+)+(?![\w.]*\w)")
_TRANSLATED = ("_", "N_", "ngettext", "pgettext")


def _value(node: ast.expr) -> int | float | None:
    """Return the number that an expression of numbers has."""
    if isinstance(node, ast.Constant):
        number = node.value
        return number if isinstance(number, int | float) and not isinstance(number, bool) else None
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if left is not None and right is not None and isinstance(node.op, ast.Mult):
            return left * right
    return None


def _is_special(number: float, written: Callable[[], str | None]) -> bool:
    """Return whether two places that have this number probably mean the same.

    Round numbers, powers of two, modes, the statuses of HTTP and small numbers occur by chance.
    ``written`` finds how the module writes it, which is slow.
    """
    if number in (3600, 86_400):
        return True
    whole = int(number)
    round_ = whole % 100 == 0 or whole % 60 == 0
    chance = round_ or whole & (whole - 1) == 0 or whole % 1024 == 0
    if number < 100 or whole != number or chance or 400 <= number < 600:
        return False
    return not (written() or "").startswith("0o")


@functools.cache
def _stated(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the figures and the named texts of a module, which is parsed once per session."""
    tree = ast.parse(text)
    return tuple(_found_figures(text, tree)), tuple(_found_texts(tree))


def _figures(text: str) -> tuple[str, ...]:
    """Return the versions and special numbers in a module.

    Comments, docstrings, messages and examples of commands do not count.
    """
    return _stated(text)[0]


def _named_texts(text: str) -> tuple[str, ...]:
    """Return the texts that a module names: what it takes from there may be elsewhere too."""
    return _stated(text)[1]


def _found_figures(text: str, tree: ast.Module) -> Iterator[str]:
    nodes = list(ast.walk(tree))
    skipped: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES":
            skipped.update(id(part) for part in ast.walk(node))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _TRANSLATED:
            skipped.update(id(argument) for argument in node.args)
        if isinstance(node, ast.BinOp) and _value(node) is not None:
            skipped.update((id(node.left), id(node.right)))
    for node in nodes:
        if id(node) in skipped or not isinstance(node, ast.Constant | ast.BinOp):
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _VERSION.findall(node.value)
        number = _value(node)
        written = functools.partial(ast.get_source_segment, text, node)
        if number is not None and _is_special(number, written):
            yield f"{number:g}" if number < 10**6 else str(number)


def _found_texts(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str) and len(value) > 3:
                yield value


def _stated_in(modules: dict[str, str], of: Any) -> dict[str, set[str]]:
    """Return each figure and the modules that contain it."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, text in modules.items():
        for figure in of(text):
            found[figure].add(name)
    return found


@functools.cache
def _modules() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in MODULES}


def test_no_figure_is_in_two_modules() -> None:
    found = _stated_in(_modules(), _figures)
    twice = {figure: sorted(where) for figure, where in found.items() if len(where) > 1}
    assert {f: where for f, where in twice.items() if f not in TWICE} == {}
    assert set(TWICE) <= set(twice), "an exception that is no longer needed"


def test_no_named_text_is_in_two_modules() -> None:
    found = _stated_in(_modules(), _named_texts)
    twice = {text: sorted(where) for text, where in found.items() if len(where) > 1}
    # uv writes a file of this name into its own working folder; it is not the one in artifacts/.
    assert twice.pop("requirements.txt") != []
    assert twice == {}


def test_the_scan_finds_what_is_stated_twice() -> None:
    """The check can fail: each of these would be found."""
    one = 'LEAST = "450.80.02"\nWAIT = 24 * 3600\nNAME = "debs/Packages"\nMODE = 0o644'
    two = 'if driver < key("450.80.02"):\n    sleep(86_400)\nNAME = "debs/Packages"\nMODE = 0o644'
    found = _stated_in({"one": one, "two": two}, _figures)
    assert {f for f, where in found.items() if len(where) > 1} == {"450.80.02", "86400"}
    assert len(_stated_in({"one": one, "two": two}, _named_texts)["debs/Packages"]) == 2
    assert list(_figures('"""Needs 450.80.02."""\nraise E(_("needs 450.80.02"))')) == []


def _catalog_versions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _catalog_versions(member if name != "source" else None)
    elif isinstance(value, list):
        for member in value:
            yield from _catalog_versions(member)
    elif isinstance(value, str) and re.fullmatch(r"\d+(\.\d+){2,}", value):
        yield value


def test_code_does_not_repeat_versions_of_the_catalog() -> None:
    """A driver, a release of TensorRT or an archive's version is read there, with its source."""
    documents = catalogs.documents(ROOT / "catalog")
    known = set(_catalog_versions({n: d for n, d in documents.items() if n != "upstreams"}))
    assert {"450.80.02", "8.6.1.6", "4.9.0", "5.1.9"} <= known
    for name, text in _modules().items():
        if name.startswith("src/gapforge/model/"):
            continue  # examples of values in the schema of presets
        assert known.isdisjoint(_figures(text)), name


def test_tables_by_operating_system_name_the_same_ones() -> None:
    named = set(base_image._CODENAMES.values())
    assert set(target_python.OS_PYTHON) == set(wheel_tags.GLIBC) == named
    assert TARGET_OS in named


# Statements in documents, messages and scripts: a pattern of both languages and the value that
# decides. The group is the stated value.
_OS = " ".join((TARGET_OS[0].capitalize(), TARGET_OS[1]))
STATEMENTS = {
    "least Python": (r"Python (\d\.\d+)(?: or newer|\+| ?이상)", {LEAST_PYTHON}),
    "least Docker": (
        r"[Dd]ocker\S* (?:is )?(\d+\.\d+) ?(?:or newer|or later|이상)",
        {LEAST_DOCKER},
    ),
    "system of a site": (r"Ubuntu (\d\d\.\d\d)", {TARGET_OS[1]}),
    "memory of a compile job": (
        r"(\d\.\d) ?GB (?:for each compile|of memory for each)|작업 하나에 약 (\d\.\d) ?GB",
        {f"{machine_checks.JOB_MEMORY / 2**30:.1f}"},
    ),
    "longest name": (
        r"at most (\d+) characters|(\d+)자(?:까지|를 넘)",
        {str(limits.NAME), str(limits.TEXT)},
    ),
    "interval of a build's lines": (
        r"(?:printed )?every (\d+) seconds|(\d+)초마다",
        {f"{build_progress.PLAIN_INTERVAL:g}"},
    ),
    "limit of a volume's index": (
        r"The limit is (\d+ MiB)|최대 크기는 (\d+ MiB)",
        {f"{volume_format.MAX_INDEX >> 20} MiB"},
    ),
    "limit of a signature": (
        r"regular file of at most (\d+) KiB|(\d+) KiB 이하의 일반 파일",
        {str(ssh_signatures.MAX_SIGNATURE >> 10)},
    ),
    "usable part of a medium": (
        r"counts on (\d+)% of the capacity|용량의 (\d+)%",
        {f"{place_volumes._USABLE:.0%}".removesuffix("%")},
    ),
    "smallest volume": (
        r"bytes from (\d[\d,]+)|(\d[\d,]+) 이상의 바이트",
        {f"{pack.LEAST_VOLUME:,}"},
    ),
}
# Statements about something else that look the same, each with its reason.
ELSEWHERE = {
    ("least Python", "components/checklib.py"): "runs in the image, with the image's Python",
    ("longest name", "src/gapforge/model/text_shapes.py"): "each text has its own limit",
    ("system of a site", "docs/decisions/"): "about the choice of the system",
    ("system of a site", "CHANGELOG"): "history",
}


@functools.cache
def _texts() -> dict[str, str]:
    others = [
        *ROOT.glob("*.sh"),
        *ROOT.glob("scripts/*.sh"),
        *ROOT.glob("components/**/*.sh"),
        ROOT / "quickstart",
        ROOT / "test",
        ROOT / "locale/ko/LC_MESSAGES/gapforge.po",
        ROOT / "pyproject.toml",
    ]
    paths = [*DOCUMENTS, *others, *MODULES]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


@pytest.mark.parametrize("about", STATEMENTS)
def test_statements_agree_with_the_value_that_decides(about: str) -> None:
    pattern, right = STATEMENTS[about]
    wrong, seen = [], 0
    for path, text in _texts().items():
        if any(name == about and path.startswith(start) for name, start in ELSEWHERE):
            continue
        for match in re.finditer(pattern, text):
            seen += 1
            stated = next(group for group in match.groups() if group)
            if stated not in right:
                line = text.count("\n", 0, match.start()) + 1
                wrong.append(f"{path}:{line}: {match[0]!r}, but it is {' or '.join(sorted(right))}")
    assert wrong == []
    assert seen > 0, "nothing states it: the pattern no longer fits"


def test_tools_check_for_the_least_python() -> None:
    short = "py" + LEAST_PYTHON.replace(".", "")
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'requires-python = ">={LEAST_PYTHON}"' in settings
    assert f'target-version = "{short}"' in settings
    start = (ROOT / "src/gapforge/__main__.py").read_text("utf-8")
    assert f"sys.version_info < {project.LEAST_PYTHON}" in start
    for script in ("deps_sync.sh", "scripts/bootstrap.sh"):
        text = (ROOT / script).read_text("utf-8")
        stated = re.findall(r"version_info(?:\[:2\])? (?:<|>=|==) (\(\d, \d+\))", text)
        assert set(stated) == {str(project.LEAST_PYTHON)}, script


def test_memory_of_a_compile_job_is_that_of_the_script() -> None:
    """The script computes in kilobytes; it runs in the image, without this package."""
    script = (ROOT / "components/common.sh").read_text("utf-8")
    assert f"{machine_checks.JOB_MEMORY // 1024}" in script


# "39 s", "4 min", "577 MB", "1.5 GB", "12.6", "450.80.02": in a document and its twin.
_DOCUMENTED = re.compile(
    r"(?<![\w.#/-])(\d+(?:\.\d+)+)(?!\w|-|\.\d)"
    r"|(?<![\w.])(\d+(?:[.,]\d+)*) ?(?:KiB|MiB|GiB|kB|MB|GB|%)",
    re.ASCII,  # a Korean particle follows a figure without a blank
)


@pytest.mark.parametrize(
    "english", [path for path in DOCUMENTS if path.name.endswith(".en.md")], ids=lambda p: p.name
)
def test_both_languages_state_the_same_figures(english: Path) -> None:
    korean = english.with_name(english.name.replace(".en.md", ".md"))
    counted = [
        Counter(a or b for a, b in _DOCUMENTED.findall(path.read_text("utf-8")))
        for path in (english, korean)
    ]
    assert dict(counted[0] - counted[1]) == dict(counted[1] - counted[0]) == {}


def test_readme_states_the_size_of_the_quickstart() -> None:
    name = "debian12-cpu-quickstart"
    size = locks.load(ROOT / f"presets/{name}.lock.json").size
    shown = f"{round(size / 1e6)} MB"
    for path in ("README.md", "README.en.md"):
        assert shown in (ROOT / path).read_text("utf-8"), f"{path}: {human_bytes(size)}"


def test_driver_examples_are_of_the_catalog() -> None:
    """A document shows a minimum driver only if the catalog has it."""
    documents = json.dumps(catalogs.documents(ROOT / "catalog"))
    examples = {"470.82.01", "535.104.05"}  # of a site, for check --driver
    for path in DOCUMENTS:
        if path.name.startswith("CHANGELOG"):
            continue  # tells what was wrong
        for driver in re.findall(r"(?<![\d.])[3-6]\d\d\.\d{2,3}\.\d\d(?![\d.])", path.read_text()):
            assert driver in examples or f'"{driver}"' in documents, f"{path.name}: {driver}"
