"""Test the six questions of the build driver, and the presets that the answers make."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace

import pytest

import samples
from gapforge.base.errors import CompatibilityError, Interrupted
from gapforge.base.project import Project
from gapforge.base.text_layout import width
from gapforge.compat import tensorrt
from gapforge.compat.driver import driver_need, usual_need
from gapforge.compat.rules import check_preset
from gapforge.doctor.diagnose import gpu_needs
from gapforge.model import catalog as catalogs
from gapforge.model import preset
from gapforge.model.lock import Lock, LockedImage
from gapforge.model.versions import NONE
from gapforge.wizard import ask, choices, compose_preset
from gapforge.wizard import screen as screens
from gapforge.wizard.choices import Base, Choices, MenuItem, find_base
from gapforge.wizard.questions import Question
from raised_errors import assert_error, values_of
from samples import ROOT

CATALOG = catalogs.load(ROOT / "catalog")
REFERENCE = "ubuntu22.04-cuda11.8-torch2.1"
PRACTICE = "debian12-cpu-quickstart"
TENSORRT_PATH = "$.tensorrt.version"


def existing(place: Project) -> list[preset.Preset]:
    return list(preset.load_all(place.presets)[0].values())


def composed(place: Project, template: preset.Preset, **picked: str) -> compose_preset.Composed:
    return compose_preset.compose(place, template, Choices(**picked), CATALOG, existing(place))


def talk(place: Project, typed: str, given: Choices | None = None) -> tuple[Choices, str]:
    out = io.StringIO()
    answers = ask.ask(
        place, given or Choices(), stdin=io.StringIO(typed), stdout=out, look=lambda name: []
    )
    return answers, out.getvalue()


def base_of(reference: str) -> Base:
    base = find_base(reference, CATALOG)
    assert base is not None
    return base


def files(place: Project) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(place.root.rglob("*")) if f.is_file()}


def shown_until_end(place: Project, typed: str) -> str:
    """Return the prompts up to the end of the input."""
    out = io.StringIO()
    with pytest.raises(Interrupted):
        ask.ask(place, Choices(), stdin=io.StringIO(typed), stdout=out, look=lambda name: [])
    return out.getvalue()


def asked(screen: str) -> list[int]:
    """Return how often each of the six questions was asked."""
    return [screen.count(f"[{number}/6]") for number in range(1, 7)]


def test_ready_preset_is_the_default(place: Project) -> None:
    answers, screen = talk(place, "\n\n\n")
    assert answers == Choices(preset=PRACTICE, type="runtime")
    assert asked(screen) == [1, 0, 0, 0, 0, 1]
    assert "deps_sync" not in screen
    assert f"python3 build.py {PRACTICE} --type runtime --non-interactive" in screen


def test_preset_without_artifacts_names_sync_command(place: Project) -> None:
    """Nothing more is asked about what cannot be built here."""
    answers, screen = talk(place, f"{REFERENCE}\n\n")
    assert answers == Choices(preset=REFERENCE, type="runtime")  # build then refuses it
    assert f"./deps_sync.sh {REFERENCE}" in screen
    assert asked(screen) == [1, 0, 0, 0, 0, 0]
    assert "nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04" in screen


def test_missing_file_is_named(place: Project) -> None:
    wheel = next((place.artifacts_of(PRACTICE) / "wheels").glob("*.whl"))
    wheel.unlink()
    _, screen = talk(place, f"{PRACTICE}\n\n")
    assert f"./gapforge verify {PRACTICE}" in screen
    assert f"wheels/{wheel.name}" in screen


def test_manual_answers_make_a_preset(place: Project) -> None:
    answers, screen = talk(
        place, "manual\n11.8\nnvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04\n\n2.1.2\n8.6.1.6\nend\n"
    )
    order = [screen.index(f"[{n}/6]") for n in range(1, 6)]
    assert order == sorted(order)
    assert answers.preset == REFERENCE  # the same content as a preset that exists
    assert '"11.8"' in screen  # no choice: asked again

    answers, screen = talk(place, "manual\n\n\n\n\nwrite\n")
    assert answers.preset == "ubuntu22.04-cuda12.6-torch2.14"
    assert answers.type == "runtime"
    assert "./deps_sync.sh ubuntu22.04-cuda12.6-torch2.14" in screen
    made = preset.find(place.presets, answers.preset)
    assert [f for f in check_preset(made, CATALOG) if f.severity == "error"] == []
    opencv = made.component("opencv")
    assert opencv is not None and opencv.text("version") == "4.11.0"
    assert made.sources["opencv"].file == "opencv-4.11.0.tar.gz"
    assert made.sources["opencv-contrib"].file == "opencv_contrib-4.11.0.tar.gz"
    assert "2021.12.0" in made.sources["opencv-cache-ippicv"].file

    again, _ = talk(place, "manual\n\n\n\n\nend\n")
    assert again == answers


def test_each_answer_is_told_once(place: Project) -> None:
    """Line by line, what was told before is not told again with other columns."""
    screen = shown_until_end(place, "manual\n\n\n\n").splitlines()
    assert len([line for line in screen if line.split() == ["preset", "manual"]]) == 1
    assert len([line for line in screen if line.startswith("  base image")]) == 1


def test_taken_name_gets_a_number(place: Project) -> None:
    first, _ = talk(place, "manual\n\n\n2.8.0\n\nwrite\n")
    second, _ = talk(place, "manual\n\n\n2.8.0\nnone\nwrite\n")
    assert (first.preset, second.preset) == (
        "ubuntu22.04-cuda12.6-torch2.8",
        "ubuntu22.04-cuda12.6-torch2.8-2",
    )
    assert preset.find(place.presets, str(second.preset)).tensorrt is None


def test_manual_preset_without_gpu_has_no_tensorrt(place: Project) -> None:
    answers, screen = talk(place, "manual\nubuntu:22.04\n\n2.5.1\n\n")
    assert answers.preset == "ubuntu22.04-cpu-torch2.5"
    assert "cpu, torchvision" in screen
    assert asked(screen) == [1, 1, 1, 1, 0, 0]  # without CUDA there is one answer about TensorRT


def test_menus_offer_only_what_fits() -> None:
    base = base_of("11.8")
    torch = [o.value for o in choices.torch_menu(base, "3.10", CATALOG)]
    assert "2.7.1" in torch
    assert "2.8.0" not in torch  # no cu118 build any more
    assert NONE in torch
    trt = [o.value for o in choices.tensorrt_menu(base, "3.10", CATALOG)]
    assert "8.6.1.6" in trt
    assert not [v for v in trt if v.startswith("10.")]
    trt = [o.value for o in choices.tensorrt_menu(base_of("12.4.1"), "3.10", CATALOG)]
    assert not [v for v in trt if v.startswith("8.")]  # the image has cuDNN 9


def lock_with(place: Project, name: str) -> Lock:
    """Write a lock of a preset with base images (4 and 2 GB) and torch wheels (700 MB each)."""
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
        replace(
            samples.entry(
                "wheel", f"wheels/{n}-{v}-cp310-cp310-linux_x86_64.whl", name=n, version=v
            ),
            size=700_000_000,
        )
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
        stream.truncate(size)  # sparse: the prompts read names and sizes only


def put_builder_image_into_store(place: Project, lock: Lock) -> None:
    layer = next(e for e in lock.entries if e.path.startswith("images/builder"))
    put_into_store(place, layer.sha256, layer.size)


def test_menus_show_stored_and_missing_sizes(place: Project) -> None:
    tar = next(t for t in CATALOG.tensorrt["10.7.0.23"].tars if t.cuda == "12.6")
    typed = "manual\nnvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04\n\n2.7.1\nnone\n\n"

    def offered() -> list[str]:
        screen = shown_until_end(place, typed)
        lines = screen[screen.index("[2/6]") :].splitlines()
        names = ("CUDA 12.6.3", "PyTorch 2.7.1", "TensorRT 10.7.0.23")
        return [next(line for line in lines if name in line) for name in names]

    base, torch, trt = offered()
    assert " GB" not in base + torch  # unknown without a lock
    assert trt.endswith(" 4.4 GB")
    lock = lock_with(place, "ubuntu22.04-cuda12.6-torch2.7")
    put_into_store(place, tar.sha256, tar.size)
    put_builder_image_into_store(place, lock)
    base, torch, trt = offered()
    assert base.endswith(" 2.0 GB")  # the runtime image; the builder image is stored
    assert torch.endswith(" 2.1 GB")
    assert " GB" not in trt


def test_download_of_chosen_preset_is_summed_up(place: Project) -> None:
    name = "ubuntu22.04-cuda12.8-torch2.8"
    _, screen = talk(place, f"{name}\n\n")
    unlocked = "6.9 GB; already in the store: 0 B"
    assert unlocked in screen
    lock = lock_with(place, name)
    put_builder_image_into_store(place, lock)
    _, screen = talk(place, f"{name}\n\n")
    assert "4.1 GB; already in the store: 4.0 GB" in screen
    place.lock_file(name).write_text("{", encoding="utf-8")
    _, screen = talk(place, f"{name}\n\n")
    assert "6.9 GB" in screen


@pytest.mark.parametrize(
    ("base", "torch", "expected"),
    [
        ("11.8", "2.0.1", "ubuntu22.04-cuda11.8-torch2.0"),
        ("11.8", "2.1.2", REFERENCE),
        ("11.8", "2.7.1", REFERENCE),  # the newest, as none has this torch
        ("12.9", "", "ubuntu22.04-cuda12.8-torch2.8"),
    ],
)
def test_template_is_the_nearest_preset(
    place: Project, base: str, torch: str, expected: str
) -> None:
    assert compose_preset.template_for(base, existing(place), CATALOG, torch).name == expected


def test_template_without_cuda_for_plain_base(place: Project) -> None:
    assert not compose_preset.template_for("ubuntu:22.04", existing(place), CATALOG).cuda


def test_every_menu_has_one_default() -> None:
    menus = [choices.base_menu(CATALOG), choices.type_menu()]
    for item in choices.base_menu(CATALOG):
        base = base_of(item.value)
        menus.append(choices.python_menu(base, CATALOG))
        for python in menus[-1]:
            menus.append(choices.torch_menu(base, python.value, CATALOG))
            menus.append(choices.tensorrt_menu(base, python.value, CATALOG))
    for menu in menus:
        assert sum(item.default for item in menu) == 1, menu
        assert len({item.value for item in menu}) == len(menu)


def test_menu_names_the_driver_that_check_names(place: Project) -> None:
    known = existing(place)
    for item in choices.base_menu(CATALOG):
        template = compose_preset.template_for(item.value, known, CATALOG)
        raw = compose_preset.apply_overrides(
            template.raw, Choices(base=item.value, tensorrt="none", torch="none"), CATALOG, None
        )
        need = driver_need(preset.parse(raw), CATALOG)
        assert need == gpu_needs(preset.parse(raw), CATALOG).driver
        assert need.lowest in item.note, item.value
    assert usual_need("11.8", CATALOG).lowest == "470.57.02"


@pytest.mark.parametrize(
    ("base", "python", "built_for", "version"),
    [
        ("12.6", "3.10", "12.6", "10.7.0.23"),  # 10.9 is newer, but built for 12.8
        ("12.4", "3.10", "12.4", "10.1.0.27"),
        ("12.8", "3.10", "12.8", "10.9.0.34"),
        ("12.1", "3.10", "12.0", "8.6.1.6"),  # the nearest: none is built for 12.1
        ("11.8", "3.10", "11.8", "8.6.1.6"),
    ],
)
def test_nearest_tensorrt_is_the_default_and_what_check_suggests(
    base: str, python: str, built_for: str, version: str, place: Project
) -> None:
    chosen = base_of(base)
    (default,) = (o for o in choices.tensorrt_menu(chosen, python, CATALOG) if o.default)
    assert (default.value, built_for in default.note) == (version, True)
    best = tensorrt.best_fits(chosen.cuda, chosen.cudnn, python, CATALOG)
    for release in best:
        tar = release.tar_for(chosen.cuda)
        assert tar is not None and tar.cuda == built_for and tar.sha256
    # A TensorRT that is newer than every release: check names the same one.
    template = compose_preset.template_for(chosen.builder, existing(place), CATALOG)
    raw = {**copy.deepcopy(dict(template.raw)), "cuda": chosen.cuda, "cudnn": chosen.cudnn}
    raw["tensorrt"] = {"version": "99.0", "form": "tar", "python": True}
    (found,) = (f for f in check_preset(preset.parse(raw), CATALOG) if f.path == TENSORRT_PATH)
    assert values_of(found.suggestion)["name"] == version.rpartition(".")[0]


def test_every_offer_makes_a_valid_preset(place: Project) -> None:
    """Each offer once, combined with defaults: ``compose`` raises nothing."""
    tried, known = 0, existing(place)
    for item in choices.base_menu(CATALOG):
        base = base_of(item.value)
        template = compose_preset.template_for(item.value, known, CATALOG)
        for python in choices.python_menu(base, CATALOG):
            torches = choices.torch_menu(base, python.value, CATALOG)
            trts = choices.tensorrt_menu(base, python.value, CATALOG)
            torch = next(o.value for o in torches if o.default)
            trt = next(o.value for o in trts if o.default)
            for pair in {(t.value, trt) for t in torches} | {(torch, t.value) for t in trts}:
                picked = Choices(
                    base=item.value, python=python.value, torch=pair[0], tensorrt=pair[1]
                )
                made = compose_preset.compose(place, template, picked, CATALOG, known).preset
                assert made.cuda == base.cuda
                assert (made.tensorrt is None) == (pair[1] == NONE)
                tried += 1
    assert tried > 200


def test_back_forgets_later_answers(place: Project) -> None:
    before = files(place)
    answers, screen = talk(place, f"manual\n5\n3.10\nb\nb\nb\n{REFERENCE}\n\n")
    assert answers.preset == REFERENCE
    assert asked(screen) == [2, 2, 2, 1, 0, 0]
    assert files(place) == before


def test_back_at_first_question_stays_there(place: Project) -> None:
    answers, screen = talk(place, "b\n\n\n\n")
    assert (answers.preset, asked(screen)) == (PRACTICE, [1, 0, 0, 0, 0, 1])


def test_back_from_last_question(place: Project) -> None:
    answers, screen = talk(place, f"{PRACTICE}\n\nb\nb\n{REFERENCE}\n\n")
    assert answers.preset == REFERENCE
    assert asked(screen) == [2, 0, 0, 0, 0, 2]


@pytest.mark.parametrize(
    "typed",
    [
        *["q\n", "manual\nq\n", "manual\n\n\n\n\nq\n", "quit\n", "", "manual\n\n", "Q\n"],
        *["manual\n\n\n\n\n\n", "manual\n\n\n\n\n", "\n\nstop\n"],
    ],
)
def test_quit_changes_nothing(place: Project, typed: str) -> None:
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
        ask.ask(place, Choices(), stdin=Pressed(), stdout=io.StringIO())
    assert files(place) == before


@pytest.mark.parametrize(
    "nonsense", ["99", "0", "-1", "x", "1 2", "1.5", "９", "\x1b[A", "x" * 5000, "한글"]
)
def test_invalid_answer_is_asked_again(place: Project, nonsense: str) -> None:
    answers, screen = talk(place, f"{nonsense}\n\n\n\n")
    assert answers.preset == PRACTICE
    assert nonsense.lstrip("\x1b")[:40] in screen
    assert "\x1b" not in screen
    assert max(map(len, screen.splitlines())) < 400


def test_misspelt_answer_gets_suggestion(place: Project) -> None:
    _, screen = talk(place, "debian12-cpu-quickstrat\n\n\n\n")
    assert f'"{PRACTICE}"' in screen


def test_given_answers_are_not_asked_again(place: Project) -> None:
    answers, screen = talk(place, "dev\n\n", Choices(preset=PRACTICE))
    assert answers == Choices(preset=PRACTICE, type="dev")
    assert asked(screen) == [0, 0, 0, 0, 0, 1]
    answers, screen = talk(place, "\n", Choices(preset=PRACTICE, type="dev"))
    assert answers == Choices(preset=PRACTICE, type="dev")
    assert asked(screen) == [0, 0, 0, 0, 0, 0]
    answers, screen = talk(place, "manual\n\n\n\nwrite\n", Choices(base="12.4", type="runtime"))
    assert asked(screen) == [1, 0, 1, 1, 1, 0]
    assert answers == Choices(preset="ubuntu22.04-cuda12.4-torch2.6", type="runtime")


def test_given_version_makes_a_preset_only_after_a_yes(place: Project) -> None:
    given = Choices(torch="2.0.1", tensorrt="8.5.3", type="runtime")
    before = files(place)
    with pytest.raises(Interrupted):
        talk(place, f"{REFERENCE}\nstop\n", replace(given, torch="2.2.2"))
    assert files(place) == before
    answers, _ = talk(place, f"{REFERENCE}\nwrite\n", replace(given, torch="2.2.2"))
    made = preset.find(place.presets, str(answers.preset))
    assert made.pytorch is not None and made.pytorch.torch == "2.2.2+cu118"
    assert answers == Choices(preset=made.name, type="runtime")


def test_unknown_base_image_stays_out_of_preset(place: Project) -> None:
    own = "registry.site/our-cuda:1"
    answers, screen = talk(place, "manual\n5\n\n\n\nwrite\n", Choices(base=own))
    assert "[2/6]" in screen
    assert answers.base == own  # the image of this build only
    made = preset.find(place.presets, str(answers.preset))
    assert made.builder.image == "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04"


def test_invalid_preset_names_check_command(place: Project) -> None:
    (place.presets / "bad.json").write_text("{", encoding="utf-8")
    _, screen = talk(place, "\n\n\n")
    assert screen.count("bad") == 2 and "./gapforge check bad" in screen


def overridden(place: Project, name: str = REFERENCE, **picked: str) -> preset.Preset:
    return composed(place, preset.find(place.presets, name), **picked).preset


def refused(place: Project, **picked: str) -> CompatibilityError:
    with pytest.raises(CompatibilityError) as caught:
        overridden(place, REFERENCE, **picked)
    return caught.value


def values_in(text: str) -> dict[str, object]:
    """Return the values in the reason and the suggestion of a finding's text."""
    parts = (values_of(part) for part in values_of(text).values() if isinstance(part, str))
    return {name: value for part in parts for name, value in part.items()}


