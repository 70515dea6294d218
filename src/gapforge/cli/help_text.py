"""Write the parts of help that argparse does not: verbs by place, examples and exit codes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from gapforge.base.errors import ERROR_CLASSES
from gapforge.base.i18n import _
from gapforge.base.text import NARROW, pad, width, wrap
from gapforge.cli.argument_parser import OUTPUT_FLAGS

Groups = Sequence[tuple[str, Sequence[str]]]


def overview(groups: Groups, summaries: Mapping[str, str]) -> str:
    """Return the help of ``gapforge`` without a verb. ``summaries`` are translated, by verb."""
    lines = [
        _("usage: ") + "gapforge VERB …",
        "",
        *wrap(_("Carry a GPU software stack across an air gap and build it there."), _columns()),
    ]
    for title, verbs in groups:
        lines += ["", _(title), *_rows([(verb, summaries[verb]) for verb in verbs])]
    options = [
        ("help VERB", _("show the arguments and examples of a verb (the same as VERB --help)")),
        *((flag, _(about)) for flag, about in OUTPUT_FLAGS.items()),
        ("--version", _("show the version and exit")),
    ]
    lines += ["", _("help"), *_rows(options)]
    codes = sorted((error.exit_code, error.cause, error.meaning) for error in ERROR_CLASSES)
    lines += ["", _("exit codes"), *_rows([("0", _("success"))])]
    lines += _rows([(str(code), f"{_(meaning)} ({cause})") for code, cause, meaning in codes])
    return "\n".join(lines) + "\n"


def paragraph(text: str) -> str:
    """Return ``text`` with line breaks for the window."""
    return "\n".join(wrap(text, _columns()))


def epilog(text: str | None, examples: Sequence[str]) -> str:
    """Return a verb's epilog: its own text, if any, and its examples."""
    own = [paragraph(text), ""] if text else []
    return "\n".join([*own, _("examples:"), *(f"  {example}" for example in examples)])


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return names and their descriptions as two columns, or as blocks in a narrow window."""
    columns, indent = _columns(), 14
    lines = []
    for name, text in rows:
        if columns < NARROW:
            lines += [f"  {name}", *(f"      {line}" for line in wrap(text, columns - 6))]
            continue
        first, *others = wrap(text, columns - indent)
        lines.append(pad(f"  {name}", indent) + first if width(name) < 12 else f"  {name}\n{first}")
        lines += [" " * indent + line for line in others]
    return lines


def _columns() -> int:
    return max(40, min(100, shutil.get_terminal_size().columns))
