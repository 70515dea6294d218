"""Why a file of a carrier cannot be read, in words for a person."""

from __future__ import annotations

from gapforge.base.files import is_gone
from gapforge.base.i18n import _
from gapforge.base.system_errors import unreadable
from gapforge.bundle.volume_format import Damaged


def why_unreadable(error: Damaged | OSError) -> str:
    """What is wrong, without the file's name: what a Damaged says, or the system, or that the carrier is gone."""
    if isinstance(error, Damaged):
        return str(error)
    if is_gone(error):
        return _("the disk was removed")
    return unreadable(error)
