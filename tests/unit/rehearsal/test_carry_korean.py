"""Whoever packs, unpacks and rehearses in Korean reads whole Korean messages, and all goes as it does in English."""

from __future__ import annotations

import errno
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import PRESET, carry, hashes, receive, sender, site_at
from gapforge.base.errors import (
    BundleError,
    Fault,
    GapforgeError,
    LockError,
    StorageError,
    TrustError,
    VerifyError,
)
from gapforge.base.progress import Progress
from gapforge.bundle import disk_space as rooms
from gapforge.bundle import receiver_program
from gapforge.bundle.bundle_index import index_name
from gapforge.bundle.check_signatures import SignatureCheck
from gapforge.bundle.contents import preset_contents
from gapforge.bundle.find_volumes import scan_media
from gapforge.bundle.place_volumes import place_volumes
from gapforge.bundle.unpack import _Import
from gapforge.bundle.volume_format import BundledPreset, Damaged, describe_read_error
from gapforge.bundle.volume_plan import make_plan
from gapforge.bundle.volume_reader import read_volume
from gapforge.cli import main as cli
from gapforge.model import preset as documents
from gapforge.rehearsal import run_gapforge
from gapforge.rehearsal.record import Record
from gapforge.rehearsal.rehearsed_bundle import examine
from gapforge.rehearsal.simulated_site import fill, place_of
from gapforge.store.store import Store
from gapforge.trust.ssh_signatures import read_public
from gapforge.trust.trusted_signers import Signer, Signers
from signers import Machine, make_key, needs_ssh_keygen, pub

SIZE = 40_000
NASM = "debs/nasm_2.16.01-1_amd64.deb"


@pytest.fixture(autouse=True)
def _korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")


def raised(
    kind: type[GapforgeError], work: Callable[[], object]
) -> tuple[str, str, tuple[Fault, ...]]:
    with pytest.raises(kind) as caught:
        work()
    return caught.value.message, caught.value.hint, caught.value.faults


# -- unpack


def test_a_broken_volume(tmp_path: Path) -> None:
    made = sender(tmp_path)
    bundle = carry(made, tmp_path / "stick", size=10**9).plan.bundle
    (volume,) = (tmp_path / "stick").glob("*.gfv")
    piece = next(p for p in read_volume(volume)[1] if p.part.sha256 == made.entry(NASM).sha256)
    data = bytearray(volume.read_bytes())
    data[piece.position] ^= 1
    volume.write_bytes(data)
    result = receive(site_at(tmp_path / "site"), tmp_path / "stick")
    error = result.error(Path("r.json"))
    assert (
        error.message
        == f"묶음 {josa_of(bundle)} 다 들어오지 않았습니다. 온전한 것은 모두 들여왔습니다"
    )
    assert (
        error.hint
        == "r.json을 묶음을 만든 곳으로 가져가십시오: ./gapforge pack --repair r.json --to FOLDER"
    )
    assert error.faults == (
        Fault(str(volume), f"손상됨; 이 때문에 빠진 것: {PRESET}/{NASM}"),
        Fault(f"프리셋 {PRESET}", "객체 1개가 모자람"),
    )


def test_volumes_that_nobody_brought(tmp_path: Path) -> None:
    bundle = carry(sender(tmp_path), tmp_path / "stick", size=SIZE).plan.bundle
    files = sorted((tmp_path / "stick").glob("*.gfv"))
    for file in files[1:]:
        file.unlink()
    result = receive(site_at(tmp_path / "site"), tmp_path / "stick")
    error = result.error(Path("r.json"))
    missing = ", ".join(str(number) for number in range(2, len(files) + 1))
    assert error.message == (
        f"묶음 {josa_of(bundle)} 다 들어오지 않았습니다. 아직 보지 못한 볼륨: {missing}. "
        "온전한 것은 모두 들여왔습니다"
    )
    assert error.hint == (
        "나머지 볼륨을 가져와 unpack을 다시 실행하거나, r.json을 묶음을 만든 곳으로 가져가십시오: "
        "./gapforge pack --repair r.json --to FOLDER"
    )


