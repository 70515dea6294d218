"""Share the compiler cache between the engines of a test session."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from gapforge.base.project import Project
from gapforge.engine import private_daemon, private_daemon_state


class CompilerCache:
    """The ccache folder that one private engine leaves to the engines after it.

    No layer is kept, so every engine still builds from nothing. The cache is empty until ``keep``
    is called with an engine that has compiled FFmpeg and OpenCV.
    """

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
        real = Path(str(shutil.which("dockerd", path=path)))
        self.dockerd = folder / "bin" / "dockerd"  # for GAPFORGE_DOCKERD
        self.dockerd.parent.mkdir()
        data = shlex.quote(str(self.data))
        self.dockerd.write_text(f"""#!/bin/sh
for word; do case $word in --data-root=*) data=${{word#*=}} ;; esac; done
if [ -d {data} ] && [ ! -e "$data" ]; then cp -a {data} "$data"; fi
PATH={shlex.quote(str(real.parent))}:$PATH
exec {shlex.quote(str(real))} "$@"
""")
        self.dockerd.chmod(0o755)

    def keep(self, project: Project) -> None:
        """Stop the project's engine and take its compiler cache, unless there is one already."""
        if (state := private_daemon_state.status(project)) is None or self.data.exists():
            return

        def docker(*words: str) -> str:
            argv = ["docker", "-H", state.host, *words]
            return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

        if images := sorted(set(docker("image", "ls", "-q", "--no-trunc").split())):
            docker("image", "rm", "--force", *images)
        for kind in ("regular", "source.local", "frontend", "internal"):
            docker("builder", "prune", "--all", "--force", "--filter", f"type={kind}")
        private_daemon.stop(project)
        subprocess.run(
            ["mv", private_daemon_state.folder_of(project) / "data", self.data], check=True
        )
