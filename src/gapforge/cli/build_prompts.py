"""The six questions of the build driver at a terminal: numbered choices, a default, back, quit, nothing half-done.

What may be chosen and what the choices make is in ``gapforge.wizard``; here is only the conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TextIO

from gapforge.base.errors import Interrupted, LockError, PresetError
from gapforge.base.i18n import _, localized
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import pad, width
from gapforge.compat import catalog as catalogs
from gapforge.compat.catalog import Catalog
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.preset import Preset
from gapforge.model.preset_status import Readiness, readiness_of
from gapforge.model.schema import nearest
from gapforge.model.to_resolve import counts, list_to_resolve
from gapforge.store import download_preview, known_sizes
from gapforge.store.known_sizes import KnownSizes
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
from gapforge.wizard.compose_preset import apply_overrides, complete, preset_for, warnings_of

__all__ = ["Choices", "apply_overrides", "ask", "preset_for"]

MANUAL = "manual"
STEPS = ("preset", "base", "python", "torch", "tensorrt", "type")
_REFERENCE = "ubuntu22.04-cuda11.8-torch2.1"


class _Back(Exception):
    """The user wants the question before."""


@dataclass
class _Talk:
    """One conversation: where it reads and writes, and what it has found out."""

    project: Project
    stdin: TextIO
    stdout: TextIO
    catalog: Catalog
    presets: dict[str, Preset]
    broken: list[str]
    ready: dict[str, Readiness]
    holdings: KnownSizes
    answers: dict[str, str] = field(default_factory=dict)

    def say(self, line: str = "") -> None:
        self.stdout.write(line + "\n")
        self.stdout.flush()


def ask(project: Project, given: Choices, *, stdin: TextIO, stdout: TextIO) -> Choices:
    """Ask what ``given`` leaves open and return the answers: a preset's name, the type, and the overrides given.

    In manual mode the answers become a preset file, which the result names; the other answers are then None.
    Raises Interrupted when the user quits or the input ends; nothing is written then.
    """
    talk = _open(project, stdin, stdout)
    try:
        return _converse(talk, given)
    except (KeyboardInterrupt, EOFError):
        talk.say()
        raise Interrupted(_("stopped; nothing was changed"), hint="python3 build.py") from None


def _open(project: Project, stdin: TextIO, stdout: TextIO) -> _Talk:
    known: dict[str, Preset] = {}
    broken: list[str] = []
    for name in presets.names(project.presets):
        try:
            known[name] = presets.load(project.preset_file(name))
        except PresetError:
            broken.append(name)
    ready = {name: readiness_of(project, preset) for name, preset in known.items()}
    return _Talk(
        project,
        stdin,
        stdout,
        catalogs.load(project.catalog),
        known,
        broken,
        ready,
        known_sizes.read_known_sizes(project),
    )


def _converse(talk: _Talk, given: Choices) -> Choices:
    talk.say(_("Choose the image to build. Enter takes the [default], b goes back, q quits."))
    said = {step: value for step in STEPS if (value := getattr(given, step)) is not None}
    if find_base(said.get("base", PLAIN_BASE), talk.catalog) is None:
        del said[
            "base"
        ]  # an image of the site's own: it replaces the preset's at build time, and says no CUDA
    talk.answers.update(said)
    index = 0
    history: list[int] = []  # the questions that were asked, for going back
    while index < len(STEPS):
        step = STEPS[index]
        from_preset = talk.answers.get("preset", MANUAL) != MANUAL
        if step in said or (from_preset and step in STEPS[1:5]):
            index += 1
            continue
        try:
            talk.answers[step] = _question(talk, step, index + 1, bool(history))
        except _Back:
            index = history.pop()
            for later in STEPS[index:]:
                if later not in said:
                    talk.answers.pop(later, None)
            continue
        history.append(index)
        index += 1
        if step == "preset" and talk.answers["preset"] != MANUAL:
            _show_preset(talk, talk.presets[talk.answers["preset"]])
    kind = talk.answers["type"]
    if talk.answers["preset"] != MANUAL:
        return replace(given, preset=talk.answers["preset"], type=kind)
    return _finish_manual(talk, kind)


def _finish_manual(talk: _Talk, kind: str) -> Choices:
    picked = Choices(**{step: talk.answers[step] for step in STEPS[1:5]})
    made, created = complete(talk.project, picked, talk.catalog, write=True)
    talk.say()
    if created:
        talk.say(_("Made a preset of your choices: {created}", created=created))
    else:
        talk.say(_("A preset of these choices exists: {name}", name=made.name))
    for line in warnings_of(made, talk.catalog):
        talk.say(_("warning: ") + line)
    state = readiness_of(talk.project, made)
    if not state.ready:
        _say_download(talk, made)
        talk.say(_sync_first(made.name))
    return Choices(preset=made.name, type=kind)


def _question(talk: _Talk, step: str, number: int, can_go_back: bool) -> str:
    title, options = _options(talk, step)
    talk.say()
    talk.say(f"[{number}/{len(STEPS)}] {title}")
    for line in table(options):
        talk.say(line)
    if step == "preset":
        for name in talk.broken:
            talk.say(_("   !  {name}: the preset has faults; ./gapforge check {name}", name=name))
    default = next(i for i, option in enumerate(options, 1) if option.default)
    while True:
        talk.stdout.write(_("choice [{default}]: ", default=default))
        talk.stdout.flush()
        line = talk.stdin.readline()
        if not line:
            raise EOFError
        word = line.strip()
        if word.lower() in ("q", "quit", "exit"):
            raise EOFError
        if word.lower() in ("b", "back"):
            if can_go_back:
                raise _Back
            talk.say(_("   This is the first question; there is nothing to go back to."))
            continue
        chosen = pick(options, word)
        if chosen is not None:
            return chosen.value
        close = nearest(word, [option.value for option in options])
        talk.say(
            _(
                '   "{word}" is not a choice{close}. Type a number from 1 to {count}, or '
                "the value; Enter takes {default}, b goes back, q quits.",
                word=_plain(word),
                close=close,
                count=len(options),
                default=default,
            )
        )


def pick(options: Sequence[MenuItem], word: str) -> MenuItem | None:
    """The option that the user's word means: a number, a value, or the default for nothing; None for nonsense."""
    if not word:
        return next((option for option in options if option.default), None)
    if word.isascii() and word.isdigit() and 1 <= int(word[:6]) <= len(options):
        return options[int(word) - 1]
    return next((option for option in options if word.lower() == option.value.lower()), None)


