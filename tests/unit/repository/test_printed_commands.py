"""Every command that gapforge prints can be pasted, whatever the names of the folders are."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import nodes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_error
from gapforge.model import env_file
from samples import ROOT

SOURCES = sorted((ROOT / "src" / "gapforge").rglob("*.py"))
# Parts of commands in f-strings that need no quotes: names of verbs, flags, variables and presets
# that were read, whose form is limited.
PLAIN = {"at.prog", "self.prog", "args.verb", "verb", "variable", "name", "preset.name"}
PLAIN |= {"self.preset.name", "options.type", "package_versions_page.COMMAND"}


_PROGRAM = (
    r"\./[\w.]+|python3|ls|cp|mv|rm|chmod|chown|cd|df|umount|mount|docker|git|ssh-keygen|ssh-add|"
    r"shred|cat|rsync|tar|mkdir|ps|sha256sum|curl|usermod|skopeo|zstd|xz"
)
# A command begins at the start or behind white space, a colon or a bracket, and ends before
# punctuation or Hangul. Words of sentences that are also programs are not meant.
_COMMAND = re.compile(
    rf"(?:^|(?<=[\s(:;]))(?:{_PROGRAM})\s"
    r"(?!client|daemon|group|ended|file |checkout and|cannot|data |context |itself)"
    r"(?:[^;,){가-힣\n]|\{[^}]*\})*"
)
# Values that are several words, each quoted already, numbers, and names of verbs and flags.
_WORDS = {"arguments", "command", "files", "flag", "folders", "options", "pid", "presets"}
_WORDS |= {"receiver", "verb", "words"}


def unquoted(message: str) -> Iterator[tuple[int, int]]:
    """Yield where in a message a placeholder is in a command without ``!q``: start and end."""
    for command in _COMMAND.finditer(message):
        for found in re.finditer(r"\{(\w+)\}", command[0]):
            if found[1] not in _WORDS:
                yield command.start() + found.start(), command.start() + found.end()


def messages() -> Iterator[tuple[str, str]]:
    """Yield where each message of the code is, and its text."""
    for file in SOURCES:
        for node in nodes(file):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id not in ("_", "N_", "ngettext", "pgettext"):
                    continue
                for text in node.args:
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield f"{file.relative_to(ROOT)}:{node.lineno}", text.value


def test_values_in_commands_of_messages_are_quoted() -> None:
    found = [f"{where}: {text}" for where, text in messages() if list(unquoted(text))]
    assert found == []
    assert sum("!q" in text for _where, text in messages()) > 50


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("ls -l {file}", 1),
        ("free some space (df -h {folder}) and run it again", 1),
        ("online: ./deps_sync.sh {name} --update; then cp -r {a} {b}/", 3),
        ("{file}: not a file; chmod 600 {file!q}", 0),
        ("the docker client {name} is old", 0),
        ("./gapforge unpack {folders}", 0),
        ("확인하십시오: df -h {folder}을(를)", 1),
    ],
)
def test_search_finds_commands_in_messages(text: str, count: int) -> None:
    assert len(list(unquoted(text))) == count


def outside_quotes(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the values in f-strings that no call of a quoting function contains."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("quoted", "quote"):
        return
    if isinstance(node, ast.FormattedValue) and not isinstance(node.value, ast.Call):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from outside_quotes(child)


def test_values_in_commands_of_f_strings_are_quoted() -> None:
    found = []
    for file in SOURCES:
        for node in nodes(file):
            if not (isinstance(node, ast.keyword) and node.arg == "hint"):
                continue
            for value in outside_quotes(node.value):
                if (text := ast.unparse(value)) not in PLAIN:
                    found.append(f"{file.relative_to(ROOT)}:{node.value.lineno}: {text}")
    assert found == []


def test_quoted_placeholder_is_one_word_of_a_shell() -> None:
    for name in ("프로젝트 (1)", "it's", "a;b", "$HOME", "plain-1.0", "", "line\nend"):
        text = _("ls -l {file!q} x", file=Path("/x") / name)
        assert shlex.split(text) == ["ls", "-l", str(Path("/x") / name), "x"]
    assert str(_("rm {file!q}", file=Path("/plain/a-1.json"))) == "rm /plain/a-1.json"


@pytest.mark.parametrize("language", ["en", "ko"])
def test_commands_name_the_project_in_a_folder_to_quote(
    tmp_path: Path, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    root = tmp_path / "프로젝트 (1) it's"
    (root / "presets").mkdir(parents=True)
    (root / ".env").write_text("A=1\n")
    (root / ".env").chmod(0o644)
    project = Project(root, root / "artifacts")
    printed = [*env_file.file_warnings(project.env_file)]
    printed += [str(storage_error(OSError(28, "x"), project.artifacts / "file").hint)]
    printed += [str(storage_error(OSError(28, "x"), root / "file").hint)]
    assert len(printed) == 3
    for text in printed:
        assert shlex.quote(str(root)).rstrip("'") in text, text
