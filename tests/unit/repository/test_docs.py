"""Test that links, commands and tables of documents match the code, in both languages."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import doc_samples
import terminal_recordings
from gapforge.base.errors import ERROR_CLASSES, UsageError
from gapforge.base.text_layout import width
from gapforge.base.units import human_bytes
from gapforge.cli import environment_defaults, load_verbs
from gapforge.cli import main as cli
from gapforge.cli.load_verbs import VERBS
from gapforge.model import component
from gapforge.model import lock as locks
from gapforge.model.preset_shape import preset_shape
from page_blocks import add_to, blocks
from samples import ROOT
from transcripts import masked

EXIT_CODES = ("docs/when-something-is-wrong.md", "docs/when-something-is-wrong.en.md")
RUN = ("docs/carry-guide.md", "docs/at-the-site.md", "docs/dev-image.md", "docs/own-application.md")
HANGUL = ("docs/glossary.en.md", "CONTRIBUTING.en.md")  # Korean terms and particles
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
    found = [
        p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    ]
    assert {"README.md", "docs/build-guide.md", "docs/samples/README.en.md"} < set(found)
    return sorted(found)


TWINS = {korean: f"{korean[:-3]}.en.md" for korean in documents() if not korean.endswith(".en.md")}


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


@pytest.mark.parametrize("korean", TWINS)
def test_both_languages_show_the_same_commands(korean: str) -> None:
    assert [argv for _, argv in commands(korean)] == [argv for _, argv in commands(TWINS[korean])]


def test_every_document_has_a_twin() -> None:
    assert sorted([*TWINS, *TWINS.values()]) == documents()


@pytest.mark.parametrize(("start", "twins"), [("README.md", ""), ("README.en.md", ".en")])
def test_every_document_is_linked(start: str, twins: str) -> None:
    """A reader of one language reaches every document in that language from the README."""
    expected = {path for path in documents() if path.endswith(".en.md") == bool(twins)}
    reached, waiting = set[str](), [start]
    while waiting:
        path = waiting.pop()
        reached.add(path)
        for target in re.findall(r"\]\(([^)\s#]+\.md)(?:#[^)]*)?\)", prose(read(path))):
            if re.match(r"[a-z]+:", target):
                continue
            other = (ROOT / path).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
            if other in expected - reached:
                waiting.append(other)
    assert reached == expected


@cache
def parser_of(verb: str) -> argparse.ArgumentParser:
    return load_verbs.parsers_of(load_verbs.load([verb]))[1][verb]


def code(path: str) -> Iterator[tuple[str, bool]]:
    """Yield code and whether it is a command line: the lines of shell blocks, and inline code."""
    text = read(path)
    for block in SHELL.findall(re.sub(r"^   ", "", text, flags=re.MULTILINE)):
        yield from ((line, True) for line in block.replace("\\\n", " ").splitlines())
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
        if words and words[0].endswith("/gapforge-receive.pyz"):
            words[0] = "./gapforge"
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
        except UsageError as error:
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
    assert listed | {"--quiet", "--verbose", "--plain"} == flags_of("build")


@pytest.mark.parametrize("path", sorted({*TWINS, *TWINS.values()}))
def test_flags_of_documents_exist(path: str) -> None:
    """Inline code that begins with a flag names a flag of a verb or of a script."""
    known = {"--help"} | {flag for verb in VERBS for flag in flags_of(verb)}
    for script in ("quickstart", "test", "scripts/bootstrap.sh"):
        known |= set(re.findall(r"--[a-z][a-z-]+", read(script)))
    docker, others = {"--network", "--gpus", "--cap-add", "--user"}, {"--always-resume"}
    text = prose(read(path))
    named = set(re.findall(r"`(--(?!enable-|disable-)[a-z][a-z-]*)", text))  # those are FFmpeg's
    assert named - docker - others <= known


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


@pytest.mark.parametrize("path", EXIT_CODES)
def test_every_exit_code_is_explained(path: str) -> None:
    """The table has every code, and each failure has a section: meaning, look at, do."""
    text = read(path)
    table = tables(text.split("<!-- exit-codes -->")[1].split("<!-- /exit-codes -->")[0])[0][2:]
    codes = sorted((c.exit_code, c.cause) for c in ERROR_CLASSES)
    links = [f"[{code}](#{code}-{cause})" for code, cause in codes]
    assert [row[:2] for row in table] == [["0", "success"]] + [
        [link, cause] for link, (_, cause) in zip(links, codes, strict=True)
    ]
    sections = dict(re.findall(r"^## (\d+ [a-z-]+)\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [f"{code} {cause}" for code, cause in codes]
    for section in sections.values():
        parts = re.findall(r"^- \*\*[^*]+\*\*: .{4,}", section, re.MULTILINE)
        assert len(parts) == 3, section


@pytest.mark.parametrize(("path", "language"), [(EXIT_CODES[0], "ko"), (EXIT_CODES[1], "en")])
def test_quoted_words_are_those_of_messages(path: str, language: str) -> None:
    """Words in italics on the page of exit codes are what gapforge prints."""
    catalogue = (ROOT / "locale/ko/LC_MESSAGES/gapforge.po").read_text(encoding="utf-8")
    field = "msgstr" if language == "ko" else "msgid"
    messages = re.findall(rf'^{field} "(.*)"$', catalogue, re.MULTILINE)
    quoted = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", prose(read(path)))
    assert len(quoted) >= 8
    unknown = [words for words in quoted if not any(words in message for message in messages)]
    assert not unknown


@pytest.mark.parametrize("korean", RUN)
def test_both_languages_have_the_same_blocks(korean: str) -> None:
    first, second = (
        [replace(block, text=re.sub(" +# .*", "", block.text)) for block in blocks(path)]
        for path in (korean, TWINS[korean])
    )
    assert first == second


def test_presets_of_the_application_page_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page writes and adds passes its ``check``; tests/heavy/pages builds it."""
    for folder in ("presets", "catalog", "components"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    for name, file in (("gmic", "CMakeLists.txt"), ("unpaper", "meson.build")):
        (tmp_path / "apps" / name).mkdir(parents=True)
        (tmp_path / "apps" / name / file).touch()
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ran = []
    for block in blocks("docs/own-application.md"):
        if block.file:
            add_to(tmp_path / block.file, block.text)
            continue
        for line in block.text.splitlines():
            program, _, arguments = line.partition(" ")
            verb = arguments.partition(" ")[0]
            if program == "./gapforge" and verb in ("new", "check", "show"):
                assert cli.main(shlex.split(arguments)) == 0, line
                ran.append(verb)
    assert ran.count("new") == ran.count("check") - 1 == 3 and "show" in ran


def test_recordings_of_the_terminal_are_current() -> None:
    """Help, list, doctor and the wizard at 40, 80 and 110 columns in both languages."""
    for name, text in terminal_recordings.recordings().items():
        assert read(f"docs/samples/terminal/{name}") == text, (
            "run: PYTHONPATH=src python tests/helpers/terminal_recordings.py"
        )
        columns = int(name.partition(".")[0])
        assert max(width(line) for line in text.splitlines()) <= columns


@pytest.mark.parametrize("path", ["docs/samples/README.md", "docs/samples/README.en.md"])
def test_samples_are_those_of_the_code(path: str) -> None:
    """The samples are made again, and the table has every key of the report."""
    made = doc_samples.samples()
    for name, text in made.items():
        assert read(f"docs/samples/{name}") == text, (
            "run: PYTHONPATH=src python tests/helpers/doc_samples.py"
        )
    assert set(made) == {p.name for p in (ROOT / "docs/samples").glob("*.*") if p.suffix != ".md"}
    hosts = set(re.findall(r"https?://([^/\s]+)|(\w+\.\w+)/", "".join(made.values())))
    assert all(host.endswith(".example") for pair in hosts for host in pair if host)
    keys = [key for row in tables(read(path))[0][2:] for key in re.findall(r"`(\w+)`", row[0])]
    assert sorted(keys) == sorted(json.loads(made["report.json"]))


TRANSCRIPTS = sorted((ROOT / "docs/samples/transcripts").iterdir())


@pytest.mark.parametrize("file", TRANSCRIPTS, ids=lambda file: file.name)
def test_transcripts_are_of_the_pages(file: Path) -> None:
    """They show every command that a test runs, are short, and name nothing of a machine."""
    text, page = file.read_text(encoding="utf-8"), file.name.removesuffix(".en.txt")
    if page == "when-something-is-wrong":
        parts = re.split(r"^# exit code (\d+)$", text, flags=re.MULTILINE)
        assert len(parts) > 20 and set(parts[1::2]) <= {str(e.exit_code) for e in ERROR_CLASSES}
        for code, part in zip(parts[1::2], parts[2::2], strict=True):
            assert set(re.findall(r"\[exit code (\d+),", part)) == {"0", code}
    else:
        shown = re.findall(r"^(?:dev)?\$ ((?:.*\\\n)*.+)", text, re.MULTILINE)
        assert shown == [c for block in blocks(f"docs/{page}.en.md") for c in block.commands]
        assert set(re.findall(r"\[exit code (\d+),", text)) == {"0"}
    assert len(text.splitlines()) <= 500
    assert masked(text, {}) == text
    assert not re.search("/tmp/|/root/|/var/tmp", text)


@pytest.mark.parametrize("path", ["README.md", "README.en.md"])
def test_readme_states_the_sizes_of_locks(path: str) -> None:
    text = read(path)
    for preset, kind in (
        ("ubuntu22.04-cuda12.1-torch2.1", "wheel"),
        ("ubuntu22.04-cuda12.6-torch2.7", "tensorrt"),
        ("ubuntu22.04-cuda12.8-torch2.8", "tensorrt"),
    ):
        lock = locks.load(ROOT / f"presets/{preset}.lock.json")
        assert human_bytes(sum(entry.size for entry in lock.of(kind))) in text, preset


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
