"""The six questions: order, defaults, back, quit, nonsense; and the presets that answers make."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import samples
from gapforge.base.errors import CompatibilityError, Interrupted
from gapforge.base.project import Project
from gapforge.base.text import width
from gapforge.cli import build_prompts
from gapforge.compat import catalog as catalogs
from gapforge.compat.rules import check_preset
from gapforge.model import preset
from gapforge.model.lock import Lock, LockedImage
from gapforge.wizard import choices, compose_preset
from gapforge.wizard.choices import NONE, Choices, Option, base_of

ROOT = Path(__file__).resolve().parents[3]
CATALOG = catalogs.load(ROOT / "catalog")
REFERENCE = "ubuntu22.04-cuda11.8-torch2.1"
PRACTICE = "debian12-cpu-quickstart"


@pytest.fixture
def place(project: Project) -> Project:
    """Presets of this repository, artifacts of the practice preset, and the catalog."""
    shutil.copytree(ROOT / "catalog", project.catalog, dirs_exist_ok=True)
    return project


def talk(place: Project, typed: str, given: Choices | None = None) -> tuple[Choices, str]:
    out = io.StringIO()
    return build_prompts.ask(
        place, given or Choices(), stdin=io.StringIO(typed), stdout=out
    ), out.getvalue()


def files(place: Project) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(place.root.rglob("*")) if f.is_file()}


def test_ready_preset_is_the_default_and_two_answers_suffice(place: Project) -> None:
    answers, screen = talk(place, "\n\n")
    assert answers == Choices(preset=PRACTICE, type="runtime")
    assert "[1/6]" in screen
    assert "[6/6]" in screen
    assert "[2/6]" not in screen
    assert "ready" in screen
    assert "deps_sync" not in screen


def test_preset_that_is_not_synced_says_the_next_command(place: Project) -> None:
    answers, screen = talk(place, f"{REFERENCE}\ndev\n")
    assert answers == Choices(preset=REFERENCE, type="dev")
    assert f"./deps_sync.sh {REFERENCE}" in screen
    assert screen.index("deps_sync.sh") < screen.index("[6/6]")
    assert "nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04" in screen


def test_missing_files_are_counted(place: Project) -> None:
    next((place.artifacts_of(PRACTICE) / "wheels").glob("*.whl")).unlink()
    _, screen = talk(place, f"{PRACTICE}\n\n")
    assert "files are missing" in screen


def test_manual_asks_all_six_in_order_and_makes_a_preset(place: Project) -> None:
    answers, screen = talk(
        place, "manual\n11.8\nnvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04\n\n2.1.2\n8.6.1.6\n\n"
    )
    assert [screen.index(f"[{n}/6]") for n in range(1, 7)] == sorted(
        screen.index(f"[{n}/6]") for n in range(1, 7)
    )
    assert answers.preset == REFERENCE  # the same content as a preset that exists
    assert '"11.8" is not a choice' in screen

    answers, screen = talk(place, "manual\n\n\n\n\n\n")
    assert answers.preset == "ubuntu22.04-cuda12.6-torch2.14"
    assert answers.type == "runtime"
    assert "./deps_sync.sh ubuntu22.04-cuda12.6-torch2.14" in screen
    made = preset.find(place.presets, answers.preset)
    assert [p for p in check_preset(made, CATALOG) if p.severity == "error"] == []
    opencv = made.component("opencv")
    assert opencv is not None and opencv.text("version") == "4.11.0"
    assert made.sources["opencv"].file == "opencv-4.11.0.tar.gz"
    assert made.sources["opencv-contrib"].file == "opencv_contrib-4.11.0.tar.gz"
    assert "2021.12.0" in made.sources["opencv-cache-ippicv"].file

    again, screen = talk(place, "manual\n\n\n\n\ndev\n")
    assert again == Choices(preset=answers.preset, type="dev")
    assert "exists" in screen


def test_a_taken_name_gets_a_number(place: Project) -> None:
    first, _ = talk(place, "manual\n\n\n2.8.0\n\n\n")
    second, _ = talk(place, "manual\n\n\n2.8.0\nnone\n\n")
    assert (first.preset, second.preset) == (
        "ubuntu22.04-cuda12.6-torch2.8",
        "ubuntu22.04-cuda12.6-torch2.8-2",
    )
    assert preset.find(place.presets, str(second.preset)).tensorrt is None


def test_manual_without_gpu(place: Project) -> None:
    answers, screen = talk(place, "manual\nubuntu:22.04\n\n2.5.1\n\n\n")
    assert answers.preset == "ubuntu22.04-cpu-torch2.5"
    assert "cpu, torchvision" in screen
    assert "TensorRT 10" not in screen[screen.index("[5/6]") :]


def test_only_what_fits_is_offered(place: Project) -> None:
    with pytest.raises(Interrupted):
        talk(place, "manual\nnvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04\n3.10\nq\n")
    base = base_of("11.8", CATALOG)
    assert base is not None
    torch = [o.value for o in choices.torch_options(base, "3.10", CATALOG)]
    assert "2.7.1" in torch
    assert "2.8.0" not in torch  # no cu118 build any more
    assert NONE in torch
    trt = [o.value for o in choices.tensorrt_options(base, "3.10", CATALOG)]
    assert "8.6.1.6" in trt
    assert not [v for v in trt if v.startswith("10.")]
    nine = base_of("12.4.1", CATALOG)
    assert nine is not None
    assert not [
        v
        for v in (o.value for o in choices.tensorrt_options(nine, "3.10", CATALOG))
        if v.startswith("8.")
    ]


def lock_with(place: Project, name: str) -> Lock:
    """A lock of a preset with base images and the torch trio; the store has the builder's image."""
    made = preset.find(place.presets, name)
    assert made.pytorch is not None
    image = {
        r: LockedImage(
            reference=f"{made.base(r).image}@sha256:{'c' * 64}",
            manifest_digest=f"sha256:{'a' * 64}",
            config_digest=f"sha256:{'b' * 64}",
            os_id="ubuntu",
            os_version="22.04",
        )
        for r in ("builder", "runtime")
    }
    layers = [
        replace(samples.entry("image", f"images/{r}/aa", name=r, roles=(r,)), size=size)
        for r, size in (("builder", 4_000_000_000), ("runtime", 2_000_000_000))
    ]
    trio = {
        "torch": made.pytorch.torch,
        "torchvision": made.pytorch.torchvision,
        "torchaudio": made.pytorch.torchaudio,
    }
    wheels = [
        replace(samples.entry("wheel", f"wheels/{n}.whl", name=n, version=v), size=700_000_000)
        for n, v in trio.items()
    ]
    lock = Lock(
        preset=name,
        preset_sha256=made.sha256,
        images=image,
        entries=tuple(sorted([*layers, *wheels], key=lambda e: e.path)),
    )
    place.lock_file(name).write_text(lock.render(), encoding="utf-8")
    return lock


