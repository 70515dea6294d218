"""Rehearse a preset: simulate the site, unpack or copy, verify, build without a network, record."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
from gapforge.base.files import sha256_file
from gapforge.base.i18n import _
from gapforge.base.process_locks import exclusive
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_error
from gapforge.base.strict_json import read_json
from gapforge.base.system_errors import error_text
from gapforge.base.write_files import open_replaced, write_bytes
from gapforge.bundle.receiver_program import RECEIVER
from gapforge.engine import private_daemon
from gapforge.model import preset as presets
from gapforge.model.lock import LOCK_FILE
from gapforge.model.preset import Preset
from gapforge.rehearsal import rehearsed_bundle, site_folder
from gapforge.rehearsal.allow_bundle_programs import require_known_programs
from gapforge.rehearsal.choose_signers import choose_signers
from gapforge.rehearsal.record import LOG, Record, remove_records
from gapforge.rehearsal.rehearsed_bundle import RehearsedBundle
from gapforge.rehearsal.run_gapforge import (
    SiteRunner,
    can_leave_network,
    facts_of_report,
    site_python,
)
from gapforge.store.inventory import Inventory
from gapforge.trust.trusted_signers import LOCK_SIGNATURE, VARIABLE

Say = Callable[[str], None]
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The user's options, and the command that gives the same ones again.

    ``folders`` hold the bundle; without any, artifacts/PRESET is copied. ``inventory`` lists what
    the site has. ``keep`` keeps the simulated site, ``quiet`` shows no progress.
    """

    command: tuple[str, ...]
    types: tuple[str, ...] = ("runtime",)
    folders: tuple[Path, ...] = ()
    inventory: Path | None = None
    app_source: Path | None = None
    keep: bool = False
    quiet: bool = False


def rehearse(project: Project, preset: Preset, options: Options, *, say: Say, show: Say) -> Record:
    """Rehearse one preset; return the record, which is also written to dist/PRESET.

    ``say`` receives milestones, ``show`` every line that the steps print. A failed step is part of
    the record. Raise VerifyError without a bundle and artifacts, BusyError, and StorageError if
    the record cannot be written.
    """
    if not options.folders and not project.artifacts_of(preset.name).is_dir():
        raise VerifyError(
            _("the artifacts of {presets} are not on this machine", presets=preset.name),
            hint=f"./deps_sync.sh {preset.name}",
        )
    dist = project.dist_of(preset.name)
    lock_file = project.state / "locks" / f"rehearse-{preset.name}"
    with exclusive(lock_file, _("rehearsal of {name}", name=preset.name)):
        remove_records(dist)
        dist.mkdir(parents=True, exist_ok=True)
        record = Record(
            preset=preset.name,
            preset_sha256=preset.sha256,
            practice=preset.practice,
            gapforge=__version__,
            command=options.command,
            types=options.types,
        )
        with open_replaced(dist / LOG) as log:
            _Rehearsal(
                project=project,
                preset=preset,
                options=options,
                record=record,
                say=say,
                show=show,
                log=log,
            ).run()
        record.end()
        record.write(dist)
    return record


