"""The lint refuses every way to the network that a Dockerfile has; rendering passes exactly the named secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base.errors import LintError
from gapforge.image.dockerfile import BUILD_ARGS, SECRET_MOUNTS, lint, raise_for, render
from gapforge.model import preset as presets
from gapforge.model.preset import Secret

GOOD = """# A Dockerfile of ours: syntax and ADD may be spoken of.
ARG BASE
ARG HERE=localhost/gapforge/base:latest
FROM ${BASE} AS build
RUN --mount=type=bind,source=in,target=/in \\
    # a comment in between
    --mount=type=secret,id=T,required=true \\
    --mount=type=cache,id=c,target=/c bash /in/build.sh --network=host <<< "word"

FROM $HERE AS final
COPY --from=build --chown=1:1 /out/ /
COPY --from=0 /x /y
ENV A=b
FROM final
RUN --mount=from=build,source=/a,target=/a true
FROM scratch AS export
COPY --from=final / /
"""


def problems(text: str) -> str:
    return "\n".join(f"{fault.where} {fault.problem}" for fault in lint(text))


def bad(
    line: str, *, top: str = "", stage: str = "ARG BASE\nFROM ${BASE} AS build\nFROM build\n"
) -> str:
    return problems(f"{top}{stage}{line}\n")


def test_a_good_dockerfile() -> None:
    assert problems(GOOD) == ""


def test_the_project_s_dockerfile(root: Path) -> None:
    template = (root / "Dockerfile").read_text(encoding="utf-8")
    for name in presets.names(root / "presets"):
        assert (
            problems(render(template, presets.find(root / "presets", name).application.secrets))
            == ""
        )


@pytest.mark.parametrize(
    "directive",
    [
        "# syntax=docker/dockerfile:1",
        "#syntax = x",
        "#  SYNTAX=x",
        "\t# Syntax=x",
        "// syntax=x",
        "# escape=`",
        "#!/usr/bin/env x",
        '{"syntax": "x"}',
        "# check=skip=all\n# syntax=x",
    ],
)
def test_directives(directive: str) -> None:
    assert problems(f"{directive}\n{GOOD}") != ""


def test_a_syntax_comment_further_down_is_refused_too() -> None:
    assert "names a frontend" in problems(GOOD + "# syntax=docker/dockerfile:1\n")


@pytest.mark.parametrize(
    "line",
    [
        "ADD https://example.invalid/x /x",
        "add http://x /x",
        "AdD\thttps://x /x",
        "ADD git@host:x.git /x",
        "ADD --checksum=sha256:0 https://x /x",
        "ADD ${URL} /x",
        '\tADD ["https://x", "/x"]',
        "ADD \\\n  https://x \\\n  /x",
        "ADD local.tar /",
        "ADD ht\\\ntps://x /x",
        "A\\\nDD https://x /x",
    ],
)
def test_add(line: str) -> None:
    assert "ADD" in bad(line)


@pytest.mark.parametrize(
    "line",
    [
        "RUN --network=host true",
        "run --network=default true",
        "RUN --network=none true",
        "RUN --NETWORK=host true",
        "RUN --network = host true",
        "RUN --network= host true",
        "RUN --network =host true",
        "RUN\t--network=host true",
        "RUN --mount=type=cache,target=/c --network=host true",
        "RUN \\\n  --network=host true",
        "RUN --net\\\nwork=host true",
        "RUN \\\n# comment\n\n--network=host true",
        "RUN --network=$MODE true",
        'RUN --"network"=host true',
        "RUN --net\\work=host true",
        "RUN --network='host' true",
        "RUN --network true",
        "RUN --mount=type=bind,source=a\\ b,target=/in --network=host true",
    ],
)
def test_run_network(line: str) -> None:
    assert "network" in bad(line)


@pytest.mark.parametrize(
    "line", ["RUN --security=insecure true", "RUN --device=x true", "RUN --whatever true"]
)
def test_run_with_other_flags(line: str) -> None:
    assert "RUN has the flag" in bad(line)


def test_network_in_the_command_is_no_flag() -> None:
    assert bad("RUN tool --network=host") == ""
    assert bad("RUN -- --network=host") == ""


@pytest.mark.parametrize(
    "line",
    [
        "FROM ubuntu:22.04",
        "from ubuntu",
        "FROM docker.io/library/x AS y",
        "FROM ${MISSING} AS y",
        "FROM $build",
        "FROM ${BASE:-ubuntu}",
        "FROM ${BASE}-x",
        "FROM later",
        "FROM --platform=linux/amd64 build",
        "FROM build AS x y",
        "FROM 0",
        "FROM \\\n ubuntu",
        "FROM 'build'",
        "FROM",
        "FROM build AS Ünsauber",
    ],
)
def test_from(line: str) -> None:
    assert "FROM" in bad(line) or "stage" in bad(line)


@pytest.mark.parametrize(
    "top",
    [
        "ARG BASE=ubuntu:22.04\n",
        "ARG OTHER BASE=ubuntu\n",
        'ARG BASE="ubuntu"\n',
        "arg BASE=x\n",
        "ARG BASE=localhost/gapforge/$X\n",
        "ARG BASE=localhost/other/x\n",
        "ARG BASE=\n",
    ],
)
def test_from_an_arg_with_a_foreign_default(top: str) -> None:
    assert "has a default" in problems(f"{top}FROM ${{BASE}} AS x\n")


def test_an_arg_inside_a_stage_names_no_base() -> None:
    assert "no ARG" in problems("FROM scratch AS a\nARG BASE\nFROM ${BASE}\n")


@pytest.mark.parametrize(
    "line",
    [
        "COPY --from=ubuntu:22.04 /a /b",
        "copy --FROM=nginx /a /b",
        "COPY --from=$IMAGE /a /b",
        "COPY --from=1 /a /b",
        "COPY --from=9 /a /b",
        "COPY --from= nginx /a /b",
        "COPY --chown=1 --from=nginx /a /b",
        "COPY --fr\\\nom=nginx /a /b",
        "COPY --from='nginx' /a /b",
        "COPY --from=² /a /b",
        "RUN --mount=type=bind,from=nginx,target=/x true",
        "RUN --mount=from=nginx,target=/x true",
        "RUN --mount=type=cache,target=/c,FROM=nginx true",
        'RUN --mount="type=bind","from=nginx",target=/x true',
        "RUN --mount=type=bind,from=${IMAGE},target=/x true",
        "RUN --mount type=bind,from=nginx,target=/x true",
    ],
)
def test_images_as_origin(line: str) -> None:
    assert bad(line) != ""


@pytest.mark.parametrize(
    "line",
    ["RUN --mount=type=ssh true", "RUN --mount=type=$T,target=/x true", "COPY --parents a b"],
)
def test_unknown_kinds(line: str) -> None:
    assert bad(line) != ""


@pytest.mark.parametrize(
    "line",
    [
        "ONBUILD RUN --network=host true",
        "onbuild ADD https://x /x",
        "INCLUDE other",
        "MAINTAINER x",
        "!!",
        "RUNX a",
    ],
)
def test_instructions(line: str) -> None:
    assert bad(line) != ""


@pytest.mark.parametrize(
    "line",
    [
        "RUN <<EOF\nADD https://x /x\nEOF",
        "COPY <<EOF /x\nEOF",
        "RUN cat <<-'X' >/y\nX",
        "RUN 3<<E x\nE",
    ],
)
def test_heredocs(line: str) -> None:
    assert "heredoc" in bad(line)


@pytest.mark.parametrize(
    "text",
    [
        "ADD\xa0https://x /x",
        "RUN --mount=type=cache,target=/c\u2003--network=host true",
        "RUN true\r\nADD https://x /x",
        "RUN true\x0bADD x",
        "\ufeff# x",
        "RUN true\x00",
        "RUN true \\\\\n",
        "RUN true\x85ADD https://x /x",
    ],
)
def test_text_that_builders_read_differently(text: str) -> None:
    assert bad(text) != ""


def test_all_faults_at_once_with_lines() -> None:
    text = "# syntax=x\nFROM ubuntu AS a\nRUN --network=host x\nADD https://x /x\nONBUILD RUN x\nCOPY --from=nginx a b\n"
    assert [int(fault.where.rsplit(" ", 1)[1]) for fault in lint(text)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(LintError) as error:
        raise_for(lint(text))
    assert error.value.exit_code == 16 and len(error.value.faults) == 6
    raise_for([])


SPACE = st.text(alphabet=" \t", min_size=1, max_size=3)
BREAK = st.sampled_from(["", "", "\\\n", "\\ \n", "\\\n# c\n", "\\\n\n"])


@given(data=st.data(), word=st.sampled_from(["--network=host", "--network=default"]))
def test_however_a_network_flag_is_written(data: st.DataObject, word: str) -> None:
    written = ""
    for char in word:
        written += data.draw(
            st.sampled_from([char, char, char, "\\" + char]) if char.isalpha() else st.just(char)
        )
        written += data.draw(st.sampled_from(["", "", "", "\\\n"]))
    run = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in "RUN")
    before = data.draw(
        st.sampled_from(["", "--mount=type=cache,target=/c ", "--mount=type=tmpfs,target='/a b' "])
    )
    assert bad(f"{run}{data.draw(SPACE)}{data.draw(BREAK)}{before}{written} true") != ""


@given(st.text(max_size=200))
def test_any_text_gives_an_answer(text: str) -> None:
    lint(text)


@given(image=st.from_regex(r"[a-z][a-z0-9]{0,8}(/[a-z]{1,5})?(:[a-z0-9.]{1,6})?", fullmatch=True))
def test_no_image_name_is_taken_for_a_stage(image: str) -> None:
    if image not in ("build", "scratch"):
        assert bad(f"FROM {image}") != "" and bad(f"COPY --from={image} /a /b") != ""


TEMPLATE = f"ARG B\nFROM $B AS a\n{BUILD_ARGS}\nRUN --mount=type=bind,target=/in \\\n{SECRET_MOUNTS}\n    bash x\n"


def test_render() -> None:
    chosen = [
        Secret("ONE", "secret", False),
        Secret("TWO", "build-arg", True),
        Secret("THREE", "secret", True),
    ]
    assert render(TEMPLATE, chosen) == (
        "ARG B\nFROM $B AS a\nARG TWO\nRUN --mount=type=bind,target=/in \\\n"
        "    --mount=type=secret,id=ONE \\\n    --mount=type=secret,id=THREE,required=true \\\n    bash x\n"
    )
    assert problems(render(TEMPLATE, chosen)) == ""


def test_render_without_secrets_leaves_no_trace() -> None:
    assert "gapforge:" not in render(TEMPLATE, []) and problems(render(TEMPLATE, [])) == ""


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE.replace(BUILD_ARGS + "\n", ""),
        TEMPLATE.replace(SECRET_MOUNTS + "\n", ""),
        TEMPLATE + BUILD_ARGS + "\n",
        TEMPLATE.replace(SECRET_MOUNTS, "  " + SECRET_MOUNTS),
        TEMPLATE + "# gapforge:secret-mount\n",
        TEMPLATE + "#gapforge: build-args\n",
        "",
    ],
)
def test_marker_lines_must_be_right(template: str) -> None:
    with pytest.raises(LintError) as error:
        render(template, [])
    assert error.value.exit_code == 16 and error.value.faults
