"""Credentials of `.env` for sync: read by the rules of the build, and shown to nobody."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import textwrap
from pathlib import Path

import pytest

import samples
from gapforge.base import process, temporary_secrets
from gapforge.base.errors import FetchError, SecretError
from gapforge.base.project import Project
from gapforge.cli.verbs import check
from gapforge.doctor import diagnose
from gapforge.model import catalog as catalogs
from gapforge.model import component
from gapforge.model.credentials import Need, load, needs, parse_logins
from gapforge.model.preset import BaseImage
from gapforge.sync import registry_images
from gapforge.sync.network import Network, NoAnswerError
from gapforge.updates import published_releases
from raised_errors import values_of
from samples import ROOT

SECRET = "canary-77aa $ % : /"
NVIDIA = "$oauthtoken"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in process.WITHHELD:
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "storage").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "storage"))


def env(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / ".env"
    file.write_text(textwrap.dedent(text))
    file.chmod(mode)
    return file


def test_keys_of_the_env_file(tmp_path: Path) -> None:
    file = env(
        tmp_path,
        f"""\
        GITHUB_TOKEN=github_pat_1
        REGISTRY_LOGINS='nvcr.io {NVIDIA} {SECRET}

        registry.example.com:5000 me pass word  '
        OTHER=x
        """,
    )
    found = load(file)
    assert found.github_token == "github_pat_1"
    assert {host: (login.user, login.password) for host, login in found.logins.items()} == {
        "nvcr.io": (NVIDIA, SECRET),
        "registry.example.com:5000": ("me", "pass word"),
    }
    assert "canary" not in repr(found) and "github_pat_1" not in repr(found)
    assert found.warnings == ()


def test_environment_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "from-ci")
    assert load(env(tmp_path, "GITHUB_TOKEN=x\n", 0o644)).github_token == "from-ci"
    assert load(tmp_path / "absent").github_token == "from-ci"


def test_absent_file_gives_nothing(tmp_path: Path) -> None:
    found = load(tmp_path / ".env")
    assert (found.github_token, found.logins, found.warnings) == ("", {}, ())


def test_readable_file_with_a_credential_is_warned_about(tmp_path: Path) -> None:
    (warning,) = load(env(tmp_path, "GITHUB_TOKEN=x\n", 0o644)).warnings
    assert values_of(warning)["mode"] == 0o644
    assert load(env(tmp_path, "GITHUB_TOKEN=\n", 0o644)).warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "GITHUB_TOKEN='canary 77aa'\n",
        "GITHUB_TOKEN='canary\n77aa'\n",
        "REGISTRY_LOGINS='nvcr.io canary'\n",
        "REGISTRY_LOGINS='https://nvcr.io me canary'\n",
        "REGISTRY_LOGINS='nvcr.io me:x canary'\n",
        "REGISTRY_LOGINS='nvcr.io me canary\nnvcr.io you canary'\n",
    ],
)
def test_unusable_value_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(SecretError) as caught:
        load(env(tmp_path, text))
    assert "canary" not in caught.value.render()
    assert len(caught.value.faults) == 1 and text.split("=")[0] in caught.value.faults[0].where


def test_line_of_a_faulty_login_is_numbered() -> None:
    logins, faults = parse_logins("a.b u p\n\nc.d u\n")
    assert list(logins) == ["a.b"] and [values_of(f.where)["number"] for f in faults] == [3]


def test_login_lies_in_a_private_file_that_is_removed(tmp_path: Path) -> None:
    network = Network().with_credentials(env(tmp_path, f"REGISTRY_LOGINS='r.io u {SECRET}'\n"))
    with network.skopeo_environment("r.io/name:1") as variables:
        file = Path(str(variables["REGISTRY_AUTH_FILE"]))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert file.is_relative_to(temporary_secrets.secret_storage())
        ((host, entry),) = json.loads(file.read_text())["auths"].items()
        assert (host, base64.b64decode(entry["auth"]).decode()) == ("r.io", f"u:{SECRET}")
        assert SECRET not in repr(variables)
    assert not file.parent.exists()
    with network.skopeo_environment("other.io/name:1") as variables:
        assert "REGISTRY_AUTH_FILE" not in variables, "skopeo's own login is kept"


def test_login_of_a_mirror_is_that_of_the_mirror(tmp_path: Path) -> None:
    file = env(tmp_path, "REGISTRY_LOGINS='docker.io u hub\nmirror:5000 u mine'\n")
    network = Network(registry_mirrors=(("docker.io", "mirror:5000"),)).with_credentials(file)
    with network.skopeo_environment(network.registry("nvidia/cuda:1")) as variables:
        text = Path(str(variables["REGISTRY_AUTH_FILE"])).read_text()
    assert list(json.loads(text)["auths"]) == ["mirror:5000"]


def skopeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a skopeo into PATH that notes its login file and refuses."""
    note = tmp_path / "seen"
    program = tmp_path / "bin" / "skopeo"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n{{ echo "$*"; env; cat "$REGISTRY_AUTH_FILE"; }} >> {note} 2>&1\n'
        "echo 'unauthorized: authentication required' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return note