@dataclass(kw_only=True)
class _Rehearsal:
    """One run of ``rehearse``. ``created`` says whether the site is ours to remove."""

    project: Project
    preset: Preset
    options: Options
    record: Record
    say: Say
    show: Say
    log: TextIO
    step: str = ""
    created: bool = False
    bundle: RehearsedBundle | None = None
    runner: SiteRunner = field(init=False)

    @property
    def site(self) -> Project:
        return site_folder.site_of(self.project, self.preset.name)

    def run(self) -> None:
        """Run all steps; a failure goes into the record. Then remove the site and its engine."""
        try:
            self._steps()
        except GapforgeError as error:
            self.record.fail(self.step, self._with_local_hint(error))
        except OSError as error:
            self.record.fail(self.step, storage_error(error))
        except KeyboardInterrupt:
            self.record.fail(
                self.step, Interrupted(_("interrupted"), hint=process.quoted(self.options.command))
            )
        finally:
            with _signals_blocked():
                self._clean_up()

    def _steps(self) -> None:
        name, record = self.preset.name, self.record
        self.runner = self._start()
        if self.options.folders:
            with self._timed("bundle", _("examining the bundle")):
                self.bundle = rehearsed_bundle.examine_bundle(
                    self.project, self.options.folders, name, self.options.inventory
                )
                record.bundle = self.bundle.description
                self._warn(*self.bundle.warnings)
                require_known_programs(self.project, self.bundle)
        with self._timed("place", _("creating an empty site: {folder}", folder=self.site.root)):
            site_folder.remove_site(self.site)
            self.created = True
            bare = self.bundle is not None and self.bundle.contains_gapforge
            left_out = site_folder.create_site(self.project, self.site, [self.preset], bare=bare)
            self._warn(*(_("not copied to the site: {file}", file=file) for file in left_out))
        if self.bundle is None:
            self._copy_artifacts()
        else:
            self._unpack(self.bundle)
        with self._timed("verify", _("verifying all files")):
            self._run(self.site.root / site_folder.PROGRAM, "verify", name)
            record.lock_sha256 = _sha256(self._artifacts_lock(self.site))
            self._record_preset(presets.load(self.site.preset_file(name)))
        with self._timed("engine", _("starting an engine without a network")):
            state = private_daemon.start(self.site, offline=True, on_line=self._write)
            record.engine = {
                "version": state.version,
                "storage_driver": state.storage_driver,
                "offline": state.offline,
            }
            self.runner.extra["DOCKER_HOST"] = state.host
        site_folder.link_env(self.project, self.site)  # only a build needs it
        for kind in self.options.types:
            with self._timed(
                f"build {kind}", _("building and checking the {kind} image", kind=kind)
            ):
                self._build(kind)

    def _start(self) -> SiteRunner:
        record = self.record
        with self._timed("start", _("checking the requirements of a rehearsal")):
            if os.geteuid() != 0:
                raise EngineError(
                    _("a rehearsal starts an engine without a network, which needs root"),
                    hint=f"sudo {process.quoted(self.options.command)}",
                )
            private_daemon.require_tools()
            record.repository = _repository(self.project)
            lock_files = (
                self.project.lock_file(self.preset.name),
                self._artifacts_lock(self.project),
            )
            record.lock_sha256 = next(filter(None, map(_sha256, lock_files)), None)
            user = site_folder.user_of_site(self.project)
            python, record.children_without_network = site_python(user), can_leave_network()
            record.user = user.user if user else 0
            record.python = python.to_json()
            return SiteRunner(
                project=self.project.root,
                site=self.site.root,
                python=python,
                preset=self.preset,
                offline=record.children_without_network,
                user=user,
                show=self.show,
                log=self._write,
            )

    def _copy_artifacts(self) -> None:
        name = self.preset.name
        with self._timed("copy", _("copying the artifacts")), self._progress(_("copy")) as bar:
            site_folder.copy_artifacts(self.project, self.site, name, bar.add)
        signature = self.site.artifacts_of(name) / LOCK_SIGNATURE
        signatures = [signature] if signature.exists() else []
        self._choose_signers(signatures, f"./gapforge trust sign {name} --key KEY")

    def _choose_signers(self, signatures: Iterable[Path], sign_command: str) -> None:
        with self._timed("signatures", _("reading the signatures")):
            self._signers_file.unlink(missing_ok=True)  # of a killed rehearsal
            file, self.record.signatures = choose_signers(
                self.project, signatures, self._signers_file, sign_command
            )
            if file is not None:
                self.runner.extra[VARIABLE] = str(file)

    @property
    def _signers_file(self) -> Path:
        # Not inside the site: trusted signers are never carried.
        return self.site.root.with_name(f"{self.preset.name}.signers")

    @property
    def _receiver_file(self) -> Path:
        return self.site.root.with_name(f"{self.preset.name}.{RECEIVER}")

    def _unpack(self, bundle: RehearsedBundle) -> None:
        self._choose_signers(bundle.signatures, f"{bundle.pack_command} --sign KEY")
        if self.options.inventory is not None:
            with self._timed("stock", _("adding what the site has already")):
                held = Inventory.read(self.options.inventory)
                objects = rehearsed_bundle.objects_at_site(self.project, bundle, held)
                self.record.inventory = {
                    "sha256": held.sha256,
                    "digest": held.digest,
                    "objects": len(held),
                    "bytes": held.total,
                    "found_here": len(objects),
                }
                with self._progress(_("objects at the site")) as bar:
                    site_folder.add_objects(self.site, objects, bar.add)
        program = self.site.root / site_folder.PROGRAM
        name = program.name
        if bundle.receiver is not None:
            program, name = self._receiver_file, RECEIVER
            write_bytes(program, bundle.receiver.program)
        with self._timed("unpack", _("unpacking with {program}", program=name)):
            self._run(program, "unpack", *map(str, bundle.folders))
            if not (self.site.root / site_folder.PROGRAM).is_file():
                raise BundleError(
                    _("the bundle was unpacked, but it contains no gapforge that can build"),
                    hint=bundle.pack_command,
                )

    def _record_preset(self, preset: Preset) -> None:
        """Record the preset that the site builds: a bundle with gapforge contains its presets."""
        if preset.sha256 != self.record.preset_sha256:
            self._warn(
                _(
                    "preset {preset} was changed on this machine after the bundle was packed; "
                    "the bundle's preset is rehearsed",
                    preset=self.preset.name,
                )
            )
        self.record.preset_sha256, self.record.practice = preset.sha256, preset.practice

    def _locate_source(self, application: dict[str, Any]) -> None:
        """Make the folder of the application's source relative to the project, or warn."""
        folder = Path(application["folder"])
        if self.site.root in (folder, *folder.parents):
            application["folder"] = str(folder.relative_to(self.site.root))
            return
        self._warn(
            _(
                "the application source is {folder}, outside of the project: carry it too",
                folder=folder,
            )
        )

    def _build(self, kind: str) -> None:
        words = ["--preset", self.preset.name, "--type", kind, "--non-interactive"]
        if self.options.app_source is not None:
            words += ["--app-source", str(self._at_site(self.options.app_source))]
        self._run(self.site.root / "build.py", *words)
        report = _read_json(self.site.dist_of(self.preset.name) / kind / "report.json")
        expected = {
            "preset": self.preset.name,
            "preset_sha256": self.record.preset_sha256,
            "lock_sha256": self.record.lock_sha256,
            "type": kind,
        }
        image, engine = facts_of_report(report, expected)
        if image["application"] is not None:
            self._locate_source(image["application"])
        self.record.images.append(image)
        self.record.engine = {**(self.record.engine or {}), **engine}

    def _at_site(self, folder: Path) -> Path:
        """Return the path of a folder at the site: inside the repository, it is carried with it."""
        if self.project.root not in (folder, *folder.parents):
            return folder
        at_site = self.site.root / folder.relative_to(self.project.root)
        if folder.exists() and not at_site.exists():
            self._warn(_("{folder} is not carried with the repository", folder=folder))
        return at_site

    # -- failures

    def _with_local_hint(self, error: GapforgeError) -> GapforgeError:
        """Return the error with a next command for this machine, instead of one for the site."""
        if isinstance(error, SmokeError):
            keep = () if self.options.keep else ("--keep",)
            hint = _(
                "{command}; then: cd {folder!q}; ./gapforge engine start --offline; {next}",
                command=process.quoted([*self.options.command, *keep]),
                folder=self.site.root,
                next=error.hint,
            )
            return SmokeError(error.message, faults=error.faults, hint=hint)
        if self.bundle is None:
            return error
        again = self.bundle.pack_command
        if self.step == "unpack" and isinstance(error, BundleError):
            missing = rehearsed_bundle.missing_objects(self.project, self.site, self.bundle)
            return BundleError(error.message, faults=[*error.faults, *missing], hint=again)
        if self.step == "verify" and isinstance(error, VerifyError):
            return VerifyError(error.message, faults=error.faults, hint=again)
        if self.step == "verify" and isinstance(error, LockError):
            hint = _("{command}; then: {next}", command=error.hint, next=again)
            return LockError(error.message, faults=error.faults, hint=hint)
        return error

    def _clean_up(self) -> None:
        if not self.created:
            return
        try:
            self._signers_file.unlink(missing_ok=True)
            self._receiver_file.unlink(missing_ok=True)
            if self.options.keep:
                private_daemon.stop(self.site)
                self.say(_("the site was kept: {folder}", folder=self.site.root))
            else:
                site_folder.remove_site(self.site)
        except (GapforgeError, OSError) as error:
            why = error.message if isinstance(error, GapforgeError) else error_text(error)
            self._warn(_("{folder} could not be removed: {why}", folder=self.site.root, why=why))

    # -- helpers

    @contextmanager
    def _timed(self, step: str, what: str) -> Iterator[None]:
        self.step = step
        self.say(_("rehearsal: {step}", step=what))
        started = time.monotonic()
        try:
            yield
        finally:
            self.record.seconds[step] = round(time.monotonic() - started, 1)

    def _run(self, program: Path, *words: str) -> None:
        if self.runner.user is not None:
            site_folder.give_site(self.project, self.site, self.runner.user)
        self.runner.run(program, *words)

    def _progress(self, what: str) -> Progress:
        return Progress(what, quiet=self.options.quiet)

    def _warn(self, *warnings: str) -> None:
        for warning in warnings:
            self.record.warnings.append(warning)
            self.say(_("warning: {warning}", warning=warning))

    def _write(self, line: str) -> None:
        self.log.write(line + "\n")
        self.log.flush()

    def _artifacts_lock(self, project: Project) -> Path:
        return project.artifacts_of(self.preset.name) / LOCK_FILE


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals until the block ends: a second Ctrl-C must not leave an engine running."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _repository(project: Project) -> dict[str, Any] | None:
    """Return the project's commit and whether files differ from it; None without git."""
    # Under sudo the index must remain the user's.
    git = ["git", "--no-optional-locks", "-C", str(project.root)]
    with suppress(ToolError):
        commit = process.run([*git, "rev-parse", "HEAD"], timeout=60).output.strip()
        changed = process.run([*git, "status", "--porcelain"], timeout=600).output.strip()
        return {"commit": commit, "uncommitted_changes": bool(changed)}
    return None


def _sha256(file: Path) -> str | None:
    return sha256_file(file) if file.is_file() else None


def _read_json(file: Path) -> Any:
    try:
        return read_json(file)
    except (OSError, ValueError):
        return None
