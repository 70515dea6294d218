"""Who carries, and the custody page of a pack or an import: for the verbs ``pack`` and ``unpack``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gapforge.base.errors import GapforgeError, UsageError
from gapforge.base.files import remove_litter, write_bytes, write_text
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import os_says
from gapforge.base.text import printable
from gapforge.bundle.companion_files import page_name
from gapforge.bundle.custody_page import Custody, keep_page, render
from gapforge.cli import environment_defaults
from gapforge.trust import ssh_signatures
from gapforge.trust.ssh_signatures import CUSTODY, SUFFIX, SigningKey

_LONGEST = 120  # characters of a name


def add_operator(parser: argparse.ArgumentParser) -> None:
    """The flag that both verbs have."""
    parser.add_argument("--operator", metavar="NAME", help=_("who does this, for the custody page"))


def operator_of(args: argparse.Namespace) -> str:
    """The operator's name, or "". Raises UsageError for one that could forge lines of a page."""
    environment_defaults.text_default(args, "--operator")
    if args.operator is None:
        return ""
    name = str(args.operator).strip()
    if not name or not name.isprintable() or len(name) > _LONGEST:
        shown = printable(name[:_LONGEST])
        raise UsageError(
            _('--operator "{shown}" cannot be a name', shown=shown),
            hint=_(
                '--operator "Kim Jiwon"; 1-{longest} characters, no control characters',
                longest=_LONGEST,
            ),
        )
    return name


def write_pages(
    project: Project, facts: Custody, beside: Iterable[Path] = (), key: SigningKey | None = None
) -> list[Path]:
    """Write the page into dist/custody and the folders ``beside``; gives where it is, the kept one first.

    With ``key`` its signature lies beside it, so that a site can check the page, and by the page the receiver, before
    it runs anything. What cannot be written is said on stderr and does not undo what was packed or imported.
    """
    text, written = render(facts), []
    signature = b""

    def attempt(place: Path, write: Callable[[], Path]) -> None:
        try:
            written.append(write())
        except (GapforgeError, OSError) as error:
            why = (
                error.message if isinstance(error, GapforgeError) else f"{place}: {os_says(error)}"
            )
            print(_("warning: the custody page was not written: {why}", why=why), file=sys.stderr)

    def write_beside(folder: Path) -> Path:
        target = folder / page_name(facts.bundle)
        remove_litter(target)
        beside_it = target.with_name(target.name + SUFFIX)
        beside_it.unlink(missing_ok=True)  # never one that signs an earlier page
        write_text(target, text)
        if signature:
            write_bytes(beside_it, signature)
        return target

    attempt(
        project.root / "dist",
        lambda: keep_page(project, facts.action, facts.bundle, facts.moment, text),
    )
    if key is not None:
        try:
            signature = ssh_signatures.sign(key, CUSTODY, [text.encode()])[0]
        except GapforgeError as error:
            print(
                _("warning: the custody page was not signed: {message}", message=error.message),
                file=sys.stderr,
            )
    for folder in beside:
        attempt(folder, partial(write_beside, folder))
    return written
