"""``gapforge build`` (build.py): from artifacts to a checked, tagged image, with no network."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from gapforge.base.errors import EngineError, UsageError
from gapforge.base.process import quoted
from gapforge.base.progress import human_bytes, human_time
from gapforge.base.project import Project
from gapforge.base.text import pad, tr, width
from gapforge.cli import environment_defaults
from gapforge.cli.build_prompts import Choices, ask, preset_for
from gapforge.engine import detect
from gapforge.image import build, smoke_checks
from gapforge.model import preset as preset_module
from gapforge.model.preset import Preset

HELP = {
    "ko": "옮겨 온 아티팩트로 네트워크 없이 이미지를 빌드합니다. 플래그 없이 실행하면 차례로 묻습니다.",
    "en": "Build an image with no network from carried artifacts. Asks, when run at a terminal without flags.",
}
_TYPES = ("runtime", "dev")
_TEXT_FLAGS = ("--preset", "--base", "--python", "--torch", "--tensorrt", "--type", "--app-source", "--tag", "--engine")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags; each has a GAPFORGE_* variable of the same name."""
    add = parser.add_argument
    add("--preset", metavar="NAME", help=tr("프리셋 이름", "preset to build"))
    add("--base", metavar="IMAGE", help=tr(
        "다른 기반 이미지: 엔진에 있는 이름, docker save 파일, OCI 레이아웃 폴더",
        "another base image: a name in the engine, a docker save archive, or an OCI layout folder"))  # fmt: skip
    add("--python", metavar="X.Y", help=tr("Python 버전", "Python version"))
    add("--torch", metavar="VERSION", help=tr("PyTorch 버전, 또는 none", "PyTorch version, or none"))
    add("--tensorrt", metavar="VERSION", help=tr("TensorRT 버전, 또는 none", "TensorRT version, or none"))
    add("--type", metavar="runtime|dev", help=tr("이미지 종류 (기본 runtime)", "kind of image (default runtime)"))
    add("--app-source", metavar="DIR", help=tr("응용 프로그램 소스 폴더", "the application's source folder"))
    add("--tag", metavar="NAME:TAG", help=tr("완성된 이미지의 이름", "name of the finished image"))
    add("--engine", metavar="NAME", help=tr("엔진 (기본: 찾아서 고름)", "engine (default: chosen by looking)"))
    add("--non-interactive", action="store_true", help=tr("묻지 않습니다", "never ask"))
    add(
        "--dry-run",
        action="store_true",
        help=tr("계획과 엔진 명령만 출력합니다", "print the plan and the engine's command only"),
    )
    add("--no-cache", action="store_true", help=tr("모든 단계를 다시 빌드합니다", "build every step again"))
    add(
        "--quiet",
        action="store_true",
        help=tr("엔진의 출력을 화면에 보이지 않습니다", "keep the engine's output off the screen"),
    )
    add("--json", action="store_true", help=tr("결과를 JSON으로 출력합니다", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Choose, verify, build, check, tag; prints the result."""
    environment_defaults.text_default(args, *_TEXT_FLAGS)
    environment_defaults.switch_default(args, "--non-interactive", "--dry-run", "--no-cache", "--quiet")
    environment_defaults.one_of(args.type, _TYPES, "--type", args.verb)
    preset, kind = _choose(args, project)
    options = build.Options(
        type=kind, tag=args.tag or "", base=args.base or "", app_source=args.app_source or "", no_cache=args.no_cache
    )
    inputs = build.read_inputs(project, preset, options)
    for warning in inputs.warnings:
        _say(tr("주의: ", "warning: ") + warning)
    if preset.practice:
        _say(tr("주의: 연습용 프리셋입니다. 이 이미지는 납품할 수 없습니다.",
                "warning: this is a practice preset; its image is not for delivery"))  # fmt: skip
    if args.dry_run:
        return _dry_run(args, project, inputs, options)
    build.verify_artifacts(project, preset, inputs.lock)
    engine = detect.choose(args.engine or "", project=project)
    show = (lambda line: None) if args.quiet or args.json else (lambda line: print(line, file=sys.stderr))
    built = build.build(project, engine, inputs, options, say=_say, show=show)
    if args.json:
        print(built.report.read_text(encoding="utf-8"), end="")
        return 0
    print_checks(list(built.checks))
    total = human_time(sum(built.seconds.values()))
    print(tr(f"\n이미지   {built.plan.tag}", f"\nimage    {built.plan.tag}"))
    print(tr(f"크기     {human_bytes(built.size)}", f"size     {human_bytes(built.size)}"))
    print(tr(f"시간     {total}", f"time     {total}"))
    print(tr(f"보고서   {built.report}", f"report   {built.report}"))
    return 0


def _choose(args: argparse.Namespace, project: Project) -> tuple[Preset, str]:
    """The preset and type, by flags or by asking."""
    given = Choices(args.preset, args.base, args.python, args.torch, args.tensorrt, args.type)
    interactive = not args.non_interactive and not args.json and sys.stdin.isatty() and sys.stdout.isatty()
    if interactive and (given.preset is None or given == Choices(preset=given.preset)):
        given = ask(project, given, stdin=sys.stdin, stdout=sys.stdout)
        # A base chosen at the prompt is part of the preset that was made of the answers.
        args.base = None if given.base and not args.base else args.base
    if given.preset is None:
        raise UsageError(tr("--preset이 없습니다", "--preset is missing"),
                         hint="./gapforge list; " + tr("그다음", "then") + " python3 build.py --preset NAME --type runtime --non-interactive")  # fmt: skip
    base = preset_module.find(project.presets, given.preset)
    if given.python is None and given.torch is None and given.tensorrt is None:
        return base, given.type or "runtime"
    changed, created = preset_for(project, base, replace(given, base=None), write=not args.dry_run)
    if created is not None:
        _say(tr(f"새 프리셋을 만들었습니다: {created}", f"made a preset of these choices: {created}"))
    return changed, given.type or "runtime"


def _dry_run(args: argparse.Namespace, project: Project, inputs: build.Inputs, options: build.Options) -> int:
    """The plan and the engine's exact command; needs no engine, and no artifacts but the lock."""
    plan = build.plan_of(inputs, options)
    try:
        engine = detect.choose(args.engine or "", project=project)
    except EngineError as error:
        engine = detect.assumed()
        _say(tr("주의: 아래 명령은 Docker 내장 BuildKit 기준입니다. ",
                "warning: the command is for Docker's built-in BuildKit: ") + error.message)  # fmt: skip
    with inputs.secrets.files(dry=True) as secret_files:
        request = build.request_of(plan, project, inputs, secret_files, options.no_cache)
    argv, env = engine.build_command(request)
    assignments = [f"{key}={value}" for key, value in env.items()]
    command = quoted(["env", *assignments, *argv]) if assignments else quoted(argv)
    if args.json:
        print(json.dumps({**plan.to_json(), "command": command}, ensure_ascii=False, indent=2, sort_keys=True))
        return 0
    _row(tr("프리셋", "preset"), f"{plan.preset} ({plan.preset_sha256[:12]})")
    _row(tr("이미지", "image"), f"{plan.tag} (--target {plan.target})")
    for base in plan.bases:
        _row(tr("기반 이미지", "base"), f"{base.role}: {base.reference} → {base.name}")
    for key, value in plan.build_args.items():
        _row("build-arg", f"{key}={value}")
    for secret in plan.secrets:
        state = tr("있음", "set") if secret.key in inputs.secrets.values else tr("없음", "not set")
        _row(secret.passed, f"{secret.key} ({state})")
    _row(tr("소스 폴더", "application"), f"{plan.application_folder} ({inputs.source.chosen_by_text})")
    folders: dict[str, int] = {}
    for file in plan.files:
        top = "/".join(file.path.split("/")[:2])
        folders[top] = folders.get(top, 0) + 1
    for top, count in sorted(folders.items()):
        _row(tr("컨텍스트", "context"), f"{top} ({count})")
    _row(tr("검사", "smoke"), ", ".join(c["component"] for c in plan.smoke if c["enabled"]))
    # A dry run writes nothing; what the command reads is there once a build has begun.
    print(tr("\n# 빌드가 컨텍스트를 만들고 기반 이미지를 불러온 뒤에 그대로 실행할 수 있습니다",
             "\n# ready to paste once a build has laid out the context and loaded the base images"))  # fmt: skip
    print(command)
    return 0


def _row(label: str, text: str) -> None:
    print(pad(label, 13) + text)


def print_checks(checks: list[smoke_checks.CheckResult]) -> None:
    """The smoke table."""
    rows = [
        (
            tr("통과", "ok") if c.ok else tr("실패", "FAIL"),
            c.component,
            c.title,
            c.found if c.ok else f"{c.found} ≠ {c.expected}",
        )
        for c in checks
    ]
    columns = [max((width(row[i]) for row in rows), default=0) for i in range(3)]
    for row in rows:
        cells = [pad(cell, columns[i]) for i, cell in enumerate(row[:3])]
        print("  ".join([*cells, row[3][:100]]).rstrip())
    good = sum(check.ok for check in checks)
    print(tr(f"검사 {len(checks)}개 중 {good}개 통과", f"{good} of {len(checks)} checks passed"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
