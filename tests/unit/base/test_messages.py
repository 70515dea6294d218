"""Users read Korean first: what a person may read exists in Korean and in English, and both say the same.

A literal that is prose but not for a reader (a file format, a pattern, another program's words) says so in a comment
``# no tr: REASON`` on its own line or the one above it.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[3] / "src" / "gapforge"
MODULES = sorted(PACKAGE.rglob("*.py"))
HANGUL = re.compile(r"[가-힣]")
# English words without which hardly any message can be said, and which no command, name or pattern needs.
TELLING = re.compile(
    r"(?i)a|again|already|an|and|another|are|be|been|by|cannot|denied|differs|do|does|expected|for|from|had|has|have|in|"
    r"invalid|is|it|its|missing|must|no|not|nothing|of|on|only|or|other|same|than|that|the|then|there|these|this|those|"
    r"to|twice|unknown|was|were|what|when|where|which|who|with|without|wrong"
)
WORD = re.compile(r"(?<![-\w./{<%$])[A-Za-z]+(?![-\w/(=])")
NOT_SAID = re.compile(r"# no tr: \S.{5,}")

# Particles that take one form after a consonant, another after a vowel.
PARTICLE = re.compile(
    r"""["'”’\]}]*(을|를|이|가|은|는|과|와|으로|로|이라고|라고|이라는|라는|이나|나|이면|라면|이라면|이며)(?=[\s.,:;)!?]|$)"""
)
PARTED = re.compile(
    r"[^가-힣\s,;:.!?] (?:을|를|은|는|과|와|의|에|에서|로|으로|도|만)(?=[\s.,:;)]|$)|[을를이가은는과와]\([을를이가은는과와으]\)|\(으\)로"
)
SCRIPTS = [PACKAGE.parents[1] / name for name in ("quickstart", "deps_sync.sh", "test", "scripts/bootstrap.sh")]


def is_prose(text: str) -> bool:
    words = [word for word in WORD.findall(text) if len(word) > 1 or word == "a"]
    return len(words) >= 2 and any(TELLING.fullmatch(word) for word in words)


def is_tr(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "tr"


def is_pair(node: ast.AST) -> bool:
    return isinstance(node, ast.Dict) and {"ko", "en"} <= {getattr(key, "value", None) for key in node.keys}


def side_by_side(node: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """A Korean text and the English one right after it: a problem is made with both, a fragment of one returns both."""
    row = node.args if isinstance(node, ast.Call) and not is_tr(node) else getattr(node, "elts", [])
    texts = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.IfExp)
    return [(ko, en) for ko, en in itertools.pairwise(row) if isinstance(ko, texts) and isinstance(en, texts)
            and HANGUL.search(shown(ko)) and not HANGUL.search(shown(en)) and not any(map(is_tr, ast.walk(ko)))]  # fmt: skip


def literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each string that is no docstring, no assertion's message and not part of a pair of languages."""
    skipped: set[int] = set()

    def skip(node: ast.AST) -> None:
        skipped.update(id(child) for child in ast.walk(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skip(node)
        elif isinstance(node, ast.Assert) and node.msg is not None:
            skip(node.msg)
        elif is_tr(node) or is_pair(node):
            skip(node)
        for pair in side_by_side(node):
            skip(pair[0])
            skip(pair[1])
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values if isinstance(part, ast.Constant))
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_message_has_both_languages(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = ["", *source.splitlines()]
    alone = [
        f"{path.relative_to(PACKAGE)}:{number}: {text[:100]!r}"
        for number, text in literals(ast.parse(source))
        if is_prose(text) and not any(NOT_SAID.search(line) for line in lines[max(0, number - 1) : number + 1])
    ]
    assert not alone, "English only; give both with tr(ko, en):\n" + "\n".join(alone)


def shown(node: ast.AST) -> str:
    return "".join(
        str(part.value) for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )


def named(node: ast.AST) -> set[str]:
    """What a text takes from around it: the variables, without the functions that only shape them. ``why_ko`` and
    ``why_en`` are one fragment in two languages."""
    called = {
        id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and id(part) not in called}
    return {re.sub(r"(^|_)(ko|en)$", "", name) for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_both_languages_say_the_same(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pairs: list[tuple[ast.AST, ast.AST]] = []
    for node in ast.walk(tree):
        if not is_tr(node):
            pairs += side_by_side(node)
            continue
        assert isinstance(node, ast.Call)
        if len(node.args) == 2:
            pairs.append((node.args[0], node.args[1]))
    for ko, en in pairs:
        where = f"{path.relative_to(PACKAGE)}:{getattr(ko, 'lineno', 0)}"
        if isinstance(ko, ast.Name) and isinstance(en, ast.Name):
            continue  # of a table that holds both
        assert named(ko) == named(en), f"{where}: one language tells of {named(ko) ^ named(en)}, the other does not"
        if WORD.search(shown(en)):
            assert not HANGUL.search(shown(en)), f"{where}: Korean where English belongs"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_language_is_chosen_when_it_is_needed(path: Path) -> None:
    """Not while a module is imported: the choice may come later, and a test may make another."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(outer)
    }
    early = [node for node in ast.walk(tree) if is_tr(node) and id(node) not in late]
    assert not early, [f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}" for node in early]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_the_system_says_is_said_in_the_readers_language(path: Path) -> None:
    """The C library speaks English to us whatever the reader's language is; base/system_errors.py knows the words."""
    if path.name != "system_errors.py":
        assert "strerror" not in path.read_text(encoding="utf-8"), "say it with os_says(error)"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_particle_fits_the_word_before_it(path: Path) -> None:
    """What stands in a placeholder is known only when it is said, so the particle after it is josa's to choose; and
    no particle stands alone, or in both forms."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            for value, after in itertools.pairwise(node.values):
                if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                    shaped = ast.unparse(value.value)
                    counted = shaped.startswith(
                        ("human_bytes(", "counts(")
                    )  # "8.5 GB를", "소스 3개와": always the same
                    if PARTICLE.match(str(after.value)) and not counted:
                        wrong.append(f"{path.name}:{after.lineno}: {{{shaped}}}{after.value[:20]}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PARTED.search(node.value):
            wrong.append(f"{path.name}:{node.lineno}: {node.value[:80]}")
    assert not wrong, "say it with josa(word, '을', '를'), and no blank before a particle:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_particles_of_scripts(path: Path) -> None:
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if PARTED.search(line)] == []
