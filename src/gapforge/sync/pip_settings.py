"""Read pip's configuration as pip does: companies configure pip, and uv does not read that.

Of all settings only ``index-url`` is used. An extra index is not: an attacker's package of the same
name could win. The order of files, sections and variables is that of pip's documentation
(pip.pypa.io, "Configuration"): files for all users, for the user, of the virtual environment,
``PIP_CONFIG_FILE``, then ``PIP_*`` variables; ``[install]`` has precedence over ``[global]``.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.addresses import without_credentials
from gapforge.base.errors import UsageError
from gapforge.base.i18n import _
from gapforge.base.system_errors import error_text

# Both spellings are options of pip; what is read later wins.
INDEX = ("index-url", "pypi-url")
# What changes where pip gets packages, and what gapforge leaves out.
NOT_USED = (
    "cert",
    "client-cert",
    "extra-index-url",
    "find-links",
    "no-index",
    "proxy",
    "trusted-host",
)
SECTIONS = ("global", "install")


@dataclass(frozen=True)
class PipSettings:
    """The index of pip's configuration, "" for none, and the settings that gapforge ignores.

    ``not_used`` has the places, such as "/etc/pip.conf: extra-index-url" or "PIP_PROXY".
    """

    index_url: str = ""
    not_used: tuple[str, ...] = ()


def read(env: Mapping[str, str]) -> PipSettings:
    """Return the settings that pip would use with the variables ``env``.

    Raise UsageError for a file that pip cannot read, or an index that is no address.
    """
    index, not_used = ("", ""), []
    found = _from_files(env)
    for name, value in env.items():
        if name.startswith("PIP_") and value:
            found[":env:", _plain(name[4:])] = (name, value)
    for section in (*SECTIONS, ":env:"):
        for (where, key), (place, value) in found.items():
            if where != section:
                continue
            if key in INDEX:
                index = (place, value)
            elif key in NOT_USED:
                not_used.append(place)
    return PipSettings(_address(*index) if index[1] else "", tuple(dict.fromkeys(not_used)))


def _from_files(env: Mapping[str, str]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (section, setting) -> (place, value) of pip's files; later files win."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for file in _files(env):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError) as error:
            raise UsageError(
                _(
                    "{file}: pip's configuration cannot be read: {reason}",
                    file=file,
                    reason=error_text(error),
                ),
                hint=_(
                    "correct the file, or name the index without it: "
                    "export GAPFORGE_INDEX_URL=https://mirror.example/simple"
                ),
            ) from error
        for section in SECTIONS:
            for raw, value in parser.items(section) if parser.has_section(section) else ():
                key = _plain(raw)
                if value.strip():
                    found.pop((section, key), None)  # what is read later comes later
                    found[section, key] = (f"{file}: {key}", value.strip())
    return found


def _files(env: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, the most important one last."""
    named = env.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(env.get("HOME", "/nonexistent"))
    everyone = (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    files = [*(Path(folder, "pip", "pip.conf") for folder in everyone), Path("/etc/pip.conf")]
    if not (named and Path(named).exists()):
        own = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
        files += [home / ".pip" / "pip.conf", own / "pip" / "pip.conf"]
    if env.get("VIRTUAL_ENV"):
        files.append(Path(env["VIRTUAL_ENV"], "pip.conf"))
    return [*files, Path(named)] if named else files


def _plain(key: str) -> str:
    """Return a setting's name as pip compares it: ``INDEX_URL`` is ``index-url``."""
    return key.lower().replace("_", "-").removeprefix("--")


def _address(place: str, value: str) -> str:
    """Return the address of an index; pip accepts a folder as well."""
    if value.startswith("/"):
        return Path(value).as_uri()
    if re.match(r"(https?|file)://\S+$", value):
        return value
    raise UsageError(
        _(
            "{place}: {value!r} is not an http(s):// or file:// address",
            place=place,
            value=without_credentials(value),
        ),
        hint=_(
            "correct the setting, or name the index without it: "
            "export GAPFORGE_INDEX_URL=https://mirror.example/simple"
        ),
    )
