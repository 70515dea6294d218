"""Test scripts/bootstrap.sh with fake programs: an empty machine, no root, a failing apt."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from samples import ROOT

TOOLS = (
    "bash",
    "sort",
    "cat",
    "dirname",
    "mkdir",
    "touch",
    "rm",
    "tee",
    "chmod",
    "sha256sum",
    "env",
    "timeout",
    "flock",
    "sh",
)


class Machine:
    """A machine whose PATH is one folder of programs. Records the calls of apt-get."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "apt.log"
        for name in TOOLS:
            for place in ("/usr/bin", "/bin"):
                if os.path.exists(f"{place}/{name}"):
                    (self.bin / name).symlink_to(f"{place}/{name}")
                    break
        self.script = (folder / "project/scripts/bootstrap.sh").resolve()
        self.script.parent.mkdir(parents=True)
        # Do not add system folders to PATH: they contain the real programs of this machine.
        text = (ROOT / "scripts/bootstrap.sh").read_text().replace(":/usr/sbin:/sbin", "")
        text = text.replace("/usr/share/keyrings/", f"{folder}/keyrings/").replace(
            "/usr/sbin/policy-rc.d", f"{folder}/policy-rc.d"
        )
        text = text.replace("/run/gapforge-bootstrap.lock", f"{folder}/bootstrap.lock")
        shutil.copy(ROOT / "scripts/common.sh", self.script.parent)
        self.script.write_text(text)
        self.put("dpkg-query", "exit 1")
        self.put("id", "echo 0")
        self.put(
            "apt-get",
            f'printf "%s\\n" "$*" >>"{self.log}"; '
            f'ls "{folder}/policy-rc.d" >>"{self.log}" 2>/dev/null; exit 0',
        )
        self.put("ls", 'for f in "$@"; do [ -e "$f" ] && echo "exists: ${f##*/}"; done; exit 0')

    def put(self, name: str, body: str) -> None:
        file = self.bin / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)

    def run(
        self, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", str(self.script), *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"PATH": str(self.bin), "HOME": "/nonexistent", **(env or {})},
        )

    def apt_calls(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_packages_are_listed_if_none_exist(machine: Machine) -> None:
    got = machine.run("--print-packages", "all").stdout.split()
    assert {
        "docker.io",
        "skopeo",
        "mmdebstrap",
        "curl",
        "git",
        "python3",
        "python3-venv",
        "shellcheck",
        "apt-utils",
        "gcc",
        "openssh-client",
    } <= set(got)
    assert "debian-archive-keyring" in got and got == sorted(set(got)) and machine.apt_calls() == ""


def test_complete_machine_runs_no_apt(machine: Machine) -> None:
    for name in ("docker", "dockerd", "unshare", "mount", "ssh-keygen", "python3"):
        machine.put(name, "exit 0")
    assert machine.run("build").returncode == 0 and machine.apt_calls() == ""


def test_foreign_docker_daemon_is_kept(machine: Machine) -> None:
    machine.put("docker", "exit 1")  # only a client, no daemon
    assert "docker.io" in machine.run("--print-packages", "build").stdout
    machine.put("docker", '[ "$1" = info ]')  # a daemon answers
    assert "docker.io" not in machine.run("--print-packages", "build").stdout


def test_only_missing_packages_are_installed(machine: Machine) -> None:
    machine.put("python3", "exit 0")
    machine.put("docker", '[ "$1" = info ]')
    machine.put("unshare", "exit 0")
    machine.put("ssh-keygen", "exit 0")
    assert machine.run("build").returncode == 0
    update, install = (
        line for line in machine.apt_calls().splitlines() if not line.startswith("exists:")
    )
    assert update.endswith("update") and install.endswith("install --no-install-recommends mount")


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="only without systemd")
def test_no_service_starts_without_systemd(machine: Machine, tmp_path: Path) -> None:
    machine.put("python3", "exit 0")
    assert machine.run("build").returncode == 0
    assert "exists: policy-rc.d" in machine.apt_calls()  # while apt-get runs
    assert not (tmp_path / "policy-rc.d").exists()


def test_failing_apt_update_is_ignored(machine: Machine) -> None:
    machine.put("python3", "exit 0")
    machine.put("apt-get", 'case "$*" in *update*) exit 100;; esac')
    assert machine.run("build").returncode == 0


