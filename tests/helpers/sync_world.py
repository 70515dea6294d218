"""Sync without a network: stand-ins for registry, APT and uv, with files on a loopback server.

``World`` publishes everything; ``install`` replaces the real modules in this process. Run as a
program, this file performs one sync, which a test can kill: ``python sync_world.py URL ROOT
[--update]``.
"""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "src")]

from gapforge.base.errors import Fault, ResolveError  # noqa: E402 - needs the path above
from gapforge.base.files import sha256_bytes  # noqa: E402
from gapforge.base.progress import Progress  # noqa: E402
from gapforge.base.project import Project  # noqa: E402
from gapforge.base.strict_json import canonical_json  # noqa: E402
from gapforge.base.write_files import write_text  # noqa: E402
from gapforge.model.lock import Entry, LockedImage  # noqa: E402
from gapforge.model.preset import BaseImage, Preset, load  # noqa: E402
from gapforge.model.unresolved_item import APT_SOURCES, DEFAULT_INDEX, NO_ANSWER, Reason  # noqa: E402
from gapforge.sync import (  # noqa: E402
    apt_resolver,
    base_images,
    prove_pip_install,
    registry_images,
    shared_steps,
)
from gapforge.sync import sync as syncing  # noqa: E402
from gapforge.sync.apt_resolver import DebFile, SourceFile  # noqa: E402
from gapforge.sync.network import Network, NoAnswerError  # noqa: E402
from gapforge.sync.python_packages import Sdist, Wheel  # noqa: E402
from gapforge.sync.shared_steps import Options  # noqa: E402

NAME = "world"


def noise(name: str, size: int) -> bytes:
    """Return random bytes that are always the same for a name."""
    return random.Random(name).randbytes(size)


def preset_raw(**changes: Any) -> dict[str, Any]:
    """Return the quickstart preset with other sources; ``changes`` replace top-level keys."""
    raw = copy.deepcopy(dict(load(ROOT / "presets" / "debian12-cpu-quickstart.json").raw))
    raw.update(
        {
            "name": NAME,
            "python": {"version": "3.11", "packages": ["alpha"]},
            "apt": {"builder": ["gcc", "libz"], "runtime": ["libz"], "sources": []},
        }
    )
    raw["ffmpeg"]["configure"].remove("--enable-zlib")  # no .deb of this world has zlib.pc
    raw.pop("$schema", None)
    raw.update(changes)
    return raw


class World:
    """What the servers have. One JSON document describes it to a sync in any process."""

    def __init__(self, site: Any, size: int = 2000) -> None:
        self.site, self.size = site, size
        self.wheels = {"alpha": "1.0", "beta": "2.0"}
        self.debs = {"gcc": "12", "libz": "1.2"}
        self.python = "3.11.2-6"  # of every base image
        self.base = "base-1"
        self.opencv = noise("opencv.tar.gz", size)
        self.ffmpeg = noise("ffmpeg.tar.xz", size)
        self.tool = "24.2"
        self.cuda = self.cudnn = ""  # of every base image
        self.os = "debian 12"
        self.silent: list[str] = []  # what does not answer: "torch", "default", "registry", "apt"

    def publish(self) -> None:
        """Serve every file, and the document that the stand-ins read."""
        files: dict[str, bytes] = {
            f"{n}-{v}-py3-none-any.whl": noise(f"{n}{v}", self.size) for n, v in self.wheels.items()
        }
        files[f"pip-{self.tool}-py3-none-any.whl"] = noise("pip", self.size)
        files |= {
            f"{n}_{v}_amd64.deb": noise(f"deb {n}{v}", self.size) for n, v in self.debs.items()
        }
        files["opencv.tar.gz"], files["ffmpeg_5.1.9.orig.tar.xz"] = self.opencv, self.ffmpeg
        facts = {
            "wheels": self.wheels,
            "debs": self.debs,
            "base": self.base,
            "python": self.python,
            "tool": self.tool,
            "cuda": self.cuda,
            "cudnn": self.cudnn,
            "os": self.os,
            "silent": self.silent,
            "files": {n: {"sha256": sha256_bytes(b), "size": len(b)} for n, b in files.items()},
        }
        for name, body in files.items():
            old = self.site.paths.get("/f/" + name)
            if old is None:
                self.site.add("/f/" + name, body)
            else:
                old.body = body
        self.site.add("/facts", json.dumps(facts).encode())

    def write_preset(self, root: Path, **changes: Any) -> Preset:
        """Write a preset into ``root/presets``. Return it parsed."""
        sources = {
            "ffmpeg": {"apt-source": "ffmpeg", "licence": "X"},
            "opencv": {
                "sdist": "opencv==4.9",
                "sha256": sha256_bytes(self.opencv),
                "version": "4.9.0",
            },
            "headers": {
                "urls": [self.site.add("/f/headers.tar.gz", noise("headers", self.size))],
                "sha256": sha256_bytes(noise("headers", self.size)),
            },
        }
        raw = preset_raw(**{"sources": sources, **changes})
        write_text(root / "presets" / f"{NAME}.json", canonical_json(raw))
        return load(root / "presets" / f"{NAME}.json")