@pytest.mark.parametrize("with_login", [False, True])
def test_refused_login_names_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_login: bool
) -> None:
    note = skopeo(tmp_path, monkeypatch)
    text = "REGISTRY_LOGINS='r.io u canary-pw'\n" if with_login else ""
    network = Network(retries=0).with_credentials(env(tmp_path, text))
    with pytest.raises(NoAnswerError) as caught:
        registry_images.look_up(BaseImage(image="r.io/name:1"), network)
    assert values_of(caught.value.hint)["registry"] == "r.io"
    assert ("USER PASSWORD" in caught.value.hint) is not with_login
    assert "canary-pw" not in caught.value.render()
    auth = base64.b64encode(b"u:canary-pw").decode()
    seen = note.read_text()
    assert (auth in seen) is with_login and "canary-pw" not in seen


def test_outdated_uses_the_registry_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = skopeo(tmp_path, monkeypatch)
    network = Network(retries=0).with_credentials(env(tmp_path, "REGISTRY_LOGINS='r.io u pw'\n"))
    for ask in (published_releases.registry_tags, published_releases.image_digest):
        note.write_text("")
        with pytest.raises(FetchError):
            ask("r.io/name", network)
        assert base64.b64encode(b"u:pw").decode() in note.read_text()


def private_preset(**raw: object) -> dict[str, object]:
    """Return a preset with a private source, an image of r.io and one of Docker Hub."""
    sources = {
        **samples.raw_preset()["sources"],
        "opencv-contrib": {
            "urls": ["https://github.com/acme/fork/archive/v1.tar.gz"],
            "sha256": "0" * 64,
            "private": True,
        },
    }
    base = {
        "builder": {"image": "r.io/base:1", "private": True},
        "runtime": {"image": "nvidia/cuda:1", "private": True},
    }
    return samples.raw_preset(sources=sources, base=base, **raw)


def state(needs: list[Need]) -> dict[str, bool]:
    return {f"{need.key} {' '.join(need.of)}": need.present for need in needs}


def test_preset_names_the_credentials_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    preset = samples.preset(**private_preset())
    keys = ("GITHUB_TOKEN opencv-contrib", "REGISTRY_LOGINS r.io", "REGISTRY_LOGINS docker.io")
    assert state(needs(preset, load(tmp_path / ".env"))) == dict.fromkeys(keys, False)
    file = env(tmp_path, "GITHUB_TOKEN=x\nREGISTRY_LOGINS='r.io u p'\n")
    assert state(needs(preset, load(file))) == dict(zip(keys, (True, True, False), strict=True))
    assert needs(samples.preset(), load(file)) == []


@pytest.mark.parametrize(
    ("place", "document"),
    [
        ("storage/containers/auth.json", {"auths": {"docker.io/team": {"auth": "x"}}}),
        ("home/.config/containers/auth.json", {"auths": {"docker.io": {}}}),
        ("home/.docker/config.json", {"auths": {"https://index.docker.io/v1/": {}}}),
        ("home/.docker/config.json", {"credHelpers": {"docker.io": "pass"}}),
        ("home/.docker/config.json", {"credsStore": "secretservice"}),
    ],
)
def test_login_of_skopeo_or_docker_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, document: object
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    preset = samples.preset(**private_preset())
    for text, present in (("[]", False), ("{", False), (json.dumps(document), True)):
        file.write_text(text)
        found = state(needs(preset, load(tmp_path / ".env")))
        assert found["REGISTRY_LOGINS docker.io"] is present, text
        of_every_registry = text != "[]" and "credsStore" in text
        assert found["REGISTRY_LOGINS r.io"] is of_every_registry, text


def test_check_and_doctor_name_a_missing_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = Project(tmp_path, tmp_path / "artifacts")
    (tmp_path / "presets").mkdir()
    raw = private_preset(name="team")
    (tmp_path / "presets" / "team.json").write_text(json.dumps(raw))
    (tmp_path / "components").symlink_to(ROOT / "components")
    (tmp_path / "catalog").symlink_to(ROOT / "catalog")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    env(tmp_path, "REGISTRY_LOGINS='r.io u canary-p'\n")
    catalog = catalogs.load(ROOT / "catalog")
    report = check.examine(project, "team", catalog, component.load_all(project.components))
    assert report.faults == ()
    assert {need["key"]: need["set"] for need in report.to_json()["credentials"]} == {
        "GITHUB_TOKEN": False,
        "REGISTRY_LOGINS": False,  # of docker.io
    }
    check._print(report)
    shown = capsys.readouterr().out
    assert "GITHUB_TOKEN" in shown and "opencv-contrib" in shown and "canary-p" not in shown
    preset = report.preset
    assert preset is not None
    (result,) = diagnose._check_credentials(project, preset)
    assert (result.check, result.status) == ("credentials", "warn")
    assert "GITHUB_TOKEN" in result.found
    env(tmp_path, "GITHUB_TOKEN=x\nREGISTRY_LOGINS='r.io u canary-p\ndocker.io u p'\n")
    (result,) = diagnose._check_credentials(project, preset)
    assert result.status == "ok"
    env(tmp_path, "REGISTRY_LOGINS=canary-p\n")
    (result,) = diagnose._check_credentials(project, preset)
    assert result.status == "warn" and "canary-p" not in repr(result)
    assert diagnose._check_credentials(project, samples.preset()) == []