def test_failing_apt_install_names_packages(machine: Machine) -> None:
    machine.put("apt-get", 'case "$*" in *" install "*) exit 100;; esac')
    got = machine.run("build")
    assert got.returncode == 17 and "docker.io" in got.stderr and "universe" in got.stderr


def test_without_root_the_apt_command_is_shown(machine: Machine) -> None:
    machine.put("id", "echo 1000")
    for sudo in ("", "exit 1"):
        if sudo:
            machine.put("sudo", sudo)  # needs a password
        got = machine.run("build")
        assert (
            got.returncode == 17
            and "apt-get install docker.io mount openssh-client util-linux" in got.stderr
        )
    assert "관리자" in machine.run("build", env={"LANG": "ko_KR.UTF-8"}).stderr
    assert machine.apt_calls() == ""


def test_sudo_without_password_is_used(machine: Machine) -> None:
    machine.put("id", "echo 1000")
    machine.put("python3", "exit 0")
    machine.put("sudo", f'echo "sudo $*" >>"{machine.log}"; [ "$1" = -n ] && shift; exec "$@"')
    machine.put("true", "exit 0")
    assert machine.run("build").returncode == 0
    assert "sudo env DEBIAN_FRONTEND=noninteractive apt-get" in machine.apt_calls()


def test_machine_without_apt_is_refused(machine: Machine) -> None:
    (machine.bin / "apt-get").unlink()
    got = machine.run("build")
    assert got.returncode == 17 and "Debian 12 or Ubuntu 22.04" in got.stderr


def test_unknown_argument_exits_with_2(machine: Machine) -> None:
    assert machine.run("everything").returncode == 2


def test_old_python_is_refused(machine: Machine) -> None:
    for name in ("docker", "dockerd", "unshare", "mount", "ssh-keygen"):
        machine.put(name, "exit 0")
    machine.put(
        "python3", 'case "$*" in *version_info*) exit 1;; --version) echo Python 3.8.10;; esac'
    )
    got = machine.run("build")
    assert got.returncode == 17 and "Python 3.8.10" in got.stderr


@pytest.mark.parametrize("mark", ["", ".gapforge-folder", ".stamp"])
def test_only_its_own_folder_of_tools_is_renewed(machine: Machine, mark: str) -> None:
    """A marker, or the stamp of an earlier version, says that it is its own."""
    machine.put("python3", "exit 0")
    project = machine.script.parents[1]
    folder = project / ".gapforge/tests"
    for each in (folder, project / "tests"):
        each.mkdir(parents=True)
    (project / "tests/requirements.txt").touch()
    (folder / "notes").write_text("mine")
    if mark:
        (folder / mark).write_text("x\n")
    got = machine.run("test")
    assert got.returncode == 17  # in the end, the fake venv has no Python
    assert (folder / "notes").exists() == (not mark)
    assert (folder / ".gapforge-folder").exists() == bool(mark)
    assert (f"mv {folder}" in got.stderr) == (not mark)


POLICY = "#!/bin/sh\n# by scripts/bootstrap.sh of gapforge, while it installs packages\nexit 101\n"
complete = ("docker", "dockerd", "unshare", "mount", "ssh-keygen", "python3")


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="only without systemd")
@pytest.mark.parametrize("missing", [True, False])
def test_policy_of_a_killed_run_is_removed(machine: Machine, tmp_path: Path, missing: bool) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(POLICY)
    for name in complete[1:] if missing else complete:
        machine.put(name, "exit 0")
    assert machine.run("build").returncode == 0
    assert not policy.exists()
    assert ("exists: policy-rc.d" in machine.apt_calls()) == missing, "while apt-get runs"


def test_policy_of_the_administrator_is_kept(machine: Machine, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    machine.put("python3", "exit 0")
    assert machine.run("build").returncode == 0
    assert policy.read_text() == "#!/bin/sh\nexit 101\n"


def test_runs_side_by_side_install_one_after_the_other(machine: Machine, tmp_path: Path) -> None:
    machine.put("python3", "exit 0")
    events = tmp_path / "events"
    machine.put(
        "apt-get",
        f'case "$*" in *" install "*) echo begin >>"{events}"; read -t 0.3 <> <(:) || true;'
        f' echo end >>"{events}";; esac',
    )
    runs = [
        subprocess.Popen(
            ["/bin/bash", str(machine.script), "build"],
            env={"PATH": str(machine.bin), "HOME": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(3)
    ]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert events.read_text().split() == ["begin", "end"] * 3
    assert not (tmp_path / "policy-rc.d").exists()