class _Client:
    """Reads the description of the world once for each request, as the real programs would."""

    calls: list[str] = []  # noqa: RUF012 - shared on purpose: tests read it
    url = ""

    def facts(self, request: str) -> dict[str, Any]:
        _Client.calls.append(request)
        with urlopen(f"{_Client.url}/facts") as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]

    def require_answer(self, facts: dict[str, Any], key: str, server: str) -> None:
        """Raise NoAnswerError if ``server``, known as ``key``, does not answer."""
        if key in facts["silent"]:
            reason = Reason(code=NO_ANSWER, server=server)
            raise NoAnswerError(f"{server} does not answer", reason=reason)

    def file(self, facts: dict[str, Any], name: str) -> tuple[str, str, int]:
        file = facts["files"][name]
        return f"{_Client.url}/f/{name}", file["sha256"], file["size"]


class FakeResolver(_Client):
    def __init__(
        self,
        project: Project,
        network: Network,
        workdir: Path,
        refresh: bool = False,
        retries_indexes: bool = True,
    ) -> None:
        self.network = network

    def _wheel(self, facts: dict[str, Any], name: str, version: str) -> Wheel:
        file = f"{name}-{version}-py3-none-any.whl"
        url, sha256, size = self.file(facts, file)
        return Wheel(
            name=name,
            version=version,
            file=file,
            url=url,
            sha256=sha256,
            size=size,
            index="default",
        )

    def wheels(self, preset: Preset, python: str = "") -> list[Wheel]:
        self.network.require("wheels")
        facts = self.facts(f"wheels {python}".rstrip())
        if preset.pytorch is not None and preset.pytorch.index != "default":
            self.require_answer(facts, "torch", f"index:{preset.pytorch.index}")
        self.require_answer(facts, "default", DEFAULT_INDEX)
        return [self._wheel(facts, n, v) for n, v in sorted(facts["wheels"].items())]

    def install_tool(self, preset: Preset) -> Wheel:
        facts = self.facts("tool")
        self.require_answer(facts, "default", DEFAULT_INDEX)
        return self._wheel(facts, "pip", facts["tool"])

    def sdist(self, requirement: str, preset: Preset) -> Sdist:
        self.network.require("sdist")
        facts = self.facts("sdist")
        self.require_answer(facts, "default", DEFAULT_INDEX)
        url, sha256, size = self.file(facts, "opencv.tar.gz")
        return Sdist(file="opencv.tar.gz", version="4.9", url=url, sha256=sha256, size=size)

    def locate(self, preset: Preset, entries: Sequence[Entry], python: str = "") -> dict[str, str]:
        assert python == "3.11.2"
        self.network.require("locate")
        _Client.calls.append("locate")
        return {e.path: f"{_Client.url}/f/{e.file}" for e in entries}


class FakeAptResolver(_Client):
    def __init__(
        self,
        layout: Path,
        extra: Any,
        workdir: Path,
        network: Network,
        local_repo: Path | None = None,
    ) -> None:
        assert (layout / "index.json").is_file(), "AptResolver needs the base image"
        self.network = network
        self.local_repo = local_repo
        if local_repo is not None:
            assert local_repo.suffix == ".deb" and local_repo.is_file()

    def __enter__(self) -> FakeAptResolver:
        self.network.require("apt")
        _Client.calls.append("apt")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def check_programs(self, role: str, python: str, debs: Sequence[DebFile]) -> None:
        """The base images of this world have every program."""

    def closure(self, packages: Sequence[str]) -> list[DebFile]:
        facts = self.facts("closure " + " ".join(packages))
        self.require_answer(facts, "apt", APT_SOURCES)
        found = []
        for package in sorted({p.split("=")[0] for p in packages} & set(facts["debs"])):
            version = facts["debs"][package]
            file = f"{package}_{version}_amd64.deb"
            url, sha256, size = self.file(facts, file)
            found.append(
                DebFile(
                    package=package,
                    version=version,
                    architecture="amd64",
                    file=file,
                    size=size,
                    sha256=sha256,
                    origin="apt:base",
                    uri=url,
                )
            )
        return found

    def libraries(self, packages: Sequence[str]) -> dict[str, str]:
        return {p: "1" for p in packages if p.startswith("lib") and not p.endswith("-dev")}

    def with_libraries(
        self, packages: Sequence[str], libraries: Mapping[str, str]
    ) -> tuple[list[DebFile], list[str]]:
        return self.closure(list(dict.fromkeys((*packages, *libraries)))), []

    def source_tarball(self, name: str) -> SourceFile:
        url, sha256, size = self.file(self.facts("source"), "ffmpeg_5.1.9.orig.tar.xz")
        return SourceFile(
            file="ffmpeg_5.1.9.orig.tar.xz",
            version="5.1.9",
            size=size,
            sha256=sha256,
            origin="apt:base",
            uri=url,
        )