def put_into_store(place: Project, sha256: str, size: int) -> None:
    file = place.store / "sha256" / sha256[:2] / sha256
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.truncate(size)  # sparse: the prompts look at names and sizes only


def test_prompts_mark_what_is_stored_and_what_would_be_downloaded(place: Project) -> None:
    tar = next(t for t in CATALOG.tensorrt["10.7.0.23"].tars if t.cuda == "12.6")
    _, screen = talk(place, "manual\nnvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04\n\n2.7.1\nnone\n\n")
    base, torch, trt = (
        next(line for line in screen[screen.index("[2/6]") :].splitlines() if word in line)
        for word in ("CUDA 12.6.3", "PyTorch 2.7.1", "TensorRT 10.7.0.23")
    )
    assert "adds" not in base + torch  # nobody knows yet
    assert trt.endswith("adds 4.4 GB")

    lock = lock_with(place, "ubuntu22.04-cuda12.6-torch2.7")
    put_into_store(place, tar.sha256, tar.size)
    put_into_store(
        place,
        next(e.sha256 for e in lock.entries if e.path.startswith("images/builder")),
        4_000_000_000,
    )
    _, screen = talk(place, "manual\nnvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04\n\n2.7.1\nnone\n\n")
    base, torch, trt = (
        next(line for line in screen[screen.index("[2/6]") :].splitlines() if word in line)
        for word in ("CUDA 12.6.3", "PyTorch 2.7.1", "TensorRT 10.7.0.23")
    )
    assert base.endswith("adds 2.0 GB")  # the runtime's image; the builder's is there
    assert torch.endswith("adds 2.1 GB")
    assert trt.endswith("already in the store")


