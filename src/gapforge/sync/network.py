"""How the network is used: proxies, certificates, netrc and mirrors.

Environment variables (all optional; the usual ``http_proxy``, ``https_proxy``, ``all_proxy``,
``no_proxy`` and ``NETRC`` are read in lower or upper case):

| variable | meaning |
|---|---|
| ``GAPFORGE_OFFLINE=1`` | reject every use of the network |
| ``GAPFORGE_INDEX_URL`` | default Python index instead of uv's own default |
| ``GAPFORGE_TORCH_INDEX_URL`` | PyTorch index instead of the address in the preset |
| ``GAPFORGE_URL_MIRRORS`` | ``FROM=TO`` pairs with blanks between: TO replaces FROM in addresses |
| ``GAPFORGE_APT_MIRROR`` | the same for APT sources |
| ``GAPFORGE_REGISTRY_MIRROR`` | the same for images; ``host:5000`` is ``docker.io=host:5000`` |
| ``GAPFORGE_CA_BUNDLE`` | PEM file with the certificates to trust |
| ``GAPFORGE_JOBS`` | parallel downloads (default 4) |
| ``GAPFORGE_RETRIES`` | retries after a temporary failure (default 5) |

With a mirror the upstream host gets no request. Everything is verified with checksums, so a mirror
need not be trusted.

curl, uv, apt and skopeo read proxies differently: apt refuses one without a scheme, apt and skopeo
ignore ``all_proxy``, and no spelling of SOCKS works in all four. They therefore get the same
``http_proxy`` and ``https_proxy``, with a scheme, and SOCKS is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from gapforge.base import process
from gapforge.base.addresses import names_registry, registry_of, without_credentials
from gapforge.base.errors import Fault, FetchError, UsageError
from gapforge.base.i18n import _
from gapforge.model import credentials
from gapforge.model.credentials import Credentials
from gapforge.model.unresolved_item import Reason
from gapforge.sync import pip_settings
from gapforge.sync.pip_settings import PipSettings
from gapforge.sync.private_github_files import GitHub

PROXIES = ("http_proxy", "https_proxy")
CERTIFICATES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
)
Pairs = tuple[tuple[str, str], ...]


# How curl, skopeo, uv and APT say that a certificate is refused because of its dates.
CERTIFICATE_DATES = (
    r"certificate (?:has expired|is not yet valid|expired|not valid yet)"
    r"|uses (?:expired|not yet (?:valid|activated)) certificate"
)


def clock_hint(output: str) -> str:
    """Return what to do if a program refused a certificate because of its dates, else "".

    Such a certificate is rarely the server's fault: the clock of a new or long unused machine is
    wrong.
    """
    if not re.search(CERTIFICATE_DATES, output):
        return ""
    return _(
        "this machine's clock shows {now}; if that is wrong, correct it (timedatectl, date), then "
        "run the same command again",
        now=now_text(),
    )


def now_text() -> str:
    """Return the time of this machine's clock, in UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


