"""What a rehearsal leaves behind: rehearsal.json for programs, rehearsal.txt for people, rehearsal.log to look into."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, GapforgeError
from gapforge.base.files import canonical_json, storage_errors, write_text
from gapforge.base.process import quoted
from gapforge.base.progress import human_bytes, human_time
from gapforge.base.text import pad, tr, utc, width

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
        return {"format": FORMAT, "ready": self.ready, **asdict(self), "command": quoted(self.command)}

    def write(self, folder: Path) -> None:
        """The record and the page; the page last, since it is what people go by."""
        write_text(folder / RECORD, canonical_json(self.to_json()))
        write_text(folder / PAGE, self.page())

    def page(self) -> str:
        """The page in the reader's language."""
        head = (
            tr(f"떠나도 됩니다: {self.preset}", f"ready to travel: {self.preset}") if self.ready
            else tr(f"준비되지 않았습니다: {self.preset}", f"NOT ready: {self.preset}")
        )  # fmt: skip
        parts = [head, "", *self._failed(), *self._facts()]
        if self.practice:
            parts.append(
                tr(
                    "연습용 프리셋이므로 이 이미지는 납품할 수 없습니다.",
                    "A practice preset: its image is not for delivery.",
                )
            )
        parts += [tr("주의: ", "warning: ") + warning for warning in self.warnings]
        return "\n".join(parts) + "\n"

    def _failed(self) -> list[str]:
        if self.failure is None:
            return []
        f = self.failure
        step = _step(f["step"])
        lines = [tr(f"실패한 단계  {step} (종료 코드 {f['exit_code']}, {f['error']})",
                    f"failed step  {step} (exit code {f['exit_code']}, {f['error']})"), *f["message"].splitlines()]  # fmt: skip
        for fault in f["faults"][:_SHOWN]:
            lines.append(Fault(**fault).lines())
        if (more := len(f["faults"]) - _SHOWN) > 0:
            lines.append(tr(f"  그 밖에 {more}개는 {RECORD}에 있습니다", f"  and {more} more, in {RECORD}"))
        if f["next"]:
            lines.append(tr("다음         ", "next         ") + f["next"])
        return [*lines, tr("그다음       ", "then again   ") + quoted(self.command), ""]

    def _facts(self) -> list[str]:
        rows: list[tuple[str, str]] = [
            (tr("잠금", "lock"), self.lock_sha256 or tr("없음", "none")),
            (tr("프리셋", "preset"), self.preset_sha256),
        ]
        if self.bundle is not None:
            rows += self._bundle(self.bundle)
        if self.signatures is not None:
            rows += [(tr("서명", "signed by"), words) for words in _signers(self.signatures)]
        if self.inventory is not None:
            rows.append((tr("현장 목록", "inventory"), f"{self.inventory['sha256']} ({self.inventory['digest']})"))
        for image in self.images:
            rows.append((tr("이미지", "image"), f"{image['image']}, {human_bytes(image['size_bytes'])}"))
            rows += [("", identity) for identity in image["image_ids"]]
            rows.append((tr("검사", "checks"), tr(f"{image['checks']}개 중 {image['checks_passed']}개 통과",
                                                 f"{image['checks_passed']} of {image['checks']} passed")))  # fmt: skip
        rows.append(("gapforge", self.gapforge))
        if self.repository is not None:
            changed = (
                tr(", 커밋하지 않은 변경 있음", ", with uncommitted changes")
                if self.repository["uncommitted_changes"]
                else ""
            )
            rows.append((tr("저장소", "repository"), self.repository["commit"] + changed))
        if self.python is not None:
            rows.append(("Python", f"{self.python['version']} {self.python['flags']}"))
        if self.engine is not None:
            rows.append(
                (tr("엔진", "engine"), f"Docker {self.engine['version']}, " + tr("네트워크 없음", "no network"))
            )
        network = (
            tr("없음", "none") if self.children_without_network
            else tr("이 컴퓨터의 네트워크를 볼 수 있었음", "this machine's could be seen")
        )  # fmt: skip
        rows.append((tr("명령의 네트워크", "network of the commands"), network))
        rows.append(
            (tr("시간", "time"), ", ".join(f"{_step(step)} {human_time(took)}" for step, took in self.seconds.items()))
        )
        rows.append((tr("끝난 때", "finished"), self.finished))
        columns = max(width(name) for name, _ in rows) + 2
        return [(pad(name, columns) + value).rstrip() for name, value in rows]

    @staticmethod
    def _bundle(bundle: dict[str, Any]) -> list[tuple[str, str]]:
        rows = [(tr("묶음", "bundle"), bundle["id"])]
        if bundle["index"] is not None:
            rows.append((tr("색인", "index"), f"{bundle['index']['sha256']}  {bundle['index']['file']}"))
        if bundle["tool_sha256"]:
            rows.append((tr("gapforge 저장소", "gapforge itself"), bundle["tool_sha256"]))
        for volume in bundle["volumes"]:
            rows.append(
                (tr("볼륨", "volume"), f"{volume['index_sha256']}  {volume['file']}, {human_bytes(volume['size'])}")
            )
        if bundle["missing"]:
            rows.append((tr("없는 볼륨", "missing"), ", ".join(map(str, bundle["missing"]))))
        if bundle["receiver"] is not None:
            rows.append(
                (tr("수신 프로그램", "receiver"), f"{bundle['receiver']['sha256']}  {bundle['receiver']['file']}")
            )
        return rows


def _step(step: str) -> str:
    """A step's name for a person: "build dev", which the record calls so in every language, is "빌드 dev"."""
    name, _, rest = step.partition(" ")
    words = {
        "start": "준비", "bundle": "묶음", "place": "자리", "copy": "복사", "signatures": "서명", "stock": "현장 재고",
        "unpack": "들여오기", "verify": "검증", "engine": "엔진", "build": "빌드",
    }  # fmt: skip
    ko, en = f"{words.get(name, name)} {rest}".rstrip(), step
    return tr(ko, en)


def _signers(signatures: dict[str, Any]) -> list[str]:
    if not signatures["signed_by"]:
        return [tr("없음", "nobody")]
    known = (
        tr("이 컴퓨터가 신뢰", "trusted on this machine") if signatures["trusted_here"]
        else tr("서명은 확인함, 누구인지는 현장이 지문으로 확인", "its signatures hold; the site compares the fingerprint")
    )  # fmt: skip
    return [f"{fingerprint} ({known})" for fingerprint in signatures["signed_by"]]


def forget(folder: Path) -> None:
    """Remove what an earlier rehearsal left: its page must not speak for the one that begins now."""
    for name in (PAGE, RECORD, LOG):
        with storage_errors(folder / name):
            (folder / name).unlink(missing_ok=True)
