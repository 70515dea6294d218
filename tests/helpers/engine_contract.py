"""Check the Engine Protocol, with a fake engine in unit tests and real daemons in live tests.

Each takes an engine, the name of a base image in it, and an empty folder.
"""

from __future__ import annotations

import secrets
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from gapforge.base import process
from gapforge.base.errors import BuildError, EngineError, VerifyError
from gapforge.engine.build_log import RunningSteps
from gapforge.engine.docker import client_env
from gapforge.engine.protocol import BuildRequest, Engine
from gapforge.image import load_base_images
from gapforge.model.lock import LockedImage
from raised_errors import assert_error
from tiny_image import PROGRAMS, make_layout

Check = Callable[[Engine, str, Path], None]
TOKEN, MOUNTED = "canary-" + secrets.token_hex(6), "canary-" + secrets.token_hex(6)


def request(
    folder: Path, dockerfile: str, target: str = "", tag: str = "localhost/gapforge-test/x:1"
) -> BuildRequest:
    """Return a build of ``dockerfile`` in ``folder`` with one secret of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    secret = folder.parent / "secret, with a comma"
    secret.write_text(MOUNTED + "\n")
    return BuildRequest(
        context=folder,
        dockerfile=folder / "Dockerfile",
        target=target,
        tag=tag,
        build_args={"A": "1"},
        labels={"org.example": "x y"},
        secrets={"KEY": secret},
        build_arg_env=("TOKEN",),
        secret_env={"TOKEN": TOKEN, "UNASKED": "no"},
    )


def containers(engine: Engine) -> list[str]:
    listed = process.run(
        [engine.info.client, "ps", "-a", "--format", "{{.Names}}"], env=client_env(engine.info.host)
    )
    return [name for name in listed.output.split() if name.startswith("gapforge-run-")]


def builds_tags_and_untags(engine: Engine, base: str, folder: Path) -> None:
    wanted = request(folder / "ctx", f"FROM {base} AS a\nRUN echo built >/tmp/built\n")
    steps = RunningSteps()
    engine.build(wanted, lambda line: steps.feed(line, time.monotonic()))
    assert steps.now() == [], "the log of this engine says of each step that it ended"
    assert engine.image_ids(wanted.tag)
    assert engine.image_size(wanted.tag) > 0
    engine.tag(wanted.tag, "localhost/gapforge-test/y:2")
    assert engine.image_ids("localhost/gapforge-test/y:2") == engine.image_ids(wanted.tag)
    # The second untag of a name finds none.
    for name in ("localhost/gapforge-test/y:2", wanted.tag, wanted.tag):
        engine.untag(name)
        assert engine.image_ids(name) == ()


def failing_step_is_named(engine: Engine, base: str, folder: Path) -> None:
    wanted = request(
        folder / "ctx",
        f"FROM {base} AS bad\nRUN echo oops; exit 7\n",
        "bad",
        "localhost/gapforge-test/bad:1",
    )
    with pytest.raises(BuildError) as caught:
        engine.build(wanted, lambda line: None)
    # A Dockerfile with one stage has no stage name in front of the step.
    assert "] RUN echo oops; exit 7" in caught.value.message.splitlines()[0]
    assert "oops" in caught.value.message
    assert "exit code: 7" in caught.value.message
    assert "pull" not in caught.value.hint
    assert engine.image_ids(wanted.tag) == ()


def secrets_stay_hidden(engine: Engine, base: str, folder: Path) -> None:
    wanted = request(
        folder / "ctx",
        f"FROM {base} AS a\nARG TOKEN\n"
        f"RUN --mount=type=secret,id=KEY echo {folder} arg $TOKEN; cat /run/secrets/KEY\n"
        "FROM a\nRUN true\n",
    )
    argv, variables = engine.build_command(wanted)
    assert not [word for word in (*argv, *variables.values()) if TOKEN in word or MOUNTED in word]
    lines: list[str] = []
    engine.build(wanted, lines.append)
    log = "\n".join(lines)
    assert TOKEN not in log and MOUNTED not in log
    assert log.count("***") >= 2
    engine.untag(wanted.tag)


def runs_and_leaves_nothing(engine: Engine, base: str, folder: Path) -> None:
    given = {"GAPFORGE_EXPECT": '{"a": "b c"}', "DOCKER_HOST": "unix:///elsewhere"}
    code, output, _ = engine.run(
        base,
        ["sh", "-c", "cat; echo $GAPFORGE_EXPECT $DOCKER_HOST; exit 3"],
        stdin="in\n",
        env=given,
    )
    assert (code, output) == (3, 'in\n{"a": "b c"} unix:///elsewhere\n')
    assert engine.run(base, ["sh", "-c", "cat; echo e >&2"])[1:] == ("", "e\n")
    assert containers(engine) == []


def stops_after_the_timeout(engine: Engine, base: str, folder: Path) -> None:
    code, _, errors = engine.run(base, ["sleep", "60"], timeout=1)
    assert code == 124
    assert "1 s" in errors
    assert containers(engine) == []


def reports_a_missing_image(engine: Engine, base: str, folder: Path) -> None:
    assert engine.image_ids("localhost/gapforge-test/none:1") == ()
    with pytest.raises(EngineError) as caught:
        engine.image_size("localhost/gapforge-test/none:1")
    assert_error(caught.value, EngineError, name="localhost/gapforge-test/none:1")
    with pytest.raises(EngineError):
        engine.run("localhost/gapforge-test/none:1", ["true"])
    with pytest.raises(EngineError):
        engine.tag("localhost/gapforge-test/none:1", "localhost/gapforge-test/other:1")


def fails_for_a_broken_load(engine: Engine, base: str, folder: Path) -> None:
    def cut(pipe: IO[bytes]) -> None:
        with tarfile.open(fileobj=pipe, mode="w|") as tar:
            tar.addfile(tarfile.TarInfo("oci-layout"))

    with pytest.raises(EngineError):
        engine.load(cut, lambda line: None)

    def broken(pipe: IO[bytes]) -> None:
        raise VerifyError("the feed's own reason")

    with pytest.raises(VerifyError, match="the feed's own reason"):
        engine.load(broken, lambda line: None)


def loads_a_base_image_once(engine: Engine, base: str, folder: Path) -> None:
    for packed in (True, False):
        for schema2 in (True, False):
            layout = folder / f"{packed}-{schema2}"
            image = make_layout(
                layout, packed=packed, schema2=schema2, note=secrets.token_hex(4), programs=()
            )
            lines: list[str] = []
            name = load_base_images.ensure(engine, layout, image, lines.append)
            assert name == "localhost/gapforge/base:" + image.config_digest[7:31]
            assert {image.config_digest, image.manifest_digest} & set(engine.image_ids(name))
            assert lines
            lines.clear()
            assert load_base_images.ensure(engine, layout, image, lines.append) == name
            assert not lines
            engine.untag(name)


def keeps_no_damaged_base_image(engine: Engine, base: str, folder: Path) -> None:
    image = make_layout(folder / "layout", packed=False, note=secrets.token_hex(4), programs=())
    largest = max(
        (folder / "layout" / "blobs" / "sha256").iterdir(), key=lambda f: f.stat().st_size
    )
    data = bytearray(largest.read_bytes())
    data[600] ^= 1
    largest.write_bytes(data)
    with pytest.raises(VerifyError, match=largest.name):
        load_base_images.ensure(engine, folder / "layout", image, lambda line: None)
    assert engine.image_ids(load_base_images.base_name(image.config_digest)) == ()


CHECKS: tuple[Check, ...] = (
    builds_tags_and_untags,
    failing_step_is_named,
    secrets_stay_hidden,
    runs_and_leaves_nothing,
    stops_after_the_timeout,
    reports_a_missing_image,
    fails_for_a_broken_load,
    loads_a_base_image_once,
    keeps_no_damaged_base_image,
)


def load_base(
    engine: Engine, folder: Path, programs: tuple[str, ...] = PROGRAMS
) -> tuple[str, LockedImage]:
    """Load a small base image with ``programs`` into the engine; return its name and its lock."""
    image = make_layout(folder, programs=programs)
    return load_base_images.ensure(engine, folder, image, lambda line: None), image