@pytest.mark.parametrize(
    ("picked", "expected"),
    [
        ({"tensorrt": "10.14"}, {"ranges": "12.9 / 13.0", "name": "8.6.1", "cuda": "11.8"}),
        # NVIDIA built it for CUDA 11.8 too, but gapforge uses 10 only with CUDA 12
        ({"tensorrt": "10.3"}, {"name": "8.6.1", "cuda": "11.8"}),
        ({"torch": "2.1.2+cu121"}, {"build": "cu121", "name": "torch 2.1.2+cu118"}),
        ({"torch": "2.8.0"}, {"name": "torch 2.7.1+cu118"}),
        ({"python": "3.12"}, {"python": "3.12"}),
        ({"base": "ubuntu:22.04"}, {}),
    ],
)
def test_incompatible_choice_is_refused(
    place: Project, picked: dict[str, str], expected: dict[str, str]
) -> None:
    error = refused(place, **picked)
    assert error.exit_code == 9
    texts = [error.message, *(fault.problem for fault in error.faults)]
    assert any(expected.items() <= values_in(text).items() for text in texts), texts


def test_unknown_tensorrt_is_refused(place: Project) -> None:
    error = refused(place, tensorrt="9.9")
    hint = {"near": "8.6.1.6", "cuda": "11.8"}
    assert_error(error, CompatibilityError, version="9.9", hint=hint)


