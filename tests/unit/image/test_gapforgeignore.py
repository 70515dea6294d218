"""A line of .gapforgeignore means what git makes of it in a .gitignore, or is refused."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from gapforge.base import limits
from gapforge.base.errors import SourceError
from gapforge.image.gapforgeignore import NAME, read_rules
from gapforge.image.source_files import list_files
from raised_errors import values_of

FILES = (
    *("a", "a.o", "b.pyc", "x.py", "ab", "a b", "a "),
    *(" a", "a-b", "!a", "#a", "a\\", "[a]", "]"),
    *("aé", "한.o", "^", "a*"),
    *("build/x", "build/a/x.o", "src/build/x", "src/a/b/c.o", "src/a.o"),
    *("src/aXb", "src/ab", "a1/2", "a1/b/2", "doc/a.pyc", "doc/-", "d/d/d/d", "d/a.py", "A.O"),
)
PIECES = (
    *(
        "a",
        "b",
        "o",
        "x",
        "d",
        "src",
        "build",
        ".o",
        ".py",
        "A",
        "é",
        "한",
        "1",
        "2",
        "/",
        "/",
        "/",
    ),
    *(
        "*",
        "*",
        "*",
        "**",
        "**/",
        "/**",
        "/**/",
        "***",
        "?",
        "??",
        "\\",
        "\\*",
        "\\ ",
        " ",
        "!",
        "#",
    ),
    *(
        "[ab]",
        "[!a]",
        "[^a]",
        "[a-c]",
        "[]a]",
        "[!]]",
        "[a-]",
        "[\\]]",
        "[[:alpha:]]",
        "[[:x:]]",
        "[",
    ),
    *("[z-a]", "[a/]", "[co]", "[oa]", "]", "-"),
    *("^", "\t", "*.py[co]", "*.[oa]", "[\\!a]", "[[:]"),
)
EXAMPLES = (
    *(
        "*.py[co]",
        "*.[oa]",
        "!a",
        "\\!a",
        "\\#a",
        "#a",
        "a\\ ",
        "a ",
        " a",
        "a\\",
        "a\\\\",
        "/a",
        "a/",
    ),
    *(
        "/build/",
        "build",
        "**/x",
        "src/**",
        "src/**/c.o",
        "**/d/**",
        "a**",
        "src/a**b",
        "src/a**/c.o",
    ),
    *(
        "*",
        "/*",
        "/*\n!/src",
        "*.o\n!src/a.o",
        "src/*\n!src/a.o",
        "src/\n!src/a.o",
        "d/*/d",
        "d/**/d",
    ),
    *(
        "[!a]*",
        "[a-b].o",
        "[[:upper:]].O",
        "?",
        "??",
        "???.o",
        "src/a[!/]b",
        "src/a?b",
        "[]]",
        "\\[a]",
    ),
    *(
        "a\r",
        "a1\\/2",
        "a1/**\\/2",
        "a/**",
        "/**/a1",
        "**",
        "/**",
        "**/",
        "***/x",
        "build/**/",
        "!",
    ),
)


def lines() -> list[str]:
    """Return texts of ignore files: the examples, and some made of random pieces."""
    chance = random.Random(1)
    made = []
    for _ in range(int(os.environ.get("CASES", "160"))):
        rules = [
            "".join(chance.choices(PIECES, k=chance.randint(1, 5)))
            for _ in range(chance.choice((1, 1, 2, 3)))
        ]
        made.append("\n".join(rules))
    return [*EXAMPLES, *made]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for name in FILES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    return source


def kept_by_git(source: Path, text: str) -> set[str]:
    """Return the files that git would add."""
    (source / ".git/info/exclude").write_text(text)
    command = ["git", "-c", "core.excludesFile=/dev/null", "-c", "core.ignoreCase=false"]
    command += ["ls-files", "-z", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=source, check=True, capture_output=True).stdout
    return {name for name in output.decode().split("\0") if name and name != NAME}


def test_lines_mean_what_git_makes_of_them(tree: Path) -> None:
    everything = kept_by_git(tree, "")
    assert everything == set(FILES)
    matching = refused = 0
    for text in lines():
        (tree / NAME).write_text(text)
        try:
            found = list_files(tree)
        except SourceError as error:
            refused += 1
            for fault in error.faults:
                number = values_of(fault.where)["number"]
                assert isinstance(number, int)
                line = text.split("\n")[number - 1]
                assert kept_by_git(tree, line.removeprefix("!")) == everything, repr(line)
            continue
        kept = {item.path for item in found.items if item.kind == "file"} - {NAME}
        assert kept == kept_by_git(tree, text), repr(text)
        matching += kept != everything
    assert matching > 60 and refused > 10


@pytest.mark.parametrize(
    "line",
    [
        "../x",
        "./x",
        "a//b",
        "/",
        "!",
        "x[ab",
        "[[:letter:]]",
        "a\\",
        "x" * (limits.IGNORE_LINE + 1),
    ],
)
def test_line_that_matches_nothing_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(f"*.o\n{line}\nbuild/\n")
    with pytest.raises(SourceError) as error:
        read_rules(tmp_path)
    (fault,) = error.value.faults
    assert values_of(fault.where) == {"file": tmp_path / NAME, "number": 2}
    assert values_of(fault.problem)["text"] == line[:80]


@pytest.mark.parametrize("kind", ["too large", "not UTF-8", "link", "pipe", "folder"])
def test_unreadable_ignore_file_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / NAME
    if kind == "too large":
        file.write_text("x\n" * limits.IGNORE_FILE)
    elif kind == "not UTF-8":
        file.write_bytes(b"\xff\n")
    elif kind == "link":
        file.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(SourceError) as error:
        read_rules(tmp_path)
    assert values_of(error.value.message)["file"] == file


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("*a*a*a*a*a*b", "a" * 250),
        ("*a" * 400 + "b", "a" * 250),
        ("**/" * 20 + "zz", "/".join("z" * 300)),
        ("**/" * 300 + "zz", "/".join("z" * 300)),
        ("a/" + "*/**/" * 100 + "b", "/".join("a" * 300)),
        ("[a-z]*" * 100 + "-", "a" * 250),
        (" " * 900 + "x", "x"),
        ("\\ " * 400, "x"),
    ],
)
def test_matching_takes_linear_time(tmp_path: Path, line: str, path: str) -> None:
    (tmp_path / NAME).write_text(line + "\n")
    began = time.process_time()
    assert read_rules(tmp_path).verdict(path, False) is None
    assert time.process_time() - began < 2
