"""Build an image from verified artifacts, check it, tag it and report on it."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import EngineError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.process import hide
from gapforge.base.process_locks import exclusive
from gapforge.base.progress import StatusLine
from gapforge.base.project import Project
from gapforge.base.write_files import open_replaced
from gapforge.engine.protocol import BuildRequest, Engine, OnLine
from gapforge.image import build_context, load_base_images, smoke_checks
from gapforge.image.build_progress import BuildStatus, BuildTimes
from gapforge.image.plan import Plan
from gapforge.image.read_inputs import Inputs, Options
from gapforge.image.report import BuildResult, write_report
from gapforge.image.source_copy import copy_source
from gapforge.model import usable_base_image
from gapforge.model.lock import LockedImage
from gapforge.model.names import ROLES


def build(
    project: Project,
    engine: Engine,
    inputs: Inputs,
    options: Options,
    *,
    on_step: OnLine,
    on_output: OnLine,
    status: StatusLine,
) -> BuildResult:
    """Build, check and tag one image whose artifacts were verified.

    ``on_step`` gets a line per milestone, ``on_output`` every line of the engine's output with the
    secrets hidden; ``status`` shows the running steps. Nothing is tagged unless the smoke checks
    pass. Raise BuildError, SmokeError, EngineError and the errors of each step.
    """
    name = inputs.preset.name
    with exclusive(project.state / "locks" / f"build-{name}", _("build of {name}", name=name)):
        return _Build(
            project=project,
            engine=engine,
            inputs=inputs,
            options=options,
            on_step=on_step,
            on_output=on_output,
            status=status,
        ).run()


def build_request(
    plan: Plan, project: Project, inputs: Inputs, secret_files: Mapping[str, Path], no_cache: bool
) -> BuildRequest:
    """Return what the engine is asked to do.

    ``secret_files`` maps the keys of secret mounts to the files that hold their values.
    """
    build_args = {s.key for s in plan.secrets if s.passed == "build-arg"}
    secret_env = {k: v for k, v in sorted(inputs.secrets.values.items()) if k in build_args}
    folder = project.context_of(plan.preset)
    return BuildRequest(
        context=folder,
        dockerfile=folder / "Dockerfile",
        target=plan.target,
        tag=unchecked_name(plan, project),
        build_args=plan.build_args,
        labels=plan.labels,
        secrets=secret_files,
        build_arg_env=tuple(secret_env),
        secret_env=secret_env,
        no_cache=no_cache,
    )


def unchecked_name(plan: Plan, project: Project) -> str:
    """Return the name of an image until its smoke checks pass.

    Each checkout has its own, because several, perhaps on several machines, may use one engine.
    """
    checkout = sha256_bytes(f"{socket.gethostname()}:{project.root}".encode())[:8]
    return f"localhost/gapforge/unchecked/{plan.preset}:{plan.type}-{checkout}"


@dataclass(kw_only=True)
class _Build:
    """One run of ``build``.

    ``seconds`` is the duration of each finished step, ``source_sha256`` the checksum of the
    application's source.
    """

    project: Project
    engine: Engine
    inputs: Inputs
    options: Options
    on_step: OnLine
    on_output: OnLine
    status: StatusLine
    seconds: dict[str, float] = field(default_factory=dict)
    source_sha256: str = ""
    step_began: float = field(default_factory=time.monotonic)

    def run(self) -> BuildResult:
        preset = self.inputs.preset
        artifacts = self.project.artifacts_of(preset.name)
        plan = self._lay_out_context(artifacts)
        self._finish_step("context")
        for base in plan.bases:
            if base.layout:
                image, layout = self.inputs.lock.images[base.role], artifacts / base.layout
                load_base_images.ensure(self.engine, layout, image, self.on_output)
        self._finish_step("base images")
        folder = self.project.dist_of(preset.name) / plan.type
        self._run_engine(plan, folder / "build.log")
        # From here on the image is known by its id: names can be moved to other images meanwhile.
        unchecked = unchecked_name(plan, self.project)
        image_ids = self.engine.image_ids(unchecked)
        if not image_ids:
            raise EngineError(_("the engine has no image {name}", name=unchecked))
        self._finish_step("build")
        checks = self._run_smoke_checks(plan, image_ids[0])
        self._finish_step("smoke")
        result = BuildResult(
            plan=plan,
            image_ids=image_ids,
            size=self.engine.image_size(image_ids[0]),
            checks=checks,
            seconds=self.seconds,
            source_sha256=self.source_sha256,
            folder=folder,
        )
        write_report(result, self.inputs, self.engine.info)
        smoke_checks.raise_for_failures(checks, unchecked)
        self.engine.tag(image_ids[0], plan.tag)
        self.engine.untag(unchecked)
        return result

    def _lay_out_context(self, artifacts: Path) -> Plan:
        plan = self.inputs.plan(self.options, self._load_override())
        context = self.project.context_of(plan.preset)
        build_context.lay_out(plan, context, artifacts)
        if self.inputs.source is not None:
            folder = context / build_context.APPLICATION
            self.source_sha256 = copy_source(self.inputs.source.folder, folder)
        return plan

    def _load_override(self) -> LockedImage | None:
        """Return the ``--base`` image, None without one; raise TargetError for another OS."""
        if not self.options.base:
            return None
        image = load_base_images.ensure_override(self.engine, self.options.base, self.on_output)
        usable_base_image.check_operating_systems(self.inputs.preset, dict.fromkeys(ROLES, image))
        return image

    def _run_engine(self, plan: Plan, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        secrets = self.inputs.secrets
        hidden = secrets.redactions
        times = BuildTimes(self.project.state / "build-times.json")
        status = BuildStatus(self.status, times.of(plan.preset))
        with open_replaced(log) as lines, secrets.files() as secret_files:

            def on_line(line: str) -> None:
                safe = hide(line, hidden)
                lines.write(safe + "\n")
                lines.flush()
                status.feed(safe)
                self.on_output(safe)

            root = self.project.root
            self.on_step(
                _(
                    "build: {target} of {name} with {builder}, log in {log}",
                    target=plan.target,
                    name=plan.preset,
                    builder=self.engine.info.builder,
                    log=log.relative_to(root) if log.is_relative_to(root) else log,
                )
            )
            request = build_request(
                plan, self.project, self.inputs, secret_files, self.options.no_cache
            )
            try:
                with status:
                    self.engine.build(request, on_line)
            finally:
                times.remember(plan.preset, status.steps.seconds)

    def _run_smoke_checks(self, plan: Plan, image: str) -> tuple[smoke_checks.CheckResult, ...]:
        self.on_step(_("smoke: the components' checks, in the finished image with no network"))
        return smoke_checks.run_checks(self.engine, image, plan.smoke, self.project.components)

    def _finish_step(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self.step_began
        self.step_began = now
