"""Test rules for the code: imports between rooms, printing, starting programs, host names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import git_files, nodes
from samples import ROOT

PACKAGE = ROOT / "src" / "gapforge"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms that each room may import, besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "model": {"base"},
    "compat": {"base", "model"},
    "trust": {"base", "model"},
    "store": {"base", "model", "compat", "trust"},
    "engine": {"base", "model"},
    "image": {"base", "model", "store", "trust", "engine"},
    "doctor": {"base", "model", "compat", "store", "trust", "engine", "image"},
    "bundle": {"base", "model", "compat", "store", "trust"},
    # Runs the programs of the site, and does not import them.
    "rehearsal": {"base", "model", "store", "trust", "bundle", "engine"},
    "sync": {"base", "model", "store", "trust"},
    "updates": {"base", "model", "compat", "sync"},
    "wizard": {"base", "model", "compat", "store", "doctor"},
    "tools": {"base", "model", "compat"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)

# Modules outside gapforge.cli that may print, each with its reason.
PRINTERS = {"base/progress.py": "is the progress line"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, with full names."""
    found: set[str] = set()
    package = ("gapforge", *path.relative_to(PACKAGE).parent.parts)
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            # "from gapforge import build" imports gapforge.build
            found.update(f"{module}.{alias.name}" for alias in node.names)
            found.add(module)
    return found


def test_imports_point_one_way() -> None:
    wrong = {}
    for path in MODULES:
        if path.parent == PACKAGE:  # __init__ and __main__
            continue
        used = {name.split(".")[1] for name in imports(path) if name.startswith("gapforge.")}
        own = part_of(path)
        if others := used - {"__version__"} - MAY_IMPORT[own] - {own}:
            wrong[str(path.relative_to(PACKAGE))] = others
    assert wrong == {}


def test_source_imports_only_standard_library() -> None:
    known = sys.stdlib_module_names | {"gapforge", "__future__"}
    wrong = {
        str(path.relative_to(PACKAGE)): others
        for path in MODULES
        if (others := {name.split(".")[0] for name in imports(path)} - known)
    }
    assert wrong == {}


OFFLINE_VERBS = (
    *("verify", "build", "plan", "smoke", "engine", "list", "check", "gc", "inventory"),
    *("pack", "unpack", "rehearse", "trust"),
)
# Prints the online modules that are loaded after the import of each verb.
LOAD = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for verb in sys.argv[2:]:
    importlib.import_module(f"gapforge.cli.verbs.{verb}")
    for name in sys.modules:
        if name.startswith(("gapforge.sync", "gapforge.updates")):
            print(verb, name)
