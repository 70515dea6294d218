"""Test that generated files are reproducible, and that every outdated file is found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import LockError, PresetError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.write_files import write_text
from gapforge.cli import main as cli
from gapforge.cli.verbs import generate
from gapforge.model import component
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.tools.package_versions_page import Review, Stack, render, rows_of
from samples import ROOT, entry, lock, preset, raw_preset

REVIEW = Review("2026-01-02", "검토", "reviewed")
HEX = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the inputs of this repository and current generated files."""
    root = tmp_path_factory.mktemp("current")
    for folder in ("presets", "catalog", "components"):
        shutil.copytree(ROOT / folder, root / folder)
    (root / "docs").mkdir()
    shutil.copy(ROOT / generate.REVIEW, root / "docs")
    for path, text in generate.generated(Project(root, root / "artifacts")).items():
        write_text(root / path, text)
    return root


@pytest.fixture
def copy(current: Path, tmp_path: Path) -> Project:
    """Make a project with the inputs of this repository and current generated files."""
    shutil.copytree(current, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, tmp_path / "artifacts")


def run(project: Project, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    return cli.main(["generate", *flags])


def change(file: Path, edit: Any) -> None:
    raw = json.loads(file.read_text(encoding="utf-8"))
    edit(raw)
    file.write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")


def document(stack: Stack, language: str = "en") -> str:
    return render([stack], component.load_all(ROOT / "components"), {}, REVIEW, language)


def test_generated_files_of_repository_are_current() -> None:
    project = Project(ROOT, ROOT / "artifacts")
    assert generate.stale_files(project, generate.generated(project)) == {}, (
        "run: ./gapforge generate"
    )


def test_check_says_that_all_are_current(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(copy, monkeypatch, "--check") == 0
    assert capsys.readouterr().out == (
        f"all {len(generate.generated(copy))} generated files are up to date\n"
    )


def test_current_files_are_not_written_again(
    copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (copy.root / "docs").iterdir()}
    assert run(copy, monkeypatch, "--check") == 0
    assert run(copy, monkeypatch) == 0
    assert {p: p.stat().st_mtime_ns for p in (copy.root / "docs").iterdir()} == before


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        (
            "presets/debian12-cpu-quickstart.json",
            lambda raw: raw["python"]["packages"].append("requests==2.32.3"),
        ),
        (
            "presets/debian12-cpu-quickstart.json",
            lambda raw: raw["ffmpeg"]["configure"].append("--disable-doc"),
        ),
        (
            "presets/debian12-cpu-quickstart.json",
            lambda raw: raw["summary"].update(ko="다른 설명", en="another line"),
        ),
        (
            "presets/debian12-cpu-quickstart.json",
            lambda raw: raw["sources"]["opencv"].update(sha256="0" * 64),
        ),
        ("docs/review.json", lambda raw: raw.update(reviewed="2031-01-31")),
    ],
    ids=["package", "build option", "summary", "checksum", "review date"],
)
def test_check_refuses_outdated_documents(
    copy: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    edit: Any,
) -> None:
    change(copy.root / file, edit)
    assert run(copy, monkeypatch, "--check") == PresetError.exit_code
    shown = capsys.readouterr().err
    assert "docs/package-versions.md" in shown and "docs/package-versions.en.md" in shown
    assert "next: ./gapforge generate" in shown
    assert run(copy, monkeypatch) == 0
    assert run(copy, monkeypatch, "--check") == 0


def test_check_names_missing_file_and_writes_nothing(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.root / "docs/package-versions.md").unlink()
    assert run(copy, monkeypatch, "--check") == PresetError.exit_code
    assert "does not exist" in capsys.readouterr().err
    assert not (copy.root / "docs/package-versions.md").exists()


def test_language_changes_no_generated_file(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = generate.generated(copy)
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert generate.generated(copy) == before


def test_check_names_every_stale_file(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = {"docs/package-versions.md", "schemas/lock.schema.json"}
    (copy.root / "docs/package-versions.md").unlink()
    (copy.root / "schemas/lock.schema.json").write_text("{}")
    assert generate.stale_files(copy, generate.generated(copy)).keys() == stale
    assert run(copy, monkeypatch, "--check") == PresetError.exit_code
    shown = capsys.readouterr().err
    assert all(path in shown for path in stale)
    (copy.root / generate.REVIEW).write_text("{}")
    with pytest.raises(PresetError) as caught:
        generate.generated(copy)
    assert {fault.where.partition(":")[0] for fault in caught.value.faults} == {generate.REVIEW}


def test_check_names_outdated_schema(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.root / "schemas/preset.schema.json").write_text("{}")
    assert run(copy, monkeypatch, "--check") == PresetError.exit_code
    assert "schemas/preset.schema.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2}',
        '{"format": 1, "reviewed": "yesterday", "note": {"ko": "a", "en": "b"}}',
    ],
)
def test_invalid_review_file_is_one_error(copy: Project, text: str) -> None:
    (copy.root / "docs/review.json").write_text(text)
    with pytest.raises(PresetError, match=r"docs/review\.json"):
        generate.generated(copy)


