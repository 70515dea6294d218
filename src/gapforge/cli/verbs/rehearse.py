"""`gapforge rehearse`: do here what the site will do, and say whether what is carried is all that it takes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gapforge.base.errors import UsageError
from gapforge.base.project import Project
from gapforge.base.text import tr
from gapforge.cli import environment_defaults
from gapforge.model import preset as presets
from gapforge.rehearsal.record import LOG, PAGE, RECORD
from gapforge.rehearsal.run import Options, rehearse

HELP = {
    "ko": "현장에서 할 일을 빈 자리와 네트워크 없는 엔진에서 미리 해 보고, 떠나도 되는지 적습니다 (root 필요)",
    "en": "do what the site will do, in an empty place and an engine with no network; says if you may travel (needs root)",
}
_TYPES = {"runtime": ("runtime",), "dev": ("dev",), "all": ("runtime", "dev")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help=tr("예행할 프리셋", "preset to rehearse"))
    parser.add_argument("--bundle", nargs="+", action="extend", type=Path, default=[], metavar="DIR",
                        help=tr("볼륨이 있는 폴더; 없으면 artifacts/PRESET을 복사해 나르는 경우를 예행합니다",
                                "folders with the volumes; without them, artifacts/PRESET as cp -r would carry it"))  # fmt: skip
    parser.add_argument("--for", dest="inventory", type=Path, metavar="INVENTORY",
                        help=tr("묶음이 현장에 있는 것을 뺐다면, 그 현장이 보낸 목록",
                                "the inventory of the site, if the bundle leaves out what it has"))  # fmt: skip
    parser.add_argument(
        "--type",
        metavar="runtime|dev|all",
        help=tr("빌드할 이미지 (기본 runtime)", "images to build (default runtime)"),
    )
    parser.add_argument(
        "--app-source", metavar="DIR", help=tr("응용 프로그램 소스 폴더", "the application's source folder")
    )
    parser.add_argument("--keep", action="store_true",
                        help=tr("끝난 뒤에도 현장 자리를 남깁니다 (엔진은 멈춥니다)",
                                "leave the place standing afterwards (its engine is stopped)"))  # fmt: skip
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when all went as it must at the site; else the code of the step that failed."""
    environment_defaults.text_default(args, "--type", "--app-source")
    kind = args.type or "runtime"
    if kind not in _TYPES:
        variable, allowed = environment_defaults.variable("--type"), ", ".join(_TYPES)
        raise UsageError(tr(f'--type(또는 {variable})의 값 "{kind}": {allowed} 가운데 하나여야 합니다',
                            f'--type (or {variable}) is "{kind}"; expected {allowed}'),
                         hint="./gapforge rehearse --help")  # fmt: skip
    if args.inventory is not None and not args.bundle:
        raise UsageError(tr("--for는 --bundle과 함께 씁니다. 현장에 있는 것을 뺀 묶음에 쓰는 것입니다",
                            "--for goes with --bundle: it is about a bundle that leaves things out"),
                         hint=f"./gapforge rehearse {args.preset} --bundle DIR --for {args.inventory}")  # fmt: skip
    preset = presets.find(project.presets, args.preset)
    options = Options(
        command=_command(args, kind),
        types=_TYPES[kind],
        folders=tuple(folder.absolute() for folder in args.bundle),
        inventory=args.inventory.absolute() if args.inventory is not None else None,
        app_source=Path(args.app_source).absolute() if args.app_source else None,
        keep=args.keep,
        quiet=args.json,
    )
    show = (lambda line: None) if args.json else _say
    record = rehearse(project, preset, options, say=_say, show=show)
    dist = project.dist_of(preset.name)
    if args.json:
        print(json.dumps(record.to_json(), ensure_ascii=False, indent=2))
    if not args.json or not record.ready:
        print(record.page(), end="", file=sys.stdout if record.ready else sys.stderr)
        _say(tr(f"기록: {dist}/ ({RECORD}, {PAGE}, {LOG})", f"records: {dist}/ ({RECORD}, {PAGE}, {LOG})"))
    return record.exit_code


def _command(args: argparse.Namespace, kind: str) -> tuple[str, ...]:
    """The command that does the same again, from wherever it is run."""
    words = ["./gapforge", "rehearse", args.preset]
    if args.bundle:
        words += ["--bundle", *(str(folder.absolute()) for folder in args.bundle)]
    if args.inventory is not None:
        words += ["--for", str(args.inventory.absolute())]
    if kind != "runtime":
        words += ["--type", kind]
    if args.app_source:
        words += ["--app-source", str(Path(args.app_source).absolute())]
    return tuple(words)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
