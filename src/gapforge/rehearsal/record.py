"""Record a rehearsal: rehearsal.json for programs, rehearsal.txt for people, rehearsal.log."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, GapforgeError
from gapforge.base.i18n import _, pgettext
from gapforge.base.process import quoted
from gapforge.base.strict_json import canonical_json
from gapforge.base.text_layout import pad, utc, width
from gapforge.base.units import human_bytes, human_time
from gapforge.base.write_files import remove_file, write_text

FORMAT = 1
RECORD, PAGE, LOG = "rehearsal.json", "rehearsal.txt", "rehearsal.log"
_SHOWN = 12  # faults on the page; rehearsal.json has all


@dataclass(kw_only=True)
class Record:
    """The facts of one rehearsal, added step by step; ready if all steps succeeded."""

    preset: str
    preset_sha256: str
    practice: bool
    gapforge: str
    command: tuple[str, ...]
    types: tuple[str, ...]
    lock_sha256: str | None = None
    repository: dict[str, Any] | None = None
    bundle: dict[str, Any] | None = None
    inventory: dict[str, Any] | None = None
    signatures: dict[str, Any] | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    engine: dict[str, Any] | None = None
    python: dict[str, str] | None = None
    user: int = 0  # who ran the commands of the site
    children_without_network: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    finished: str = ""

    @property
    def ready(self) -> bool:
        """Return whether the rehearsal ended and no step failed."""
        return bool(self.finished) and self.failure is None

    @property
    def exit_code(self) -> int:
        """Return 0, or the exit code of the failed step."""
        return int(self.failure["exit_code"]) if self.failure else 0

    def fail(self, step: str, error: GapforgeError) -> None:
        """Record the failed step and its error."""
        self.failure = {"step": step, **error.to_json()}

    def end(self) -> None:
        """Record the time of the end."""
        self.finished = utc()

    def to_json(self) -> dict[str, Any]:
        """Return the content of rehearsal.json."""
        return {
            "format": FORMAT,
            "ready": self.ready,
            **asdict(self),
            "command": quoted(self.command),
        }

    def write(self, folder: Path) -> None:
        """Write the record, then the page, which people rely on."""
        write_text(folder / RECORD, canonical_json(self.to_json()))
        write_text(folder / PAGE, self.page())

    def page(self) -> str:
        """Return the page in the reader's language."""
        head = (
            _("ready to travel: {preset}", preset=self.preset)
            if self.ready
            else _("NOT ready: {preset}", preset=self.preset)
        )
        parts = [head, "", *self._failed(), *self._facts()]
        if self.practice:
            parts.append(_("A practice preset: its image is not for delivery."))
        parts += [_("warning: {warning}", warning=warning) for warning in self.warnings]
        return "\n".join(parts) + "\n"

    def _failed(self) -> list[str]:
        if self.failure is None:
            return []
        failure = self.failure
        step = _(
            "{step} (exit code {exit_code}, {error})",
            step=_step(failure["step"]),
            exit_code=failure["exit_code"],
            error=failure["error"],
        )
        faults = [Fault(**fault).lines() for fault in failure["faults"]]
        lines = [*failure["message"].splitlines(), *faults[:_SHOWN]]
        if (more := len(faults) - _SHOWN) > 0:
            lines.append(_("  and {count} more, in {file}", count=more, file=RECORD))
        rows = [(_("next"), failure["next"])] if failure["next"] else []
        rows.append((_("then again"), quoted(self.command)))
        first, *last = _columns([(_("failed step"), step), *rows])
        return [first, *lines, *last, ""]

    def _facts(self) -> list[str]:
        rows: list[tuple[str, str]] = [
            (_("lock"), self.lock_sha256 or _("none")),
            (_("preset"), self.preset_sha256),
        ]
        if self.bundle is not None:
            rows += self._bundle(self.bundle)
        if self.signatures is not None:
            rows += [(_("signed by"), signer) for signer in _signers(self.signatures)]
        if self.inventory is not None:
            rows.append(
                (_("inventory"), f"{self.inventory['sha256']} ({self.inventory['digest']})")
            )
        for image in self.images:
            rows.append((_("image"), f"{image['image']}, {human_bytes(image['size_bytes'])}"))
            rows += [("", image_id) for image_id in image["image_ids"]]
            passed, total = image["checks_passed"], image["checks"]
            rows.append((_("checks"), _("{passed} of {total} passed", passed=passed, total=total)))
        rows.append(("gapforge", self.gapforge))
        if self.repository is not None:
            commit = self.repository["commit"]
            if self.repository["uncommitted_changes"]:
                commit = _("{commit}, with uncommitted changes", commit=commit)
            rows.append((_("repository"), commit))
        if self.python is not None:
            rows.append(("Python", f"{self.python['version']} {self.python['flags']}"))
        if self.engine is not None:
            version = self.engine["version"]
            rows.append((_("engine"), _("Docker {version}, no network", version=version)))
        user = (
            str(self.user)
            if self.user
            else _("root; under sudo it is the owner of the project's folder")
        )
        rows.append((_("user of the commands"), user))
        network = _("none") if self.children_without_network else _("that of this machine")
        rows.append((_("network of the commands"), network))
        times = [f"{_step(step)} {human_time(seconds)}" for step, seconds in self.seconds.items()]
        return _columns([*rows, (_("time"), ", ".join(times)), (_("finished"), self.finished)])

    @staticmethod
    def _bundle(bundle: dict[str, Any]) -> list[tuple[str, str]]:
        rows = [(_("bundle"), bundle["id"])]
        if bundle["index"] is not None:
            rows.append((_("index"), f"{bundle['index']['sha256']}  {bundle['index']['file']}"))
        if bundle["tool_sha256"]:
            rows.append((_("gapforge itself"), bundle["tool_sha256"]))
        for volume in bundle["volumes"]:
            rows.append(
                (
                    _("volume"),
                    f"{volume['index_sha256']}  {volume['file']}, {human_bytes(volume['size'])}",
                )
            )
        if bundle["missing"]:
            rows.append((pgettext("volumes", "missing"), ", ".join(map(str, bundle["missing"]))))
        if bundle["receiver"] is not None:
            rows.append(
                (_("receiver"), f"{bundle['receiver']['sha256']}  {bundle['receiver']['file']}")
            )
        return rows


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    """Return a line for each (name, value) row, with the values below each other."""
    columns = max(width(name) for name, _value in rows) + 2
    return [(pad(name, columns) + value).rstrip() for name, value in rows]


def _step(step: str) -> str:
    """Return a step's name in the reader's language; rehearsal.json has the English one."""
    name, _separator, kind = step.partition(" ")
    words = {
        "start": _("start"),
        "bundle": _("bundle"),
        "place": _("simulated site"),
        "copy": _("copy"),
        "signatures": _("signatures"),
        "stock": _("objects at the site"),
        "unpack": _("unpack"),
        "verify": _("verify"),
        "engine": _("engine"),
        "build": _("build"),
    }
    return f"{words.get(name, name)} {kind}".rstrip()


def _signers(signatures: dict[str, Any]) -> list[str]:
    if not signatures["signed_by"]:
        return [_("nobody")]
    trust = (
        _("trusted on this machine")
        if signatures["trusted_here"]
        else _("good signatures; compare the fingerprint at the site")
    )
    return [f"{fingerprint} ({trust})" for fingerprint in signatures["signed_by"]]


def remove_records(folder: Path) -> None:
    """Remove the records of an earlier rehearsal, which must not stand for the next one."""
    for name in (PAGE, RECORD, LOG):
        remove_file(folder / name)
