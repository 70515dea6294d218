"""Decide what the build driver asks next, what it skips and why, and what the answers make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import _, localized
from gapforge.base.process import quoted
from gapforge.base.units import human_bytes
from gapforge.doctor.check_result import FAIL, OK, WARN, CheckResult
from gapforge.model.preset import Preset
from gapforge.model.preset_status import Readiness
from gapforge.store import download_preview
from gapforge.wizard.choices import (
    PLAIN_BASE,
    Base,
    Choices,
    MenuItem,
    base_menu,
    find_base,
    python_menu,
    tensorrt_menu,
    torch_menu,
    type_menu,
)
from gapforge.wizard.compose_preset import Composed, warnings_of
from gapforge.wizard.facts import Facts, download_rows, lacking_text, next_commands, time_text

MANUAL = "manual"
STEPS = ("preset", "base", "python", "torch", "tensorrt", "type")
CONFIRM = "confirm"
BUILD, WRITE, END, STOP = "build", "write", "end", "stop"  # answers to the last question
_REFERENCE = "ubuntu22.04-cuda11.8-torch2.1"


@dataclass(frozen=True)
class Notice:
    """A problem, what to do about it ("" for nothing), and whether a build would fail of it."""

    problem: str
    action: str = ""
    fails: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question, and what is known before its answer.

    ``rows`` are labels and texts.

    ``command`` holds the words of the command that does the same without questions, if it is known.
    """

    step: str
    title: str
    items: tuple[MenuItem, ...]
    number: int = 0
    rows: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    can_go_back: bool = False

    @property
    def heading(self) -> str:
        """Return the title with its number, if it has one."""
        return f"[{self.number}/{len(STEPS)}] {self.title}" if self.number else self.title

    @property
    def default(self) -> int:
        """Return the index of the default item."""
        return next((i for i, item in enumerate(self.items) if item.default), 0)


