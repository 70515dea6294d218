"""Proxies, certificates, netrc and mirrors from the environment."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import samples
from gapforge.base.errors import FetchError, UsageError
from gapforge.sync import apt_errors, download, pip_settings, registry_images, uv_errors
from gapforge.sync.network import Network
from raised_errors import values_of


def network(**env: str) -> Network:
    return Network.from_environment({"HOME": "/nonexistent", **env})


def test_network_has_defaults_without_variables() -> None:
    pip = pip_settings.read({"HOME": "/nonexistent"})
    assert network() == Network(index_url=pip.index_url, ignored=pip.not_used)
    assert (network().jobs, network().retries, network().offline) == (4, 5, False)


def test_offline_rejects_network_use() -> None:
    for off in ("0", "", "no", "false"):
        network(GAPFORGE_OFFLINE=off).require("x")
    with pytest.raises(FetchError, match="fetching numpy"):
        network(GAPFORGE_OFFLINE="1").require("fetching numpy")


def test_proxies_in_lower_and_upper_case() -> None:
    env = network(HTTPS_PROXY="http://proxy:1", no_proxy="localhost").environment()
    assert env["https_proxy"] == env["HTTPS_PROXY"] == "http://proxy:1"
    assert env["NO_PROXY"] == "localhost"


def test_longest_mirror_wins() -> None:
    mapped = network(GAPFORGE_URL_MIRRORS="https://a/=http://m/a/ https://a/b/=http://n/")
    assert mapped.url("https://a/b/c") == "http://n/c"
    assert mapped.url("https://a/x") == "http://m/a/x"
    assert mapped.url("https://other/x") == "https://other/x"


@pytest.mark.parametrize(
    ("mirror", "image", "expected"),
    [
        ("m:5000", "ubuntu:22.04", "m:5000/library/ubuntu:22.04"),
        ("m:5000", "nvidia/cuda:x", "m:5000/nvidia/cuda:x"),
        ("docker.io=m:5000/hub", "docker.io/nvidia/cuda:x", "m:5000/hub/nvidia/cuda:x"),
        ("m:5000", "nvcr.io/nvidia/cuda:x", "nvcr.io/nvidia/cuda:x"),
        ("nvcr.io=m", "nvcr.io.evil/x", "nvcr.io.evil/x"),
        ("m:5000", "localhost/x:1", "localhost/x:1"),
    ],
)
def test_mirror_replaces_only_its_registry(mirror: str, image: str, expected: str) -> None:
    assert network(GAPFORGE_REGISTRY_MIRROR=mirror).registry(image) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GAPFORGE_URL_MIRRORS", "https://a/"),
        ("GAPFORGE_URL_MIRRORS", "=x"),
        ("GAPFORGE_APT_MIRROR", "x="),
        ("GAPFORGE_JOBS", "0"),
        ("GAPFORGE_JOBS", "many"),
        ("GAPFORGE_RETRIES", "-1"),
        ("GAPFORGE_INDEX_URL", "mirror/simple"),
        ("GAPFORGE_CA_BUNDLE", "/nonexistent.pem"),
    ],
)
def test_invalid_value_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        network(**{variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GAPFORGE_INDEX_URL", "https://u:canary@mirror/simple "),
        ("GAPFORGE_INDEX_URL", " https://u:canary@mirror/simple"),
        ("GAPFORGE_TORCH_INDEX_URL", "u:canary@mirror/simple"),
        ("GAPFORGE_URL_MIRRORS", "=https://u:canary@m/"),
        ("GAPFORGE_URL_MIRRORS", "https://u:canary@m/="),
        ("GAPFORGE_APT_MIRROR", "u:canary@m"),
    ],
)
def test_invalid_value_is_shown_without_its_password(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable) as error:
        network(**{variable: value})
    assert "canary" not in error.value.render()


def test_certificates_reach_every_program(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("x")
    settings = network(GAPFORGE_CA_BUNDLE=str(bundle), NETRC=str(tmp_path / "netrc"))
    assert {settings.environment()[v] for v in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "PIP_CERT")} == {
        str(bundle)
    }
    assert settings.curl()[-4:] == [
        "--netrc-file",
        str(tmp_path / "netrc"),
        "--cacert",
        str(bundle),
    ]


def test_index_of_pip_but_no_extra_index(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url = https://evil/simple\n"
    )
    assert network(PIP_CONFIG_FILE=str(config)).index_url == "https://mirror/simple"
    assert (
        network(PIP_CONFIG_FILE=str(config), PIP_INDEX_URL="https://other/simple").index_url
        == "https://other/simple"
    )
    assert (
        network(PIP_CONFIG_FILE=str(config), GAPFORGE_INDEX_URL="https://mine/simple").index_url
        == "https://mine/simple"
    )
    assert (
        network(PIP_CONFIG_FILE=str(config), UV_DEFAULT_INDEX="https://uv/simple").index_url == ""
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[global]\nindex_url = https://a/simple\n", "https://a/simple"),
        ("[global]\npypi-url = https://a/simple\n", "https://a/simple"),
        ("[install]\nindex-url = https://a/simple\n", "https://a/simple"),
        (
            "[install]\nindex-url = https://a/simple\n[global]\nindex-url = https://b/simple\n",
            "https://a/simple",
        ),
        ("[download]\nindex-url = https://a/simple\n", ""),
        ("[global]\nindex-url =\n", ""),
        ("[global]\nindex-url = /srv/a b/simple\n", "file:///srv/a%20b/simple"),
    ],
)
def test_index_is_read_as_pip_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    config = tmp_path / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    env = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path), "VIRTUAL_ENV": sys.prefix}
    found = pip_settings.read(env).index_url
    assert found == (expected or pip_settings.read({**env, "HOME": "/nonexistent"}).index_url)
    install = pytest.importorskip("pip._internal.commands.install")
    for name in [n for n in os.environ if n.startswith(("PIP_", "XDG_"))]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    theirs = install.InstallCommand("install", "").parser.get_default_values().index_url
    default = pytest.importorskip("pip._internal.models.index").PyPI.simple_url
    ours = unquote(urlsplit(found).path) if found.startswith("file:") else found
    assert theirs == (ours or default)


def test_files_of_pip_have_its_order(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "all")}
    places = {
        "all/pip/pip.conf": "all",
        ".pip/pip.conf": "old",
        ".config/pip/pip.conf": "user",
        "venv/pip.conf": "venv",
        "named.conf": "named",
    }
    for place, name in places.items():
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[install]\nindex-url = https://{name}/simple\n")
        if place.startswith("venv"):
            env["VIRTUAL_ENV"] = str(file.parent)
        if place.startswith("named"):
            env["PIP_CONFIG_FILE"] = str(file)
        assert pip_settings.read(env).index_url == f"https://{name}/simple"
    assert pip_settings.read({**env, "PIP_CONFIG_FILE": "/dev/null"}).index_url == ""
    (tmp_path / "named.conf").write_text("")
    del env["VIRTUAL_ENV"]  # with PIP_CONFIG_FILE pip leaves the files of the user out
    assert pip_settings.read(env).index_url == "https://all/simple"


def test_settings_of_pip_that_are_not_used_are_listed(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a/simple\n[install]\nextra_index_url = https://evil/\n"
    )
    found = network(PIP_CONFIG_FILE=str(config), PIP_PROXY="http://p:1").ignored
    assert {f"{config}: extra-index-url", "PIP_PROXY"} <= set(found)
    assert network(GAPFORGE_INDEX_URL="https://a/", PIP_PROXY="http://p:1").ignored == ()


@pytest.mark.parametrize(
    "text", ["this is [not a config", "[global]\nindex-url = ftp://user:canary@mirror/simple\n"]
)
def test_faulty_pip_configuration_does_not_lead_to_the_public_index(
    tmp_path: Path, text: str
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(text)
    with pytest.raises(UsageError) as error:
        network(PIP_CONFIG_FILE=str(config))
    assert str(config) in error.value.message and "canary" not in error.value.render()
    assert network(PIP_CONFIG_FILE=str(config), GAPFORGE_INDEX_URL="https://a/").index_url


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_proxy_has_one_meaning_for_every_program(variable: str) -> None:
    env = network(**{variable: "user:p@ss@127.0.0.1:8888"}).environment()
    names = ["http_proxy", "https_proxy"] if "all" in variable.lower() else [variable.lower()]
    for name in names:
        assert env[name] == env[name.upper()] == "http://user:p@ss@127.0.0.1:8888"
    assert env["all_proxy"] is env["ALL_PROXY"] is None  # apt and skopeo ignore it


def test_own_proxy_has_precedence_over_that_for_all() -> None:
    env = network(http_proxy="a:1", ALL_PROXY="socks5://b:2", https_proxy="https://c:3")
    assert dict(env.proxies) == {"http_proxy": "http://a:1", "https_proxy": "https://c:3"}


@pytest.mark.parametrize(
    "value",
    ["socks5://h:1", "socks5h://h:1", "http://", "h:port", "ftp://u:canary@h:1", "http://h:1/x"],
)
def test_proxy_that_not_every_program_understands_is_refused(value: str) -> None:
    with pytest.raises(UsageError) as error:
        network(https_proxy=value)
    assert values_of(error.value.message)["variable"] == "https_proxy"
    assert "canary" not in error.value.render()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://host/debian", "http://m/d"),
        ("http://host/debian/", "http://m/d/"),
        ("http://host/debian/pool/x", "http://m/d/pool/x"),
        ("http://host/debian-security", "http://host/debian-security"),
        ("http://host/debian-security/", "http://host/debian-security/"),
    ],
)
def test_mirror_ends_where_a_part_of_the_path_ends(uri: str, expected: str) -> None:
    pair = "http://host/debian=http://m/d"
    assert network(GAPFORGE_APT_MIRROR=pair).apt_uri(uri) == expected
    assert network(GAPFORGE_URL_MIRRORS=pair).url(uri) == expected


def test_mirror_of_a_host_is_not_that_of_a_longer_name() -> None:
    mapped = network(GAPFORGE_URL_MIRRORS="https://host=https://m")
    assert mapped.url("https://host.evil/x") == "https://host.evil/x"
    assert mapped.url("https://host:8443/x") == "https://host:8443/x"
    assert mapped.url("https://host/x") == "https://m/x"


# What the programs print about the same two certificates, and about one that nobody trusts.
REFUSED = {
    "curl": (
        "curl: (60) SSL certificate problem: certificate has expired",
        "curl: (60) SSL certificate problem: certificate is not yet valid",
        "curl: (60) SSL certificate problem: unable to get local issuer certificate",
    ),
    "skopeo": (
        'time="2020-01-01T00:00:00Z" level=fatal msg="Error parsing image name: pinging container '
        "registry localhost:1: x509: certificate has expired or is not yet valid: current time "
        '2020-01-01T00:00:00Z is before 2024-01-01T00:00:00Z"',
        'time="2020-01-01T00:00:00Z" level=fatal msg="x509: certificate has expired or is not yet '
        'valid: current time 2026-01-01T00:00:00Z is after 2020-02-01T00:00:00Z"',
        'time="2020-01-01T00:00:00Z" level=fatal msg="x509: certificate signed by unknown '
        'authority"',
    ),
    "uv": (
        "error: Failed to fetch: https://localhost/simple/six/\n  cause: error sending request\n"
        "  cause: invalid peer certificate: certificate expired: verification time 1795887304",
        "error: Failed to fetch: https://localhost/simple/six/\n  cause: error sending request\n"
        "  cause: invalid peer certificate: certificate not valid yet: verification time 17",
        "error: Failed to fetch: https://localhost/simple/six/\n  cause: error sending request\n"
        "  cause: invalid peer certificate: UnknownIssuer",
    ),
    "apt": (
        "E: Failed to fetch https://x/InRelease  Certificate verification failed: The certificate "
        "is NOT trusted. The certificate chain uses expired certificate.",
        "E: Failed to fetch https://x/InRelease  Certificate verification failed: The certificate "
        "is NOT trusted. The certificate chain uses not yet valid certificate.",
        "E: Failed to fetch https://x/InRelease  Certificate verification failed: The certificate "
        "is NOT trusted. The certificate issuer is unknown.",
    ),
}


@pytest.mark.parametrize("program", REFUSED)
def test_refused_certificate_names_the_clock(program: str) -> None:
    query = uv_errors.Query(preset=samples.preset(), python="3.11", torch_index="")
    hints: list[str] = []
    for output in REFUSED[program]:
        if program == "curl":
            hints.append(str_of(download._with_advice(output, 60)))
        elif program == "skopeo":
            hints.append(registry_images._failure("localhost/x:1", output, Network()).hint)
        elif program == "uv":
            hints.append(uv_errors.failure(output, query, lambda _name, _version: ()).hint)
        else:
            hints.append(apt_errors.update_failure(output).hint)
    expired, too_early, unknown = map(values_of, hints)
    for found in (expired, too_early):
        assert abs(time.time() - _seconds(str(found["now"]))) < 120
    assert "now" not in unknown


def str_of(message: str) -> str:
    advice = values_of(message)["advice"]
    assert isinstance(advice, str)
    return advice


def _seconds(shown: str) -> float:
    return datetime.strptime(f"{shown} +0000", "%Y-%m-%d %H:%M UTC %z").timestamp()
