"""The exact commands for docker, and the errors that its output becomes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine_contract import MOUNTED, TOKEN, request
from fake_docker import Fake
from gapforge.base import process
from gapforge.base.errors import BuildError, EngineError, GapforgeError, SecretError, StorageError
from gapforge.engine import detect
from gapforge.engine.build_log import BuildLog
from gapforge.engine.docker import BuildKitEngine, BuildxEngine, DockerEngine, version_of
from gapforge.engine.docker_errors import build_failed, command_failed, unreachable
from gapforge.engine.protocol import BuildRequest, EngineInfo
from raised_errors import assert_error

INFO = EngineInfo(
    name="docker-buildkit",
    client="/usr/bin/docker",
    client_version="20.10.24",
    server_version="20.10.24",
    builder="buildkit (built in)",
    root_dir="/var/lib/docker",
)
REQUEST = BuildRequest(
    context=Path("/p/ctx"),
    dockerfile=Path("/p/ctx/Dockerfile"),
    target="runtime",
    tag="localhost/x:1",
    build_args={"B": "2 3", "A": "1"},
    labels={"org.b": "y", "org.a": "x"},
    secrets={"TOKEN": Path("/p/secrets/TOKEN")},
    build_arg_env=("LICENCE",),
    secret_env={"LICENCE": "hush"},
)
OPTIONS = [
    *("--network=none", "--progress=plain", "--pull=false", "--file", "/p/ctx/Dockerfile"),
    *("--target", "runtime", "--build-arg", "A=1", "--build-arg", "B=2 3"),
    *("--build-arg", "LICENCE", "--secret", "id=TOKEN,src=/p/secrets/TOKEN"),
    *("--label", "org.a=x", "--label", "org.b=y", "--tag", "localhost/x:1", "/p/ctx"),
]
DAEMON = "unix:///var/run/docker.sock"
DOWN = f"Cannot connect to the Docker daemon at {DAEMON}. Is the docker daemon running?"
DENIED = f"permission denied while trying to connect to the Docker daemon socket at {DAEMON}"


def test_command_of_builtin_buildkit() -> None:
    assert BuildKitEngine(INFO).build_command(REQUEST) == (
        ["/usr/bin/docker", "build", *OPTIONS],
        {"DOCKER_BUILDKIT": "1"},
    )


def test_command_of_buildx() -> None:
    info = replace(INFO, name="docker-buildx", builder="buildx 0.13.1", host="unix:///run/x.sock")
    argv, env = BuildxEngine(info).build_command(REQUEST)
    verb = ["buildx", "build", "--builder", "default", "--load", "--provenance=false"]
    assert argv == ["/usr/bin/docker", *verb, *OPTIONS]
    assert env == {"DOCKER_BUILDKIT": "1", "DOCKER_HOST": "unix:///run/x.sock"}
    old = BuildxEngine(replace(info, builder="buildx 0.9.1")).build_command(REQUEST)[0]
    assert "--provenance=false" not in old


def test_command_with_no_cache() -> None:
    argv, _ = BuildKitEngine(INFO).build_command(replace(REQUEST, target="", no_cache=True))
    assert "--target" not in argv
    assert "--no-cache" in argv


@pytest.mark.parametrize(
    ("file", "written"),
    [("/a b/k", "src=/a b/k"), ("/a,b/k", '"src=/a,b/k"'), ('/a"b/k', '"src=/a""b/k"')],
)
def test_secret_paths_are_quoted_as_csv(file: str, written: str) -> None:
    argv, _ = BuildKitEngine(INFO).build_command(replace(REQUEST, secrets={"K": Path(file)}))
    assert argv[argv.index("--secret") + 1] == f"id=K,{written}"


def test_line_break_in_secret_path_is_refused() -> None:
    with pytest.raises(SecretError):
        BuildKitEngine(INFO).build_command(replace(REQUEST, secrets={"K": Path("/a\nb")}))


@pytest.mark.parametrize("name", ["PATH", "HOME", "DOCKER_HOST", "BUILDKIT_PROGRESS", "LD_PRELOAD"])
def test_build_argument_must_not_steer_client(name: str) -> None:
    with pytest.raises(SecretError) as caught:
        BuildKitEngine(INFO).build_command(replace(REQUEST, build_arg_env=(name,)))
    assert_error(caught.value, SecretError, name=name)


@pytest.fixture
def engine(fake: Fake) -> DockerEngine:
    chosen = detect.choose()
    assert isinstance(chosen, DockerEngine)
    return chosen


def test_absent_secret_is_not_taken_from_environment(
    engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "from-the-shell")
    lines: list[str] = []
    engine.build(replace(request(tmp_path / "ctx", "FROM x\n"), secret_env={}), lines.append)
    assert "#5 0.1 TOKEN is None" in lines


def test_secrets_are_never_in_arguments(engine: DockerEngine, fake: Fake, tmp_path: Path) -> None:
    engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)
    words = [word for argv in fake.argvs() for word in argv]
    assert "TOKEN" in words
    assert not [word for word in words if TOKEN in word or MOUNTED in word]


def test_failure_message_hides_secrets(engine: DockerEngine, fake: Fake, tmp_path: Path) -> None:
    fake.set(build_error=f"ERROR: cannot fetch https://user:{TOKEN}@example.org")
    with pytest.raises(BuildError) as caught:
        engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)
    assert TOKEN not in caught.value.render()
    assert "https://user:***@example.org" in caught.value.message


def test_missing_secret_file_is_named(engine: DockerEngine, tmp_path: Path) -> None:
    wanted = replace(request(tmp_path / "ctx", "FROM x\n"), secrets={"KEY": tmp_path / "none"})
    with pytest.raises(SecretError) as caught:
        engine.build(wanted, lambda line: None)
    assert_error(caught.value, SecretError, key="KEY", file=tmp_path / "none")


@pytest.mark.parametrize(
    ("output", "error", "words"),
    [
        (f"ERROR: {DOWN}", EngineError, DOWN),
        (
            "failed to copy: write /var/lib/docker/tmp/x: no space left on device",
            StorageError,
            "/fake/docker",
        ),
        (
            "ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: RUNN",
            BuildError,
            "RUNN",
        ),
    ],
)
def test_error_class_of_failed_build(
    engine: DockerEngine,
    fake: Fake,
    tmp_path: Path,
    output: str,
    error: type[Exception],
    words: str,
) -> None:
    fake.set(build_error=output)
    with pytest.raises(error, match=re.escape(words)):
        engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)


def test_full_disk_while_loading_names_its_folder(engine: DockerEngine, fake: Fake) -> None:
    fake.set(
        load_error="Error processing tar file(exit status 1): write /x: no space left on device"
    )
    with pytest.raises(StorageError, match="/fake/docker"):
        engine.load(lambda pipe: None, lambda line: None)


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.image_ids("x"),
        lambda e: e.image_size("x"),
        lambda e: e.tag("x", "y"),
        lambda e: e.untag("x"),
        lambda e: e.run("x", ["true"]),
        lambda e: e.load(lambda pipe: None, lambda line: None),
    ],
)
def test_lost_daemon_is_an_engine_error(
    engine: DockerEngine, fake: Fake, call: Callable[[DockerEngine], object]
) -> None:
    fake.set(down=DOWN)
    with pytest.raises(EngineError) as caught:
        call(engine)
    assert "engine start" in caught.value.hint


def test_run_passes_gpus_and_environment(engine: DockerEngine, fake: Fake, tmp_path: Path) -> None:
    engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)
    engine.run("localhost/gapforge-test/x:1", ["true"], gpus=True, env={"A": "secret value"})
    argv = next(argv for argv in fake.argvs() if argv[0] == "run")
    assert argv[:2] == ["run", "--rm"]
    network = ["--network", "none", "--pull", "never"]
    assert argv[4:12] == [*network, "--gpus", "all", "--env", "A"]
    assert "secret value" not in " ".join(argv)


LOG_20 = """\
#7 [ffmpeg 2/3] RUN ./configure
#7 sha256:0011223344556677889900112233445566778899001122334455667788990011
#8 [opencv 2/3] RUN cmake
#7 0.321 nvenc requested but not found
#8 0.400 -- fine
#7 ERROR: executor failed running [/bin/sh -c ./configure]: exit code: 1
#8 CANCELED
------
 > [ffmpeg 2/3] RUN ./configure:
------
executor failed running [/bin/sh -c ./configure]: exit code: 1"""


def test_log_names_failed_not_cancelled_step() -> None:
    log = BuildLog()
    for line in LOG_20.splitlines():
        log.feed(line)
    assert log.failed_step == "[ffmpeg 2/3] RUN ./configure"
    assert log.reason.endswith("exit code: 1")
    assert log.tail() == "    nvenc requested but not found"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker version 20.10.24+dfsg1, build x", (20, 10, 24)),
        ("buildx v0.29.1", (0, 29, 1)),
        ("dev", ()),
    ],
)
def test_version_is_first_dotted_number(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    "text",
    [
        "error during connect: Get http://x: dial tcp: connection refused",
        DENIED,
        f"failed to connect to the docker API at {DAEMON}; check if the path is correct",
    ],
)
def test_unreachable_daemon_in_several_versions(text: str) -> None:
    assert text in unreachable("first line\n" + text)
    assert unreachable("cp: cannot create '/x': Permission denied") == ""


def failure(code: int, *lines: str) -> GapforgeError:
    log = BuildLog()
    for line in lines:
        log.feed(line)
    return build_failed(log, code, "runtime", "/var/lib/docker")


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_failure_class_in_both_languages(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", lang)
    assert type(failure(1, "write /x: no space left on device")) is StorageError
    assert type(failure(1, DENIED)) is EngineError
    assert "newgrp docker" in failure(1, DENIED).hint
    assert type(failure(1, "something")) is BuildError
    missing = failure(
        1, "#3 [internal] load metadata for localhost/x", "#3 ERROR: pull access denied"
    )
    assert type(missing) is BuildError
    assert "Dockerfile" in missing.hint
    assert (
        "Dockerfile" not in failure(1, "#9 [ffmpeg 2/3] RUN false", "#9 ERROR: exit code: 1").hint
    )


def test_failed_step_and_target_are_named() -> None:
    error = failure(1, "#9 [ffmpeg 2/3] RUN false", "#9 0.1 boom", "#9 ERROR: exit code: 1")
    lines = "    boom\n    exit code: 1"
    assert_error(error, BuildError, target="runtime", step="[ffmpeg 2/3] RUN false", lines=lines)
    step = failure(1, "#9 ERROR: exit code: 1")
    assert "#9" in step.message.splitlines()[0]
    assert_error(failure(3, "odd"), BuildError, code=3, lines="    odd")
    assert DENIED in failure(1, DENIED).message
    assert_error(command_failed("docker load", "odd\n", ""), EngineError, output="odd")


def test_failed_step_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    error = failure(1, "#9 [ffmpeg 2/3] RUN false", "#9 0.1 boom", "#9 ERROR: exit code: 1")
    assert error.message == (
        "타깃 runtime의 단계가 실패했습니다: [ffmpeg 2/3] RUN false\n    boom\n    exit code: 1"
    )


def test_github_token_that_the_application_names_reaches_its_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """sync's own key is a secret like any other in a build, and no program inherits it."""
    seen: list[dict[str, str]] = []

    def stream(argv: list[str], on_line: object, *, env: process.Environment) -> int:
        seen.append(process.environment(env))
        return 0

    monkeypatch.setattr(process, "stream", stream)
    monkeypatch.setenv("GITHUB_TOKEN", "from-the-shell")
    named = replace(REQUEST, secrets={}, build_arg_env=("GITHUB_TOKEN",), secret_env={})
    for values in ({"GITHUB_TOKEN": "of-env-file"}, {}):
        BuildKitEngine(INFO).build(replace(named, secret_env=values), lambda line: None)
    assert [env.get("GITHUB_TOKEN") for env in seen] == ["of-env-file", None]