def test_the_download_of_the_chosen_preset_is_summed_up(place: Project) -> None:
    _, screen = talk(place, "ubuntu22.04-cuda12.8-torch2.8\n\n")
    assert "To download: at least 6.9 GB; already in the store: 0 B." in screen
    assert "2 base images" in screen
    lock = lock_with(place, "ubuntu22.04-cuda12.8-torch2.8")
    put_into_store(
        place,
        next(e.sha256 for e in lock.entries if e.path.startswith("images/builder")),
        4_000_000_000,
    )
    _, screen = talk(place, "ubuntu22.04-cuda12.8-torch2.8\n\n")
    assert "To download: 4.1 GB; already in the store: 4.0 GB." in screen
    place.lock_file("ubuntu22.04-cuda12.8-torch2.8").write_text("{", encoding="utf-8")
    _, screen = talk(place, "ubuntu22.04-cuda12.8-torch2.8\n\n")
    assert "To download: at least 6.9 GB" in screen


def test_the_template_is_that_of_the_chosen_torch(place: Project) -> None:
    old = compose_preset.template_for("11.8", place, CATALOG, "2.0.1")
    assert old.name == "ubuntu22.04-cuda11.8-torch2.0"
    assert compose_preset.template_for("11.8", place, CATALOG, "2.1.2").name == REFERENCE
    assert (
        compose_preset.template_for("11.8", place, CATALOG, "2.7.1").name == REFERENCE
    )  # else the newest
    assert (
        compose_preset.template_for("12.9", place, CATALOG).name == "ubuntu22.04-cuda12.8-torch2.8"
    )
    assert not compose_preset.template_for("ubuntu:22.04", place, CATALOG).cuda


def test_every_question_has_one_default(place: Project) -> None:
    lists = [choices.base_options(CATALOG), choices.type_options()]
    for option in choices.base_options(CATALOG):
        base = base_of(option.value, CATALOG)
        assert base is not None
        lists.append(choices.python_options(base, CATALOG))
        for python in lists[-1]:
            lists.append(choices.torch_options(base, python.value, CATALOG))
            lists.append(choices.tensorrt_options(base, python.value, CATALOG))
    for options in lists:
        assert sum(o.default for o in options) == 1, options
        assert len({o.value for o in options}) == len(options)


def test_every_default_and_every_offer_makes_a_sound_preset(place: Project) -> None:
    """What the prompts offer, ``check`` accepts: each option once, with defaults around it."""
    tried = 0
    for option in choices.base_options(CATALOG):
        base = base_of(option.value, CATALOG)
        assert base is not None
        template = compose_preset.template_for(option.value, place, CATALOG)
        for python in choices.python_options(base, CATALOG):
            torches = choices.torch_options(base, python.value, CATALOG)
            trts = choices.tensorrt_options(base, python.value, CATALOG)
            torch = next(o.value for o in torches if o.default)
            trt = next(o.value for o in trts if o.default)
            for pair in {(t.value, trt) for t in torches} | {(torch, t.value) for t in trts}:
                picked = Choices(
                    base=option.value, python=python.value, torch=pair[0], tensorrt=pair[1]
                )
                made, _ = compose_preset.preset_for(
                    place, template, picked, write=False, catalog=CATALOG
                )
                assert made.cuda == base.cuda
                assert (made.tensorrt is None) == (pair[1] == NONE)
                tried += 1
    assert tried > 200


