"""The lint refuses every way to the network that a Dockerfile has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base.errors import LintError
from gapforge.image import dockerfile_lint
from gapforge.image.dockerfile import raise_faults, render
from gapforge.image.dockerfile_lint import lint
from gapforge.model import preset as presets
from raised_errors import values_of
from samples import ROOT

GOOD = """# A Dockerfile of ours: a comment may name syntax and ADD.
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


def found(text: str) -> list[str]:
    """Return the English templates of all problems."""
    return [getattr(fault.problem, "id", fault.problem) for fault in lint(text)]


def faults_of(line: str) -> list[str]:
    """Return the problems of one line in a stage."""
    return found(f"ARG BASE\nFROM ${{BASE}} AS build\nFROM build\n{line}\n")


def test_good_dockerfile_has_no_fault() -> None:
    assert found(GOOD) == []


def test_own_dockerfile_has_no_fault() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for name in presets.names(ROOT / "presets"):
        secrets = presets.find(ROOT / "presets", name).application.secrets
        assert lint(render(text, secrets, name)) == []


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
def test_directives_are_refused(directive: str) -> None:
    assert lint(f"{directive}\n{GOOD}")


def test_syntax_comment_is_refused_anywhere() -> None:
    assert len(lint(GOOD + "# syntax=docker/dockerfile:1\n")) == 1


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
def test_add_is_refused(line: str) -> None:
    assert "ADD" in faults_of(line)[0]


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
def test_network_of_run_is_refused(line: str) -> None:
    assert faults_of(line)[-1] == 'RUN chooses its own network ("{flag}")'


@pytest.mark.parametrize(
    "line", ["RUN --security=insecure true", "RUN --device=x true", "RUN --whatever true"]
)
def test_other_flags_of_run_are_refused(line: str) -> None:
    assert faults_of(line) == ['RUN has the flag "{flag}"']


def test_network_option_of_a_command_is_accepted() -> None:
    assert faults_of("RUN tool --network=host") == []
    assert faults_of("RUN -- --network=host") == []


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
def test_foreign_or_malformed_from_is_refused(line: str) -> None:
    (problem,) = faults_of(line)
    assert "FROM" in problem or "stage" in problem


def test_invalid_stage_name_is_shown() -> None:
    (fault,) = lint("FROM scratch AS 9x\n")
    assert values_of(fault.problem) == {"name": "9x"}


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
def test_foreign_default_of_an_arg_is_refused(top: str) -> None:
    assert "has a default" in found(f"{top}FROM ${{BASE}} AS x\n")[0]


def test_arg_inside_a_stage_names_no_base() -> None:
    assert "no ARG" in found("FROM scratch AS a\nARG BASE\nFROM ${BASE}\n")[0]


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
        "RUN --mount =from=nginx,target=/x true",
        # Builders take the last of several options, mounts or flags; each of them is checked.
        "RUN --mount=from=build,from=nginx,target=/x true",
        "RUN --mount=from=nginx,from=build,target=/x true",
        "RUN --mount=from=build,target=/x --mount=from=nginx,target=/y true",
        "RUN --mount=from=nginx,target=/x --mount=from=build,target=/y true",
        "COPY --from=build --from=nginx /a /b",
        "COPY --from=nginx --from=build /a /b",
    ],
)
def test_image_as_origin_is_refused(line: str) -> None:
    assert faults_of(line)


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=ssh true",
        "RUN --mount=type=bind,type=ssh true",
        "RUN --mount=type=ssh,type=bind true",
        "RUN --mount=type=$T,target=/x true",
        "COPY --parents a b",
        "COPY --from=build --parents a b",
    ],
)
def test_unknown_mounts_and_flags_are_refused(line: str) -> None:
    assert faults_of(line)


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
def test_unknown_instructions_are_refused(line: str) -> None:
    (problem,) = faults_of(line)
    assert "ADD" not in problem and (problem == faults_of("INCLUDE x")[0]) is (
        not line.lower().startswith("onbuild")
    )


@pytest.mark.parametrize(
    "line",
    [
        "RUN <<EOF\nADD https://x /x\nEOF",
        "COPY <<EOF /x\nEOF",
        "RUN cat <<-'X' >/y\nX",
        "RUN 3<<E x\nE",
    ],
)
def test_heredocs_are_refused(line: str) -> None:
    assert "heredoc" in faults_of(line)[0]


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
def test_text_that_builders_read_differently_is_refused(text: str) -> None:
    assert faults_of(text)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_all_faults_are_reported_with_lines(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    text = (
        "# syntax=x\nFROM ubuntu AS a\nRUN --network=host x\nADD https://x /x\n"
        "ONBUILD RUN x\nCOPY --from=nginx a b\n"
    )
    faults = lint(text)
    assert [values_of(fault.where) for fault in faults] == [
        {"file": "Dockerfile", "number": number} for number in range(1, 7)
    ]
    with pytest.raises(LintError) as error:
        raise_faults("message", faults)
    assert error.value.exit_code == 16 and error.value.faults == tuple(faults)
    raise_faults("message", [])


SPACE = st.text(alphabet=" \t", min_size=1, max_size=3)
BREAK = st.sampled_from(["", "", "\\\n", "\\ \n", "\\\n# c\n", "\\\n\n"])


@given(data=st.data(), word=st.sampled_from(["--network=host", "--network=default"]))
def test_network_flag_is_found_in_any_spelling(data: st.DataObject, word: str) -> None:
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
    assert faults_of(f"{run}{data.draw(SPACE)}{data.draw(BREAK)}{before}{written} true")


@given(st.text(max_size=200))
def test_no_text_hides_an_instruction_before_it(text: str) -> None:
    line = "FROM ubuntu"
    assert [f for f in lint(f"{line}\n{text}") if values_of(f.problem).get("base") == "ubuntu"]


@given(image=st.from_regex(r"[a-z][a-z0-9]{0,8}(/[a-z]{1,5})?(:[a-z0-9.]{1,6})?", fullmatch=True))
def test_image_name_is_never_a_stage(image: str) -> None:
    if image not in ("build", "scratch"):
        assert faults_of(f"FROM {image}") and faults_of(f"COPY --from={image} /a /b")


def test_allowed_flags_of_copy_have_no_fault() -> None:
    assert faults_of("COPY --from=build --chown=1:1 --chmod=644 --link /a /b") == []
    assert faults_of("COPY --link --link=build /a /b") == []


@pytest.mark.parametrize(
    ("text", "word", "rest"),
    [
        ("", "", ""),
        ("a", "a", ""),
        ("a b  c", "a", "b  c"),
        ("a\tb", "a", "b"),
        ("'a b'\"c d\"e f", "a bc de", "f"),
        ("'a\"b' c", 'a"b', "c"),
        ("\"a'", "a'", ""),
        ("a\\ b c", "a b", "c"),
        ("'\\'a' b", "'a", "b"),
        ("a\\", "a\\", ""),
        ("a" * 300 + "\\", "a" * 300 + "\\", ""),
    ],
)
def test_first_word_is_without_quotes_and_escapes(text: str, word: str, rest: str) -> None:
    assert dockerfile_lint._first_word(text) == (word, rest)
