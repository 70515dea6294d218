"""Regular expressions take time in proportion to the text: none can match one text in many ways.

A backtracking matcher takes quadratic time or more if a loop of a pattern can hand a text over to a
later loop at any of many places ("infinitely ambiguous": Weber and Seidl, 1991). Each pattern is
translated to an automaton, in which such pairs of loops are searched for.
"""

from __future__ import annotations

import ast
import gc
import importlib
import pkgutil
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import gapforge
from checkout import nodes
from gapforge.model.schema import Text

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import sre_parse  # type: ignore[import-not-found,unused-ignore]  # re._parser since 3.11

PACKAGE = Path(gapforge.__file__).parent
# Characters that tell the classes of our patterns apart.
ALPHABET = "".join(map(chr, range(128))) + "\x85\xa0\xb2\u0660\ud55c"
_COUNTED = 3  # copies of the item of {least,most}; more would add no new kind of ambiguity


@cache
def fitting(kind: str, value: Any, ignores_case: bool) -> frozenset[str]:
    """Return the characters that an item of a class of characters stands for."""
    return frozenset(char for char in ALPHABET if _fits(kind, value, char, ignores_case))


def _fits(kind: str, value: Any, char: str, ignores_case: bool) -> bool:
    variants = {char, char.lower(), char.upper()} if ignores_case else {char}
    codes = [ord(variant) for variant in variants if len(variant) == 1]
    if kind == "CATEGORY":
        name = str(value).removeprefix("CATEGORY_")
        positive = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}[name.removeprefix("NOT_")]
        return bool(re.match(positive, char)) != name.startswith("NOT_")
    if kind == "RANGE":
        return any(value[0] <= code <= value[1] for code in codes)
    if kind == "NOT_LITERAL":
        return value not in codes
    return kind == "LITERAL" and value in codes


