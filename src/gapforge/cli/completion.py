"""Write the completion scripts of bash, zsh and fish from the argument parsers.

A script is complete in itself: it starts no program, and finds the names of presets in the folder
presets/ beside the command that is completed.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from gapforge.cli.argument_parser import Parser

SHELLS = ("bash", "zsh", "fish")
_WORDS = re.compile(r"[a-z0-9]+(\|[a-z0-9]+)+")  # a metavar that lists the values


@dataclass(frozen=True)
class Command:
    """What can follow a verb: ``flags`` with their help, words of arguments, presets."""

    summary: str
    flags: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of flags, () for files
    words: tuple[str, ...] = ()
    presets: bool = False


def command_of(parser: Parser) -> Command:
    """Return what can follow the verb of ``parser``."""
    flags: dict[str, str] = {}
    values: dict[str, tuple[str, ...]] = {}
    words: tuple[str, ...] = ()
    presets = False
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        named = "PRESET" in str(action.metavar or "")
        for flag in action.option_strings:
            if not flag.startswith("--"):
                continue
            flags[flag] = action.help or ""
            if action.nargs != 0:
                values[flag] = _values(action, named=named)
        if not action.option_strings:
            words += tuple(map(str, action.choices or ()))
            presets = presets or named
    return Command(
        summary=" ".join((parser.description or "").split()),
        flags=flags,
        values=values,
        words=words,
        presets=presets,
    )


def _values(action: argparse.Action, *, named: bool) -> tuple[str, ...]:
    text = str(action.metavar or "")
    if action.choices:
        return tuple(map(str, action.choices))
    if _WORDS.fullmatch(text):
        return tuple(text.split("|"))
    return ("PRESET",) if named else ()


def script(shell: str, commands: Mapping[str, Command]) -> str:
    """Return the completion script for ``shell``, which is one of SHELLS."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


_PRESETS = """{name}() {{
    # The names of the presets beside the command "$1", which may be a link.
    local folder=${{1/#\\~/$HOME}} file
    folder=$(readlink -f -- "$(command -v -- "$folder")" 2> /dev/null) || return 0
    for file in "${{folder%/*}}"/presets/*.json; do
        file=${{file##*/}}
        case $file in '*.json' | *.lock.json) ;; *) printf '%s\\n' "${{file%.json}}" ;; esac
    done
}}
"""


def _bash(commands: Mapping[str, Command]) -> str:
    return (
        "# bash completion for gapforge: source <(./gapforge completion bash)\n"
        + _PRESETS.format(name="_gapforge_presets")
        + """_gapforge() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb= word words=
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in -*) ;; *) verb=$word; break ;; esac
    done
"""
        + _choose(commands)
        + """    if [ "$words" = : ]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    fi
}
complete -o filenames -o bashdefault -F _gapforge gapforge
"""
    )


def _zsh(commands: Mapping[str, Command]) -> str:
    return (
        "#compdef gapforge\n"
        "# zsh completion for gapforge: source <(./gapforge completion zsh)\n"
        + _PRESETS.format(name="_gapforge_presets")
        + """_gapforge() {
    local previous=${words[CURRENT-1]} verb= word
    local -a COMP_WORDS=("${words[@]}") found
    for word in "${words[@]:1:$((CURRENT - 2))}"; do
        case $word in -*) ;; *) verb=$word; break ;; esac
    done
    local current=${words[CURRENT]} first=${words[1]}
    local words=
"""
        + _choose(commands).replace("${COMP_WORDS[0]}", "$first")
        + """    if [ "$words" = : ]; then
        _files
    else
        found=(${=words})
        compadd -a found
    fi
}
compdef _gapforge gapforge
"""
    )


def _choose(commands: Mapping[str, Command]) -> str:
    """Return shell code that sets ``words`` to the candidates, or to ":" for files."""
    presets = '$(_gapforge_presets "${COMP_WORDS[0]}")'
    lines = ["    case $verb:$previous in"]
    for name, command in commands.items():
        for flag, values in command.values.items():
            text = presets if values == ("PRESET",) else " ".join(values) or ":"
            lines.append(f'    {name}:{flag}) words="{text}" ;;')
    lines += ["    *) case $verb in"]
    verbs = " ".join([*commands, "help", "--version", "--help"])
    lines.append(f"    '' | help) words={shlex.quote(verbs)} ;;")
    for name, command in commands.items():
        own = " ".join(command.words)
        text = " ".join(filter(None, [own, presets if command.presets else ""]))
        flags = " ".join(command.flags)
        lines.append(
            f"    {name}) case $current in -*) words={shlex.quote(flags)} ;; "
            f'*) words="{text or ":"}" ;; esac ;;'
        )
    return "\n".join([*lines, "    esac ;;", "    esac", ""])


def _fish(commands: Mapping[str, Command]) -> str:
    lines = [
        "# fish completion for gapforge: ./gapforge completion fish | source",
        "function __gapforge_presets",
        "    set -l words (commandline -opc)",
        "    set -l command (command -v -- $words[1])",
        "    for file in (dirname -- (readlink -f -- $command))/presets/*.json",
        "        string match -q '*.lock.json' -- $file; or basename -- $file .json",
        "    end",
        "end",
        "complete -c gapforge -f",
    ]
    for name, command in commands.items():
        lines.append(
            f"complete -c gapforge -n __fish_use_subcommand -a {name} -d {_quoted(command.summary)}"
        )
    verbs = _quoted(" ".join(commands))
    lines.append(f"complete -c gapforge -n '__fish_seen_subcommand_from help' -a {verbs}")
    for name, command in commands.items():
        start = f"complete -c gapforge -n '__fish_seen_subcommand_from {name}'"
        for flag, about in command.flags.items():
            line = f"{start} -l {flag[2:]} -d {_quoted(about)}"
            if flag in command.values:
                values = command.values[flag]
                line += " -r" + (f" -fa {_fish_words(values)}" if values else " -F")
            lines.append(line)
        if command.words:
            lines.append(f"{start} -a {_quoted(' '.join(command.words))}")
        if command.presets:
            lines.append(f"{start} -a '(__gapforge_presets)'")
        elif not command.words:
            lines.append(f"{start} -F")
    return "\n".join(lines) + "\n"


def _fish_words(values: tuple[str, ...]) -> str:
    return "'(__gapforge_presets)'" if values == ("PRESET",) else _quoted(" ".join(values))


def _quoted(text: str) -> str:
    """Return ``text`` in single quotes of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
