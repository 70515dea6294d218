"""How many sticks of which size a bundle takes, before anybody has bought or plugged in one."""

from __future__ import annotations

from gapforge.bundle.pack import beside
from gapforge.bundle.volume_plan import Plan

SIZES = tuple(
    gigabytes * 10**9 for gigabytes in (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
)  # bytes, as sold
_USABLE = 0.97  # of a stick; the rest is its file system


def sticks(plan: Plan) -> list[tuple[int, int]]:
    """(size of a stick, how many of them) for each usual size that holds the largest volume, down to one stick."""
    found: list[tuple[int, int]] = []
    sizes = [plan.size(number) for number in range(1, len(plan.volumes) + 1)]
    for size in SIZES:
        room = int(size * _USABLE) - beside(plan)
        if max(sizes) > room:
            continue
        if not found or found[-1][1] > 1:
            found.append((size, _count(sizes, room)))
    return found


def _count(sizes: list[int], room: int) -> int:
    """Sticks with ``room`` bytes each, filled by volumes in their order: each goes to the first that has room."""
    left: list[int] = []
    for size in sizes:
        for number, free in enumerate(left):
            if size <= free:
                left[number] -= size
                break
        else:
            left.append(room - size)
    return len(left)
