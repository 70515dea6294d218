"""Write the parts of help that argparse does not: verbs by place, examples and exit codes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from gapforge.base.errors import ERROR_CLASSES
from gapforge.base.i18n import _
from gapforge.base.text_layout import label_rows, width, wrap
from gapforge.cli.argument_parser import OUTPUT_FLAGS

Groups = Sequence[tuple[str, Sequence[str]]]


def overview(groups: Groups, summaries: Mapping[str, str]) -> str:
    """Return the help of ``gapforge`` without a verb. ``summaries`` are translated, by verb."""
    lines = [
        _("usage: ") + "gapforge VERB …",
        "",
        *wrap(_("Carry a GPU software stack across an air gap and build it there."), _columns()),
    ]
    options = [
        ("help VERB", _("show the arguments and examples of a verb (the same as VERB --help)")),
        *((flag, _(about)) for flag, about in OUTPUT_FLAGS.items()),
        ("--version", _("show the version and exit")),
    ]
    codes = sorted((error.exit_code, error.cause, error.meaning) for error in ERROR_CLASSES)
    sections = [
        *((_(title), [(verb, summaries[verb]) for verb in verbs]) for title, verbs in groups),
        (_("help"), options),
        (
            _("exit codes"),
            [
                ("0", _("success")),
                *((str(code), f"{_(meaning)} ({cause})") for code, cause, meaning in codes),
            ],
        ),
    ]
    label = max(width(name) for _title, rows in sections for name, _text in rows)
    for title, rows in sections:
        lines += ["", title, *label_rows(rows, _columns(), label=label)]
    return "\n".join(lines) + "\n"


def paragraph(text: str) -> str:
    """Return ``text`` with line breaks for the window."""
    return "\n".join(wrap(text, _columns()))


def epilog(text: str | None, examples: Sequence[str]) -> str:
    """Return a verb's epilog: its own text, if any, and its examples."""
    own = [paragraph(text), ""] if text else []
    return "\n".join([*own, _("examples:"), *(f"  {example}" for example in examples)])


def _columns() -> int:
    return max(40, min(100, shutil.get_terminal_size().columns))
