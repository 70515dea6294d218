"""Find the commands in messages, and the values in them that are not quoted for a shell."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PROGRAM = (
    r"\./[\w.]+|python3|ls|cp|mv|rm|chmod|chown|cd|df|umount|mount|docker|git|ssh-keygen|ssh-add|"
    r"shred|cat|rsync|tar|mkdir|ps|sha256sum|curl|usermod|skopeo|zstd|xz"
)
# A command begins at the start or behind white space, a colon or a bracket, and ends before
# punctuation or Hangul. Words of sentences that are also programs are not meant.
_COMMAND = re.compile(
    rf"(?:^|(?<=[\s(:;]))(?:{_PROGRAM})\s"
    r"(?!client|daemon|group|ended|file |checkout and|cannot|data |context |itself)"
    r"(?:[^;,){가-힣\n]|\{[^}]*\})*"
)
# Values that are several words, each quoted already, numbers, and names of verbs and flags.
_WORDS = {"arguments", "command", "files", "flag", "folders", "options", "pid", "presets"}
_WORDS |= {"receiver", "verb", "words"}


def unquoted(message: str) -> Iterator[tuple[int, int]]:
    """Yield where in a message a placeholder is in a command without ``!q``: start and end."""
    for command in _COMMAND.finditer(message):
        for found in re.finditer(r"\{(\w+)\}", command[0]):
            if found[1] not in _WORDS:
                yield command.start() + found.start(), command.start() + found.end()
