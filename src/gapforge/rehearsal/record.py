"""What a rehearsal leaves behind: rehearsal.json for programs, rehearsal.txt for people, rehearsal.log to look into."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, GapforgeError
from gapforge.base.files import canonical_json, storage_errors, write_text
from gapforge.base.i18n import _, pgettext
from gapforge.base.process import quoted
from gapforge.base.progress import human_bytes, human_time
from gapforge.base.text import pad, utc, width

FORMAT = 1
RECORD, PAGE, LOG = "rehearsal.json", "rehearsal.txt", "rehearsal.log"
_SHOWN = 12  # faults on the page; the record has all


@dataclass
class Record:
    """One rehearsal, filled in as it goes. It is ready to travel when it has ended and nothing failed."""

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
    children_without_network: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    finished: str = ""

    @property
    def ready(self) -> bool:
        return bool(self.finished) and self.failure is None

    @property
    def exit_code(self) -> int:
        """0, or that of the step that failed."""
        return int(self.failure["exit_code"]) if self.failure else 0

    def fail(self, step: str, error: GapforgeError) -> None:
        """The step that failed and all that it said."""
        self.failure = {"step": step, **error.to_json()}

    def end(self) -> None:
        """Now."""
        self.finished = utc()

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "ready": self.ready,
            **asdict(self),
            "command": quoted(self.command),
        }

    def write(self, folder: Path) -> None:
        """The record and the page; the page last, since it is what people go by."""
        write_text(folder / RECORD, canonical_json(self.to_json()))
        write_text(folder / PAGE, self.page())

    def page(self) -> str:
        """The page in the reader's language."""
        head = (
            _("ready to travel: {preset}", preset=self.preset)
            if self.ready
            else _("NOT ready: {preset}", preset=self.preset)
        )
        parts = [head, "", *self._failed(), *self._facts()]
        if self.practice:
            parts.append(_("A practice preset: its image is not for delivery."))
        parts += [_("warning: ") + warning for warning in self.warnings]
        return "\n".join(parts) + "\n"

    def _failed(self) -> list[str]:
        if self.failure is None:
            return []
        f = self.failure
        step = _step(f["step"])
        lines = [
            _(
                "failed step  {step} (exit code {exit_code}, {error})",
                step=step,
                exit_code=f["exit_code"],
                error=f["error"],
            ),
            *f["message"].splitlines(),
        ]
        for fault in f["faults"][:_SHOWN]:
            lines.append(Fault(**fault).lines())
        if (more := len(f["faults"]) - _SHOWN) > 0:
            lines.append(_("  and {more} more, in {record}", more=more, record=RECORD))
        if f["next"]:
            lines.append(_("next         ") + f["next"])
        return [*lines, _("then again   ") + quoted(self.command), ""]

    def _facts(self) -> list[str]:
        rows: list[tuple[str, str]] = [
            (_("lock"), self.lock_sha256 or _("none")),
            (_("preset"), self.preset_sha256),
        ]
        if self.bundle is not None:
            rows += self._bundle(self.bundle)
        if self.signatures is not None:
            rows += [(_("signed by"), words) for words in _signers(self.signatures)]
        if self.inventory is not None:
            rows.append(
                (_("inventory"), f"{self.inventory['sha256']} ({self.inventory['digest']})")
            )
        for image in self.images:
            rows.append((_("image"), f"{image['image']}, {human_bytes(image['size_bytes'])}"))
            rows += [("", identity) for identity in image["image_ids"]]
            rows.append(
                (
                    _("checks"),
                    _(
                        "{checks_passed} of {checks} passed",
                        checks_passed=image["checks_passed"],
                        checks=image["checks"],
                    ),
                )
            )
        rows.append(("gapforge", self.gapforge))
        if self.repository is not None:
            changed = (
                _(", with uncommitted changes") if self.repository["uncommitted_changes"] else ""
            )
            rows.append((_("repository"), self.repository["commit"] + changed))
        if self.python is not None:
            rows.append(("Python", f"{self.python['version']} {self.python['flags']}"))
        if self.engine is not None:
            rows.append((_("engine"), f"Docker {self.engine['version']}, " + _("no network")))
        network = _("none") if self.children_without_network else _("this machine's could be seen")
        rows.append((_("network of the commands"), network))
        rows.append(
            (
                _("time"),
                ", ".join(
                    f"{_step(step)} {human_time(took)}" for step, took in self.seconds.items()
                ),
            )
        )
        rows.append((_("finished"), self.finished))
        columns = max(width(name) for name, _unused in rows) + 2
        return [(pad(name, columns) + value).rstrip() for name, value in rows]

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


def _step(step: str) -> str:
    """Return a step's name in the reader's language. The record has the English name in every language."""
    name, _separator, rest = step.partition(" ")
    words = {
        "start": _("start"),
        "bundle": _("bundle"),
        "place": _("place"),
        "copy": _("copy"),
        "signatures": _("signatures"),
        "stock": _("stock"),
        "unpack": _("unpack"),
        "verify": _("verify"),
        "engine": _("engine"),
        "build": _("build"),
    }
    return f"{words.get(name, name)} {rest}".rstrip()


def _signers(signatures: dict[str, Any]) -> list[str]:
    if not signatures["signed_by"]:
        return [_("nobody")]
    known = (
        _("trusted on this machine")
        if signatures["trusted_here"]
        else _("its signatures hold; the site compares the fingerprint")
    )
    return [f"{fingerprint} ({known})" for fingerprint in signatures["signed_by"]]


def forget(folder: Path) -> None:
    """Remove what an earlier rehearsal left: its page must not speak for the one that begins now."""
    for name in (PAGE, RECORD, LOG):
        with storage_errors(folder / name):
            (folder / name).unlink(missing_ok=True)
