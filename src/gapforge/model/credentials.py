"""The credentials that sync uses: a GitHub token, and logins of container registries.

They come from `.env` or the environment, by the rules that the build has for secrets. A value is in
no command line, no environment of another program, no message and no lock: curl gets the token on
standard input, and skopeo gets a login in a private file that is removed afterwards.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base import limits
from gapforge.base.addresses import registry_of
from gapforge.base.errors import Fault, SecretError
from gapforge.base.i18n import _
from gapforge.base.process import WITHHELD
from gapforge.base.strict_json import read_json
from gapforge.base.temporary_secrets import temporary_files
from gapforge.model import env_file
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset, Secret

GITHUB_TOKEN, REGISTRY_LOGINS = WITHHELD

_TOKEN = re.compile(r"[!-~]{1,1000}")  # what an HTTP header can hold
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_AUTH_FILE = "auth.json"


@dataclass(frozen=True)
class Login:
    """A user of a registry."""

    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The credentials of one run.

    ``logins`` has the logins by registry, such as "nvcr.io" or "registry.example.com:5000".
    ``warnings`` describe what is unsafe about how `.env` is kept.
    """

    github_token: str = field(default="", repr=False)
    logins: dict[str, Login] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    @contextmanager
    def skopeo(self, registry: str) -> Iterator[dict[str, str]]:
        """Give the variables with which skopeo logs in to ``registry``.

        They are empty without a login in `.env`: skopeo then uses what `skopeo login` stored. With
        one they name a private file in the format of containers-auth.json(5), which is removed when
        the block ends.
        """
        login = self.logins.get(registry)
        if login is None:
            yield {}
            return
        pair = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        text = json.dumps({"auths": {registry: {"auth": pair}}})
        with temporary_files({_AUTH_FILE: text}) as files:
            yield {"REGISTRY_AUTH_FILE": str(files[_AUTH_FILE])}


def load(file: Path) -> Credentials:
    """Return the credentials in `.env` (which may be absent) and in the environment.

    Raise SecretError for a value that cannot be used; no message shows it.
    """
    found = env_file.load(file, [Secret(key, "secret", False) for key in WITHHELD])
    token = found.values.get(GITHUB_TOKEN, "")
    faults = []
    if token and not _TOKEN.fullmatch(token):
        faults.append(Fault(GITHUB_TOKEN, _("has blanks or other characters"), _("one token")))
    logins, wrong = parse_logins(found.values.get(REGISTRY_LOGINS, ""))
    if faults + wrong:
        raise SecretError(
            _("credentials for sync cannot be used (values are not shown)"),
            faults=faults + wrong,
            hint=_("see .env.template for the format"),
        )
    return Credentials(
        github_token=token,
        logins=logins,
        warnings=found.warnings if file.name in found.origin.values() else (),
    )


@dataclass(frozen=True)
class Need:
    """A credential that sync needs for what a preset marks as private.

    ``key`` is that of `.env`; ``of`` names the sources, or the registry.
    """

    key: str
    of: tuple[str, ...]
    present: bool

    def to_json(self) -> dict[str, object]:
        """Return the fields in JSON types."""
        return {"key": self.key, "of": list(self.of), "set": self.present}


def needs(preset: Preset, found: Credentials) -> list[Need]:
    """Return what sync needs for the private sources and base images of a preset."""
    result = []
    if sources := tuple(source.name for source in preset.sources.values() if source.private):
        result.append(Need(GITHUB_TOKEN, sources, bool(found.github_token)))
    images = [preset.base(role) for role in ROLES]
    for registry in dict.fromkeys(registry_of(base.image) for base in images if base.private):
        present = registry in found.logins or _is_logged_in(registry)
        result.append(Need(REGISTRY_LOGINS, (registry,), present))
    return result


def _is_logged_in(registry: str) -> bool:
    """Return whether a login file of skopeo or Docker names the registry.

    The files are those of containers-auth.json(5). A credential helper of Docker may know every
    registry.
    """
    home = Path(os.environ.get("HOME", "/nonexistent"))
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    files = [
        Path(os.environ.get("REGISTRY_AUTH_FILE") or "/nonexistent"),
        Path(runtime, "containers/auth.json"),
        Path(runtime, "auth.json"),
        home / ".config/containers/auth.json",
        home / ".docker/config.json",
    ]
    names = {registry, "https://index.docker.io/v1/" if registry == "docker.io" else registry}
    for file in files:
        try:
            document = read_json(file, limits.SYSTEM, follow=True)
            known = [*document.get("auths", {}), *document.get("credHelpers", {})]
            if document.get("credsStore") or {*known, *(n.split("/")[0] for n in known)} & names:
                return True
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue  # skopeo reports a fault in its file
    return False


def parse_logins(text: str) -> tuple[dict[str, Login], list[Fault]]:
    """Return the logins by registry, and the faults.

    Each line is ``REGISTRY USER PASSWORD``; the password is the rest of the line.
    """
    logins: dict[str, Login] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(None, 2)
        if not words:
            continue
        where = _("{key}, line {number} of its value", key=REGISTRY_LOGINS, number=number)
        if len(words) != 3 or not _HOST.fullmatch(words[0]) or ":" in words[1]:
            faults.append(Fault(where, _("is not a login"), "REGISTRY USER PASSWORD"))
        elif words[0] in logins:
            faults.append(Fault(where, _("the registry is listed twice"), _("each registry once")))
        else:
            logins[words[0]] = Login(words[1], words[2].rstrip())
    return logins, faults
