"""What is wrong with volumes, requests and gapforge's own archive is said whole in Korean, and decides the same there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bundles import PRESET, carry, receive, sender, site_at
from gapforge.base.errors import BundleError, StorageError
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.bundle import install_repository as installing
from gapforge.bundle.bundle_index import read_index
from gapforge.bundle.find_volumes import scan_media
from gapforge.bundle.install_repository import install
from gapforge.bundle.repair_request import RepairRequest, read_request, requested_parts
from gapforge.bundle.repository_archive import _called, _header, make_archive, read_archive, render
from gapforge.bundle.repository_files import private_reason
from gapforge.bundle.volume_format import Damaged, Part, parse_json, parse_part
from gapforge.bundle.volume_plan import make_plan
from gapforge.bundle.volume_reader import damaged_parts, read_part, read_volume
from gapforge.store.store import Store
from hostile import HASH, HOSTILE, forge, index_with

# Names and values, which stay what they are in every language.
KEPT = re.compile(rf"gapforge|SHA256SUMS|JSON|True|'.*'|{HASH[:12]}")
SMALL = {"src/gapforge/__init__.py": (b"one = 1\n", False), "docs/a.md": (b"a\n", False)}


@pytest.fixture(autouse=True)
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")


def said(action: Callable[[], object]) -> str:
    with pytest.raises(Damaged) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "size 2^63",
            f"객체 {HASH[:12]}의 크기: 있을 수 없는 값 9223372036854775808 (0~17592186044416)",
        ),
        ("beyond the object", f"객체 {HASH[:12]}의 길이: 있을 수 없는 값 10 (1~5)"),
        ("a path for a hash", "객체: 허용되지 않는 값 '../../../../etc/passwd'"),
        ("a preset that leads out", "프리셋 이름: 허용되지 않는 값 '../../x'"),
        ("a preset twice", "같은 프리셋이 두 번 나옴"),
        ("an object twice", f"객체 {HASH[:12]}: 두 번 나옴"),
        ("a float", "gapforge가 쓰는 JSON이 아님: 쓸 수 없는 숫자 1.0"),
        ("volume 2 of 1", "볼륨 번호: 있을 수 없는 값 2 (1~1)"),
        ("a length beyond the file", "색인에는 5000바이트가 있다고 하지만 실제로는 20바이트임"),
        ("a tool that leads out", "gapforge 저장소: 허용되지 않는 값 '../../../../../../../../'"),
        ("other keys", "색인의 형식이 다름"),
    ],
)
def test_a_hostile_index(tmp_path: Path, kind: str, text: str) -> None:
    forge(tmp_path / "x.gfv", HOSTILE[kind], b"p" * 20)
    assert said(lambda: read_volume(tmp_path / "x.gfv")) == text


@pytest.mark.parametrize(
    "kind", sorted(kind for kind, index in HOSTILE.items() if index is not None)
)
def test_every_hostile_index_is_refused_in_korean(tmp_path: Path, kind: str) -> None:
    forge(tmp_path / "x.gfv", HOSTILE[kind], b"p" * 20)
    text = said(lambda: read_volume(tmp_path / "x.gfv"))
    assert re.search("[가-힣]", text) and not re.search("(?i)[a-z]", KEPT.sub("", text)), text


def test_a_damaged_volume(tmp_path: Path) -> None:
    packed = carry(sender(tmp_path), tmp_path / "stick", size=40_000)
    file = next(path for path in sorted((tmp_path / "stick").glob("*.gfv")))
    data, piece = file.read_bytes(), read_volume(file)[1][0]
    for changed, text in (
        (data[:50], "잘려 있음: 50바이트뿐임"),
        (b"G" + data[1:], "시작이 볼륨과 다름"),
        (data[:-1], "잘렸거나 손상됨: 끝이 볼륨과 다름"),
        (data[:-53] + b"\x07" + data[-52:], "형식 7이거나 손상됨; 이 gapforge가 읽는 형식은 2"),
        (data[:20] + data[30:], "잘렸거나 손상됨: 꼬리표가 파일 크기와 맞지 않음"),
        (data[:-80] + bytes([data[-80] ^ 1]) + data[-79:], "색인이 손상됨: 해시가 다름"),
    ):
        file.write_bytes(changed)
        assert said(lambda: read_volume(file)) == text
    payload = bytearray(data)
    payload[piece.position] ^= 1
    file.write_bytes(payload)
    digest = sha256_bytes(bytes(payload[piece.position : piece.position + piece.part.length]))
    handle = os.open(file, os.O_RDONLY)
    try:
        assert said(lambda: read_part(handle, piece)) == f"sha256이 {piece.sha256} 대신 {digest}임"
        assert (
            said(lambda: read_part(handle, replace(piece, position=len(data)))) == "너무 일찍 끝남"
        )
    finally:
        os.close(handle)
    assert damaged_parts(file, read_volume(file)[1]) == [piece]
    index = packed.index[0]
    raw = index.read_bytes()
    index.write_bytes(raw.replace(b'"root":"', b'"root":"0', 1))
    assert said(lambda: read_index(index)) == "손상됨: 해시 트리의 뿌리가 다름"
    index.write_bytes(raw + b" ")
    assert said(lambda: read_index(index)) == "gapforge가 쓰는 방식으로 적혀 있지 않음"
    assert said(lambda: parse_json(b"[" * 100)) == "gapforge가 쓰는 JSON의 형태가 아님"
    assert said(lambda: parse_part([HASH, 5, 0, 5])) == "객체 전체를 일부로 적음"


def test_no_usable_volume(tmp_path: Path) -> None:
    stick, absent = tmp_path / "stick", tmp_path / "absent"
    stick.mkdir()
    (stick / "link.gfv").symlink_to("/dev/zero")
    os.mkfifo(stick / "pipe.gfv")
    (stick / "x.gfv").write_bytes(b"zeros" * 100)
    with pytest.raises(BundleError) as caught:
        scan_media([stick], only="ab" * 12)
    error = caught.value
    assert error.message == f"{stick}에 묶음 {'ab' * 12}의 쓸 수 있는 볼륨이 없습니다"
    assert error.hint == "*.gfv 파일이 있는 폴더를 지정하십시오"
    assert [fault.problem for fault in error.faults] == [
        "파일이 아니라 심볼릭 링크임",
        "일반 파일이 아님",
        "시작이 볼륨과 다름",
    ]
    with pytest.raises(
        BundleError, match=f"^{re.escape(str(stick))}에 쓸 수 있는 볼륨이 없습니다$"
    ):
        scan_media([stick])
    with pytest.raises(BundleError, match=f"^{re.escape(str(absent))}가 없습니다$"):
        scan_media([absent])


def test_two_bundles_and_an_altered_volume(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    for name in ("ab" * 12, "cd" * 12):
        forge(stick / f"{name}.gfv", index_with(bundle=name))
    with pytest.raises(BundleError) as caught:
        scan_media([stick])
    assert caught.value.message == "서로 다른 묶음의 볼륨이 섞여 있어 아무것도 들여오지 않았습니다"
    assert [fault.problem for fault in caught.value.faults] == [
        f"묶음 {n}의 볼륨 1개 중 1번" for n in ("ab" * 12, "cd" * 12)
    ]
    assert caught.value.hint == f"하나를 지정하십시오: --bundle {'ab' * 12}"
    packed = carry(sender(tmp_path), tmp_path / "good", size=10**9)
    plan, file = packed.plan, next((tmp_path / "good").glob("*.gfv"))
    view = plan.presets[0]
    whole = {"bundle": plan.bundle, "volume_size": plan.volume_size, "views": [view.to_json()]}
    listed = read_volume(file)[0].index_sha256[:12]
    forge(file, index_with(**whole))
    own = read_volume(file)[0].index_sha256[:12]
    scan = scan_media([tmp_path / "good"])
    assert list(scan.broken.values()) == [
        f"바뀌었음: 묶음의 색인에 적힌 볼륨 1의 sha256은 {listed}…, 이 볼륨은 {own}…"
    ]
    assert scan.bundle == plan.bundle  # taken from the index, as in English
    forge(file, index_with(**whole, tool=HASH))
    assert list(scan_media([tmp_path / "good"]).broken.values()) == [
        "스스로 밝힌 내용이 묶음의 색인과 다름"
    ]


def test_what_is_good_comes_in_and_the_rest_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same objects, the same request, whatever language says why."""
    carry(sender(tmp_path), tmp_path / "stick", size=40_000)
    for file, cut in zip(sorted((tmp_path / "stick").glob("*.gfv")), (70, 0, -1), strict=False):
        data = bytearray(file.read_bytes())
        data[cut] ^= 1
        file.write_bytes(data)
    results = {}
    for lang in ("ko", "en"):
        monkeypatch.setenv("GAPFORGE_LANG", lang)
        results[lang] = receive(site_at(tmp_path / lang), tmp_path / "stick")
    korean, english = results["ko"], results["en"]
    assert korean.request is not None and korean.request == english.request
    assert korean.objects == english.objects and korean.missing_volumes == english.missing_volumes
    assert list(korean.broken) == list(english.broken) and len(korean.broken) == 3


