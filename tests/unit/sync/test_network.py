"""Proxies, certificates, netrc and mirrors from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapforge.base.errors import FetchError, UsageError
from gapforge.sync.network import Network


def network(**env: str) -> Network:
    return Network.from_environment({"HOME": "/nonexistent", **env})


def test_defaults() -> None:
    assert network() == Network(index_url=network().index_url)
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
def test_registry_mirror(mirror: str, image: str, expected: str) -> None:
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


def test_certificates_reach_every_program(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("x")
    settings = network(GAPFORGE_CA_BUNDLE=str(bundle), NETRC=str(tmp_path / "netrc"))
    assert {settings.environment()[v] for v in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "PIP_CERT")} == {
        str(bundle)
    }
    assert settings.curl_options() == [
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
    config.write_text("this is [not a config")
    assert network(PIP_CONFIG_FILE=str(config)).index_url == network().index_url