class Questions:
    """The series of questions: the answers that were typed decide everything else.

    ``given`` are the answers by flag, which are not asked; ``flags`` are further words for the
    command that does the same without questions.
    """

    def __init__(self, facts: Facts, given: Choices, flags: Sequence[str] = ()) -> None:
        self.facts, self.given, self.flags = facts, given, tuple(flags)
        self.fixed = {s: v for s in STEPS if (v := getattr(given, s)) is not None}
        if not facts.in_catalog(self.fixed.get("base", PLAIN_BASE)):
            # An image of the site replaces the base image at build time. Its CUDA is unknown.
            del self.fixed["base"]
        self.asked: list[tuple[str, str]] = []
        self.written = ""  # the path of the file that ``result`` has written
        self.on_look: Callable[[], None] = lambda: None  # called before this machine is checked
        self._known_composed: dict[tuple[tuple[str, str], ...], Composed] = {}
        self._known_outlook: dict[tuple[str, str], _Outlook] = {}
        self._advance()

    def answer(self, value: str) -> None:
        """Take the answer to the current question."""
        assert self.current is not None
        self.asked.append((self.current.step, value))
        self._advance()

    def back(self) -> None:
        """Ask the previous question again and forget its answer; the first one stays."""
        if self.asked:
            self.asked.pop()
        self._advance()

    def result(self) -> Choices:
        """Return the choices, and write the preset that they make after the answer ``write``."""
        composed = self._composed()
        if composed.is_new:
            composed.write(self.facts.project)
            self.written = composed.path
        kind = self.answers.get("type", "runtime")
        return Choices(preset=composed.preset.name, base=self._other_base(), type=kind)

    def _other_base(self) -> str | None:
        """Return the base image that a build uses in place of the preset's, if one was given.

        One that the catalog knows is part of a preset made by hand.
        """
        by_hand = self.answers["preset"] == MANUAL
        return None if by_hand and self.facts.in_catalog(self.given.base) else self.given.base

    @property
    def outcome(self) -> str:
        """Return the answer to the last question, "" before it."""
        return str(self.answers.get(CONFIRM, ""))

    def _advance(self) -> None:
        """Find the next question, the answers up to it, and the rows that tell them."""
        self.answers = {**self.fixed, **dict(self.asked)}
        self.rows: list[tuple[str, str]] = []
        self.current: Question | None = None
        for number, step in enumerate(STEPS, 1):
            if (skipped := self._skipped(step)) is not None:
                self.rows.append(skipped)
                continue
            title, items = self._menu(step)
            if step not in self.answers and len(items) > 1:
                broken = self.facts.broken if step == "preset" else ()
                self.current = Question(
                    step=step,
                    title=title,
                    items=tuple(items),
                    number=number,
                    rows=tuple(self.rows),
                    notices=tuple(
                        Notice(
                            _("{preset}: faulty", preset=name),
                            quoted(["./gapforge", "check", name]),
                            True,
                        )
                        for name in broken
                    ),
                    can_go_back=bool(self.asked),
                )
                return
            value = self.answers.setdefault(step, items[0].value)
            self.rows.append((_name(step), self._told(step, value, items)))
        if CONFIRM not in self.answers:
            self.current = self._confirmation()

    def _told(self, step: str, value: str, items: Sequence[MenuItem]) -> str:
        shown = next((item.label for item in items if item.value == value), value)
        if step in self.fixed:
            return _("{answer} (given)", answer=shown)
        if step not in dict(self.asked):
            return _("{answer} (the only choice)", answer=shown)
        return shown

    def _skipped(self, step: str) -> tuple[str, str] | None:
        """Return the row that tells why a step is not asked; None if it is."""
        name = self.answers.get("preset", "")
        if step in STEPS[1:5] and name and name != MANUAL:
            if given := getattr(self.given, step):
                return _name(step), _("{answer} (given)", answer=given)
            value = _part_of(self.facts.preset(name), step)
            return _name(step), _("{answer} (of the preset)", answer=value)
        if step == "type" and "type" not in self.fixed and not self._state().ready:
            return _name(step), _("asked as soon as the preset can be built here")
        return None

    def _menu(self, step: str) -> tuple[str, list[MenuItem]]:
        facts, answers = self.facts, self.answers
        if step == "preset":
            return _("Preset, or choose manually"), _preset_menu(facts)
        if step == "type":
            return _("Type of image"), type_menu()
        if step == "base":
            return _("Base image (CUDA/cuDNN)"), base_menu(facts.catalog, facts.holdings)
        base = find_base(answers.get("base", PLAIN_BASE), facts.catalog)
        base = base or Base(PLAIN_BASE, PLAIN_BASE, "", "")
        if step == "python":
            return "Python", python_menu(base, facts.catalog)
        menu, python = torch_menu if step == "torch" else tensorrt_menu, answers["python"]
        title = "PyTorch" if step == "torch" else _("TensorRT, or none")
        return title, menu(base, python, facts.catalog, facts.holdings)

    def _composed(self) -> Composed:
        """Return the preset that the answers make."""
        answers = {step: value for step, value in self.answers.items() if step in STEPS[:5]}
        key = tuple(sorted(answers.items()))
        if key not in self._known_composed:
            by_hand = answers.pop("preset") == MANUAL
            choices = replace(self.given, preset=self.answers["preset"])
            self._known_composed[key] = self.facts.composed_of(
                Choices(**answers) if by_hand else choices
            )
        return self._known_composed[key]

    def _state(self) -> Readiness:
        return self.facts.readiness(self._composed().preset)

    def command(self) -> list[str]:
        """Return the words of the command that builds the same without questions."""
        words = ["python3", "build.py", self._composed().preset.name]
        if base := self._other_base():
            words += ["--base", base]
        words += ["--type", self.answers.get("type", "runtime"), *self.flags]
        return [*words, "--non-interactive"]

    def _confirmation(self) -> Question:
        """Return the last question: what the answers make, whether it works here, and what then."""
        composed = self._composed()
        preset = composed.preset
        state = self.facts.readiness(preset)
        rows = list(self.rows)
        if self.answers["preset"] == MANUAL:
            rows[0] = (_name("preset"), preset.name)
        notices = [Notice(line) for line in warnings_of(preset, self.facts.catalog)]
        if state.ready:
            outlook = self._outlook(preset, state)
            fails = outlook.fails
            rows, notices = [*rows, *outlook.rows], [*outlook.problems, *notices]
            items = [
                MenuItem(BUILD, _("build anyway") if fails else _("build now"), "", not fails),
                MenuItem(STOP, _("stop, change nothing"), "", fails),
            ]
            title = _("Build this image?")
        else:
            rows += [
                (_("reason"), lacking_text(preset, state)),
                *download_rows(self.facts, preset),
                *((_("next"), text) for text in next_commands(preset, state)),
            ]
            title, items = _("The files of this preset are not here. What now?"), []
            if composed.is_new:
                title = _("Write this preset?")
                rows[0] = (_name("preset"), composed.path)
                items = [MenuItem(WRITE, _("write the preset and end"))]
            else:
                items = [MenuItem(END, _("end; prepare the files first"), "", True)]
            items.append(MenuItem(STOP, _("stop, change nothing"), "", composed.is_new))
        return Question(
            step=CONFIRM,
            title=title,
            items=tuple(items),
            rows=tuple(rows),
            command=tuple(self.command()),
            notices=tuple(notices),
            can_go_back=bool(self.asked),
        )

    def _outlook(self, preset: Preset, state: Readiness) -> _Outlook:
        """Look at this machine once for each preset and type."""
        kind = self.answers["type"]
        if (preset.name, kind) not in self._known_outlook:
            self.on_look()
            self._known_outlook[preset.name, kind] = _look(self.facts, preset, state, kind)
        return self._known_outlook[preset.name, kind]


