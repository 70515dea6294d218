"""``gapforge new``: write a preset for one's own application, from an existing preset."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _, localized
from gapforge.base.path_checks import given_path, real_path
from gapforge.base.process import quoted
from gapforge.base.project import Project
from gapforge.base.text_layout import whole_number
from gapforge.cli import environment_defaults
from gapforge.cli.argument_parser import add_json, add_versions
from gapforge.cli.output import print_json, say, warn
from gapforge.image.application_source import BUILD_SYSTEMS, build_of, setting_key
from gapforge.model import catalog as catalogs
from gapforge.model import preset as presets
from gapforge.model import preset_writer
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset
from gapforge.model.preset_defaults import name_of_folder
from gapforge.model.schema import nearest
from gapforge.model.versions import NONE
from gapforge.wizard.choices import Choices
from gapforge.wizard.compose_preset import apply_overrides, summary_of, template_for, warnings_of

HELP = N_("write a preset for your own application, with the versions of an existing preset")
EXAMPLES = (
    "./gapforge new my-app --from ubuntu22.04-cuda12.4-torch2.5 --app-source ~/my-app",
    "./gapforge new my-app --base nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04 --tensorrt none",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add = parser.add_argument
    add("name", metavar="NAME", help=_("name of the new preset"))
    add("--from", dest="template", metavar="PRESET", help=_("preset to begin with"))
    add("--base", metavar="IMAGE", help=_("base image; without --from, chooses the nearest preset"))
    add_versions(parser)
    add(
        "--app-source",
        metavar="DIR",
        help=_("the application's source folder; none for an image without one"),
    )
    add("--app-name", metavar="NAME", help=_("the application's name (default: of its folder)"))
    add(
        "--app-build",
        metavar="SYSTEM",
        help=_("cmake, meson, make, or the path of a script in the source folder (default: found)"),
    )
    add("--command", metavar="COMMAND", help=_("command that the image runs"))
    add("--check", metavar="COMMAND", help=_("command that shows that the application works"))
    add("--summary", metavar="TEXT", help=_("one line for lists"))
    add(
        "--practice",
        action="store_true",
        help=_("allow an OS that is not the target OS; the image is not for delivery"),
    )
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Write the preset and return 0."""
    environment_defaults.versions(args)
    file = preset_writer.new_file(project, args.name)
    catalog = catalogs.load(project.catalog)
    if not (args.template or args.base or args.json) and sys.stdin.isatty():
        _ask(args, project)
    template = _template(args, project, catalog)
    choices = Choices(base=args.base, python=args.python, torch=args.torch, tensorrt=args.tensorrt)
    raw = apply_overrides(template.raw, choices, catalog, template.described)
    application, source = _application(args, project)
    raw["name"] = args.name
    raw["application"] = application
    raw.pop("practice", None)
    if args.practice:
        raw["practice"] = True
    summary = {"ko": args.summary, "en": args.summary} if args.summary else summary_of(raw)
    preset = preset_writer.write_new(file, {**raw, "summary": summary})
    warnings = warnings_of(preset, catalog)
    following = [f"./gapforge check {args.name}", f"./deps_sync.sh {args.name}"]
    if args.json:
        document: dict[str, Any] = {"file": str(file), "warnings": warnings, "next": following}
        if application is not None and source is not None:
            document["source"] = {
                "folder": str(source),
                "copy_to": str(project.root / application["source"]),
                "setting": setting_key(application["name"]),
            }
        print_json(document)
        return 0
    for text in warnings:
        warn(text)
    print(_("wrote {file}", file=file))
    if application is not None and source is not None:
        print(_source_note(project, application, source))
    print(_("next: ") + "; ".join(following))
    return 0


def _ask(args: argparse.Namespace, project: Project) -> None:
    """Ask for the preset to begin with and the application, as far as no option names them.

    No answer leaves the option unset.
    """
    loaded, _faulty = presets.load_all(project.presets)
    offered = [preset for preset in loaded.values() if args.practice or not preset.practice]
    for number, preset in enumerate(offered, 1):
        say(f"{number}  {preset.name}")
        say(f"     {localized(ko=preset.summary_ko, en=preset.summary_en)}")
    answer = _answer(_("preset to begin with (number or name)"))
    number = whole_number(answer) or 0
    args.template = offered[number - 1].name if 0 < number <= len(offered) else answer
    if args.app_source is None:
        args.app_source = _answer(_("the application's source folder (none: no application)"))