def josa_of(bundle: str) -> str:
    return bundle + ("이" if bundle[-1] in "013678" else "가")


@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize(
    ("number", "korean", "english"),
    [
        (errno.EIO, "읽을 수 없음: 입출력 오류", "cannot be read: Input/output error"),
        (errno.ENODEV, "디스크가 사라짐", "the disk is gone"),
        (errno.ENOTCONN, "디스크가 사라짐", "the disk is gone"),
    ],
)
@pytest.mark.parametrize("before", [4, 6])
def test_a_stick_that_is_pulled(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language: str,
    number: int,
    korean: str,
    english: str,
    before: int,
) -> None:
    """What cannot be read is told apart from what is damaged, in whatever words."""
    monkeypatch.setenv("GAPFORGE_LANG", language)
    carry(sender(tmp_path), tmp_path / "stick", size=SIZE)
    site, real, calls = site_at(tmp_path / "site"), os.preadv, []

    def preadv(handle: int, buffers: Any, offset: int) -> int:
        calls.append(1)
        if len(calls) > before:
            raise OSError(number, os.strerror(number))
        return real(handle, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        result = receive(site, tmp_path / "stick")
    assert not result.complete and result.broken
    begins = (korean if language == "ko" else english) + "; "
    assert all(why.startswith(begins) for why in result.broken.values()), result.broken
    assert len(hashes(site)) == result.imported
    assert receive(site, tmp_path / "stick").complete


def test_why_a_file_of_a_carrier_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [
        Damaged("x"),
        PermissionError(errno.EACCES, "Permission denied", "/x"),
        OSError("odd"),
        OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM), "/x"),
    ]
    assert list(map(describe_read_error, errors)) == [
        "x",
        "읽을 수 없음: 권한이 없음",
        "읽을 수 없음: odd",
        "디스크가 사라짐",
    ]
    monkeypatch.setenv("GAPFORGE_LANG", "en")
    assert list(map(describe_read_error, errors)) == [
        "x",
        "cannot be read: Permission denied",
        "cannot be read: odd",
        "the disk is gone",
    ]


