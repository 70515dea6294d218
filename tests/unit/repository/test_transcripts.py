"""Test the transcripts of pages: what they mask, what they cut, and how they are laid out."""

from __future__ import annotations

from pathlib import Path

from page_blocks import Block, Ran, run
from transcripts import FIRST, LAST, LONGEST, Transcript, masked, shortened


def test_commands_of_a_block_keep_their_continuations() -> None:
    block = Block(text="mkdir x\nrun a \\\n    b \\\n    c\n\nls  # all\n", place="desk")
    assert block.commands == ["mkdir x", "run a \\\n    b \\\n    c", "ls  # all"]
    assert Block(text="rm -rf /\n").commands == []


def test_command_stops_at_its_first_fault(tmp_path: Path) -> None:
    ran = run(
        "echo a; echo b >&2; false | cat; echo c", cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}
    )
    assert (ran.output, ran.code) == ("a\nb\n", 1) and ran.seconds > 0
    ran = run("exit 21", cwd=tmp_path, env={}, inside=["/bin/true"])
    assert ran.code == 0


def test_machine_is_masked() -> None:
    text = (
        "wrote /srv/work/clone/presets/a.json, /srv/work/x\n"
        "https://pypi.local:8443/simple/a/ at 2026-01-02T03:04:05Z, import-a-20260102T030405Z.txt\n"
        "\x1b[1mbold\x1b[0m at 2026-01-02 03:04 UTC, locked 2026-11-23  \n"
    )
    assert masked(text, {"/srv/work": "~", "/srv/work/clone": "~/gapforge"}) == (
        "wrote ~/gapforge/presets/a.json, ~/x\n"
        "https://mirror.example/simple/a/ at 2026-11-27T18:00:00Z, import-a-20261127T180000Z.txt\n"
        "bold at 2026-11-27 18:00 UTC, locked 2026-11-23\n"
    )


def test_long_output_keeps_its_ends_and_no_build_log() -> None:
    lines = [f"line {number}" for number in range(LONGEST)]
    assert shortened("\n".join(lines)).splitlines() == lines
    lines.append("last")
    kept = [*lines[:FIRST], f"[… {len(lines) - FIRST - LAST} lines]", *lines[-LAST:]]
    assert shortened("\n".join(lines)).splitlines() == kept
    log = "\nrunning: a\n\n".join(f"#{number} RUN" for number in range(400))
    assert shortened(f"begin\n{log}\nend\n") == "begin\n[… 1,198 lines of the build log]\nend\n"


def test_transcript_shows_commands_in_their_order(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "new" / "page.txt", {"/srv": "~"})
    transcript.note("added to a.json:", "{}\n")
    transcript.ran(Ran(command="ls /srv", output="/srv/a\n", code=0, seconds=1.26))
    transcript.ran(Ran(command="make", output="", code=2, seconds=60), prompt="dev$")
    assert transcript.file.read_text() == (
        "# added to a.json:\n{}\n\n$ ls ~\n~/a\n[exit code 0, 1.3 s]\n\n"
        "dev$ make\n[exit code 2, 60.0 s]\n\n"
    )
