"""Facts about the docker client: its environment and its version."""

from __future__ import annotations

import re


def client_env(host: str) -> dict[str, str | None]:
    """Return what the client's environment must hold to reach ``host``.

    None removes a variable. "" leaves the user's choice of daemon as it is.
    """
    variables: dict[str, str | None] = {"DOCKER_CLI_HINTS": "false"}
    if host:
        # DOCKER_HOST beats a context; TLS settings belong to the address that they were made for.
        variables |= {"DOCKER_HOST": host}
        if host.startswith("unix://"):
            variables |= {"DOCKER_TLS": None, "DOCKER_TLS_VERIFY": None}
    return variables


def version_of(text: str) -> tuple[int, ...]:
    """Return the first dotted number: "buildx v0.13.1+ds1" is (0, 13, 1); () without one."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
