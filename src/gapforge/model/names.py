"""Names that several rooms compare: of presets, Python packages, roles and docker's variables."""

from __future__ import annotations

import re

PRESET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
ROLES = ("builder", "runtime")
# Media types of the OCI image specification and of Docker's registry API.
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Variables that steer the docker client itself. A container or build argument with such a name
# cannot get its value from the client's environment.
STEERING = re.compile(
    r"(DOCKER|BUILDKIT|BUILDX|MOBY|LD|OTEL)_.*|PATH|HOME|TMPDIR|SSL_CERT_(FILE|DIR)"
)


def normalized(package: str) -> str:
    """Return a Python package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def package_of(requirement: str) -> str:
    """Return the normalized name of the package in a requirement such as "Pillow[x]>=10"."""
    match = _PACKAGE.match(requirement)
    return normalized(match[0] if match else requirement)