def test_all_incompatible_choices_are_listed(place: Project) -> None:
    error = refused(place, python="3.13", tensorrt="10.15", torch="2.13.0")
    where = [fault.where for fault in error.faults]
    assert len(where) >= 3 and where == sorted(where)


def test_compatible_choices_change_preset(place: Project) -> None:
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
    assert made.python == "3.11"
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
def test_opencv_is_updated_for_newer_cuda(place: Project, base: str, opencv: str) -> None:
    made = overridden(place, base=base, torch="none", tensorrt="none")
    options = made.component("opencv")
    assert options is not None and options.text("version") == opencv
    assert [f for f in check_preset(made, CATALOG) if f.rule.startswith("opencv")] == []
    assert opencv in made.sources["opencv"].file
    assert opencv in made.sources["opencv-contrib"].file


def test_default_index_is_kept(place: Project) -> None:
    made = overridden(place, "ubuntu22.04-cuda12.1-torch2.1", torch="2.2.2")
    assert made.pytorch is not None
    assert (made.pytorch.torch, made.pytorch.index) == ("2.2.2", "default")


def test_unchanged_choice_returns_same_preset(place: Project) -> None:
    base = preset.find(place.presets, REFERENCE)
    unchanged = composed(place, base, torch="2.1.2", tensorrt="8.6.1.6")
    assert unchanged == compose_preset.Composed(base, is_new=False)


