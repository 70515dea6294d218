"""Test that the architecture documents name the paths, packages and imports of this checkout."""

from __future__ import annotations

import importlib
import re
import runpy
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from samples import ROOT

PACKAGE = ROOT / "src" / "gapforge"
DOCUMENTS = {
    "docs/architecture.md": ("폴더", "찾아보기"),
    "docs/architecture.en.md": ("Folders", "Where to look"),
}
MAY_IMPORT = runpy.run_path(str(Path(__file__).with_name("test_layering.py")))["MAY_IMPORT"]
# Parts of a path that stand for any name.
ANY = re.compile(r"\b(?:NAME|COMPONENT|TYPE)\b|<hex>")
# Paths that are not in a checkout, each with the reason.
ABSENT = {
    "/": "a path in the image",
    "artifacts/": "created by sync, verify and unpack",
    "dist/": "created by build, pack and rehearse",
    ".gapforge/": "created by gapforge and by the installer",
    "params/": "a folder of the build context",
    "components/gstreamer/": "the example of the document",
}
_CHARACTERS = r"[\w.<>*-]"
PATH = re.compile(rf"{_CHARACTERS}*/[\w.<>*/-]*|{_CHARACTERS}+\.(?:json|md|po|py|sh)|Dockerfile")


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def named_paths(document: str) -> set[str]:
    """Return the paths in backticks: whole names, and the programs of commands."""
    prose = re.sub(r"(?m)^ {4}.*$", "", read(document))
    words = (code.split() for code in re.findall(r"`([^`\n]+)`", prose))
    return {
        word[0].removeprefix("./")
        for word in words
        if PATH.fullmatch(word[0]) and (len(word) == 1 or word[0].count("/"))
    }


def rows(document: str, heading: str) -> Iterator[list[str]]:
    """Yield the rows of all tables in a section, without their headers."""
    section = read(document).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for table in re.findall(r"(?m)(?:^\|.*\n)+", section):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def exists(path: str, folders: set[str]) -> bool:
    """Return whether the project, or a folder that the document names, contains the path."""
    pattern = ANY.sub("*", path).rstrip("/")
    bases = ["", *(ANY.sub("*", folder) for folder in folders)]
    return any(next(ROOT.glob(base + pattern), None) is not None for base in bases)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_path_exists(document: str) -> None:
    paths = {path for path in named_paths(document) if not path.startswith(tuple(ABSENT))}
    folders = {path for path in paths if path.endswith("/")}
    assert len(paths) > 40
    assert {path for path in paths if not exists(path, folders)} == set()


def test_both_languages_name_the_same_paths() -> None:
    korean, english = (named_paths(document) for document in DOCUMENTS)
    assert korean == english


def test_every_exception_is_used() -> None:
    named = named_paths("docs/architecture.en.md")
    assert [start for start in ABSENT if not any(path.startswith(start) for path in named)] == []


@pytest.mark.parametrize(("document", "headings"), DOCUMENTS.items())
def test_folders_table_lists_packages_and_imports(document: str, headings: tuple[str, str]) -> None:
    start = "`src/gapforge/"
    packages = [row for row in rows(document, headings[0]) if row[0].startswith(start)]
    listed = {
        row[0].removeprefix(start).rstrip("/`"): set(re.findall(r"`(\w+)`", row[2]))
        for row in packages
    }
    listed["cli"] |= set(listed) - {"cli"} if packages[-1][2] == "all" else set()
    assert listed == {room: imports - {room} for room, imports in MAY_IMPORT.items()}
    assert set(listed) == {file.parent.name for file in PACKAGE.glob("*/__init__.py")}


@pytest.mark.parametrize(("document", "headings"), DOCUMENTS.items())
def test_modules_to_look_at_have_the_names(document: str, headings: tuple[str, str]) -> None:
    answers = list(rows(document, headings[1]))
    assert len(answers) == 14
    for _question, path, name in answers:
        module = path.strip("`").removeprefix("src/").removesuffix(".py").replace("/", ".")
        assert attrgetter(name.strip("`"))(importlib.import_module(module)), path
