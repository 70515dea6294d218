"""Run docker in a private engine, and share what one engine compiled with later engines."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from gapforge.base.project import Project
from gapforge.engine import private_daemon, private_daemon_state


def docker_command(project: Project, *words: str) -> list[str]:
    """Return the words of a docker command for the project's engine, which must run."""
    host = private_daemon_state.running_host(project)
    assert host, f"no private engine of {project.root} runs"
    client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    return [client, "-H", host, *words]


class CompilerCache:
    """What the engine that compiled FFmpeg and OpenCV leaves to others. Empty before ``keep``.

    GAPFORGE_DOCKERD=``dockerd`` gives an engine the ccache folder and no layer, so that it builds
    every stage. ``dockerd_with_layers`` gives one engine the layers too.
    """

    def __init__(self, folder: Path) -> None:
        self.data, self.layers = folder / "data", folder / "layers"
        path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
        real = Path(str(shutil.which("dockerd", path=path)))
        self.dockerd = _program(folder / "cache", real, ["cp", "-a"], self.data)
        self.dockerd_with_layers = _program(folder / "all", real, ["mv"], self.layers)

    def keep(self, project: Project) -> None:
        """Stop the project's engine and take what it has, unless another engine was kept."""
        if private_daemon_state.status(project) is None or self.data.exists():
            return
        data = private_daemon_state.folder_of(project) / "data"
        private_daemon.stop(project)
        subprocess.run(["cp", "-a", data, self.layers], check=True)
        private_daemon.start(project, offline=True)

        def docker(*words: str) -> str:
            argv = docker_command(project, *words)
            return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

        if images := sorted(set(docker("image", "ls", "-q", "--no-trunc").split())):
            docker("image", "rm", "--force", *images)
        for kind in ("regular", "source.local", "frontend", "internal"):
            docker("builder", "prune", "--all", "--force", "--filter", f"type={kind}")
        private_daemon.stop(project)
        subprocess.run(["mv", data, self.data], check=True)


def _program(folder: Path, dockerd: Path, take: list[str], data: Path) -> Path:
    """Write a dockerd that begins with ``data``, if there is any, in place of an empty folder."""
    folder.mkdir()
    program = folder / "dockerd"
    kept = shlex.quote(str(data))
    program.write_text(f"""#!/bin/sh
for word; do case $word in --data-root=*) data=${{word#*=}} ;; esac; done
if [ -d {kept} ] && [ ! -e "$data" ]; then {shlex.join(take)} {kept} "$data"; fi
PATH={shlex.quote(str(dockerd.parent))}:$PATH
exec {shlex.quote(str(dockerd))} "$@"
""")
    program.chmod(0o755)
    return program
