"""Test that the usual project files exist and name the current version and documents."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from gapforge import __version__
from samples import ROOT

EXPECTED = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    ".editorconfig",
    ".gitattributes",
    ".gitignore",
    ".pre-commit-config.yaml",
    "pyproject.toml",
)
RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", re.MULTILINE)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def twin(page: Path) -> Path:
    """Return the page in the other language: NAME.md is Korean, NAME.en.md is English."""
    name = page.name
    return page.with_name(
        name.replace(".en.md", ".md") if name.endswith(".en.md") else name.replace(".md", ".en.md")
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_file_has_content(name: str) -> None:
    assert text(name).strip()


def test_kept_mutants_are_of_lines_that_exist() -> None:
    """A reason for a change that no test notices ends with the line that it changes."""
    for kept in json.loads(text("tests/kept_mutants.json")):
        assert kept.keys() == {"module", "line", "becomes", "reason"} and kept["reason"].strip()
        lines = " ".join(text(f"src/gapforge/{kept['module']}.py").split())
        assert kept["line"] in lines, kept


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CONTRIBUTING.en.md"])
def test_contributing_page_names_every_test_helper(name: str) -> None:
    helpers = {file.stem for file in (ROOT / "tests/helpers").glob("*.py")}
    assert helpers - set(re.findall(r"`(\w+)`", text(name))) == set()


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CHANGELOG.en.md"])
def test_changelog_begins_with_current_version(name: str) -> None:
    versions = RELEASE.findall(text(name))
    assert len(re.findall("^## ", text(name), re.MULTILINE)) == len(versions), (
        "a heading has another form"
    )
    assert versions[0][0] == __version__
    numbers = [tuple(map(int, version.split("."))) for version, _ in versions]
    assert numbers == sorted(set(numbers), reverse=True)
    assert all(date != "Unreleased" for _, date in versions[1:])


def test_pyproject_has_same_version_and_no_licence() -> None:
    project = text("pyproject.toml").split("[project]\n")[1].split("\n[")[0]
    assert re.findall(r'^version = "([^"]+)"', project, re.MULTILINE) == [__version__]
    assert 'requires-python = ">=3.10"' in project
    assert not re.search(r"^licen[cs]e", project, re.MULTILINE) and not list(
        ROOT.glob("LICEN[CS]E*")
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_page_is_linked_in_both_languages(page: Path) -> None:
    assert twin(page).is_file()
    linked = {
        (other.parent / target.partition("#")[0]).resolve()
        for other in PAGES
        if other not in (page, twin(page))
        for target in re.findall(r"\]\(([^)\s]+)\)", other.read_text(encoding="utf-8"))
    }
    assert page.resolve() in linked, "no other document links to this page"


def test_text_files_have_lf_line_ends() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert [
        line
        for line in listed.stdout.splitlines()
        if re.match(r"i/(crlf|mixed)|\S+ +w/(crlf|mixed)", line)
    ] == []


def test_commit_hooks_are_local() -> None:
    assert set(re.findall(r"^ *- repo: (\S+)", text(".pre-commit-config.yaml"), re.MULTILINE)) == {
        "local"
    }


def test_clone_with_windows_line_ends_has_scripts_that_run(tmp_path: Path) -> None:
    options = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--shared", *options, str(ROOT), str(clone)], check=True)
    names = subprocess.run(
        ["git", "-C", clone, "ls-files", "--eol"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(names) > 300
    assert [line for line in names if "w/crlf" in line or "w/mixed" in line] == []
    for command in ("./gapforge", "./deps_sync.sh", "./quickstart", "scripts/bootstrap.sh"):
        argument = "--print-packages" if command.endswith("bootstrap.sh") else "--help"
        done = subprocess.run([command, argument], cwd=clone, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