class Automaton:
    """A nondeterministic automaton: for each state the characters and the following states."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self.flags = flags
        self.edges: list[list[tuple[frozenset[str], int]]] = []
        self.empty: list[list[int]] = []
        text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
        parsed = sre_parse.parse(text, flags & ~re.UNICODE & ~re.LOCALE)
        self.flags |= parsed.state.flags
        self.start = self.state()
        self.sequence(parsed, self.start)
        self.close()

    def state(self) -> int:
        self.edges.append([])
        self.empty.append([])
        return len(self.edges) - 1

    def sequence(self, items: Iterable[Any], at: int) -> int:
        for op, value in items:
            at = self.item(str(op), value, at)
        return at

    def item(self, op: str, value: Any, at: int) -> int:
        if op in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            after = self.state()
            self.edges[at].append((self.characters(op, value), after))
            return after
        if op == "SUBPATTERN":
            return self.sequence(value[-1], at)
        if op == "BRANCH":
            after = self.state()
            for branch in value[1]:
                begin = self.state()
                self.empty[at].append(begin)
                self.empty[self.sequence(branch, begin)].append(after)
            return after
        if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return self.repeat(*value, at)
        assert op in ("AT", "ASSERT", "ASSERT_NOT", "GROUPREF"), op  # as if they always held
        return at

    def repeat(self, least: int, most: int, item: Any, at: int) -> int:
        for _copy in range(min(least, _COUNTED)):
            at = self.sequence(item, at)
        if most == sre_parse.MAXREPEAT:
            begin, after = self.state(), self.state()
            self.empty[at].append(begin)
            self.empty[self.sequence(item, begin)].append(begin)
            self.empty[begin].append(after)
            return after
        after = self.state()
        for _copy in range(min(most, _COUNTED) - min(least, _COUNTED)):
            self.empty[at].append(after)
            at = self.sequence(item, at)
        self.empty[at].append(after)
        return after

    def characters(self, op: str, value: Any) -> frozenset[str]:
        if op == "ANY":
            return frozenset(c for c in ALPHABET if self.flags & re.DOTALL or c != "\n")
        items = value if op == "IN" else [(op, value)]
        negated = any(str(kind) == "NEGATE" for kind, _value in items)
        ignores_case = bool(self.flags & re.IGNORECASE)
        found = frozenset().union(*(fitting(str(k), v, ignores_case) for k, v in items))
        return frozenset(ALPHABET) - found if negated else found

    def close(self) -> None:
        """Remove the empty transitions."""
        closed = []
        for state in range(len(self.edges)):
            reached, todo = {state}, [state]
            while todo:
                new = set(self.empty[todo.pop()]) - reached
                reached |= new
                todo += new
            # Two ways to one state that read the same are two edges: that is ambiguity too.
            closed.append([edge for each in reached for edge in self.edges[each]])
        self.edges = closed

    def reachable(self, start: int) -> set[int]:
        found: set[int] = set()
        todo = [start]
        while todo:
            for _chars, state in self.edges[todo.pop()]:
                if state not in found:
                    found.add(state)
                    todo.append(state)
        return found

    def ambiguous(self) -> bool:
        """Return whether two loops p and q read one word as p to p, p to q and q to q."""
        after = {state: self.reachable(state) for state in range(len(self.edges))}
        loops = {state for state in after if state in after[state]} & (
            after[self.start] | {self.start}
        )
        return any(
            self._shares_word(p, q, after) for p in loops for q in loops & after[p] if p != q
        )

    def _shares_word(self, p: int, q: int, after: dict[int, set[int]]) -> bool:
        todo, seen = [(p, p, q)], set()
        while todo:
            first, second, third = todo.pop()
            for a, x in self.edges[first]:
                if p not in after[x] and x != p:
                    continue
                for b, y in self.edges[second]:
                    if (q not in after[y] and y != q) or not a & b:
                        continue
                    for c, z in self.edges[third]:
                        if (q not in after[z] and z != q) or not a & b & c:
                            continue
                        if (x, y, z) == (p, q, q):
                            return True
                        if (x, y, z) not in seen:
                            seen.add((x, y, z))
                            todo.append((x, y, z))
        return False


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages([str(PACKAGE)], "gapforge."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def patterns() -> dict[str, tuple[str | bytes, int]]:
    """Return every pattern of the program by the place that defines it."""
    found: dict[str, tuple[str | bytes, int]] = {}
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found[f"{module.__name__}.{name}"] = value.pattern, value.flags
        file = Path(module.__file__)
        if not re.search(r"\bre\.(fullmatch|match)\(", file.read_text(encoding="utf-8")):
            continue
        for node in nodes(file):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("re.fullmatch", "re.match")
                and isinstance(node.args[0], ast.Constant)
            ):
                found[f"{module.__name__}:{node.lineno}"] = node.args[0].value, 0
    for each in gc.get_objects():
        if isinstance(each, Text):
            found[f"shape {each.pattern}"] = each.pattern, 0
    return found


@pytest.mark.parametrize(
    "pattern",
    [
        r"[0-9]+(\.[0-9A-Za-z]+)*([-+~.][0-9A-Za-z.+~-]+)?",
        r"(a+)+b",
        r"(ab|a.)*c",
        r"\s*\n\s*x",
        r".*,.*",
        r"a*(?:b?)a*c",
        r"(.*?)([0-9]+\.[0-9]+)x",
    ],
)
def test_ambiguous_pattern_is_found(pattern: str) -> None:
    assert Automaton(pattern, 0).ambiguous()


@pytest.mark.parametrize(
    "pattern", [r"[0-9]+([-+~.][0-9A-Za-z.+~-]+)?", r"(ab|cd)*e", r"[a-z]+:.*", r"x{0,9}y+z*", r"a"]
)
def test_linear_pattern_is_accepted(pattern: str) -> None:
    assert not Automaton(pattern, 0).ambiguous()


def test_every_pattern_is_linear() -> None:
    found = patterns()
    assert len(found) > 80 and any(place.startswith("shape [0-9]+") for place in found)
    ambiguous = {
        place: text for place, (text, flags) in found.items() if Automaton(text, flags).ambiguous()
    }
    assert ambiguous == {}