def test_preset_is_written_once(place: Project) -> None:
    base = preset.find(place.presets, REFERENCE)
    made = composed(place, base, tensorrt="none")
    assert made.is_new and made.path == f"presets/{REFERENCE}-2.json"
    assert not (place.root / made.path).exists()
    made.write(place)
    assert preset.find(place.presets, f"{REFERENCE}-2") == made.preset
    assert not composed(place, base, tensorrt="none").is_new
    other = composed(place, base, tensorrt="8.5.3")
    assert other.is_new and other.path == f"presets/{REFERENCE}-3.json"


def test_questions_and_flags_write_the_same_preset(place: Project) -> None:
    """Both leave out what is filled in anyway, so that the state of the preset is the same."""
    base, torch = "nvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04", "2.7.1"
    template = compose_preset.template_for(base, existing(place), CATALOG, torch)
    picked = {"base": base, "python": "3.10", "torch": torch, "tensorrt": "none"}
    by_flags = composed(place, template, **picked)
    assert by_flags.is_new
    typed = "\n".join(["manual", *picked.values(), ""])
    chosen, _screen = talk(place, f"{typed}write\n")
    assert chosen.preset == by_flags.preset.name
    assert preset.find(place.presets, chosen.preset).sha256 == by_flags.preset.sha256


