"""The custody page: same facts give the same page, no forged lines, no page is lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bundles import PRESET, RUN_ENV, Sender, sender, site_at
from fabricated_artifacts import write_lock
from gapforge.base.project import Project
from gapforge.base.text_layout import width
from gapforge.bundle import custody_facts
from gapforge.bundle.custody_page import (
    COLUMNS,
    IMPORT,
    MISSING,
    PACK,
    PRESENT,
    TRANSFERRED,
    Custody,
    Item,
    PresetFacts,
    VolumeFacts,
    keep_page,
    render,
)
from gapforge.model import lock as locks
from gapforge.model.lock import Entry
from gapforge.store.verify_artifacts import verify
from samples import ROOT

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ID = "0123456789abcdef01234567"


def item(number: int, **changes: object) -> Item:
    base = Item(
        kind="wheel",
        name=f"package-{number}",
        version="1.0",
        licence="MIT",
        size=1000 * number,
        sha256=f"{number:064x}",
        origin="index:default",
        state=TRANSFERRED,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def preset_facts(
    name: str,
    lock: str,
    items: tuple[Item, ...] | None,
    practice: bool | None = None,
    redistributable: bool | None = None,
) -> PresetFacts:
    return PresetFacts(
        name=name, lock=lock, items=items, practice=practice, redistributable=redistributable
    )


FACTS = Custody(
    action=PACK,
    bundle=ID,
    moment="2026-11-27T18:00:00Z",
    version="0.3.0",
    presets=(
        PresetFacts(
            name="train-cuda12",
            lock="a" * 64,
            items=(
                item(1),
                item(
                    2,
                    licence="NVIDIA Proprietary Software",
                    name="nvidia-cublas-cu12",
                    version="12.4.5.8",
                    size=363_438_208,
                ),
                item(
                    3,
                    kind="deb",
                    name="libc6",
                    version="2.36-9",
                    licence="",
                    origin="apt:base",
                    state=PRESENT,
                ),
                item(
                    4,
                    kind="image",
                    name="builder: blob",
                    version="",
                    licence="",
                    origin="docker.io/nvidia/cuda:12.4.1",
                ),
                item(
                    5,
                    kind="source",
                    name="opencv-contrib",
                    version="4.9.0",
                    licence="Apache-2.0",
                    first_use=True,
                    origin="https://example.org/opencv_contrib-4.9.0.tar.gz",
                ),
                item(
                    6,
                    kind="tensorrt",
                    name="tensorrt",
                    version="10.0",
                    licence="LicenseRef-NVIDIA-TensorRT-SLA",
                    gated=True,
                    origin="https://example.org/TensorRT-10.0.tar.gz",
                    state=PRESENT,
                ),
                item(7, kind="index", name="Packages", version="", licence="", origin="generated"),
                item(8, licence="", name="한글-패키지"),
            ),
            practice=False,
            redistributable=False,
        ),
        preset_facts("practice", "b" * 64, (item(1, state=PRESENT),), True, True),
        preset_facts("unknown", "c" * 64, None),
    ),
    volumes=(
        VolumeFacts(f"{ID}-0001.gfv", 4_294_967_295, "d" * 64),
        VolumeFacts(f"{ID}-0002.gfv", 123_456, "e" * 64),
    ),
    operator="김지원 (Kim Jiwon)",
    signer="release key 2026, fingerprint 3f2a",
    indexes=("f" * 64,),
    receivers=("1" * 64,),
    tool="2" * 64,
    tool_state="in this bundle",
)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_page_equals_golden_file(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    facts = (
        FACTS
        if language == "en"
        else replace(
            FACTS,
            action=IMPORT,
            signer="",
            request="repair.json",
            request_sha256="3" * 64,
            imported=7,
            imported_bytes=363_464_208,
            already=2,
            notes=("unknown: 잠금 파일과 그 밖의 객체가 누락됨",),
            receivers=("1" * 64, "4" * 64),
            volumes=(
                FACTS.volumes[0],
                replace(
                    FACTS.volumes[1],
                    trouble="the volume is damaged; missing: train-cuda12/wheels/x.whl",
                ),
                VolumeFacts(f"{ID}-0003.gfv", trouble="온전한 사본이 없음"),
            ),
        )
    )
    page = render(facts)
    assert page == (GOLDEN / f"custody.{language}.txt").read_text(encoding="utf-8")
    assert render(facts) == page
    assert [
        line for line in page.splitlines() if width(line) > COLUMNS or line != line.rstrip()
    ] == []
    assert bool(re.search("[가-힣]", page.replace("김지원", "").replace("한글-패키지", ""))) == (
        language == "ko"
    )


def test_columns_align_with_wide_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    rows = [line for line in render(FACTS).splitlines() if re.match(r"  [+=] ", line)]
    assert len(rows) == 9 and len({width(row) for row in rows}) == 1


def test_bundle_text_cannot_forge_lines() -> None:
    evil = "x\nsigner            release key 2026\x1b[2J\u202e\u2028" + "y" * 5000
    facts = replace(
        FACTS,
        signer="",
        operator=evil,
        notes=(evil,),
        request=evil,
        request_sha256="3" * 64,
        action=IMPORT,
        presets=(
            preset_facts(
                evil, "a" * 64, (item(1, name=evil, version=evil, licence=evil, origin=evil),)
            ),
        ),
        volumes=(VolumeFacts(evil, 1, "d" * 64, evil),),
    )
    page = render(facts)
    assert [line for line in page.splitlines() if line.startswith("signer")] == [
        "signer            unsigned"
    ]
    assert all(char.isprintable() or char == "\n" for char in page) and len(page) < 10_000


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"signer": ""}, "This bundle is unsigned"),
        ({"indexes": ("a" * 64, "b" * 64)}, "different copies: index of bundle"),
        ({"volumes": (VolumeFacts("x", trouble="truncated"),)}, "volumes: 1, see above"),
    ],
)
def test_attention_lists_fault(changes: dict[str, object], expected: str) -> None:
    changed = replace(FACTS, **changes)  # type: ignore[arg-type]
    assert expected not in render(FACTS) and expected in render(changed)


def attention(page: str) -> str:
    return " ".join(page.split("NEEDS ATTENTION\n")[1].split("TOTALS BY LICENCE")[0].split())


def test_attention_names_only_relevant_items() -> None:
    text = attention(render(FACTS))
    for words in (
        "redistribution: NVIDIA Proprietary Software: nvidia-cublas-cu12",
        "LicenseRef-NVIDIA-TensorRT-SLA: tensorrt",
        "without a published checksum: opencv-contrib",
        "after accepting terms: tensorrt",
        "practice: practice preset",
        "train-cuda12: FFmpeg is built as nonfree",
        "docker.io/nvidia/cuda:12.4.1: image",
        "without a stated licence: 한글-패키지",
    ):
        assert words in text
    assert "package-1" not in text and "libc6" not in text and "Packages" not in text
    calm = replace(FACTS, presets=(preset_facts("p", "a" * 64, (item(1),), False, True),))
    assert attention(render(calm)).endswith("- nothing")


def test_long_lists_are_shortened() -> None:
    many = tuple(
        item(n, licence="NVIDIA Proprietary Software", kind="deb" if n % 2 else "wheel")
        for n in range(1, 401)
    )
    page = render(replace(FACTS, presets=(preset_facts("p", "a" * 64, many, False, True),)))
    assert page.count("\n") < 900 and "and 388 more" in page
    assert attention(page).count("package-") == 12


def test_shared_file_counts_once_by_licence() -> None:
    totals = render(FACTS).split("TOTALS BY LICENCE")[1].split("CONTENTS")[0]
    assert re.search(r"^ +1 +1,000  MIT$", totals, re.MULTILINE)


def test_pages_are_never_overwritten(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "artifacts")
    paths = [
        keep_page(project, IMPORT, ID, "2026-11-27T18:00:00Z", f"page {n}\n") for n in range(3)
    ]
    assert [p.name for p in paths] == [
        f"import-{ID}-20261127T180000Z{end}.txt" for end in ("", "-2", "-3")
    ]
    assert [p.read_text() for p in paths] == ["page 0\n", "page 1\n", "page 2\n"]
    assert {p.stat().st_mode & 0o777 for p in paths} == {0o644}


# -- what pack and unpack write


def command(root: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gapforge", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**RUN_ENV, "GAPFORGE_ROOT": str(root), **env},
    )


def pages(root: Path) -> list[str]:
    return [
        path.read_text(encoding="utf-8") for path in sorted((root / "dist/custody").glob("*.txt"))
    ]


def with_origins(made: Sender) -> None:
    """Add names, licences, URLs and the reference of an image to the lock."""
    lock = made.lock()
    told = {
        "wheel": {
            "name": "numpy",
            "version": "1.26.4",
            "licence": "BSD License",
            "origin": "index:default",
        },
        "deb": {"name": "nasm", "version": "2.16.01-1", "origin": "apt:base"},
        "tensorrt": {
            "name": "tensorrt",
            "licence": "LicenseRef-X",
            "origin": "url",
            "trust": "first-use",
            "urls": ("https://user:hunter2@example.org/TensorRT.tar.gz?token=hunter2#x",),
        },
        "image": {"name": "builder", "roles": ("builder",), "origin": "image"},
    }
    entries = [replace(e, **told.get(e.kind, {})) for e in lock.entries]  # type: ignore[arg-type]
    entries = [replace(e, name="ffmpeg") if "ffmpeg" in e.path else e for e in entries]
    write_lock(made.project, replace(lock, entries=tuple(entries)))


def test_pack_and_unpack_write_pages(tmp_path: Path) -> None:
    made = sender(tmp_path)
    with_origins(made)
    shutil.copytree(ROOT / "catalog", made.project.root / "catalog")
    one, two = tmp_path / "one", tmp_path / "two"
    done = command(
        made.project.root,
        "pack",
        PRESET,
        "--to",
        str(one),
        str(two),
        "--volume-size",
        "100000",
        "--operator",
        " 김 지원 ",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    bundle = told["bundle"]
    (page,) = pages(made.project.root)
    assert [Path(p).read_text(encoding="utf-8") for p in told["custody"]] == [page] * len(
        told["custody"]
    )
    assert {Path(p).parent for p in told["custody"][1:]} >= {one, made.project.state / "bundles"}
    for words in (
        f"bundle            {bundle}",
        "operator          김 지원",
        "signer            unsigned",
        "+ numpy 1.26.4",
        "https://example.org/TensorRT.tar.gz  trusted on first use",
        "LGPL-2.1-or-later",
        f"{PRESET}: practice preset",
        "not in this bundle",
    ):
        assert words in page, words
    assert "hunter2" not in page and str(tmp_path) not in page
    index = json.loads((one / f"{bundle}.json").read_text())
    assert all(
        name in page and sha256 in page and f"{size:,} bytes" in page
        for name, size, sha256 in index["volumes"]
    )
    lock = made.lock()
    assert all(e.sha256 in page for e in lock.entries)

    site = site_at(tmp_path / "site")
    shutil.copytree(ROOT / "catalog", site.root / "catalog")
    away = (one / told["volumes"][1]["file"]).rename(tmp_path / "away")
    done = command(site.root, "unpack", str(one), "--json", GAPFORGE_OPERATOR="Lee")
    first = json.loads(done.stdout)
    assert done.returncode == 21
    (page,) = pages(site.root)
    assert (
        "operator          Lee" in page
        and "! no intact copy was seen" in page
        and "repair request: repair-" in page
    )
    assert "\n  - " in page or f"{PRESET}: the lock and other objects are missing" in page
    away.rename(one / told["volumes"][1]["file"])
    assert command(site.root, "unpack", str(one)).returncode == 0
    assert command(site.root, "unpack", str(one)).returncode == 0
    assert len(pages(site.root)) == 3 and page in pages(site.root)
    last = [p for p in pages(site.root) if p != page]
    assert any("\n  + " in p for p in last) and any(
        "\n  + " not in p and "\n  = " in p for p in last
    )
    assert all("operator          not stated" in p and "nothing" not in p for p in last)
    assert Path(first["custody"][0]).is_file()

    # verify, gc, list and inventory ignore the pages.
    assert verify(site.artifacts_of(PRESET)).ok
    assert (
        command(site.root, "gc").returncode == 0
        and "custody" not in command(site.root, "gc").stdout
    )
    assert command(site.root, "list").returncode == 0
    inventory = command(site.root, "inventory", "--output", str(tmp_path / "inventory.txt"))
    assert inventory.returncode == 0, inventory.stderr
    assert (
        command(
            made.project.root,
            "pack",
            PRESET,
            "--for",
            str(tmp_path / "inventory.txt"),
            "--to",
            str(tmp_path / "next"),
        ).returncode
        == 0
    )
    newest = next((tmp_path / "next").glob("*.custody.txt")).read_text(encoding="utf-8")
    assert "\n  = numpy" in newest and "\n  + " not in newest


def test_page_marks_missing_objects(tmp_path: Path) -> None:
    made = sender(tmp_path)
    medium = tmp_path / "medium"
    assert (
        command(
            made.project.root, "pack", PRESET, "--to", str(medium), "--volume-size", "70000"
        ).returncode
        == 0
    )
    data = {path: path.read_bytes() for path in medium.glob("*.gfv")}
    entry = made.entry("sources/ffmpeg_5.1.9.orig.tar.xz")
    content = (made.project.artifacts_of(PRESET) / entry.path).read_bytes()
    path = next(path for path, text in data.items() if content[:5000] in text)
    changed = bytearray(data[path])
    changed[data[path].index(content[:5000]) + 10] ^= 1
    path.write_bytes(changed)
    site = site_at(tmp_path / "site")
    assert command(site.root, "unpack", str(medium)).returncode == 21
    (page,) = pages(site.root)
    assert re.search(r"^  - ffmpeg_5.1.9.orig.tar.xz", page, re.MULTILINE) and "\n  + numpy" in page
    assert "! the volume is damaged; missing: " in page
    assert f"{PRESET}: 1 object is missing\n" in page


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "a\x1b[31mb", "a\u202eb", "a\u2028b", "x" * 121, "\udcff"]
)
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_unsafe_operator_name_is_rejected(tmp_path: Path, name: str, way: str) -> None:
    made = sender(tmp_path)
    words = [
        "pack",
        PRESET,
        "--to",
        str(tmp_path / "medium"),
        *([f"--operator={name}"] if way == "flag" else []),
    ]
    done = command(
        made.project.root, *words, **({"GAPFORGE_OPERATOR": name} if way == "variable" else {})
    )
    if way == "variable" and not name:
        assert done.returncode == 0  # an empty variable is not set
        return
    assert done.returncode == 2 and "--operator" in done.stderr and "\x1b" not in done.stderr
    assert not (tmp_path / "medium").exists()


def test_unwritable_page_is_only_a_warning(tmp_path: Path) -> None:
    made = sender(tmp_path)
    (made.project.root / "dist").write_text("in the way")
    done = command(made.project.root, "pack", PRESET, "--to", str(tmp_path / "medium"), "--json")
    assert done.returncode == 0 and "dist" in done.stderr
    assert (
        list((tmp_path / "medium").glob("*.custody.txt"))
        and len(json.loads(done.stdout)["custody"]) == 2
    )


def test_urls_are_shown_without_secrets() -> None:
    lock = locks.Lock(preset="p", preset_sha256="0" * 64, images={}, entries=())
    for address, shown in (
        (
            "https://user:hunter2@example.org/a.tar.gz?token=hunter2#hunter2",
            "https://example.org/a.tar.gz",
        ),
        ("http://[broken?token=hunter2", "http://[broken"),
    ):
        entry = Entry(
            kind="source", path="sources/x", sha256="0" * 64, size=1, origin="url", urls=(address,)
        )
        assert custody_facts._item(entry, lock, None, MISSING).origin == shown