def table(options: Sequence[MenuItem]) -> list[str]:
    """The numbered lines, columns aligned by terminal width; ``*`` marks the default."""
    column = max((width(option.label) for option in options), default=0)
    lines = []
    for number, option in enumerate(options, 1):
        mark = "*" if option.default else " "
        lines.append(f" {mark} {number:>2}) {pad(option.label, column)}  {option.note}".rstrip())
    return lines


def _options(talk: _Talk, step: str) -> tuple[str, list[MenuItem]]:
    answers, catalog = talk.answers, talk.catalog
    if step == "preset":
        return _("Preset, or choose by hand"), _preset_options(talk)
    if step == "type":
        return _("Kind of image"), type_menu()
    if step == "base":
        return _("Base image (CUDA/cuDNN)"), base_menu(catalog, talk.holdings)
    base = find_base(answers.get("base", PLAIN_BASE), catalog) or Base(
        PLAIN_BASE, PLAIN_BASE, "", ""
    )
    if step == "python":
        return "Python", python_menu(base, catalog)
    if step == "torch":
        return "PyTorch", torch_menu(base, answers["python"], catalog, talk.holdings)
    return _("TensorRT, or none"), tensorrt_menu(base, answers["python"], catalog, talk.holdings)


def _preset_options(talk: _Talk) -> list[MenuItem]:
    names = sorted(talk.presets, key=lambda n: (talk.presets[n].practice, n))
    ready = [n for n in names if talk.ready[n].ready]
    default = (ready or [n for n in names if n == _REFERENCE] or names or [MANUAL])[0]
    states = {name: _state(talk.ready[name]) for name in names}
    column = max((width(state) for state in states.values()), default=0)
    options = []
    for name in names:
        preset = talk.presets[name]
        summary = localized(ko=preset.summary_ko, en=preset.summary_en)
        options.append(
            MenuItem(name, name, f"{pad(states[name], column)}  {summary}", name == default)
        )
    about = _("base image, Python, PyTorch, TensorRT one by one")
    options.append(MenuItem(MANUAL, _("by hand"), f"{pad('', column)}  {about}", default == MANUAL))
    return options


def _state(ready: Readiness) -> str:
    return f"{ready.label} {human_bytes(ready.size)}" if ready.size else ready.label


def _show_preset(talk: _Talk, preset: Preset) -> None:
    """The answers that the preset gives to questions 2 to 5, and whether it can be built here now."""
    trt = f"{preset.tensorrt.version} ({preset.tensorrt.form})" if preset.tensorrt else _("none")
    torch = preset.pytorch.torch if preset.pytorch else _("none")
    rows = [
        (_("base image"), preset.builder.label),
        ("Python", preset.python),
        ("PyTorch", torch),
        ("TensorRT", trt),
    ]
    column = max(width(name) for name, _unused in rows)
    for name, value in rows:
        talk.say(f"      {pad(name, column)}  {value}")
    state = talk.ready[preset.name]
    if not state.ready:
        if state.missing:
            talk.say(
                _(
                    "   {count} of {files} files are missing or have another size (such "
                    "as {missing}).",
                    count=len(state.missing),
                    files=state.files,
                    missing=state.missing[0],
                )
            )
        _say_download(talk, preset)
        talk.say(_sync_first(preset.name))


def _say_download(talk: _Talk, preset: Preset) -> None:
    """What a sync of the preset would add to the store, as far as it is known without the network."""
    file = talk.project.lock_file(preset.name)
    lock = None
    if file.exists():
        try:
            lock = locks.load(file)
        except LockError:
            lock = None
    if lock is not None and lock.preset_sha256 == preset.sha256:
        shown = download_preview.of_lock(preset, lock, talk.holdings.store)
    else:
        shown = download_preview.of_preset(preset, talk.holdings)
    have, missing = human_bytes(shown.total - shown.missing), human_bytes(shown.missing)
    if shown.exact:
        talk.say(
            _(
                "   To download: {missing}; already in the store: {have}.",
                missing=missing,
                have=have,
            )
        )
    else:
        left = counts(list_to_resolve(preset, lock if shown.locked else None))
        talk.say(
            _(
                "   To download: at least {missing}; already in the store: {have}. Of "
                "unknown size: {count} ({left}, …).",
                missing=missing,
                have=have,
                count=len(shown.unknown),
                left=left,
            )
        )


def _sync_first(name: str) -> str:
    return _(
        "   It cannot be built here yet. First, where there is a network: ./deps_sync.sh "
        "{name}\n   then carry artifacts/{name}/ to this machine.",
        name=name,
    )


def _plain(word: str) -> str:
    """What the user typed, short and without control characters."""
    return "".join(char for char in word if char.isprintable())[:40]