def _answer(question: str) -> str:
    """Return the line that is typed after a question, "" at the end of the input."""
    print(f"{question}: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _template(args: argparse.Namespace, project: Project, catalog: Catalog) -> Preset:
    """Return the preset to begin with. Raise UsageError if none is named or it is for practice."""
    if args.template:
        template = presets.find(project.presets, args.template)
    elif args.base:
        existing, _faulty = presets.load_all(project.presets)
        template = template_for(args.base, existing.values(), catalog)
    else:
        raise UsageError(
            _("the preset to begin with is missing"),
            hint=_("./gapforge list; ./gapforge new {name!q} --from PRESET", name=args.name),
        )
    if template.practice and not args.practice:
        raise UsageError(
            _(
                "{preset} is a practice preset: its OS is not the target OS, so its image is not "
                "for delivery",
                preset=template.name,
            ),
            hint=_("choose another preset (./gapforge list), or add --practice"),
        )
    return template


def _application(
    args: argparse.Namespace, project: Project
) -> tuple[dict[str, Any] | None, Path | None]:
    """Return the preset's "application", and the source folder if it is outside the project.

    The application is None with --app-source none. Raise UsageError for options that then say
    nothing, or for a source that is no folder.
    """
    if args.app_source == NONE:
        _refuse_options_of_application(args)
        return None, None
    source = _source_folder(args)
    name = args.app_name or (name_of_folder(source.name) if source else "") or args.name
    inside = _path_inside(project, source)
    application: dict[str, Any] = {"name": name, "source": inside or f"apps/{name}"}
    build = _build_system(args, source)
    if build != "cmake":
        application["build"] = build
    for key in ("command", "check"):
        if text := getattr(args, key):
            application[key] = _words(f"--{key}", text)
    return application, None if inside else source


def _refuse_options_of_application(args: argparse.Namespace) -> None:
    """Raise UsageError for an option that says something about the application."""
    for key in ("app_name", "app_build", "command", "check"):
        if getattr(args, key):
            flag = "--" + key.replace("_", "-")
            raise UsageError(
                _("{flag} is for an application", flag=flag), hint=_("--app-source DIR")
            )


def _source_folder(args: argparse.Namespace) -> Path | None:
    """Return the folder of --app-source. Raise UsageError if it is none."""
    if not args.app_source:
        return None
    source = given_path(args.app_source).absolute()
    if not source.is_dir():
        raise UsageError(_("{folder} is not a folder", folder=source), hint=_("--app-source DIR"))
    return source


def _path_inside(project: Project, source: Path | None) -> str:
    """Return a folder relative to the project, "" if it is not inside."""
    root = real_path(project.root)
    if source is None or root not in real_path(source).parents:
        return ""
    return real_path(source).relative_to(root).as_posix()


def _build_system(args: argparse.Namespace, source: Path | None) -> str:
    """Return --app-build, else what the files of the source say. Raise UsageError for another."""
    build = args.app_build or (build_of(source) if source else "cmake")
    if build not in BUILD_SYSTEMS and not build.startswith("./"):
        raise UsageError(
            _(
                '--app-build "{build}" is no build system{nearest}',
                build=build,
                nearest=nearest(build, BUILD_SYSTEMS),
            ),
            hint=_("{names}, or a script such as ./build.sh", names=", ".join(BUILD_SYSTEMS)),
        )
    return str(build)


def _words(flag: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(
            _("{flag} {text!r}: {error}", flag=flag, text=text, error=error),
            hint=_("quote the words as in a shell"),
        ) from None


def _source_note(project: Project, application: dict[str, Any], source: Path) -> str:
    """Return how the build finds a source folder outside the project."""
    target = project.root / application["source"]
    return _(
        "the source folder is outside the project; copy it: {copy}\n"
        "or name it in .env: {key}={source}",
        copy=quoted(["cp", "-r", str(source), str(target)]),
        key=setting_key(application["name"]),
        source=source,
    )