def test_a_site_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carry(sender(tmp_path), tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    monkeypatch.setattr(rooms, "free_bytes", lambda folder: 5000)
    monkeypatch.setattr(Store, "links", lambda self: False)
    message, hint, _ = raised(StorageError, lambda: receive(site, tmp_path / "stick"))
    folder = site.store / "partial"
    assert message.startswith(f"{folder}: ") and message.endswith(
        "가 필요하지만 5.0 kB만 남아 있습니다. 이 디스크에는 하드 링크가 없어 artifacts/NAME이 모든 것을 한 번 더 차지합니다"
    )
    assert (
        hint
        == f"공간을 비운 뒤(df -h {folder}) 같은 명령을 다시 실행하십시오. 아무것도 들여오지 않았습니다"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{" * 4000, "잠금의 모양이 아닙니다"),
        (b" " * (9 << 20), f"크기가 {9 << 20}바이트나 됩니다"),
    ],
)
def test_a_lock_that_is_none(tmp_path: Path, text: bytes, why: str) -> None:
    carry(sender(tmp_path), tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    store = Store(site.store)
    one = _Import(site, store, scan_media([tmp_path / "stick"]), Progress("x", quiet=True), None)
    view = BundledPreset(PRESET, store.add_bytes(text), "0" * 64)
    message, hint, _ = raised(BundleError, lambda: one._lock(view))
    assert message == f"묶음에 담긴 {PRESET}의 잠금: {why}"
    assert hint == "누군가 묶음을 바꾸었습니다. 다시 나르십시오"


# -- who signed it


@needs_ssh_keygen
def test_nobody_signed_it(tmp_path: Path) -> None:
    bundle = carry(sender(tmp_path), tmp_path / "stick", size=10**9).plan.bundle
    (tmp_path / "stick" / index_name(bundle)).unlink()
    key = read_public(pub(make_key(tmp_path / "keys", "release")))
    admission = SignatureCheck(
        site_at(tmp_path / "site"),
        Signers(tmp_path / "list", (Signer("release", key), Signer("other", key))),
    )
    message, hint, faults = raised(
        TrustError, lambda: scan_media([tmp_path / "stick"], "", admission)
    )
    assert (
        message
        == "날라 온 것에 이곳에서 신뢰하는 사람의 서명이 없습니다. 아무것도 들여오지 않았습니다"
    )
    assert hint == (
        "보낸 쪽에 --sign을 주어 다시 담거나 다시 날라 달라고 하십시오. 다른 길로 확인한 서명자라면: "
        "./gapforge trust add KEY"
    )
    (volume,) = (tmp_path / "stick").glob("*.gfv")
    assert faults == (
        Fault(
            str(volume),
            f"서명 없음: {bundle}.json도 {bundle}.json.sig도 여기 없음",
            "release 또는 other의 서명이 있는 두 파일",
        ),
    )


@needs_ssh_keygen
def test_older_than_what_was_accepted(tmp_path: Path) -> None:
    made, key = sender(tmp_path), make_key(tmp_path / "keys", "release")
    here, site = (
        Machine(made.project, tmp_path / "home"),
        Machine(site_at(tmp_path / "site"), tmp_path / "home-site"),
    )
    site.ok("trust", "add", pub(key))
    bundles = {}
    for name, moment in (("old", 1_750_000_000), ("new", 1_750_086_400)):
        here.ok(
            "pack",
            PRESET,
            "--to",
            tmp_path / name,
            "--sign",
            key,
            env={"SOURCE_DATE_EPOCH": str(moment)},
        )
        bundles[name] = next((tmp_path / name).glob("*.gfv")).stem[:24]
        made.change({"sources/more.txt": b"more"})
    site.ok("unpack", tmp_path / "new")
    done = site.run("unpack", tmp_path / "old", env={"GAPFORGE_LANG": "ko"})
    assert done.returncode == 22
    for text in (
        "날라 온 것이 이곳에서 이미 받아들인 것보다 오래되었습니다. 아무것도 들여오지 않았습니다\n",
        f"  프리셋 {PRESET}\n      묶음 {bundles['old']}에서 2025-06-15T15:06:40Z에 서명됨; ",
        f"2025-06-16T15:06:40Z(묶음 {bundles['new']}의 서명 시각)보다 오래되지 않은 것\n",
        "보낸 쪽에 최신 묶음을 달라고 하십시오. 일부러 되돌리는 것이면 같은 명령에 --allow-older를 붙이십시오\n",
    ):
        assert text in done.stderr, done.stderr
    done = site.run("unpack", tmp_path / "old", "--allow-older", env={"GAPFORGE_LANG": "ko"})
    assert done.returncode == 0, done.stderr


# -- pack


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    made = sender(tmp_path)
    preset = documents.find(made.project.presets, PRESET)
    entry, file = made.entry(NASM), made.project.artifacts_of(PRESET) / NASM
    whole = file.read_bytes()
    file.write_bytes(b"x" * len(whole))
    message, hint, faults = raised(BundleError, lambda: carry(made, tmp_path / "stick", size=10**9))
    assert message == f"{PRESET}/{NASM}: 잠금에 적힌 것과 다릅니다. 이것은 담지 않았습니다"
    assert hint == f"온라인에서: ./deps_sync.sh {PRESET}; 그다음 같은 명령을 다시 실행하십시오"
    assert faults[0].problem.startswith(f"{entry.size}바이트, sha256 ")
    assert faults[0].expected == f"{entry.size}바이트, sha256 {entry.sha256}"
    file.unlink()
    message, hint, faults = raised(BundleError, lambda: preset_contents(made.project, [preset]))
    assert message.startswith("객체 ") and message.endswith("개 가운데 1개가 여기 없습니다")
    assert hint == f"온라인에서: ./deps_sync.sh {PRESET}"
    assert faults == (
        Fault(
            f"{PRESET}/{NASM}",
            "보관소에 없거나 크기가 다름",
            f"{entry.size}바이트, sha256 {entry.sha256}",
        ),
    )
    made.project.lock_file(PRESET).write_bytes(made.project.lock_file(PRESET).read_bytes() + b"\n")
    (made.project.artifacts_of(PRESET) / "lock.json").unlink()
    message, _, _ = raised(LockError, lambda: preset_contents(made.project, [preset]))
    assert (
        message == f"{made.project.lock_file(PRESET)}: sync가 쓴 것이 아닙니다. 누군가 고쳤습니다"
    )


def test_volumes_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sender(tmp_path)
    contents = preset_contents(made.project, [documents.find(made.project.presets, PRESET)])
    plan = make_plan(contents.parts, contents.presets, 10**9)
    stick = tmp_path / "stick"
    stick.mkdir()
    monkeypatch.setattr("gapforge.bundle.pack.free_bytes", lambda folder: 0)
    message, hint, _ = raised(StorageError, lambda: place_volumes(plan, [stick]))
    assert message.startswith("볼륨이 다 들어가지 않습니다: ") and message.endswith(
        f" 모자람 ({stick}: 0 B 남음)"
    )
    assert hint == "--to에 폴더를 더 지정하거나 공간을 비우십시오"
    monkeypatch.setattr("gapforge.bundle.pack.file_limit", lambda folder: 1000)
    message, hint, _ = raised(StorageError, lambda: place_volumes(plan, [stick]))
    assert message == (
        f"{stick}: FAT 디스크여서 1000바이트보다 큰 파일을 둘 수 없는데, 볼륨 하나가 {plan.size(1)}바이트입니다"
    )
    assert hint == "같은 명령에 --volume-size fat32를 붙이십시오. 아무것도 쓰지 않았습니다"


def test_an_object_without_a_name_is_asked_of_the_presets(tmp_path: Path) -> None:
    """The next command names presets, never a piece of what the object is called."""
    made = sender(tmp_path)
    contents = preset_contents(made.project, [documents.find(made.project.presets, PRESET)])
    assert (
        contents.preset_of(made.entry(NASM).sha256) == PRESET and contents.preset_of("0" * 64) == ""
    )
    assert contents.name("0" * 64) == "객체 000000000000"


# -- the receiver


@pytest.mark.parametrize(
    ("settings", "korean"),
    [
        ({"LANG": "ko_KR.UTF-8"}, True),
        ({"LANG": "C", "GAPFORGE_LANG": "ko"}, True),
        ({}, False),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, False),
    ],
)
def test_an_old_python_is_told_in_the_reader_s_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], korean: bool
) -> None:
    (tmp_path / "main.py").write_text(receiver_program._MAIN, encoding="utf-8")
    for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("sys.version_info", (3, 8, 10))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(tmp_path / "main.py"))
    assert str(caught.value).startswith("오류: " if korean else "error: ") and "Python 3.10" in str(
        caught.value
    )