def test_plans_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError) as caught:
        make_plan([Part(HASH, 5, 0, 5)], [], 100)
    assert caught.value.message == "100바이트 볼륨은 너무 작아 자신의 색인도 담지 못합니다"
    assert re.fullmatch(r"--volume-size \d+ 이상으로 지정하십시오", caught.value.hint)
    monkeypatch.setattr("gapforge.bundle.volume_plan.MAX_VOLUMES", 1)
    with pytest.raises(BundleError, match=r"^볼륨이 1개보다 많이 필요합니다$"):
        make_plan([Part(HASH, 10**6, 0, 10**6)], [], 10_000)


def test_repair_requests(tmp_path: Path) -> None:
    file, bundle = tmp_path / "repair.json", "ab" * 12
    file.write_text("{}\n")
    with pytest.raises(BundleError) as caught:
        read_request(file)
    assert caught.value.message == f"복구 요청 {file}을 쓸 수 없습니다: 복구 요청이 아님"
    assert caught.value.hint == "현장에 repair-BUNDLE.json을 고치지 말고 다시 보내 달라고 하십시오"
    with pytest.raises(BundleError, match=r"absent를 읽을 수 없습니다: "):
        read_request(tmp_path / "absent")
    with pytest.raises(BundleError) as caught:
        requested_parts(RepairRequest(bundle, (), (1,), ()), [tmp_path])
    assert caught.value.message == (
        f"요청이 묶음 {bundle}의 볼륨을 통째로 바라는데, 볼륨의 내용을 알려 줄 {bundle}.json이 여기 없습니다"
    )
    assert caught.value.hint == f"{bundle}.json을 요청 옆에 두거나 묶음을 다시 만드십시오"


