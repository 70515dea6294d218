"""The rehearsal itself: an empty place, what was carried, verify, an engine without a network, the build, the record."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gapforge import __version__
from gapforge.base import process
from gapforge.base.errors import (
    BundleError,
    EngineError,
    GapforgeError,
    Interrupted,
    LockError,
    SmokeError,
    ToolError,
    VerifyError,
)
from gapforge.base.files import exclusive, sha256_file, storage_error
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.system_errors import says
from gapforge.engine import private_daemon
from gapforge.model import preset as presets
from gapforge.model.preset import Preset
from gapforge.rehearsal import rehearsed_bundle as bundles
from gapforge.rehearsal import signature_policy
from gapforge.rehearsal import simulated_site as places
from gapforge.rehearsal.record import LOG, Record, forget
from gapforge.rehearsal.rehearsed_bundle import Carried
from gapforge.rehearsal.run_gapforge import Children, can_leave_network, report_of, site_python
from gapforge.store.inventory import Inventory
from gapforge.trust.trusted_signers import LOCK_SIGNATURE, VARIABLE

Say = Callable[[str], None]
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True)
class Options:
    """What the user asked for. ``command`` is how, to be run again."""

    command: tuple[str, ...]
    types: tuple[str, ...] = ("runtime",)
    folders: tuple[
        Path, ...
    ] = ()  # with the bundle; without any, artifacts/PRESET is carried as it is
    inventory: Path | None = None
    app_source: Path | None = None
    keep: bool = False
    quiet: bool = False  # no progress of our own


def rehearse(project: Project, preset: Preset, options: Options, *, say: Say, show: Say) -> Record:
    """Rehearse one preset; gives the record, which is also written to dist/PRESET, ready or not.

    ``say`` gets milestones, ``show`` every line that the steps print. Raises only what keeps a rehearsal from
    being one: BusyError, and StorageError when its record cannot be written.
    """
    dist = project.dist_of(preset.name)
    lock_file = project.state / "locks" / f"rehearse-{preset.name}"
    ours = [
        p for p in (project.root / "dist", dist, project.state, lock_file.parent) if not p.exists()
    ]
    with exclusive(lock_file, _("rehearsal of {name}", name=preset.name)):
        forget(dist)
        dist.mkdir(parents=True, exist_ok=True)
        record = Record(
            preset.name, preset.sha256, preset.practice, __version__, options.command, options.types
        )
        try:
            with open(dist / LOG, "w", encoding="utf-8") as log:
                _Rehearsal(project, preset, options, record, say, show, log).run()
            record.end()
            record.write(dist)
        finally:
            places.give_back(*ours, lock_file, *dist.glob("rehearsal.*"))
    return record


class _Rehearsal:
    def __init__(
        self,
        project: Project,
        preset: Preset,
        options: Options,
        record: Record,
        say: Say,
        show: Say,
        log: TextIO,
    ) -> None:
        self.project, self.preset, self.options, self.record = project, preset, options, record
        self.say, self.show, self.log = say, show, log
        self.place = places.place_of(project, preset.name)
        self.step = ""
        self.made = False  # whether the place is ours by now
        self.carried: Carried | None = None

    def run(self) -> None:
        """All steps; a failure goes into the record. The place and its engine are gone afterwards."""
        try:
            self._steps()
        except GapforgeError as error:
            self.record.fail(self.step, self._explained(error))
        except OSError as error:
            self.record.fail(self.step, storage_error(error))
        except KeyboardInterrupt:
            self.record.fail(
                self.step, Interrupted(_("interrupted"), hint=process.quoted(self.options.command))
            )
        finally:
            with _unhurried():
                self._clean_up()

    def _steps(self) -> None:
        name, record, options = self.preset.name, self.record, self.options
        with self._timed("start", _("what a rehearsal needs")):
            if os.geteuid() != 0:
                raise EngineError(
                    _("a rehearsal starts an engine without a network, which needs root"),
                    hint=f"sudo {process.quoted(options.command)}",
                )
            private_daemon.require_tools()
            record.repository = _repository(self.project)
            record.lock_sha256 = _hash_of(self.project.lock_file(name)) or _hash_of(
                self._lock_beside(self.project)
            )
            python, record.children_without_network = site_python(), can_leave_network()
            record.python = python.to_json()
            children = Children(
                self.project.root,
                self.place.root,
                python,
                self.preset,
                record.children_without_network,
                self.show,
                self._write,
            )
        if options.folders:
            with self._timed("bundle", _("looking the bundle over")):
                self.carried = bundles.examine(options.folders, name)
                record.bundle = self.carried.described
                self._warn(*self.carried.warnings)
        with self._timed("place", _("an empty place: {root}", root=self.place.root)):
            places.clear(self.place)
            self.made = True
            bare = self.carried is not None and self.carried.brings_gapforge
            left_out = places.fill(self.project, self.place, bare=bare)
            self._warn(*(_("{left} and was left out", left=left) for left in left_out))
        if self.carried is None:
            with (
                self._timed("copy", _("carrying the artifacts' folder")),
                self._progress(_("copy")) as bar,
            ):
                places.carry_artifacts(self.project, self.place, name, bar.add)
            beside = self.place.artifacts_of(name) / LOCK_SIGNATURE
            self._choose_signers(
                children,
                [beside] if beside.exists() else [],
                f"./gapforge trust sign {name} --key KEY",
            )
        else:
            again = bundles.pack_again(self.carried, self.options.inventory)
            self._choose_signers(
                children,
                signature_policy.signatures_in(self.options.folders),
                f"{again} --sign KEY",
            )
            self._unpack(children, self.carried)
        with self._timed("verify", _("verifying every byte")):
            children.run(self.place.root / places.PROGRAM, "verify", name)
            record.lock_sha256 = _hash_of(self._lock_beside(self.place))
            self._speak_of(presets.load(self.place.preset_file(name)))
        with self._timed("engine", _("starting an engine with no network")):
            state = private_daemon.start(self.place, offline=True, on_line=self._write)
            record.engine = {
                "version": state.version,
                "storage_driver": state.storage_driver,
                "offline": state.offline,
            }
            children.extra["DOCKER_HOST"] = state.host
        for kind in options.types:
            with self._timed(
                f"build {kind}", _("building and checking the {kind} image", kind=kind)
            ):
                self._build(children, kind)

    def _choose_signers(self, children: Children, signatures: list[Path], again: str) -> None:
        """Children trust whom the site will trust, as far as this machine can tell."""
        with self._timed("signatures", _("the signatures")):
            self._signers_file.unlink(missing_ok=True)  # of a rehearsal that was killed
            file, self.record.signatures = signature_policy.choose(
                self.project, signatures, self._signers_file, again
            )
            if file is not None:
                children.extra[VARIABLE] = str(file)

    @property
    def _signers_file(self) -> Path:
        return self.place.root.with_name(
            f"{self.preset.name}.signers"
        )  # not in the place: trust must not travel

    def _unpack(self, children: Children, carried: Carried) -> None:
        inventory = self.options.inventory
        if inventory is not None:
            with self._timed("stock", _("what the site has already")):
                held = Inventory.read(inventory)
                found = bundles.at_the_site(self.project, carried, held)
                self.record.inventory = {
                    "sha256": held.sha256,
                    "digest": held.digest,
                    "objects": len(held),
                    "bytes": held.total,
                    "found_here": len(found),
                }
                with self._progress(_("stock")) as bar:
                    places.stock(self.place, found, bar.add)
        program = carried.receiver or self.place.root / places.PROGRAM
        with self._timed("unpack", _("unpacking with {name}", name=program.name)):
            children.run(program, "unpack", *map(str, carried.folders))
            if not (self.place.root / places.PROGRAM).is_file():
                raise BundleError(
                    _("the bundle was unpacked, but brought no gapforge that could build"),
                    hint=bundles.pack_again(carried, inventory),
                )

    def _speak_of(self, there: Preset) -> None:
        """The record is of the preset that the site will build: a bundle that brings gapforge brings its presets too."""
        if there.sha256 != self.record.preset_sha256:
            self._warn(
                _(
                    "preset {name} was changed here since the bundle was packed; the one "
                    "in the bundle is rehearsed",
                    name=self.preset.name,
                )
            )
        self.record.preset_sha256, self.record.practice = there.sha256, there.practice

    def _build(self, children: Children, kind: str) -> None:
        words = ["--preset", self.preset.name, "--type", kind, "--non-interactive"]
        if self.options.app_source is not None:
            words += ["--app-source", str(self._at_the_place(self.options.app_source))]
        children.run(self.place.root / "build.py", *words)
        raw = _json(self.place.dist_of(self.preset.name) / kind / "report.json")
        of = {
            "preset": self.preset.name,
            "preset_sha256": self.record.preset_sha256,
            "lock_sha256": self.record.lock_sha256,
            "type": kind,
        }
        image, engine = report_of(raw, of)
        folder = Path(image["application"]["folder"])
        if self.place.root in (folder, *folder.parents):
            image["application"]["folder"] = str(folder.relative_to(self.place.root))
        else:
            self._warn(
                _(
                    "the application's source is {folder}, outside of the project: it "
                    "must be carried too",
                    folder=folder,
                )
            )
        self.record.images.append(image)
        self.record.engine = {**(self.record.engine or {}), **engine}

    def _at_the_place(self, folder: Path) -> Path:
        """Where a folder of this machine is at the site: what lies in the repository comes with it."""
        if self.project.root not in (folder, *folder.parents):
            return folder
        there = self.place.root / folder.relative_to(self.project.root)
        if folder.exists() and not there.exists():
            self._warn(_("{folder} is not carried with the repository", folder=folder))
        return there

    # -- what goes wrong

    def _explained(self, error: GapforgeError) -> GapforgeError:
        """The error with a next command that helps here, rather than at the site that the place stands for."""
        again = (
            bundles.pack_again(self.carried, self.options.inventory)
            if self.carried is not None
            else ""
        )
        if self.carried is not None and self.step == "unpack" and isinstance(error, BundleError):
            lacking = bundles.what_lacks(self.project, self.place, self.carried)
            return BundleError(error.message, faults=[*error.faults, *lacking], hint=again)
        if (
            self.carried is not None
            and self.step == "verify"
            and isinstance(error, (VerifyError, LockError))
        ):
            both = _("{hint}; then: {again}", hint=error.hint, again=again)
            hint = again if isinstance(error, VerifyError) else both
            return type(error)(error.message, faults=error.faults, hint=hint)
        if isinstance(error, SmokeError):
            keep = () if self.options.keep else ("--keep",)
            command, look = (
                process.quoted([*self.options.command, *keep]),
                "./gapforge engine start --offline",
            )
            hint = _(
                "{command}; then: cd {root}; {look}",
                command=command,
                root=self.place.root,
                look=look,
            )
            return SmokeError(error.message, faults=error.faults, hint=f"{hint}; {error.hint}")
        return error

    def _clean_up(self) -> None:
        if not self.made:
            return
        try:
            self._signers_file.unlink(missing_ok=True)
            if self.options.keep:
                private_daemon.stop(self.place)
                self.say(_("the place was kept: {root}", root=self.place.root))
            else:
                places.clear(self.place)
        except (GapforgeError, OSError) as error:
            what = error.message if isinstance(error, GapforgeError) else says(error)
            self._warn(_("{root} could not be taken away: {what}", root=self.place.root, what=what))

    # -- small things

    @contextmanager
    def _timed(self, step: str, what: str) -> Iterator[None]:
        self.step = step
        self.say(_("rehearsal") + f": {what}")
        started = time.monotonic()
        try:
            yield
        finally:
            self.record.seconds[step] = round(time.monotonic() - started, 1)

    def _progress(self, what: str) -> Progress:
        return Progress(what, quiet=self.options.quiet)

    def _warn(self, *warnings: str) -> None:
        for warning in warnings:
            self.record.warnings.append(warning)
            self.say(_("warning: ") + warning)

    def _write(self, line: str) -> None:
        self.log.write(line + "\n")
        self.log.flush()

    def _lock_beside(self, project: Project) -> Path:
        return project.artifacts_of(self.preset.name) / "lock.json"


@contextmanager
def _unhurried() -> Iterator[None]:
    """Signals wait until the block ends: a second Ctrl-C must not leave an engine behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _repository(project: Project) -> dict[str, Any] | None:
    """Which commit the project folder is at, and whether files differ from it; None where git does not tell."""
    git = [
        "git",
        "--no-optional-locks",
        "-C",
        str(project.root),
    ]  # under sudo the index must stay the user's
    with suppress(ToolError):
        commit = process.run([*git, "rev-parse", "HEAD"], timeout=60).output.strip()
        changed = process.run([*git, "status", "--porcelain"], timeout=600).output.strip()
        return {"commit": commit, "uncommitted_changes": bool(changed)}
    return None


def _hash_of(file: Path) -> str | None:
    return sha256_file(file) if file.is_file() else None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
