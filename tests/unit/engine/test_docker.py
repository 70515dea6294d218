"""The exact commands for docker, and what becomes of what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine_contract import MOUNTED, TOKEN, request
from engine_fakes import Fake
from gapforge.base.errors import BuildError, EngineError, GapforgeError, SecretError, StorageError
from gapforge.engine import detect
from gapforge.engine.build_log import BuildLog
from gapforge.engine.docker import (
    BuildKitEngine,
    BuildxEngine,
    DockerEngine,
    unreachable,
    version_of,
)
from gapforge.engine.protocol import BuildRequest, EngineInfo

INFO = EngineInfo(
    "docker-buildkit",
    "/usr/bin/docker",
    "20.10.24",
    "20.10.24",
    "buildkit (built in)",
    "/var/lib/docker",
)
WANTED = BuildRequest(
    Path("/p/ctx"),
    Path("/p/ctx/Dockerfile"),
    "runtime",
    "localhost/x:1",
    {"B": "2 3", "A": "1"},
    {"org.b": "y", "org.a": "x"},
    {"TOKEN": Path("/p/secrets/TOKEN")},
    ("LICENCE",),
    {"LICENCE": "hush"},
)
REST = [
    "--network=none",
    "--progress=plain",
    "--pull=false",
    "--file",
    "/p/ctx/Dockerfile",
    "--target",
    "runtime",
    "--build-arg",
    "A=1",
    "--build-arg",
    "B=2 3",
    "--build-arg",
    "LICENCE",
    "--secret",
    "id=TOKEN,src=/p/secrets/TOKEN",
    "--label",
    "org.a=x",
    "--label",
    "org.b=y",
    "--tag",
    "localhost/x:1",
    "/p/ctx",
]


def test_command_of_the_builtin_buildkit() -> None:
    assert BuildKitEngine(INFO).build_command(WANTED) == (
        ["/usr/bin/docker", "build", *REST],
        {"DOCKER_BUILDKIT": "1"},
    )


def test_command_of_buildx() -> None:
    info = replace(INFO, name="docker-buildx", builder="buildx 0.13.1", host="unix:///run/x.sock")
    argv, env = BuildxEngine(info).build_command(WANTED)
    assert argv == [
        "/usr/bin/docker",
        "buildx",
        "build",
        "--builder",
        "default",
        "--load",
        "--provenance=false",
        *REST,
    ]
    assert env == {"DOCKER_BUILDKIT": "1", "DOCKER_HOST": "unix:///run/x.sock"}
    old = BuildxEngine(replace(info, builder="buildx 0.9.1")).build_command(WANTED)[0]
    assert "--provenance=false" not in old  # it does not know the flag


def test_command_without_target_and_with_no_cache() -> None:
    argv, _ = BuildKitEngine(INFO).build_command(replace(WANTED, target="", no_cache=True))
    assert "--target" not in argv
    assert "--no-cache" in argv


@pytest.mark.parametrize(
    ("file", "written"),
    [("/a b/k", "src=/a b/k"), ("/a,b/k", '"src=/a,b/k"'), ('/a"b/k', '"src=/a""b/k"')],
)
def test_secret_paths_are_quoted_as_csv(file: str, written: str) -> None:
    argv, _ = BuildKitEngine(INFO).build_command(replace(WANTED, secrets={"K": Path(file)}))
    assert argv[argv.index("--secret") + 1] == f"id=K,{written}"


def test_secret_path_with_a_line_break_is_refused() -> None:
    with pytest.raises(SecretError, match="line break"):
        BuildKitEngine(INFO).build_command(replace(WANTED, secrets={"K": Path("/a\nb")}))


@pytest.mark.parametrize("name", ["PATH", "HOME", "DOCKER_HOST", "BUILDKIT_PROGRESS", "LD_PRELOAD"])
def test_build_argument_that_would_steer_the_client_is_refused(name: str) -> None:
    with pytest.raises(SecretError, match=f"key {name} cannot be a build argument"):
        BuildKitEngine(INFO).build_command(replace(WANTED, build_arg_env=(name,)))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path / "fake")
    monkeypatch.setenv("GAPFORGE_DOCKER", str(made.client))
    return made


@pytest.fixture
def engine(fake: Fake) -> DockerEngine:
    chosen = detect.choose()
    assert isinstance(chosen, DockerEngine)
    return chosen


def test_secret_that_is_not_given_is_not_taken_from_the_users_environment(
    engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "from-the-shell")
    lines: list[str] = []
    engine.build(replace(request(tmp_path / "ctx", "FROM x\n"), secret_env={}), lines.append)
    assert "#5 0.1 TOKEN is None" in lines


def test_secrets_never_stand_in_an_argument(
    engine: DockerEngine, fake: Fake, tmp_path: Path
) -> None:
    engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)
    words = [word for argv in fake.argvs() for word in argv]
    assert "TOKEN" in words
    assert not [word for word in words if TOKEN in word or MOUNTED in word]


def test_failure_message_hides_secrets_too(
    engine: DockerEngine, fake: Fake, tmp_path: Path
) -> None:
    fake.set(build_error=f"ERROR: cannot fetch https://user:{TOKEN}@example.org")
    with pytest.raises(BuildError) as caught:
        engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)
    assert TOKEN not in caught.value.render()
    assert "https://user:***@example.org" in caught.value.message


def test_missing_secret_file(engine: DockerEngine, tmp_path: Path) -> None:
    wanted = replace(request(tmp_path / "ctx", "FROM x\n"), secrets={"KEY": tmp_path / "none"})
    with pytest.raises(SecretError, match="the secret KEY cannot be read"):
        engine.build(wanted, lambda line: None)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (
            "ERROR: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            EngineError,
            "lost its engine",
        ),
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
def test_what_a_failed_build_becomes(
    engine: DockerEngine, fake: Fake, tmp_path: Path, said: str, error: type[Exception], words: str
) -> None:
    fake.set(build_error=said)
    with pytest.raises(error, match=words):
        engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)


def test_full_disk_during_load(engine: DockerEngine, fake: Fake) -> None:
    fake.set(
        load_error="Error processing tar file(exit status 1): write /usr/lib/x: no space left on device"
    )
    with pytest.raises(StorageError, match="disk is full"):
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
def test_daemon_that_went_away(
    engine: DockerEngine, fake: Fake, call: Callable[[DockerEngine], object]
) -> None:
    fake.set(
        down="Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    )
    with pytest.raises(EngineError) as caught:
        call(engine)
    assert "engine start" in caught.value.hint


def test_run_asks_for_gpus_and_user(engine: DockerEngine, fake: Fake, tmp_path: Path) -> None:
    engine.build(request(tmp_path / "ctx", "FROM x\n"), lambda line: None)
    engine.run(
        "localhost/gapforge-test/x:1",
        ["true"],
        gpus=True,
        user="1000:1000",
        env={"A": "secret value"},
    )
    argv = next(argv for argv in fake.argvs() if argv[0] == "run")
    assert argv[:2] == ["run", "--rm"]
    assert argv[4:14] == [
        "--network",
        "none",
        "--pull",
        "never",
        "--user",
        "1000:1000",
        "--gpus",
        "all",
        "--env",
        "A",
    ]
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


def test_log_names_the_step_that_failed_and_not_its_cancelled_sibling() -> None:
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
def test_version_of(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    "text",
    [
        "error during connect: Get http://x: dial tcp: connection refused",
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct",
    ],
)
def test_unreachable_in_the_words_of_several_versions(text: str) -> None:
    assert text in unreachable("first line\n" + text)
    assert unreachable("cp: cannot create '/x': Permission denied") == ""


DENIED = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"


def failure(code: int, *lines: str) -> GapforgeError:
    log = BuildLog()
    for line in lines:
        log.feed(line)
    return BuildKitEngine(INFO)._build_failure(log, code, WANTED)


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_what_a_failure_is_does_not_depend_on_the_language(
    lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_failures_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    error = failure(1, "#9 [ffmpeg 2/3] RUN false", "#9 0.1 boom", "#9 ERROR: exit code: 1")
    assert (
        error.message
        == "타깃 runtime의 단계가 실패했습니다: [ffmpeg 2/3] RUN false\n    boom\n    exit code: 1"
    )
    assert (
        failure(1, "#9 ERROR: exit code: 1").message.splitlines()[0]
        == "타깃 runtime의 단계가 실패했습니다: 단계 #9"
    )
    assert failure(3, "odd").message == "엔진이 빌드를 거부했습니다 (종료 코드 3):\n    odd"
    assert failure(1, DENIED).message == (
        f"빌드 중에 엔진과 연결이 끊어졌습니다: 엔진의 소켓에 접근할 권한이 없음: {DENIED}"
    )
    full = BuildKitEngine(replace(INFO, root_dir=""))._failure(
        "docker load", "no space left on device"
    )
    assert full.message == "docker load: 엔진의 디스크가 가득 찼습니다 (엔진의 폴더)"
    assert (
        BuildKitEngine(INFO)._failure("docker load", "odd\n").message
        == "docker load 명령이 실패했습니다:\nodd"
    )
