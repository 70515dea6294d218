"""Why a file of a carrier cannot be read, in words for a person."""

from __future__ import annotations

from gapforge.bundle.volume import Damaged
from gapforge.core.files import is_gone
from gapforge.core.foreign import unreadable
from gapforge.core.text import tr


def why_unreadable(error: Damaged | OSError) -> str:
    """What is wrong, without the file's name: what a Damaged says, or the system, or that the carrier is gone."""
    if isinstance(error, Damaged):
        return str(error)
    if is_gone(error):
        return tr("디스크가 사라짐", "the disk is gone")
    return unreadable(error)
