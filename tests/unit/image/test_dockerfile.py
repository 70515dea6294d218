"""Filling the Dockerfile passes exactly the named secrets."""

from __future__ import annotations

import pytest

from gapforge.base.errors import LintError
from gapforge.image.dockerfile import BUILD_ARGS, SECRET_MOUNTS, render
from gapforge.image.dockerfile_lint import lint
from gapforge.model.preset import Secret

TEMPLATE = (
    f"ARG B\nFROM $B AS a\n{BUILD_ARGS}\nRUN --mount=type=bind,target=/in \\\n{SECRET_MOUNTS}\n"
    "    bash x\n"
)


def test_secrets_replace_the_marker_lines() -> None:
    chosen = [
        Secret("ONE", "secret", False),
        Secret("TWO", "build-arg", True),
        Secret("THREE", "secret", True),
    ]
    assert render(TEMPLATE, chosen, "x") == (
        "ARG B\nFROM $B AS a\nARG TWO\nRUN --mount=type=bind,target=/in \\\n"
        "    --mount=type=secret,id=ONE \\\n"
        "    --mount=type=secret,id=THREE,required=true \\\n    bash x\n"
    )
    assert lint(render(TEMPLATE, chosen, "x")) == []


def test_no_secrets_leave_no_marker() -> None:
    assert "gapforge:" not in render(TEMPLATE, [], "x") and lint(render(TEMPLATE, [], "x")) == []


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
def test_wrong_marker_lines_are_refused(template: str) -> None:
    with pytest.raises(LintError) as error:
        render(template, [], "x")
    assert error.value.exit_code == 16 and error.value.faults