"""


def test_offline_verbs_load_no_online_module() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOAD, str(ROOT / "src"), *OFFLINE_VERBS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_source_parses_as_least_python() -> None:
    assert all(nodes(path) for path in MODULES)


def test_only_command_line_prints_and_exits() -> None:
    found = []
    for path in MODULES:
        name = str(path.relative_to(PACKAGE))
        if part_of(path) in ("cli", "__main__"):
            continue
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if (called == "print" and name not in PRINTERS) or called in (
                    "sys.exit",
                    "exit",
                    "os._exit",
                    "quit",
                ):
                    found.append(f"{name}:{node.lineno} {called}")
    assert found == []


def test_only_process_module_starts_programs() -> None:
    starters = (
        "subprocess.",
        "os.system",
        "os.popen",
        "os.exec",
        "os.spawn",
        "os.posix_spawn",
        "pty.spawn",
        "Popen",
    )
    for path in MODULES:
        if path.relative_to(PACKAGE).as_posix() == "base/process.py":
            continue
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not called.startswith(starters), f"{path}:{node.lineno} {called}"
                assert not any(k.arg == "shell" for k in node.keywords), (
                    f"{path}:{node.lineno} shell="
                )


# Reads that base/files.py does not do, each with its reason.
READERS = {
    "__main__.py: open": "the catalogue, before the version of Python is known to be enough",
    "base/files.py: open": "is the reader",
    "base/files.py: os.open": "is the reader",
    "base/flush.py: open": "flushes a file and reads nothing of it",
    "base/write_files.py: os.open": "for reading and writing",
    "base/strict_json.py: json.loads": "is the parser",
    "bundle/volume_format.py: json.loads": "accepts only what gapforge itself would write",
    "bundle/import_objects.py: os.open": "for writing",
    "rehearsal/rehearsed_bundle.py: zipfile.ZipFile": "of an opened file",
    "sync/source_contents.py: zipfile.ZipFile": "of an opened file",
    "sync/wheel_licence.py: zipfile.ZipFile": "of an opened file",
    "store/gc.py: os.open": "folders only",
    "trust/ssh_signatures.py: os.open": "the terminal, for reading and writing",
}
_WRITING = (
    "w",
    "wb",
    "x",
    "xb",
    "ab",
    "O_CREAT",
    "O_RDWR",
    "O_WRONLY",
    "ZIP_STORED",
    "O_DIRECTORY",
)


def _reads(call: ast.Call) -> str:
    """Return the name of a function that reads a file by its path, or ""."""
    called = ast.unparse(call.func)
    if called.endswith((".read_text", ".read_bytes")):
        return called.rpartition(".")[2]
    if called in ("json.load", "json.loads"):
        return called
    if called == "tarfile.open" and not any(k.arg == "fileobj" for k in call.keywords):
        return called
    if called in ("open", "io.open", "io.FileIO", "os.open", "zipfile.ZipFile"):
        writes = any(re.search(rf"\b{word}\b", ast.unparse(call)) for word in _WRITING)
        return "" if writes else called
    return ""


def test_files_and_json_have_one_reader() -> None:
    """It applies the limits: any other would hang, or fill the memory."""
    found = set()
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.Call) and (name := _reads(node)):
                found.add(f"{path.relative_to(PACKAGE).as_posix()}: {name}")
    assert found - set(READERS) == set()


# Modules that create files by a name of their choice, each with the reason why nobody can plant it.
WRITERS = {
    "base/marked_folders.py": "the marker of a folder that it made or found empty",
    "base/write_files.py": "has the functions that all others use",
    "base/process_locks.py": "a lock file, never through a link and without content",
    "base/temporary_secrets.py": "in a folder that only this user can open",
    "base/process.py": "a log that it removes and creates exclusively",
    "bundle/custody_page.py": "creates the name exclusively",
    "cli/output.py": "creates the name exclusively",
    "model/preset_writer.py": "in a temporary folder",
    "rehearsal/site_folder.py": "in the marked folder of the rehearsal, exclusively",
    "sync/apt_resolver.py": "in the isolated root of APT",
    "sync/docker_archive.py": "in the marked folder of a layout that is being made",
    "sync/isolated_apt.py": "in the isolated root of APT",
    "sync/mmdebstrap_base.py": "in a temporary folder",
    "sync/oci_layout.py": "in the marked folder of a layout that is being made",
    "trust/ssh_signatures.py": "in a temporary folder",
}


def _creates(call: ast.Call) -> bool:
    """Return whether the call creates a file by its path, or opens one for writing."""
    called = ast.unparse(call.func)
    if called in ("open", "io.open"):
        by_handle = isinstance(call.args[0], ast.Name) and call.args[0].id == "handle"
        return not by_handle and re.search(r"'[wxa]b?'", ast.unparse(call)) is not None
    if called == "os.open":
        return "O_CREAT" in ast.unparse(call)
    if called in ("shutil.copyfile", "shutil.copy", "shutil.copy2"):
        return True
    # write_text and write_bytes of base/write_files.py are functions, those of Path are methods.
    return "." in called and called.endswith((".write_text", ".write_bytes", ".touch"))


def test_new_files_are_made_by_one_module() -> None:
    """It creates them exclusively under random names: a foreseen name can be a planted link."""
    found = set()
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.Call) and _creates(node):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == set(WRITERS)


@pytest.mark.parametrize(
    ("code", "creates"),
    [
        ("open(path, 'w', encoding='utf-8')", True),
        ("open(path, 'ab', buffering=0)", True),
        ("file.write_text('x')", True),
        ("os.open(path, os.O_WRONLY | os.O_CREAT)", True),
        ("shutil.copy2(one, other)", True),
        ("write_text(path, 'x')", False),
        ("open(handle, 'wb')", False),
        ("open(path, 'rb')", False),
    ],
)
def test_search_for_writers_finds_them(code: str, creates: bool) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call) and _creates(call) == creates


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("file.read_text(encoding='utf-8')", "read_text"),
        ("Path('x').read_bytes()", "read_bytes"),
        ("open(path, 'rb')", "open"),
        ("open(path)", "open"),
        ("os.open(path, os.O_RDONLY)", "os.open"),
        ("tarfile.open(path, 'r:*')", "tarfile.open"),
        ("zipfile.ZipFile(path)", "zipfile.ZipFile"),
        ("open(path, 'wb')", ""),
        ("os.open(path, os.O_WRONLY | os.O_CREAT)", ""),
        ("tarfile.open(fileobj=file)", ""),
    ],
)
def test_search_for_readers_finds_them(code: str, name: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call) and _reads(call) == name


# Hosts of package registries and paths of one machine, in parts, so that this file contains none.
_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("pypi", "python", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("ftp", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("registry", "npmjs", "org"),
        ("archive", "ubuntu", "com"),
        ("security", "ubuntu", "com"),
    )
]
_PLACES = [
    "/" + "/".join(parts)
    for parts in (("work", "main"), ("work", "shared"), ("tmp", "gf"), ("root", ".pyenv"))
]


def repository_files() -> list[Path]:
    """Return the tracked and untracked files of git, or all files outside of known folders."""
    if (names := git_files()) is not None:
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    skipped = {"artifacts", "dist", ".gapforge", ".git"}
    return [
        p for p in ROOT.rglob("*") if p.is_file() and p.relative_to(ROOT).parts[0] not in skipped
    ]


def test_no_file_names_registry_or_machine() -> None:
    pattern = re.compile(
        "|".join(re.escape(text) + r"(?![\w-])" for text in (*_HOSTS, *_PLACES)).encode()
    )
    found = []
    for path in repository_files():
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0].decode()}")
    assert found == []


def test_search_for_hosts_finds_them() -> None:
    """A wrong pattern would find nothing either."""
    pattern = re.compile("|".join(re.escape(text) + r"(?![\w-])" for text in (*_HOSTS, *_PLACES)))
    assert pattern.search(f"see https://{_HOSTS[0]}/simple") and pattern.search(
        f"cd {_PLACES[0]}/src"
    )


@pytest.mark.parametrize(
    "name", ["quickstart", "test", "gapforge", "deps_sync.sh", ".ci/run", "scripts/bootstrap.sh"]
)
def test_commands_are_executable(name: str) -> None:
    file = ROOT / name
    assert file.is_file() and file.stat().st_mode & 0o111, f"{name} is missing or not executable"
    assert file.read_text(encoding="utf-8").startswith("#!")


@pytest.mark.parametrize("name", ["requirements", "requirements-mutants"])
def test_test_requirements_have_checksums(name: str) -> None:
    text = (ROOT / "tests" / f"{name}.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z][^ ]*==\S+.*\\$", text, re.MULTILINE)
    bare = [
        line
        for line in text.splitlines()
        if line and not line.startswith(("#", " ")) and line not in pins
    ]
    assert len(pins) > 10 and bare == [] and "://" not in text
    wanted = (ROOT / "tests" / f"{name}.in").read_text(encoding="utf-8").split()
    assert wanted and all(any(pin.startswith(f"{one}==") for pin in pins) for one in wanted)


def test_mutants_name_modules_and_tests_that_exist() -> None:
    """The table is read as text, because its tool is in an environment of its own."""
    tree = ast.parse((ROOT / "tests" / "mutants.py").read_text(encoding="utf-8"))
    (table,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TESTS"
    ]
    files = [f"src/gapforge/{module}.py" for module in table]
    files += [f"tests/unit/{name}.py" for names in table.values() for name in names.split()]
    assert len(table) > 10 and len(files) > 2 * len(table) - 1
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_paths_are_followed_by_one_function() -> None:
    """Path.resolve, expanduser and home raise RuntimeError; real_path and given_path do not."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in nodes(file):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            text = ast.unparse(node)
            if node.func.attr in ("resolve", "home") or text.endswith(".expanduser()"):
                own = text.startswith(("Path(__file__).", "self."))
                found += [] if own else [f"{file.relative_to(PACKAGE)}: {text}"]
    assert found == []
