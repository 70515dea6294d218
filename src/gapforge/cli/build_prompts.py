"""Ask the six questions of the build driver at a terminal.

The options and the preset that is made of the answers are in ``gapforge.wizard``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TextIO

from gapforge.base.errors import Interrupted, PresetError
from gapforge.base.i18n import _, localized
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import pad, width
from gapforge.model import catalog as catalogs
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset
from gapforge.model.preset_status import Readiness, readiness_of
from gapforge.model.schema import nearest
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
from gapforge.wizard.compose_preset import complete, warnings_of

MANUAL = "manual"
STEPS = ("preset", "base", "python", "torch", "tensorrt", "type")
_REFERENCE = "ubuntu22.04-cuda11.8-torch2.1"


class _Back(Exception):
    """The user wants the previous question."""


@dataclass(kw_only=True)
class _Dialog:
    """The streams, the facts and the answers of one series of questions."""

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
    """Ask the questions that ``given`` does not answer, and return the choices.

    In manual mode the answers become a preset file, and the result has only its name and the type.
    Raises Interrupted when the user quits or the input ends. Nothing is written then.
    """
    dialog = _open(project, stdin, stdout)
    try:
        return _ask_all(dialog, given)
    except (KeyboardInterrupt, EOFError):
        dialog.say()
        raise Interrupted(_("stopped; nothing was changed"), hint="python3 build.py") from None


def _open(project: Project, stdin: TextIO, stdout: TextIO) -> _Dialog:
    known: dict[str, Preset] = {}
    broken: list[str] = []
    for name in presets.names(project.presets):
        try:
            known[name] = presets.load(project.preset_file(name))
        except PresetError:
            broken.append(name)
    ready = {name: readiness_of(project, preset) for name, preset in known.items()}
    return _Dialog(
        project=project,
        stdin=stdin,
        stdout=stdout,
        catalog=catalogs.load(project.catalog),
        presets=known,
        broken=broken,
        ready=ready,
        holdings=known_sizes.read_known_sizes(project),
    )


def _ask_all(dialog: _Dialog, given: Choices) -> Choices:
    dialog.say(_("Choose the image to build. Enter takes the [default], b goes back, q quits."))
    fixed = {step: value for step in STEPS if (value := getattr(given, step)) is not None}
    if find_base(fixed.get("base", PLAIN_BASE), dialog.catalog) is None:
        # An image of the site replaces the base image at build time. Its CUDA version is unknown.
        del fixed["base"]
    dialog.answers.update(fixed)
    index = 0
    history: list[int] = []  # the questions that were asked, for going back
    while index < len(STEPS):
        step = STEPS[index]
        from_preset = dialog.answers.get("preset", MANUAL) != MANUAL
        if step in fixed or (from_preset and step in STEPS[1:5]):
            index += 1
            continue
        try:
            dialog.answers[step] = _question(dialog, step, index + 1, bool(history))
        except _Back:
            index = history.pop()
            for later in STEPS[index:]:
                if later not in fixed:
                    dialog.answers.pop(later, None)
            continue
        history.append(index)
        index += 1
        if step == "preset" and dialog.answers["preset"] != MANUAL:
            _show_preset(dialog, dialog.presets[dialog.answers["preset"]])
    kind = dialog.answers["type"]
    if dialog.answers["preset"] != MANUAL:
        return replace(given, preset=dialog.answers["preset"], type=kind)
    return _finish_manual(dialog, kind)


def _finish_manual(dialog: _Dialog, kind: str) -> Choices:
    picked = Choices(**{step: dialog.answers[step] for step in STEPS[1:5]})
    preset, created = complete(dialog.project, picked, dialog.catalog, write=True)
    dialog.say()
    if created:
        dialog.say(_("Created a preset from your choices: {file}", file=created))
    else:
        dialog.say(_("A preset with these choices exists: {preset}", preset=preset.name))
    for line in warnings_of(preset, dialog.catalog):
        dialog.say(_("warning: ") + line)
    if not readiness_of(dialog.project, preset).ready:
        _show_download(dialog, preset)
    return Choices(preset=preset.name, type=kind)


def _question(dialog: _Dialog, step: str, number: int, can_go_back: bool) -> str:
    title, options = _options(dialog, step)
    dialog.say()
    dialog.say(f"[{number}/{len(STEPS)}] {title}")
    for line in table(options):
        dialog.say(line)
    if step == "preset":
        for name in dialog.broken:
            dialog.say(_("   !  {preset}: faulty; ./gapforge check {preset!q}", preset=name))
    default = next(i for i, option in enumerate(options, 1) if option.default)
    while True:
        dialog.stdout.write(_("choice [{number}]: ", number=default))
        dialog.stdout.flush()
        line = dialog.stdin.readline()
        if not line:
            raise EOFError
        word = line.strip()
        if word.lower() in ("q", "quit", "exit"):
            raise EOFError
        if word.lower() in ("b", "back"):
            if can_go_back:
                raise _Back
            dialog.say(_("   This is the first question."))
            continue
        chosen = pick(options, word)
        if chosen is not None:
            return chosen.value
        close = nearest(word, [option.value for option in options])
        dialog.say(
            _(
                '   "{word}" is not an option{nearest}. Type a number from 1 to {count} or the '
                "value; Enter takes {default}, b goes back, q quits.",
                word="".join(filter(str.isprintable, word))[:40],
                nearest=close,
                count=len(options),
                default=default,
            )
        )


def pick(options: Sequence[MenuItem], word: str) -> MenuItem | None:
    """Return the option with this number or value, the default for an empty word, or None."""
    if not word:
        return next((option for option in options if option.default), None)
    if word.isascii() and word.isdigit() and 1 <= int(word[:6]) <= len(options):
        return options[int(word) - 1]
    return next((option for option in options if word.lower() == option.value.lower()), None)


def table(options: Sequence[MenuItem]) -> list[str]:
    """Return the options as numbered lines with aligned columns. ``*`` marks the default."""
    column = max((width(option.label) for option in options), default=0)
    lines = []
    for number, option in enumerate(options, 1):
        mark = "*" if option.default else " "
        lines.append(f" {mark} {number:>2}) {pad(option.label, column)}  {option.note}".rstrip())
    return lines


def _options(dialog: _Dialog, step: str) -> tuple[str, list[MenuItem]]:
    answers, catalog = dialog.answers, dialog.catalog
    if step == "preset":
        return _("Preset, or choose manually"), _preset_options(dialog)
    if step == "type":
        return _("Type of image"), type_menu()
    if step == "base":
        return _("Base image (CUDA/cuDNN)"), base_menu(catalog, dialog.holdings)
    base = find_base(answers.get("base", PLAIN_BASE), catalog) or Base(
        PLAIN_BASE, PLAIN_BASE, "", ""
    )
    if step == "python":
        return "Python", python_menu(base, catalog)
    if step == "torch":
        return "PyTorch", torch_menu(base, answers["python"], catalog, dialog.holdings)
    return _("TensorRT, or none"), tensorrt_menu(base, answers["python"], catalog, dialog.holdings)


def _preset_options(dialog: _Dialog) -> list[MenuItem]:
    names = sorted(dialog.presets, key=lambda n: (dialog.presets[n].practice, n))
    ready = [n for n in names if dialog.ready[n].ready]
    default = (ready or [n for n in names if n == _REFERENCE] or names or [MANUAL])[0]
    states = {name: _state(dialog, name) for name in names}
    column = max((width(state) for state in states.values()), default=0)
    options = []
    for name in names:
        preset = dialog.presets[name]
        summary = localized(ko=preset.summary_ko, en=preset.summary_en)
        options.append(
            MenuItem(name, name, f"{pad(states[name], column)}  {summary}", name == default)
        )
    about = _("base image, Python, PyTorch, TensorRT one by one")
    options.append(MenuItem(MANUAL, _("manual"), f"{pad('', column)}  {about}", default == MANUAL))
    return options


def _state(dialog: _Dialog, name: str) -> str:
    ready = dialog.ready[name]
    size = download_preview.size_text(dialog.project, dialog.presets[name], ready, dialog.holdings)
    return f"{ready.label} {size}".rstrip()


def _show_preset(dialog: _Dialog, preset: Preset) -> None:
    """Show the preset's answers to questions 2 to 5 and whether it can be built here."""
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
        dialog.say(f"      {pad(name, column)}  {value}")
    state = dialog.ready[preset.name]
    if not state.ready:
        if state.missing:
            dialog.say(
                _(
                    "   {count} of {total} files are missing or have the wrong size (such as "
                    "{example}).",
                    count=len(state.missing),
                    total=state.files,
                    example=state.missing[0],
                )
            )
        _show_download(dialog, preset)


def _show_download(dialog: _Dialog, preset: Preset) -> None:
    """Show the known size of what a sync would download, and the command for it."""
    # An unreadable lock counts as none.
    lock = locks.load_matching(dialog.project.lock_file(preset.name), preset, update=True)
    preview = download_preview.preview(preset, lock, dialog.holdings)
    sizes = {
        "missing": preview.amount(preview.missing),
        "present": human_bytes(preview.total - preview.missing),
    }
    dialog.say(_("   To download: {missing}; already in the store: {present}.", **sizes))
    if unknown := preview.what_is_unknown:
        dialog.say(_("   Of unknown size: {items}.", items=unknown))
    dialog.say(
        _(
            "   It cannot be built here yet. First, on a machine with a network: ./deps_sync.sh "
            "{preset!q}\n   Then carry artifacts/{preset}/ to this machine.",
            preset=preset.name,
        )
    )