def fake_fetch(
    base: BaseImage,
    project: Project,
    epoch: int,
    destination: Path,
    network: Network,
    progress: Progress,
) -> LockedImage:
    network.require("base")
    facts = _Client().facts(f"base {base.label}")
    assert destination.is_dir() and not any(destination.iterdir())
    blobs = destination / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = noise(facts["base"] + base.label, 50_000)
    for start in range(0, len(layer), 5000):  # slow enough to be killed meanwhile
        with open(blobs / sha256_bytes(layer), "ab") as file:
            file.write(layer[start : start + 5000])
    (destination / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (destination / "index.json").write_text(json.dumps({"layer": sha256_bytes(layer)}))
    return fake_describe(destination, base.label)


def fake_look_up(
    base: BaseImage, network: Network
) -> tuple[LockedImage, dict[str, tuple[str, int]]]:
    facts = _Client().facts(f"manifest {base.label}")
    _Client().require_answer(facts, "registry", "registry:docker.io")
    layer = noise(facts["base"] + base.label, 50_000)
    files = {
        "index.json": json.dumps({"layer": sha256_bytes(layer)}).encode(),
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        f"blobs/sha256/{sha256_bytes(layer)}": layer,
    }
    digest = f"sha256:{sha256_bytes(layer)}"
    image = LockedImage(
        reference=base.label,
        manifest_digest=digest,
        config_digest=digest,
        os_id="",
        os_version="",
        cuda=facts["cuda"],
        cudnn=facts["cudnn"],
    )
    return image, {path: (sha256_bytes(data), len(data)) for path, data in files.items()}


def fake_describe(folder: Path, reference: str) -> LockedImage:
    with urlopen(f"{_Client.url}/facts") as answer:  # instead of the files of the image
        facts = json.loads(answer.read())
    digest = f"sha256:{json.loads((folder / 'index.json').read_text())['layer']}"
    return LockedImage(
        reference=reference,
        manifest_digest=digest,
        config_digest=digest,
        os_id=facts["os"].split()[0],
        os_version=facts["os"].split()[1],
        cuda=facts["cuda"],
        cudnn=facts["cudnn"],
    )


def fake_installed(folder: Path) -> dict[str, str]:
    with urlopen(f"{_Client.url}/facts") as answer:  # instead of the files of the image
        facts = json.loads(answer.read())
    return {"python3.11-minimal": facts["python"]} if facts["python"] else {}


class FakeProof:
    """Refuses the wheels whose names are in ``refused``."""

    refused: tuple[str, ...] = ()
    pythons: list[str] = []  # noqa: RUF012 - shared on purpose: tests read it

    def __init__(
        self, *, preset: Preset, folder: Path, pip: Entry, wheels: Sequence[Entry], python: str
    ) -> None:
        self.found = [e for e in wheels if e.name in self.refused]
        assert all((folder / e.file).is_file() for e in (pip, *wheels))
        self.pythons.append(python)

    def check(self) -> None:
        if self.found:
            raise ResolveError("refused", faults=[Fault(e.path, "") for e in self.found])


def fake_write_index(folder: Path) -> None:
    text = "".join(
        f"{p.name} {sha256_bytes(p.read_bytes())}\n" for p in sorted(folder.glob("*.deb"))
    )
    (folder / "Packages").write_text(text)
    (folder / "Release").write_text(sha256_bytes(text.encode()) + "\n")


def install(url: str, put: Any = setattr) -> list[str]:
    """Install the stand-ins with ``put(object, name, value)``. Return the log of their requests."""
    _Client.url = url
    _Client.calls = []
    FakeProof.refused, FakeProof.pythons = (), []
    put(shared_steps, "Resolver", FakeResolver)
    put(apt_resolver, "AptResolver", FakeAptResolver)
    put(apt_resolver, "write_index", fake_write_index)
    put(base_images, "fetch", fake_fetch)
    put(base_images, "describe", fake_describe)
    put(base_images, "installed", fake_installed)
    put(prove_pip_install, "Proof", FakeProof)
    put(registry_images, "look_up", fake_look_up)
    return _Client.calls


def tree(folder: Path) -> dict[str, str]:
    """Return every file below ``folder`` with its SHA-256."""
    return {
        p.relative_to(folder).as_posix(): sha256_bytes(p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


if __name__ == "__main__":
    install(sys.argv[1])
    where = Path(sys.argv[2])
    syncing.sync(
        load(where / "presets" / f"{NAME}.json"),
        Project(where, where / "artifacts"),
        Network(jobs=3),
        Options(update="--update" in sys.argv, quiet=True),
    )
