"""Whoever packs, unpacks and rehearses in Korean reads whole Korean messages, and all goes as it does in English."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import PRESET, carry, sender, site_at
from gapforge.base.errors import BundleError, Fault, GapforgeError, VerifyError
from gapforge.bundle import receiver_program
from gapforge.cli import main as cli
from gapforge.rehearsal import run_gapforge
from gapforge.rehearsal.record import Record
from gapforge.rehearsal.rehearsed_bundle import examine
from gapforge.rehearsal.simulated_site import fill, place_of

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
    assert message == f"번들 {bundle}에 my-stack가 없습니다. 담긴 것: {PRESET}"
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
        f"준비되지 않았습니다: {PRESET}\n\n실패한 단계  반입 (종료 코드 21, bundle)\n다 오지 않았습니다\n{fault}\n"
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
            ["--for는 --bundle과 함께 씁니다. 현장에 있는 것을 뺀 번들에 쓰는 것입니다"],
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
