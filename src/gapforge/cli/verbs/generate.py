"""``gapforge generate``: update the generated files, or report which are stale."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from gapforge.base.errors import Fault, LockError, PresetError
from gapforge.base.files import contains
from gapforge.base.i18n import N_, _
from gapforge.base.path_checks import inside
from gapforge.base.process import quoted
from gapforge.base.project import Project
from gapforge.base.write_files import write_text
from gapforge.cli import man_page
from gapforge.compat.driver import driver_need
from gapforge.model import catalog, component, preset
from gapforge.model import lock as locks
from gapforge.model.schema import Choice, Record, Text, read_json
from gapforge.tools import json_schemas, package_versions_page
from gapforge.tools.package_versions_page import Review, Stack

HELP = N_("update the generated files: schemas, docs/package-versions and docs/man")
EXAMPLES = ("./gapforge generate", "./gapforge generate --check")
REVIEW = "docs/review.json"
REVIEW_SHAPE = Record(
    {
        "format": Choice((1,), "version of this format"),
        "reviewed": Text("day of the last review", r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "YYYY-MM-DD"),
        "note": Record({"ko": Text(), "en": Text()}),
    }
)
DOCUMENTS = {"ko": "docs/package-versions.md", "en": "docs/package-versions.en.md"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--check", action="store_true", help=_("write nothing; fail if a file is stale")
    )


def run(args: argparse.Namespace, project: Project) -> int:
    """Write and print each stale file, or with --check raise PresetError for them."""
    wanted = generated(project)
    stale = stale_files(project, wanted)
    if args.check and stale:
        raise PresetError(
            _("generated files are stale"),
            faults=[
                Fault(path, problem, _("the content from presets, locks and catalog"))
                for path, problem in stale.items()
            ],
            hint=f"{package_versions_page.COMMAND}; git add {quoted(list(stale))}",
        )
    if not stale:
        print(_("all {total} generated files are up to date", total=len(wanted)))
        return 0
    for path in stale:
        write_text(inside(project.root, path), wanted[path])
        print(path)
    print(_("{count} of {total} generated files written", count=len(stale), total=len(wanted)))
    return 0


def generated(project: Project) -> dict[str, str]:
    """Return the text of every generated file by its path in the project.

    Raises PresetError or LockError if a source of the files cannot be read.
    """
    components, facts = component.load_all(project.components), catalog.load(project.catalog)
    schemas = json_schemas.schemas(components, facts)
    return {**schemas, **documents(project), **man_page.pages()}


def documents(project: Project) -> dict[str, str]:
    """Return the text of docs/package-versions in each language by path."""
    stacks = [_stack(project, name) for name in preset.names(project.presets)]
    components = component.load_all(project.components)
    facts = catalog.load(project.catalog)
    drivers = {stack.preset.name: driver_need(stack.preset, facts).lowest for stack in stacks}
    review = _review(project)
    return {
        path: package_versions_page.render(stacks, components, drivers, review, language)
        for language, path in DOCUMENTS.items()
    }


def stale_files(project: Project, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the problem of each file whose content is not as ``wanted``, by path."""
    found = {}
    for path, text in sorted(wanted.items()):
        file = inside(project.root, path)
        if not file.is_file():
            found[path] = _("does not exist")
        elif not contains(file, text.encode()):
            found[path] = _("is stale")
    return found


def _stack(project: Project, name: str) -> Stack:
    chosen = preset.find(project.presets, name)
    file = project.lock_file(name)
    if not file.exists():
        return Stack(chosen, None)
    lock = locks.load(file)
    if lock.preset != name:
        raise LockError(
            _(
                'presets/{file} belongs to the preset "{preset}"',
                file=file.name,
                preset=lock.preset,
            ),
            hint=f"./deps_sync.sh {name} --update",
        )
    if lock.preset_sha256 != chosen.sha256:
        return Stack(chosen, None, stale=True)
    return Stack(chosen, lock)


def _review(project: Project) -> Review:
    raw, faults = read_json(project.root / REVIEW, REVIEW_SHAPE, REVIEW)
    if faults:
        example = '{"format": 1, "reviewed": "2026-11-23", "note": {"ko": "…", "en": "…"}}'
        raise PresetError(
            _("{file} cannot be read", file=REVIEW),
            faults=faults,
            hint=_("expected content: {example}", example=example),
        )
    return Review(raw["reviewed"], raw["note"]["ko"], raw["note"]["en"])
