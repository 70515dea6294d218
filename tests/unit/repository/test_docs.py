"""Test that links, commands and tables of documents match the code, in both languages."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from gapforge.base.errors import ERROR_CLASSES
from gapforge.cli import environment_defaults
from gapforge.cli.main import VERBS
from gapforge.model import component
from gapforge.model.preset_shape import preset_shape
from samples import ROOT

TWINS = {
    "README.md": "README.en.md",
    "CONTRIBUTING.md": "CONTRIBUTING.en.md",
    "CHANGELOG.md": "CHANGELOG.en.md",
    "SECURITY.md": "SECURITY.en.md",
    "docs/build-guide.md": "docs/build-guide.en.md",
    "docs/architecture.md": "docs/architecture.en.md",
    "docs/package-versions.md": "docs/package-versions.en.md",
    "docs/bundle-format.md": "docs/bundle-format.en.md",
    "docs/carry-guide.md": "docs/carry-guide.en.md",
    "docs/glossary.md": "docs/glossary.en.md",
}
HANGUL = ("docs/glossary.en.md", "CONTRIBUTING.en.md")  # Korean terms and particles
SAME_CODE = ("README.md", "docs/build-guide.md", "docs/carry-guide.md")
LAUNCHERS = {
    "./gapforge": "",
    "build.py": "build",
    "scripts/build.py": "build",
    "./deps_sync.sh": "sync",
}
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"GAPFORGE_[A-Z]+(?:_[A-Z]+)*(?![A-Z_])")


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def documents() -> list[str]:
    found = sorted(
        p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    )
    assert set(found) > set(TWINS) | set(TWINS.values())
    return found


def prose(text: str) -> str:
    """Return the text without fenced and indented code."""
    return "\n".join(
        line for line in FENCE.sub("", text).splitlines() if not line.startswith("    ")
    )


def headings(text: str) -> list[tuple[int, str]]:
    return [
        (len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.+)$", FENCE.sub("", text), re.MULTILINE)
    ]


def slug(heading: str) -> str:
    """Return the anchor that common renderers create for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def tables(text: str) -> list[list[list[str]]]:
    """Return every table as rows of cells."""
    found: list[list[list[str]]] = [[]]
    for line in prose(text).splitlines():
        row = line.strip()  # a table may be part of a list
        if row.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