class NoAnswerError(FetchError):
    """A server gave no usable answer. ``reason`` is what a lock records."""

    def __init__(
        self, message: str, *, reason: Reason, hint: str = "", faults: Sequence[Fault] = ()
    ) -> None:
        super().__init__(message, hint=hint, faults=faults)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network settings of this machine.

    The ``*_mirrors`` are (from, to) prefixes, longest first. ``credentials`` and the token of
    ``github`` come from `.env`: see ``with_credentials``. ``ignored`` are settings of pip that
    gapforge does not use.
    """

    offline: bool = False
    jobs: int = 4
    retries: int = 5
    index_url: str = ""
    torch_index_url: str = ""
    url_mirrors: Pairs = ()
    apt_mirrors: Pairs = ()
    registry_mirrors: Pairs = ()
    ca_bundle: Path | None = None
    netrc: Path | None = None
    proxies: Pairs = ()
    credentials: Credentials = field(default_factory=Credentials)
    github: GitHub = field(default_factory=GitHub)
    ignored: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Network:
        """Return the settings from environment variables. Raise UsageError for an invalid one."""
        env = os.environ if environ is None else environ
        bundle = env.get("GAPFORGE_CA_BUNDLE", "")
        if bundle and not Path(bundle).is_file():
            raise UsageError(
                _("GAPFORGE_CA_BUNDLE: {bundle} is not a file", bundle=bundle),
                hint=process.quoted(["ls", "-l", bundle]),
            )
        netrc = env.get("NETRC", "")
        index = _address(env, "GAPFORGE_INDEX_URL")
        configured = bool(index or env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL"))
        pip = PipSettings() if configured else pip_settings.read(env)
        return cls(
            offline=env.get("GAPFORGE_OFFLINE", "") not in ("", "0", "false", "no"),
            jobs=_number(env, "GAPFORGE_JOBS", 4, 1, 64),
            retries=_number(env, "GAPFORGE_RETRIES", 5, 0, 100),
            index_url=index or pip.index_url,
            torch_index_url=_address(env, "GAPFORGE_TORCH_INDEX_URL"),
            url_mirrors=_pairs(env, "GAPFORGE_URL_MIRRORS"),
            apt_mirrors=_pairs(env, "GAPFORGE_APT_MIRROR"),
            registry_mirrors=_pairs(env, "GAPFORGE_REGISTRY_MIRROR", lone="docker.io"),
            ca_bundle=Path(bundle).absolute() if bundle else None,
            netrc=Path(netrc).absolute() if netrc else None,
            proxies=_proxies(env),
            ignored=pip.not_used,
        )

    def with_credentials(self, env_file: Path) -> Network:
        """Return these settings with the credentials of `.env`. Raise SecretError."""
        found = credentials.load(env_file)
        github = replace(self.github, token=found.github_token)
        return replace(self, credentials=found, github=github)

    @contextmanager
    def skopeo_environment(self, reference: str) -> Iterator[dict[str, str | None]]:
        """Give the variables of ``environment``, and skopeo's login for the image's registry."""
        with self.credentials.skopeo(registry_of(reference)) as login:
            yield {**self.environment(), **login}

    def require(self, action: str, *, files: bool = True) -> None:
        """Raise FetchError if GAPFORGE_OFFLINE is set. Every use of the network calls this first.

        ``action`` is what needs the network, such as "downloading X". With ``files`` the hint
        mentions --from.
        """
        if self.offline:
            raise FetchError(
                _("{action}: needs the network, but GAPFORGE_OFFLINE is set", action=action),
                hint=_(
                    "provide the files with --from FOLDER, or run the command on an online "
                    "machine: unset GAPFORGE_OFFLINE"
                )
                if files
                else _("run the command on an online machine: unset GAPFORGE_OFFLINE"),
            )

    def url(self, address: str) -> str:
        """Return ``address``, or that of its mirror."""
        return _mapped(address, self.url_mirrors)

    def apt_uri(self, uri: str) -> str:
        """Return the address of an APT source, or that of its mirror."""
        return _mapped(uri, self.apt_mirrors)

    def registry(self, reference: str) -> str:
        """Return an image reference, or that of the image at its registry's mirror.

        ``nvidia/cuda:x`` and ``docker.io/nvidia/cuda:x`` are the same image and are mapped alike.
        """
        full = reference
        if not names_registry(reference):
            full = f"docker.io/{'' if '/' in reference else 'library/'}{reference}"
        mapped = _mapped(full, self.registry_mirrors)
        return reference if mapped == full else mapped

    def environment(self) -> dict[str, str | None]:
        """Return the variables with which all programs use the same proxies and certificates."""
        result: dict[str, str | None] = {}
        for name in ("all_proxy", "ALL_PROXY") if self.proxies else ():
            result[name] = None
        for name, value in self.proxies:
            result[name] = value
            result[name.upper()] = value
        if self.ca_bundle:
            result.update(dict.fromkeys(CERTIFICATES, str(self.ca_bundle)))
        if self.netrc:
            result["NETRC"] = str(self.netrc)
        return result

    def curl(self, *options: str) -> list[str]:
        """Return a curl command with ``options`` and the settings that all requests share."""
        return [
            *("curl", "--disable", "--silent", "--show-error", "--location"),
            *("--proto-redir", "=http,https"),
            *(["--netrc-file", str(self.netrc)] if self.netrc else ["--netrc-optional"]),
            *(["--cacert", str(self.ca_bundle)] if self.ca_bundle else []),
            *options,
        ]


def _mapped(address: str, pairs: Pairs) -> str:
    """Return ``address`` with the first prefix replaced that ends where a part of it ends.

    ``http://host/debian`` is no prefix of ``http://host/debian-security``.
    """
    for source, target in pairs:
        rest = address[len(source) :]
        if address.startswith(source) and (source.endswith("/") or rest[:1] in ("", "/")):
            return target + rest
    return address


def _proxies(env: Mapping[str, str]) -> Pairs:
    """Return the proxies that every program gets, by variable.

    Raise UsageError for one that is not an HTTP proxy.
    """
    found = []
    fallback = "all_proxy" if env.get("all_proxy") else "ALL_PROXY"
    for name in PROXIES:
        variable = next((v for v in (name, name.upper(), fallback) if env.get(v)), "")
        if variable:
            found.append((name, _proxy(variable, env[variable])))
    excluded = env.get("no_proxy") or env.get("NO_PROXY", "")
    return (*found, ("no_proxy", excluded)) if excluded else tuple(found)


def _proxy(variable: str, value: str) -> str:
    """Return the address of a proxy; without a scheme it is http://."""
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", address) or parts.path not in ("", "/"):
        raise UsageError(
            _(
                "{variable}: {value!r} is not the address of an HTTP proxy",
                variable=variable,
                value=without_credentials(address),
            ),
            hint=_("export {variable}=http://HOST:PORT", variable=variable),
        )
    return address


def _pairs(env: Mapping[str, str], variable: str, lone: str = "") -> Pairs:
    pairs: dict[str, str] = {}
    for word in env.get(variable, "").split():
        source, separator, target = word.partition("=")
        if not separator and lone:
            source, target = lone, word
        if not source or not target:
            raise UsageError(
                _(
                    "{variable}: {word!r} is not FROM=TO",
                    variable=variable,
                    word=without_credentials(word),
                ),
                hint=_(
                    "{variable}='https://upstream/=https://mirror/' (separate pairs by blanks)",
                    variable=variable,
                ),
            )
        pairs[source] = target
    return tuple(sorted(pairs.items(), key=lambda pair: (-len(pair[0]), pair[0])))


def _number(env: Mapping[str, str], variable: str, default: int, least: int, most: int) -> int:
    text = env.get(variable, "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,4}", text) or not least <= int(text) <= most:
        raise UsageError(
            _(
                "{variable}: {text!r} is not a whole number from {least} to {most}",
                variable=variable,
                text=text,
                least=least,
                most=most,
            ),
            hint=_("unset {variable}, or set it to {default}", variable=variable, default=default),
        )
    return int(text)


def _address(env: Mapping[str, str], variable: str) -> str:
    text = env.get(variable, "")
    if text and not re.match(r"(https?|file)://\S+$", text):
        raise UsageError(
            _(
                "{variable}: {text!r} is not an http(s):// or file:// address",
                variable=variable,
                text=without_credentials(text),
            ),
            hint=f"unset {variable}",
        )
    return text
