"""Write custody pages for the verbs ``pack`` and ``unpack``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gapforge.base.errors import GapforgeError, UsageError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import os_reason
from gapforge.base.text_layout import printable
from gapforge.base.write_files import remove_file, remove_litter, write_bytes, write_text
from gapforge.bundle.companion_files import page_name
from gapforge.bundle.custody_page import Custody, keep_page, render
from gapforge.cli import environment_defaults
from gapforge.cli.output import warn
from gapforge.trust import ssh_signatures
from gapforge.trust.ssh_signatures import CUSTODY, SUFFIX, SigningKey

_LONGEST = 120  # characters of a name


def add_operator(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--operator``."""
    parser.add_argument("--operator", metavar="NAME", help=_("your name, for the custody page"))


def operator_of(args: argparse.Namespace) -> str:
    """Return the operator's name or "". Raise UsageError if it could forge lines of a page."""
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
    """Write the page into dist/custody and the folders ``beside``, and return its paths in order.

    With ``key`` its signature is written beside it, so that a site can verify the page, and with
    the page the receiver program, before it runs anything. A failure is only a warning: it does not
    undo the pack or the import.
    """
    text, written = render(facts), []
    signature = b""

    def attempt(place: Path, write: Callable[[], Path]) -> None:
        try:
            written.append(write())
        except GapforgeError as error:
            warn(_("the custody page was not written: {reason}", reason=error.message))
        except OSError as error:
            reason = f"{place}: {os_reason(error)}"
            warn(_("the custody page was not written: {reason}", reason=reason))

    def write_beside(folder: Path) -> Path:
        target = folder / page_name(facts.bundle)
        remove_litter(target)
        signature_file = target.with_name(target.name + SUFFIX)
        remove_file(signature_file)  # it may be of an earlier page
        write_text(target, text)
        if signature:
            write_bytes(signature_file, signature)
        return target

    attempt(
        project.dist, lambda: keep_page(project, facts.action, facts.bundle, facts.moment, text)
    )
    if key is not None:
        try:
            signature = ssh_signatures.sign(key, CUSTODY, [text.encode()])[0]
        except GapforgeError as error:
            warn(_("the custody page was not signed: {reason}", reason=error.message))
    for folder in beside:
        attempt(folder, partial(write_beside, folder))
    return written