def archive_of(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(BundleError) as caught:
        read_archive(tmp_path / "x.tar")
    begin = "묶음에 든 gapforge 저장소의 아카이브가 잘못되어 하나도 쓰지 않았습니다: "
    assert caught.value.message.startswith(begin)
    assert (
        caught.value.hint
        == "누군가 바꾸었습니다. 묶음을 다시 나르거나, unpack에 --no-tool을 붙이십시오"
    )
    return caught.value.message[len(begin) :]


def test_archives_of_gapforge(tmp_path: Path) -> None:
    good = render(SMALL)
    assert (
        archive_of(tmp_path, good[:700])
        == "docs/a.md의 크기를 2바이트로 적었지만 그만큼 들어 있지 않음"
    )
    assert archive_of(tmp_path, good + b"x") == "끝난 뒤에도 내용이 이어짐"
    assert (
        archive_of(tmp_path, good[:156] + b"1" + good[157:]) == "하드 링크가 들어 있음: docs/a.md"
    )
    assert (
        archive_of(tmp_path, good[:156] + b"Z" + good[157:])
        == "알 수 없는 것이 들어 있음: docs/a.md"
    )
    assert (
        archive_of(tmp_path, good[:108] + b"1" + good[109:])
        == "docs/a.md의 헤더가 gapforge가 쓰는 것과 다름"
    )
    assert archive_of(tmp_path, good[:124] + b"x" + good[125:]) == "크기가 올바르지 않음: docs/a.md"
    assert archive_of(tmp_path, good[:514] + b"x" + good[515:]) == "docs/a.md 뒤에 숨긴 것이 있음"
    assert archive_of(tmp_path, b"") == "중간에서 잘림"
    assert (
        archive_of(tmp_path, render({".env": (b"x", False)}))
        == '파일 ".env": 비밀이 들어 있을 수 있음'
    )
    assert archive_of(tmp_path, render({"artifacts/x": (b"x", False)})) == (
        '파일 "artifacts/x": 이 컴퓨터의 것인 artifacts/에 있음'
    )
    twice = good[:1024] + good
    assert archive_of(tmp_path, twice) == "두 번 나오거나 순서가 틀린 파일: docs/a.md"
    assert (
        archive_of(tmp_path, render({"a": (b"x", False), "a/b": (b"x", False)}))
        == "다른 파일 안에 있다고 적힌 파일: a/b"
    )
    assert {_called(kind) for kind in "1234567xgLS"} == {
        "하드 링크",
        "심볼릭 링크",
        "장치",
        "폴더",
        "파이프",
        "확장 헤더",
        "희소 파일",
        "알 수 없는 것",
    }
    with pytest.raises(BundleError, match=r"^경로가 너무 길어 담을 수 없습니다: n+$"):
        _header("n" * 300, 0, False)
    assert (
        private_reason(".git/config") == "git 자신의 폴더에 있음"
        and private_reason("docs/a.md") == ""
    )


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    root = tmp_path / "here"
    root.mkdir()
    project = Project(root, root / "artifacts")
    with pytest.raises(BundleError) as caught:
        make_archive(project, {})
    assert caught.value.message == f"{root}는 gapforge 저장소가 아닙니다"
    (root / "key").write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (root / "link").symlink_to("key")
    with open(os.fsencode(root) + b"/\xff", "wb"):
        pass
    with pytest.raises(BundleError) as caught:
        make_archive(project, {})
    assert caught.value.message == "저장소의 파일 3개를 담을 수 없습니다"
    problems = [fault.problem for fault in caught.value.faults]
    assert problems[:2] == [
        "개인 키임; 이 컴퓨터를 떠나면 안 됨",
        "심볼릭 링크임; 아카이브에는 파일만 담음",
    ]
    assert problems[2].startswith("이름이 UTF-8이 아님 (")


def test_what_is_in_the_way_at_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_at(tmp_path / "site")
    sha256 = Store(site.store).add_bytes(render({**SMALL, "presets/x/y": (b"x", False)}))
    (site.root / "docs" / "a.md" / "mine").mkdir(parents=True)
    (site.root / "presets" / "x").write_text("a file")
    (site.root / "src").symlink_to(tmp_path)
    with pytest.raises(StorageError) as caught:
        install(site, sha256)
    assert (
        caught.value.message == f"{site.root}에 gapforge의 파일을 둘 수 없어 하나도 쓰지 않았습니다"
    )
    assert {
        Path(f.where).relative_to(site.root).as_posix(): f.problem for f in caught.value.faults
    } == {
        "docs/a.md": "아카이브에는 파일인데 여기에는 폴더임",
        "presets/x/y": "폴더가 있어야 할 자리에 파일이 있음: presets/x",
        "src/gapforge/__init__.py": "심볼릭 링크 너머에 있음; 링크는 따라가지 않음",
    }
    fresh = site_at(tmp_path / "fresh")
    sha256 = Store(fresh.store).add_bytes(render(SMALL))
    monkeypatch.setattr(installing, "free_bytes", lambda folder: 10)
    with pytest.raises(
        StorageError, match=r": gapforge에 16\.4 kB가 필요하지만 10 B만 남아 있습니다$"
    ) as caught:
        install(fresh, sha256)
    assert (
        caught.value.hint == f"공간을 확보한 뒤(df -h {fresh.root}) 같은 명령을 다시 실행하십시오"
    )
    assert not (fresh.root / "src").exists() and (fresh.presets / f"{PRESET}.json").is_file()
