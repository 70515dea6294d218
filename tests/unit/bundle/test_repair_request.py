"""A repair request has one form, and asks for the right bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import BundleError
from gapforge.base.files import sha256_bytes
from gapforge.bundle.bundle_index import VolumeEntry, index_name, render_index
from gapforge.bundle.repair_request import RepairRequest, merge_parts, read_request, requested_parts
from gapforge.bundle.volume_format import FORMAT, BundledPreset, Part, compact_json
from gapforge.bundle.volume_plan import Plan, make_plan
from raised_errors import assert_error, values_of

ONE, TWO = "a" * 64, "b" * 64
PRESET = BundledPreset("p", "1" * 64, "2" * 64)
BUNDLE = "ab" * 12


def request(**changes: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "request": "repair",
        "bundle": BUNDLE,
        "volumes": [1, 999_999],
        "objects": [[ONE, 5], [TWO, 100, 10, 20]],
        "views": [PRESET.to_json()],
        "tool": "7" * 64,
        **changes,
    }


def test_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    expected = RepairRequest(
        bundle=BUNDLE,
        parts=(Part.of_object(ONE, 5), Part(TWO, 100, 10, 20)),
        volumes=(1, 999_999),
        presets=(PRESET,),
        tool="7" * 64,
    )
    assert expected.file == f"repair-{BUNDLE}.json"
    file = tmp_path / expected.file
    file.write_bytes(expected.render())
    assert json.loads(file.read_bytes()) == request()
    assert read_request(file) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"format": FORMAT + 1},
        {"format": FORMAT - 1},
        {"request": "inventory"},
        {"request": "sepair"},
        {"more": 1},
        {"bundle": "x"},
        {"volumes": {}},
        {"volumes": [0]},
        {"volumes": [1_000_000]},
        {"objects": {}},
        {"objects": [[TWO, 1], [ONE, 1]]},
        {"objects": [[ONE]]},
        {"views": {}},
        {"tool": "x"},
    ],
)
def test_request_in_another_form_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "r.json"
    raw = request()
    missing = {key: value for key, value in raw.items() if key not in change}
    for document in ({**raw, **change}, *([missing] if missing != raw else []), [raw]):
        file.write_bytes(compact_json(document))
        with pytest.raises(BundleError) as caught:
            read_request(file)
        assert_error(caught.value, BundleError, path=file)
    with pytest.raises(BundleError) as caught:
        read_request(tmp_path / "absent")
    assert set(values_of(caught.value.message)) == {"path", "why"}


def index_in(folder: Path, plan: Plan, name: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    entries = [VolumeEntry(number, plan.size(number), "6" * 64) for number in plan.numbers]
    file = folder / (name or index_name(plan.bundle))
    file.write_bytes(render_index(plan, entries))
    return file


def made_plan() -> Plan:
    parts = [Part.of_object(sha256_bytes(bytes([n])), 900) for n in range(3)]
    plan = make_plan(parts, [PRESET], 2200, tool="7" * 64)
    assert len(plan.volumes) == 3
    return plan


def test_known_parts_need_no_index() -> None:
    wanted = RepairRequest(
        bundle=BUNDLE,
        parts=(Part(TWO, 100, 0, 10), Part(TWO, 100, 10, 20)),
        presets=(PRESET,),
        tool="7" * 64,
    )
    assert requested_parts(wanted, []) == ([Part(TWO, 100, 0, 30)], (PRESET,), "7" * 64)


def test_index_tells_what_a_volume_contains(tmp_path: Path) -> None:
    plan = made_plan()
    damaged, good = tmp_path / "damaged", tmp_path / "good"
    index_in(damaged, plan).write_bytes(b"{")
    index_in(good, plan)
    folders = [tmp_path / "absent", damaged, good]
    wanted = RepairRequest(bundle=plan.bundle, volumes=(1, 3), parts=(Part.of_object(ONE, 5),))
    expected = merge_parts([*plan.volumes[0], *plan.volumes[2], Part.of_object(ONE, 5)])
    assert requested_parts(wanted, folders) == (expected, plan.presets, plan.tool)
    # A request of earlier versions does not name the presets.
    without = RepairRequest(bundle=plan.bundle, parts=(Part.of_object(ONE, 5),))
    assert requested_parts(without, folders) == ([Part.of_object(ONE, 5)], plan.presets, plan.tool)
    for asks in (wanted, without):
        with pytest.raises(BundleError) as caught:
            requested_parts(asks, [damaged])
        index = index_name(plan.bundle)
        assert_error(caught.value, BundleError, bundle=plan.bundle, index=index)
        assert values_of(caught.value.hint) == {"index": index}
    beyond = RepairRequest(bundle=plan.bundle, volumes=(4,))
    with pytest.raises(BundleError) as caught:
        requested_parts(beyond, folders)
    assert_error(caught.value, BundleError, number=4, bundle=plan.bundle, count=3)


def test_merged_parts_neither_overlap_nor_touch() -> None:
    def parts(*ranges: tuple[int, int], sha256: str = ONE, size: int = 100) -> list[Part]:
        return [Part(sha256, size, start, end - start) for start, end in ranges]

    assert merge_parts([]) == []
    assert merge_parts(parts((0, 10), (10, 20), (21, 30))) == parts((0, 20), (21, 30))
    assert merge_parts(parts((5, 50), (10, 20), (0, 5), (5, 50))) == parts((0, 50))
    assert merge_parts(parts((0, 10), (5, 20))) == parts((0, 20))
    other = parts((10, 20), sha256=TWO) + parts((10, 20), size=101)
    assert merge_parts([*other, *parts((0, 10))]) == sorted([*parts((0, 10)), *other])
    touching = parts((0, 10), (10, 20), sha256=TWO)
    assert merge_parts([*parts((0, 5)), *touching]) == [*parts((0, 5)), *parts((0, 20), sha256=TWO)]
    whole = Part.of_object(ONE, 100)
    assert merge_parts(parts((40, 100), (0, 40))) == [whole]
    assert merge_parts([Part.of_object(ONE, 0), Part.of_object(TWO, 0)]) == [
        Part.of_object(ONE, 0),
        Part.of_object(TWO, 0),
    ]
