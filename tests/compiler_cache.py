"""Share the compiler cache of FFmpeg and OpenCV between the engines of a test session."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from gapforge.base.project import Project
from gapforge.engine import private_daemon, private_daemon_state


class CompilerCache:
    """The ccache folder that one engine passes on to later ones.

    These build every layer again, but from the cache. It is empty until ``keep`` gets an engine.
    """

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        real = shutil.which(
            "dockerd", path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
        )
        self.dockerd = folder / "bin" / "dockerd"  # for GAPFORGE_DOCKERD
        self.dockerd.parent.mkdir()
        self.dockerd.write_text(f"""#!/bin/sh
for word; do case $word in --data-root=*) data=${{word#*=}} ;; esac; done
cache={shlex.quote(str(self.data))}
if [ -d "$cache" ] && [ ! -e "$data" ]; then cp -a "$cache" "$data"; fi
PATH={shlex.quote(str(Path(str(real)).parent))}:$PATH
exec {shlex.quote(str(real))} "$@"
""")
        self.dockerd.chmod(0o755)

    def keep(self, project: Project) -> None:
        """Stop the project's engine and take its compiler cache."""
        if (state := private_daemon_state.status(project)) is None or self.data.exists():
            return
        docker = ["docker", "-H", state.host]
        images = subprocess.run(
            [*docker, "image", "ls", "-q", "--no-trunc"], capture_output=True, text=True, check=True
        )
        if names := sorted(set(images.stdout.split())):
            subprocess.run(
                [*docker, "image", "rm", "--force", *names], capture_output=True, check=True
            )
        for kind in ("regular", "source.local", "frontend", "internal"):
            prune = ["builder", "prune", "--all", "--force", "--filter", f"type={kind}"]
            subprocess.run([*docker, *prune], capture_output=True, check=True)
        private_daemon.stop(project)
        subprocess.run(
            ["mv", private_daemon_state.folder_of(project) / "data", self.data], check=True
        )