def test_back_goes_to_the_question_before_and_forgets_later_answers(place: Project) -> None:
    before = files(place)
    answers, screen = talk(place, f"manual\n5\n3.10\nb\nb\nb\n{REFERENCE}\n\n")
    assert answers.preset == REFERENCE
    assert [screen.count(f"[{n}/6]") for n in range(1, 7)] == [2, 2, 2, 1, 0, 1]
    assert files(place) == before
    _, screen = talk(place, "b\n\n\n")
    assert "first question" in screen


def test_back_from_the_last_question_of_a_preset(place: Project) -> None:
    answers, _ = talk(place, f"{PRACTICE}\nb\n{REFERENCE}\n\n")
    assert answers.preset == REFERENCE


@pytest.mark.parametrize(
    "typed", ["q\n", "manual\nq\n", "manual\n\n\n\n\nq\n", "quit\n", "", "manual\n\n", "Q\n"]
)
def test_quit_or_end_of_input_anywhere_changes_nothing(place: Project, typed: str) -> None:
    before = files(place)
    with pytest.raises(Interrupted) as caught:
        talk(place, typed)
    assert caught.value.exit_code == 130
    assert files(place) == before


def test_control_c_changes_nothing(place: Project) -> None:
    class Pressed(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:
            raise KeyboardInterrupt

    before = files(place)
    with pytest.raises(Interrupted):
        build_prompts.ask(place, Choices(), stdin=Pressed(), stdout=io.StringIO())
    assert files(place) == before


@pytest.mark.parametrize(
    "nonsense", ["99", "0", "-1", "x", "1 2", "1.5", "９", "\x1b[A", "x" * 5000, "한글"]
)
def test_nonsense_is_asked_again(place: Project, nonsense: str) -> None:
    answers, screen = talk(place, f"{nonsense}\n\n\n")
    assert answers.preset == PRACTICE
    assert "is not a choice" in screen
    assert "\x1b" not in screen
    assert max(map(len, screen.splitlines())) < 400


def test_a_misspelt_value_gets_the_nearest(place: Project) -> None:
    _, screen = talk(place, "debian12-cpu-quickstrat\n\n\n")
    assert f'did you mean "{PRACTICE}"?' in screen


def test_given_answers_are_not_asked_again(place: Project) -> None:
    answers, screen = talk(place, "dev\n", Choices(preset=REFERENCE))
    assert answers == Choices(preset=REFERENCE, type="dev")
    assert "[1/6]" not in screen
    answers, screen = talk(place, "", Choices(preset=REFERENCE, type="dev"))
    assert "[6/6]" not in screen
    answers, screen = talk(place, f"{REFERENCE}\n", Choices(torch="2.0.1", type="runtime"))
    assert answers == Choices(preset=REFERENCE, torch="2.0.1", type="runtime")
    answers, screen = talk(place, "manual\n\n\n\n", Choices(base="12.4", type="runtime"))
    assert "[2/6]" not in screen
    assert answers.preset == "ubuntu22.04-cuda12.4-torch2.6"


def test_a_base_of_the_sites_own_does_not_get_into_the_preset(place: Project) -> None:
    answers, screen = talk(place, "manual\n5\n\n\n\n\n", Choices(base="registry.site/our-cuda:1"))
    assert "[2/6]" in screen
    made = preset.find(place.presets, str(answers.preset))
    assert made.builder.image == "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04"


def test_broken_presets_are_named_not_offered(place: Project) -> None:
    (place.presets / "bad.json").write_text("{", encoding="utf-8")
    _, screen = talk(place, "\n\n")
    assert "bad: the preset has faults; ./gapforge check bad" in screen


def overridden(place: Project, name: str = REFERENCE, **picked: str) -> preset.Preset:
    base = preset.find(place.presets, name)
    made, _ = compose_preset.preset_for(
        place, base, Choices(**picked), write=False, catalog=CATALOG
    )
    return made


def refused(place: Project, name: str = REFERENCE, **picked: str) -> str:
    with pytest.raises(CompatibilityError) as caught:
        overridden(place, name, **picked)
    assert caught.value.exit_code == 9
    return caught.value.render()


def test_overrides_that_contradict_each_other(place: Project) -> None:
    assert "TensorRT 10.14.1 needs CUDA 12.9 / 13.0; with CUDA 11.8 take 8.6.1" in refused(
        place, tensorrt="10.14"
    )
    told = refused(
        place, tensorrt="10.3"
    )  # NVIDIA built it for CUDA 11.8 too; here 10 goes with CUDA 12
    assert "TensorRT 10.3.0 goes with CUDA 12" in told and "with CUDA 11.8 take 8.6.1" in told
    assert "take torch 2.1.2+cu118" in refused(place, torch="2.1.2+cu121")
    assert "take torch 2.7.1+cu118" in refused(place, torch="2.8.0")
    assert "has no Python 3.12" in refused(place, python="3.12")
    assert "TensorRT needs CUDA" in refused(place, base="ubuntu:22.04")
    assert "the catalog does not know where TensorRT 9.9 is" in refused(place, tensorrt="9.9")
    everything = refused(place, python="3.13", tensorrt="10.15", torch="2.13.0")
    assert everything.count("$.") >= 3


def test_overrides_that_fit(place: Project) -> None:
    made = overridden(place, tensorrt="8.5.3")
    assert made.tensorrt is not None
    assert made.tensorrt.version == "8.5.3.1"
    assert "cuda-11.8" in made.sources["tensorrt"].file
    assert overridden(place, tensorrt="none").tensorrt is None
    assert "tensorrt" not in overridden(place, tensorrt="none").sources
    made = overridden(place, torch="2.0")
    assert made.pytorch is not None
    assert (made.pytorch.torch, made.pytorch.torchvision) == ("2.0.1+cu118", "0.15.2+cu118")
    made = overridden(place, python="3.11", tensorrt="none")
    assert "libpython3.11-dev" in made.apt_builder
    assert not any("python3.10" in p for p in (*made.apt_builder, *made.apt_runtime))
    made = overridden(place, base="12.4", torch="2.5.1", tensorrt="10.3")
    opencv = made.component("opencv")
    assert opencv is not None
    assert (made.cuda, made.cudnn, opencv.text("version")) == ("12.4", "9.1", "4.10.0")
    made = overridden(place, base="ubuntu:22.04", tensorrt="none")
    ffmpeg, opencv = made.component("ffmpeg"), made.component("opencv")
    assert ffmpeg is not None and opencv is not None
    assert "--enable-nvenc" not in ffmpeg.list("configure")
    assert not [m for m in opencv.list("modules") if m.startswith("cuda")]


@pytest.mark.parametrize(
    ("base", "opencv"),
    [
        ("12.1", "4.9.0"),
        ("12.4", "4.10.0"),
        ("12.6", "4.11.0"),
        ("12.8", "4.12.0"),
        ("12.9", "4.12.0"),
    ],
)
def test_opencv_moves_to_the_oldest_that_is_known_to_build(
    place: Project, base: str, opencv: str
) -> None:
    made = overridden(place, base=base, torch="none", tensorrt="none")
    options = made.component("opencv")
    assert options is not None and options.text("version") == opencv
    assert [p for p in check_preset(made, CATALOG) if p.rule.startswith("opencv")] == []
    assert opencv in made.sources["opencv"].file
    assert opencv in made.sources["opencv-contrib"].file


def test_overrides_of_the_default_index_stay_there(place: Project) -> None:
    made = overridden(place, "ubuntu22.04-cuda12.1-torch2.1", torch="2.2.2")
    assert made.pytorch is not None
    assert (made.pytorch.torch, made.pytorch.index) == ("2.2.2", "default")


def test_the_same_choice_changes_nothing(place: Project) -> None:
    base = preset.find(place.presets, REFERENCE)
    assert compose_preset.preset_for(
        place, base, Choices(torch="2.1.2", tensorrt="8.6.1.6"), write=True
    ) == (base, None)


def test_a_preset_is_written_once_and_whole(place: Project) -> None:
    base = preset.find(place.presets, REFERENCE)
    made, created = compose_preset.preset_for(place, base, Choices(tensorrt="none"), write=True)
    assert created == f"presets/{REFERENCE}-2.json"
    assert preset.find(place.presets, f"{REFERENCE}-2") == made
    assert compose_preset.preset_for(place, base, Choices(tensorrt="none"), write=True)[1] is None
    dry, path = compose_preset.preset_for(place, base, Choices(tensorrt="8.5.3"), write=False)
    assert path == f"presets/{REFERENCE}-3.json"
    assert not (place.root / str(path)).exists()
    assert dry.name == f"{REFERENCE}-3"


def test_original_preset_is_untouched_by_overrides(place: Project) -> None:
    raw = json.loads(place.preset_file(REFERENCE).read_text(encoding="utf-8"))
    before = json.dumps(raw)
    compose_preset.apply_overrides(
        raw, Choices(base="12.4", torch="2.5.1", tensorrt="10.3"), CATALOG, samples.COMPONENTS
    )
    assert json.dumps(raw) == before


def test_korean_columns_line_up(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    lines = build_prompts.table(
        [
            Option("a", "직접 고르기", "메모", True),
            Option("b", "by hand", "note"),
            Option("c", "가나", "메모"),
        ]
    )
    notes = [
        width(line[: line.rindex(word)])
        for line, word in zip(lines, ("메모", "note", "메모"), strict=True)
    ]
    assert len(set(notes)) == 1
    _, screen = talk(place, "\n\n")
    assert "선택 [" in screen
    assert "프리셋" in screen


def test_the_conversation_is_the_same_in_korean(
    place: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = "manual\n12.4\nnvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04\n3.11\n\n\ndev\n"
    english, screen = talk(place, typed)
    before = files(place)
    place.preset_file(str(english.preset)).unlink()
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    answers, korean = talk(place, typed)
    assert answers == english
    assert files(place) == before
    assert korean.count("\n") == screen.count("\n")
    assert (
        "Python 3.11  Ubuntu 22.04의 Python 3.11은 정식판이 아닌 릴리스 후보 빌드입니다; 3.10이 안전합니다"
        in korean
    )
    assert '선택지에 없는 답입니다: "12.4"' in korean


def test_a_misspelt_value_gets_the_nearest_in_korean(
    place: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    answers, screen = talk(place, "debian12-cpu-quickstrat\n\n\n")
    assert answers.preset == PRACTICE
    assert (
        '선택지에 없는 답입니다: "debian12-cpu-quickstrat" (혹시 "debian12-cpu-quickstart"입니까?). 1~'
        in screen
    )


def test_refusals_in_korean(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    hint = "위에 적힌 버전으로 바꾸어 다시 실행하십시오"
    with pytest.raises(CompatibilityError) as caught:
        overridden(place, tensorrt="10.3")
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (
        "TensorRT 10.3.0은 CUDA 12와 함께 씁니다(CUDA 11.8용 빌드는 10.13에서 끝났습니다); CUDA 11.8에는 8.6.1을 쓰십시오",
        hint,
        9,
    )
    with pytest.raises(CompatibilityError) as caught:
        overridden(place, tensorrt="9.9")
    assert (
        caught.value.message
        == "TensorRT 9.9의 파일 주소가 카탈로그에 없습니다; CUDA 11.8에 맞는 가까운 버전: 8.6.1.6"
    )
    assert caught.value.hint == "또는 프리셋의 tensorrt와 sources.tensorrt를 직접 쓰십시오"
    with pytest.raises(CompatibilityError) as caught:
        overridden(place, python="3.13", tensorrt="10.15", torch="2.13.0")
    assert caught.value.message == "선택한 버전들은 함께 쓸 수 없습니다"
    assert [f.where for f in caught.value.faults] == sorted(f.where for f in caught.value.faults)
    assert (
        "Ubuntu 22.04의 저장소에는 Python 3.13이 없습니다; 3.10을 쓰거나 그 버전이 있는 저장소를 apt.sources에 추가하십시오"
        in [f.problem for f in caught.value.faults]
    )