@dataclass(frozen=True, kw_only=True)
class _Outlook:
    """Sizes and time of a build here, and what this machine lacks."""

    rows: tuple[tuple[str, str], ...] = ()
    problems: tuple[Notice, ...] = ()

    @property
    def fails(self) -> bool:
        return any(problem.fails for problem in self.problems)


def _look(facts: Facts, preset: Preset, state: Readiness, kind: str) -> _Outlook:
    try:
        found = facts.look(preset.name)
    except GapforgeError as error:
        return _Outlook(problems=(Notice(error.message, error.hint, True),))
    disks = (
        (c.title, _("{needed} needed, {found}", needed=c.needed, found=c.found))
        for c in found
        if c.check == "disk" and c.status == OK
    )
    return _Outlook(
        rows=(
            (_("files"), human_bytes(state.size)),
            *disks,
            (_("time"), time_text(facts, preset, kind)),
        ),
        problems=tuple(_notice(c) for status in (FAIL, WARN) for c in found if c.status == status),
    )


def _notice(check: CheckResult) -> Notice:
    return Notice(check.summary, check.action, check.status == FAIL)


def _name(step: str) -> str:
    return {
        "preset": _("preset"),
        "base": _("base image"),
        "python": "Python",
        "torch": "PyTorch",
        "tensorrt": "TensorRT",
        "type": _("image type"),
    }[step]


def _part_of(preset: Preset, step: str) -> str:
    """Return what a preset answers to one of the questions 2 to 5."""
    trt = preset.tensorrt
    return {
        "base": preset.builder.label,
        "python": preset.python,
        "torch": preset.pytorch.torch if preset.pytorch else _("none"),
        "tensorrt": f"{trt.version} ({trt.form})" if trt else _("none"),
    }[step]


def _preset_menu(facts: Facts) -> list[MenuItem]:
    """Return the presets, those that can be built here first, and the choice by hand."""
    order = sorted(
        facts.presets, key=lambda n: (not facts.ready[n].ready, facts.presets[n].practice, n)
    )
    ready = [n for n in order if facts.ready[n].ready]
    default = (ready or [n for n in order if n == _REFERENCE] or order or [MANUAL])[0]
    menu = []
    for name in order:
        preset, state = facts.presets[name], facts.ready[name]
        summary = localized(ko=preset.summary_ko, en=preset.summary_en)
        size = download_preview.size_text(facts.project, preset, state, facts.holdings)
        note = ", ".join(filter(None, (size, summary)))
        menu.append(MenuItem(name, name, note, name == default, state.label))
    about = _("base image, Python, PyTorch, TensorRT one by one; makes a new preset")
    return [*menu, MenuItem(MANUAL, _("manual"), about, default == MANUAL)]
