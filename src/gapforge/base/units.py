"""Write sizes and times in units that people read."""

from __future__ import annotations

from gapforge.base.i18n import _

HOUR, DAY = 3600, 86_400  # seconds


def human_bytes(count: float) -> str:
    """Return a number of bytes as "1.5 GB", in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def human_time(seconds: float) -> str:
    """Return seconds as "45 s", "3 min 05 s" or "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return _("{seconds} s", seconds=whole)
    if whole < HOUR:
        return _("{minutes} min {seconds:02} s", minutes=whole // 60, seconds=whole % 60)
    hours, minutes = whole // HOUR, whole % HOUR // 60
    return _("{hours} h {minutes:02} min", hours=hours, minutes=minutes)