@pytest.mark.parametrize("path", documents())
def test_links_have_existing_targets(path: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(read(path))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (ROOT / path).parent / file if file else ROOT / path
        if not other.is_file():
            broken.append(f"{target}: no such file")
        elif anchor and anchor not in {
            slug(title) for _, title in headings(other.read_text(encoding="utf-8"))
        }:
            broken.append(f"{target}: no such heading")
    assert not broken


@pytest.mark.parametrize(("korean", "english"), TWINS.items())
def test_both_languages_have_the_same_structure(korean: str, english: str) -> None:
    ko, en = read(korean), read(english)
    assert [level for level, _ in headings(ko)] == [level for level, _ in headings(en)]
    assert [(len(t), len(t[0])) for t in tables(ko)] == [(len(t), len(t[0])) for t in tables(en)]
    assert len(FENCE.findall(ko)) == len(FENCE.findall(en))
    assert re.search("[가-힣]", ko)
    if english not in HANGUL:
        assert not re.search("[가-힣]", en.replace("한국어", ""))


@pytest.mark.parametrize("korean", SAME_CODE)
def test_both_languages_show_the_same_commands(korean: str) -> None:
    assert [argv for _, argv in commands(korean)] == [argv for _, argv in commands(TWINS[korean])]


@pytest.mark.parametrize(
    "path", [p for p in documents() if "decisions" in p and p != "docs/decisions/downloader.md"]
)
def test_decisions_are_in_both_languages(path: str) -> None:
    korean, _, english = read(path).partition("\n## English\n")
    assert re.search("[가-힣]{2}", korean) and english and not re.search("[가-힣]", english)
    assert [len(t) for t in tables(korean)][:1] == [len(t) for t in tables(english)][:1]


@cache
def parser_of(verb: str) -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> None:  # type: ignore[override]
            raise ValueError(message)

    parser = Parser(prog=verb)
    importlib.import_module(f"gapforge.cli.verbs.{verb}").add_arguments(parser)
    return parser


def code(path: str) -> Iterator[tuple[str, bool]]:
    """Yield code and whether it is a command line: the lines of shell blocks, and inline code."""
    text = read(path)
    for block in SHELL.findall(re.sub(r"^   ", "", text, flags=re.MULTILINE)):
        yield from ((line, True) for line in block.splitlines())
    yield from (
        (piece.replace("\\|", "|"), False)
        for piece in re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    )


def commands(path: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return (verb, arguments) of every gapforge command in a document."""
    found = []
    for piece, _ in code(path):
        try:
            words = shlex.split(piece, comments=True)
        except ValueError:
            continue
        words = [w for w in words if w not in ("sudo", "python3")]
        if words[:2] == ["-m", "gapforge"]:
            words = ["./gapforge", *words[2:]]
        if (
            not words
            or words[0] not in LAUNCHERS
            or (words[0] == "build.py" and piece.startswith("build.py"))
        ):
            continue
        verb, rest = LAUNCHERS[words[0]], words[1:]
        if not verb:
            if not rest or rest[0] == "VERB":
                continue
            verb, rest = rest[0], rest[1:]
            if verb == "help":
                verb, rest = (rest[0] if rest else "list"), []
        found.append((verb, tuple(rest)))
    return found


@pytest.mark.parametrize("path", documents())
def test_commands_of_documents_are_valid(path: str) -> None:
    wrong = []
    for verb, words in commands(path):
        if verb not in VERBS:
            wrong.append(f"{verb}: no such verb")
            continue
        try:
            given = [word for word in words if word != "…"]
            if given or verb not in ("sync",):
                parser_of(verb).parse_args(given)
        except ValueError as error:
            wrong.append(f"{verb} {' '.join(words)}: {error}")
    assert not wrong


def test_build_guide_shows_the_main_verbs() -> None:
    used = {verb for verb, _ in commands("docs/build-guide.md")}
    assert {
        "sync",
        "verify",
        "build",
        "plan",
        "check",
        "smoke",
        "engine",
        "generate",
        "doctor",
        "list",
    } <= used


def flags_of(verb: str) -> set[str]:
    return {
        flag
        for action in parser_of(verb)._actions
        for flag in action.option_strings
        if flag.startswith("--")
    } - {"--help"}


@pytest.mark.parametrize("path", ["docs/build-guide.md", "docs/build-guide.en.md"])
def test_build_guide_lists_all_build_flags(path: str) -> None:
    table = next(t for t in tables(read(path)) if "`--preset NAME`" in t[2][0])
    listed = {flag for row in table for flag in re.findall(r"`(--[a-z-]+)", row[0])}
    assert listed == flags_of("build")


@pytest.mark.parametrize("path", sorted({*TWINS, *TWINS.values()}))
def test_flags_of_documents_exist(path: str) -> None:
    """Inline code that begins with a flag names a flag of a verb or of a script."""
    known = {"--help", "--network", "--gpus"} | {flag for verb in VERBS for flag in flags_of(verb)}
    for script in ("quickstart", "test", "scripts/bootstrap.sh"):
        known |= set(re.findall(r"--[a-z][a-z-]+", read(script)))
    foreign = {"--enable-nonfree"}  # a flag of FFmpeg
    text = prose(read(path))
    named = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    assert named - foreign <= known


@pytest.mark.parametrize("path", ["README.md", "README.en.md"])
def test_readme_lists_every_verb(path: str) -> None:
    table = next(t for t in tables(read(path)) if t[2][0] == "`list`")
    assert sorted(row[0].strip("`") for row in table[2:]) == sorted(VERBS)


@pytest.mark.parametrize("path", ["README.md", "README.en.md"])
def test_readme_begins_with_quickstart_and_test(path: str) -> None:
    first = SHELL.findall(read(path))[0].split()
    assert first == ["./quickstart", "./test"]
    for script in first:
        assert (ROOT / script).stat().st_mode & 0o100, f"{script} cannot be run"


@pytest.mark.parametrize("path", ["docs/build-guide.md", "docs/build-guide.en.md"])
def test_build_guide_lists_all_exit_codes(path: str) -> None:
    section = read(path).split("<!-- exit-codes -->")[1].split("<!-- /exit-codes -->")[0]
    rows = tables(section)[0][2:]
    assert [(int(row[0]), row[1]) for row in rows] == [
        (0, "success"),
        *sorted((c.exit_code, c.cause) for c in ERROR_CLASSES),
    ]
    assert all(len(row[3]) > 5 for row in rows[1:]), "each failure has a next step"


@pytest.mark.parametrize("path", ["docs/build-guide.md", "docs/build-guide.en.md"])
def test_build_guide_explains_every_preset_key(path: str) -> None:
    table = next(t for t in tables(read(path)) if t[2][0] == "`format`")
    named = {
        name.partition(".")[0] for row in table[2:] for name in re.findall(r"`([a-z.]+)`", row[0])
    }
    shape = preset_shape(component.load_all(ROOT / "components"))
    known = {*shape.required, *shape.optional} - {"$schema", "platform"}
    assert known - named == set() and named <= known


def sources() -> list[Path]:
    """Return every file that may read an environment variable."""
    places = [
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "components").rglob("*"),
        *(ROOT / "scripts").iterdir(),
        *ROOT.iterdir(),
    ]
    return [
        p
        for p in places
        if p.is_file()
        and (p.suffix in (".py", ".sh", "") or p.name == "Dockerfile")
        and p.name[0] != "."
    ]


def variables_in_source() -> set[str]:
    """Return the variables that the source names, and the variables of flags."""
    found: set[str] = set()
    for file in sources():
        text = file.read_text(encoding="utf-8")
        found |= set(VARIABLE.findall(text))
        if "environment_defaults." in text and "cli" in file.parts:
            calls = re.findall(r"environment_defaults\.(?:text|switch)_default\(([^)]*)\)", text)
            flags = re.findall(r'"(--[a-z-]+)"', " ".join(calls))
            for name in re.findall(r"\*(_[A-Z_]+)", " ".join(calls)):
                listed = re.search(rf"^{name} = \((.*?)\)", text, re.MULTILINE | re.DOTALL)
                assert listed is not None
                flags += re.findall(r'"(--[a-z-]+)"', listed[1])
            found |= {environment_defaults.variable(flag) for flag in flags}
    return found


@pytest.mark.parametrize("path", ["docs/build-guide.md", "docs/build-guide.en.md"])
def test_build_guide_lists_exactly_all_variables(path: str) -> None:
    text = read(path)
    rows = {name for table in tables(text) for row in table for name in VARIABLE.findall(row[0])}
    in_source = variables_in_source()
    assert {
        "GAPFORGE_OFFLINE",
        "GAPFORGE_APP_SOURCE",
        "GAPFORGE_LANG",
        "GAPFORGE_NON_INTERACTIVE",
    } <= in_source
    assert rows == in_source
    assert set(VARIABLE.findall(text)) <= rows