# -- the rehearsal


@pytest.mark.parametrize("language", ["ko", "en"])
def test_what_a_child_says_in_either_language_is_understood(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    faults = [Fault("x", "나쁨; 아주", "좋은 것"), Fault("y z", "z")]
    error = VerifyError(
        "틀렸습니다\n    세\n줄로", hint="./gapforge list; 그리고 더", faults=faults
    )
    monkeypatch.setenv("GAPFORGE_LANG", language)
    lines = error.render().splitlines()
    for reader in ("ko", "en"):
        monkeypatch.setenv("GAPFORGE_LANG", reader)
        found = run_gapforge.error_of(5, ["a line", *lines, "printed later"])
        assert type(found) is VerifyError
        assert (found.message, found.faults, found.hint) == (
            error.message,
            error.faults,
            error.hint,
        )
    korean = ["오류: 틀림", "  x", "      나쁨; 기대한 값: 좋은 것", "다음: 고치십시오"]
    found = run_gapforge.error_of(5, korean)
    assert (found.message, found.faults, found.hint) == (
        "틀림",
        (Fault("x", "나쁨", "좋은 것"),),
        "고치십시오",
    )


def test_a_child_that_says_nothing() -> None:
    assert run_gapforge.error_of(137, []).message == "아무 말 없이 끝났습니다(종료 코드 137)"
    assert (
        run_gapforge.error_of(137, ["Killed"]).message
        == "아무 말 없이 끝났습니다(종료 코드 137):\nKilled"
    )


def test_a_bundle_of_something_else(tmp_path: Path) -> None:
    bundle = carry(sender(tmp_path), tmp_path / "stick", size=10**9).plan.bundle
    message, hint, _ = raised(BundleError, lambda: examine([tmp_path / "stick"], "my-stack"))
    assert message == f"묶음 {bundle}에 my-stack가 없습니다. 담긴 것: {PRESET}"
    assert hint == "./gapforge pack my-stack --to DIR, 또는 다른 폴더를 지정하십시오"
    program = tmp_path / "stick" / receiver_program.RECEIVER
    program.write_bytes(program.read_bytes()[:-100])
    assert examine([tmp_path / "stick"], PRESET).warnings == [
        f"{program}가 손상되었습니다",
        "볼륨과 함께 있는 온전한 gapforge-receive.pyz 파일이 없습니다. 현장에 gapforge가 따로 있어야 합니다",
    ]


def test_what_is_left_out_of_the_place(tmp_path: Path) -> None:
    office = site_at(tmp_path / "office")
    (office.root / "gapforge.py").write_text("")
    (office.root / "out").symlink_to("../elsewhere")
    assert fill(office, place_of(office, PRESET)) == [
        "out: 저장소와 함께 나르지 않는 ../elsewhere를 가리키는 심볼릭 링크임"
    ]


def test_the_page_of_a_failure() -> None:
    record = Record(PRESET, "0" * 64, True, "0.1", ("./gapforge", "rehearse", PRESET), ("runtime",))
    record.fail(
        "unpack",
        BundleError("다 오지 않았습니다", faults=[Fault("a", "다름", "같음")], hint="다시"),
    )
    record.end()
    fault = Fault("a", "다름", "같음").lines()
    assert record.page().startswith(
        f"준비되지 않았습니다: {PRESET}\n\n실패한 단계  들여오기 (종료 코드 21, bundle)\n다 오지 않았습니다\n{fault}\n"
        f"다음         다시\n그다음       ./gapforge rehearse {PRESET}\n"
    )


# -- the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["pack", PRESET, "--volume-size", "big", "--to", "x"],
            [
                '--volume-size "big": 크기가 아닙니다',
                "--volume-size 4G, 또는 4GiB, fat32, dvd, 바이트 수",
            ],
        ),
        (
            ["pack", PRESET, "--volume-size", "1k", "--to", "x"],
            ["--volume-size 1k: 너무 작습니다", "65536바이트 이상이어야 합니다"],
        ),
        (
            ["pack", PRESET, "--repair", "r.json", "--to", "x"],
            [
                "--repair는 복구 요청에 적힌 것을 담으므로 프리셋, --for, --with-tool과 함께 쓸 수 없습니다"
            ],
        ),
        (
            ["pack", PRESET, "--operator", "a\nb", "--to", "x"],
            ['--operator "김지원"; 1-120자, 제어 문자 없이'],
        ),
        (
            ["rehearse", PRESET, "--type", "both"],
            ['--type(또는 GAPFORGE_TYPE)의 값 "both": runtime, dev, all 가운데 하나여야 합니다'],
        ),
        (
            ["rehearse", PRESET, "--for", "i"],
            ["--for는 --bundle과 함께 씁니다. 현장에 있는 것을 뺀 묶음에 쓰는 것입니다"],
        ),
    ],
)
def test_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: list[str],
) -> None:
    monkeypatch.setenv("GAPFORGE_ROOT", str(sender(tmp_path).project.root))
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert all(text in told for text in said), told
