"""Record what gapforge shows at a terminal of 40, 80 and 110 columns, in both languages.

``PYTHONPATH=src .gapforge/tests/bin/python tests/helpers/terminal_recordings.py`` writes them to
docs/samples/terminal. The presets are three of this project, the checks of ``doctor`` invented.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

from gapforge.base.i18n import _, use_language
from gapforge.base.project import Project
from gapforge.base.write_files import write_text
from gapforge.cli.main import main
from gapforge.cli.verbs import doctor
from gapforge.doctor.check_result import Check, CheckResult
from wizard_screens import record

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "samples" / "terminal"
PRESETS = (
    "debian12-cpu-quickstart",
    "ubuntu22.04-cuda11.8-torch2.1",
    "ubuntu22.04-cuda12.4-torch2.5",
)
COLUMNS = (40, 80, 110)


def recordings() -> dict[str, str]:
    """Return the content of every file in docs/samples/terminal by its name."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        project = _project(Path(folder))
        for language, end in (("ko", ".txt"), ("en", ".en.txt")):
            for columns in COLUMNS:
                made[f"{columns}{end}"] = _recording(project, language, columns)
    return made


def _project(root: Path) -> Project:
    shutil.copytree(ROOT / "catalog", root / "catalog")
    shutil.copytree(ROOT / "components", root / "components")
    (root / "presets").mkdir()
    for name in PRESETS:
        shutil.copy(ROOT / "presets" / f"{name}.json", root / "presets")
    return Project(root, root / "artifacts")


def _recording(project: Project, language: str, columns: int) -> str:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GAPFORGE_")},
        "GAPFORGE_ROOT": str(project.root),
        "GAPFORGE_LANG": language,
        "COLUMNS": str(columns),
        "NO_COLOR": "1",
        "TERM": "xterm",
    }
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment, clear=True))
        stack.enter_context(use_language(language))
        parts = [
            ("./gapforge --help", _printed("--help")),
            ("./gapforge list", _printed("list")),
            ("./gapforge doctor", doctor.render(_checks()) + "\n"),
            ("python3 build.py", record(project, ["down", "enter"], columns, look=_look)),
        ]
    text = "\n".join(f"$ {command}\n{shown}" for command, shown in parts)
    return text.replace(str(project.root), "~/gapforge")


def _printed(*words: str) -> str:
    output = io.StringIO()
    with redirect_stdout(output), suppress(SystemExit):
        main(words)
    return output.getvalue()


def _look(name: str) -> list[CheckResult]:
    return _checks()[:2]


def _checks() -> list[CheckResult]:
    return [
        Check("os", _("operating system"), "ubuntu 22.04").ok("ubuntu 22.04"),
        Check("memory", _("memory and cores"), "16 GB").warn("8.1 GB, 4"),
        Check("engine", _("engine"), "Docker 20.10").fail(
            "Docker 19.03", "sudo apt-get install docker.io"
        ),
    ]


if __name__ == "__main__":
    for name, text in recordings().items():
        write_text(FOLDER / name, text)