def test_lock_of_another_preset_is_refused(copy: Project) -> None:
    wrong = replace(lock(preset()), preset="someone-else")
    copy.lock_file("debian12-cpu-quickstart").write_text(wrong.render(), encoding="utf-8")
    with pytest.raises(LockError, match="someone-else"):
        generate.generated(copy)


def test_outdated_lock_is_not_shown(copy: Project) -> None:
    old = replace(lock(preset()), preset_sha256="0" * 64)
    copy.lock_file("debian12-cpu-quickstart").write_text(old.render(), encoding="utf-8")
    text = generate.generated(copy)["docs/package-versions.en.md"]
    section = text.split("\n## debian12-cpu-quickstart")[1].split("\n## ")[0]
    assert "`./deps_sync.sh debian12-cpu-quickstart`" in section
    assert old.entries[0].sha256 not in text


def full() -> tuple[Preset, Lock]:
    """Return a preset with a torch index and a trust-on-first-use source, and its lock."""
    raw = raw_preset()
    raw["pytorch"] = {"torch": "2.1.2+cu118", "index": "https://torch.example/whl/cu118"}
    raw["sources"]["opencv-cache-x"] = {
        "urls": ["https://user:secret@files.example/x.tgz?token=abc"],
        "sha256": None,
        "trust": "first-use",
        "licence": "MIT",
    }
    made = preset(**raw)
    extra = (
        entry(
            "wheel",
            "wheels/torch-2.1.2-cp311.whl",
            name="torch",
            version="2.1.2+cu118",
            origin="index:torch",
            licence="BSD-3-Clause",
        ),
        entry(
            "wheel",
            "wheels/sympy-1.12-py3.whl",
            name="sympy",
            version="1.12",
            origin="index:default",
        ),
        entry("source", "sources/x.tgz", name="opencv-cache-x", origin="url", trust="first-use"),
    )
    return made, lock(made, extra=extra)


def test_document_lists_every_locked_package() -> None:
    made, locked = full()
    text = document(Stack(made, locked))
    for one in locked.entries:
        if one.kind in ("deb", "wheel", "source", "tensorrt"):
            assert one.sha256 in text, f"{one.path} has no checksum"
    rows = {
        row.name: row
        for row in rows_of(Stack(made, locked), component.load_all(ROOT / "components"))
    }
    assert rows["torch"].source == "index:torch" and rows["torch"].licence == "BSD-3-Clause"
    assert "$.pytorch" in rows["torch"].used_by
    assert rows["sympy"].used_by == "dependency"
    assert "opencv" in rows["numpy"].used_by and "$.python.packages" in rows["numpy"].used_by
    assert rows["opencv-cache-x"].first_use and rows["opencv-cache-x"].used_by == "opencv"
    assert rows["ffmpeg"].used_by == "ffmpeg"


def test_trust_on_first_use_is_marked() -> None:
    made, locked = full()
    for stack in (Stack(made, locked), Stack(made, None)):
        text = document(stack)
        trust = text.split("## Trust")[1].split("## ")[0]
        assert "`opencv-cache-x`" in trust
        (row,) = [line for line in text.splitlines() if line.startswith("| `opencv-cache-x` | —")]
        assert _("(first use)") in row


def test_without_lock_the_preset_pins_are_shown() -> None:
    text = document(Stack(preset(), None))
    assert _("not resolved") in text and "1.26.4" in text
    assert preset().sources["opencv"].sha256 in text


def test_urls_show_no_login_or_token() -> None:
    text = document(Stack(full()[0], None))
    assert "https://files.example/x.tgz" in text
    assert "secret" not in text.replace("`$.", "") and "token" not in text


def test_table_cells_escape_the_separator() -> None:
    raw = raw_preset()
    raw["sources"]["opencv"]["licence"] = "MIT | Apache-2.0"
    assert "MIT \\| Apache-2.0" in document(Stack(preset(**raw), None))


def test_order_of_inputs_changes_no_bytes() -> None:
    made, locked = full()
    parts = component.load_all(ROOT / "components")
    other = Stack(preset(name="another"), None)
    first = render([Stack(made, locked), other], parts, {}, REVIEW, "ko")
    assert first == render([other, Stack(made, locked)], parts, {}, REVIEW, "ko")
    assert first != render(
        [other, Stack(made, locked)], parts, {}, replace(REVIEW, reviewed="2026-01-03"), "ko"
    )


def test_both_languages_have_the_same_structure() -> None:
    made, locked = full()
    shapes = []
    for language in ("ko", "en"):
        lines = document(Stack(made, locked), language).splitlines()
        shapes.append(
            (
                [len(line) - len(line.lstrip("#")) for line in lines if line.startswith("#")],
                sum(line.startswith("|") for line in lines),
                len(lines),
            )
        )
    assert shapes[0] == shapes[1]


def test_urls_come_only_from_presets_and_the_catalog() -> None:
    """The code adds no host of an index or a distribution to a document."""
    project = Project(ROOT, ROOT / "artifacts")
    files = (file for name in ("presets", "catalog") for file in (ROOT / name).glob("*.json"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    known = "\n".join(texts)
    for path, text in generate.documents(project).items():
        for word in text.replace("|", " ").split():
            if word.startswith("http"):
                assert word in known, f"{path}: {word}"