def test_overrides_keep_original_preset(place: Project) -> None:
    raw = json.loads(place.preset_file(REFERENCE).read_text(encoding="utf-8"))
    before = json.dumps(raw)
    compose_preset.apply_overrides(
        raw, Choices(base="12.4", torch="2.5.1", tensorrt="10.3"), CATALOG, samples.COMPONENTS
    )
    assert json.dumps(raw) == before


def test_korean_columns_are_aligned() -> None:
    items = (
        MenuItem("a", "직접 고르기", "메모", True),
        MenuItem("b", "by hand", "note"),
        MenuItem("c", "가나", "메모"),
    )
    question = Question(step="type", title="", items=items)
    lines = zip(screens.plain_lines(question), items, strict=True)
    assert len({width(line[: line.rindex(item.note)]) for line, item in lines}) == 1


def test_korean_answers_make_same_preset(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "manual\n12.4\nnvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04\n3.11\n\n\nwrite\n"
    english, screen = talk(place, typed)
    before = files(place)
    place.preset_file(str(english.preset)).unlink()
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    answers, korean = talk(place, typed)
    assert answers == english
    assert files(place) == before
    assert korean.count("\n") == screen.count("\n")


def test_korean_refusal_is_a_whole_sentence(
    place: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert refused(place, tensorrt="10.3").message == (
        "TensorRT 10.3.0은 CUDA 12용입니다(CUDA 11.8용 빌드는 10.13이 마지막입니다); "
        "CUDA 11.8에는 TensorRT 8.6.1을 사용하십시오"
    )
