"""The message catalogue is complete, and messages are formatted and translated as promised."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gapforge.base import i18n
from gapforge.base.i18n import N_, Message, _, in_both_languages, ngettext
from samples import ROOT

HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")
COMMANDS = ["quickstart", "deps_sync.sh", "test", "scripts/bootstrap.sh", "scripts/common.sh"]
# Korean text in which a particle stands apart from its word, or in both forms.
LOOSE_PARTICLE = re.compile(
    r"[^가-힣\s,;:.!?] (?:을|를|은|는|과|와|의|에|에서|로|으로|도|만)(?=[\s.,:;)]|$)"
    r"|[을를이가은는과와]\([을를이가은는과와으]\)|\(으\)로"
)


def test_catalogue_has_every_message_and_no_other() -> None:
    """Nothing is untranslated, obsolete or fuzzy, and the .mo is compiled from the .po."""
    command = [sys.executable, str(ROOT / "tools" / "messages"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_holds_no_hangul() -> None:
    places = [*(ROOT / "src").rglob("*.py"), *(ROOT / "components").rglob("*.*")]
    files = [file for file in places if file.is_file() and file.suffix != ".pyc"]
    assert len(files) > 100
    found = {
        file.relative_to(ROOT).as_posix()
        for file in files
        if HANGUL.search(file.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_scripts_join_particles_to_words(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if LOOSE_PARTICLE.search(line)] == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "GAPFORGE_LANG": "ko"}, "ko"),
        ({"GAPFORGE_LANG": "", "LC_MESSAGES": "ko"}, "ko"),
    ],
)
def test_language_follows_environment(environ: dict[str, str], expected: str) -> None:
    assert i18n.language(environ) == expected


def test_message_keeps_template_and_values() -> None:
    text = _("{size} bytes", size=7)
    assert isinstance(text, Message)
    assert (str(text), text.id, dict(text.values)) == ("7 bytes", "{size} bytes", {"size": 7})


def test_message_without_values_keeps_braces() -> None:
    assert _("{clip} stays") == "{clip} stays"


def test_value_with_braces_is_not_formatted() -> None:
    assert _("{size} bytes", size="{name}") == "{name} bytes"


def test_plural_follows_count() -> None:
    assert [ngettext("{count} file", "{count} files", n) for n in (0, 1, 2)] == [
        "0 files",
        "1 file",
        "2 files",
    ]


@pytest.mark.parametrize(
    ("word", "notation", "expected"),
    [
        *[(w, "을(를)", w + "을") for w in ("8.6", "3.10", "cu118", "파일")],
        *[(w, "을(를)", w + "를") for w in ("8.9", "12.4", "이미지", "/srv/파이프라인/a")],
        *[(w, "(으)로", w + "으로") for w in ("3", "ARM", "끝")],
        *[(w, "(으)로", w + "로") for w in ("8", "9", "URL", "파일")],
        ('"파일"', "은(는)", '"파일"은'),
        ("(이미지)", "이(가)", "(이미지)가"),
        ("파일", "와(과)", "파일과"),
        ("파일", "(이)라고", "파일이라고"),
    ],
)
def test_particle_fits_word(
    word: str, notation: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(i18n._english(), "gettext", lambda text: text, raising=False)
    assert str(_("{word}" + notation, word=word)) == expected


def test_particle_inside_value_stays() -> None:
    assert str(_("{word}", word="a을(를)b")) == "a을(를)b"


def test_both_languages_of_data() -> None:
    both = in_both_languages(N_("Chosen by hand: {listed}"), listed="CPU")
    assert both["en"] == "Chosen by hand: CPU"
    assert HANGUL.search(both["ko"]) and both["ko"].endswith("CPU")


def test_missing_catalogue_means_english(tmp_path: Path) -> None:
    package = tmp_path / "src" / "gapforge" / "base"
    package.mkdir(parents=True)
    for name in ("../__init__.py", "__init__.py", "i18n.py"):
        (package / name).write_bytes((ROOT / "src/gapforge/base" / name).read_bytes())
    code = (
        "import sys; sys.path.insert(0, 'src'); from gapforge.base.i18n import _; "
        "print(_('error: '))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "GAPFORGE_LANG": "ko"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "error:"
