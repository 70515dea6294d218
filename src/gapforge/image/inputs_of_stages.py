"""Compute the files that each stage of the Dockerfile can see.

A component's stage mounts ``inputs/NAME`` (or ``inputs/NAME-ROLE``) and nothing else of the build
context. The engine can therefore skip the stage as long as these files stay the same; see
``gapforge.image.build_cache``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapforge.base.files import sha256_bytes
from gapforge.model import debian_control
from gapforge.model.component import Component
from gapforge.model.lock import Entry, Lock, epoch_of
from gapforge.model.names import normalized
from gapforge.model.preset import Preset

HELPERS = ("common.sh", "split_runtime.py")  # of components/, beside each build.sh


@dataclass(frozen=True, kw_only=True)
class ContextFile:
    """One file of the build context.

    ``origin`` is "text" (the content is ``text``) or "artifact" (the content is the verified file
    ``source``, relative to artifacts/NAME). ``sha256`` is the checksum of the content.
    """

    path: str
    origin: str
    source: str = ""
    text: str = ""
    sha256: str

    def to_json(self) -> dict[str, str]:
        """Return all fields but the text."""
        return {key: value for key, value in vars(self).items() if key != "text"}


@dataclass(frozen=True)
class ContextTexts:
    """The texts that go into a build context, already read.

    ``scripts`` maps a path in the project to the script's text. ``packages_index`` is the text of
    ``debs/Packages``, "" when the preset has no .debs.
    """

    dockerfile: str
    scripts: Mapping[str, str]
    packages_index: str = ""


def text_file(path: str, text: str) -> ContextFile:
    """Return a generated file of the build context."""
    return ContextFile(path=path, origin="text", text=text, sha256=sha256_bytes(text.encode()))


def stage_inputs(
    component: Component, role: str, preset: Preset, lock: Lock, texts: ContextTexts
) -> list[ContextFile]:
    """Return everything in one ``inputs/`` folder, which is all that the component's stage sees.

    ``role`` is "" for a component with one stage for both images. A component that is switched off
    gets its scripts and the parameter that says so.
    """
    folder = f"inputs/{component.name}-{role}" if role else f"inputs/{component.name}"
    files = [
        text_file(f"{folder}/params/{key}", _parameter_text(value))
        for key, value in parameters(component, preset, lock, role).items()
    ]
    own = ("build.sh", *component.helpers)
    files += [
        *(
            text_file(f"{folder}/{n}", texts.scripts[f"components/{component.name}/{n}"])
            for n in own
        ),
        *(text_file(f"{folder}/{name}", texts.scripts[f"components/{name}"]) for name in HELPERS),
    ]
    if not component.enabled(preset):
        return files
    for entry in _sources(component, lock):
        files.append(_artifact(f"{folder}/sources/{entry.name}", entry))
    if component.wheels:
        wheels = [entry for entry in lock.of("wheel") if component.uses_wheel(entry)]
        tools = [entry for entry in lock.of("wheel") if "install-tool" in entry.roles]
        files += [_artifact(f"{folder}/wheels", entry) for entry in wheels]
        files += [_artifact(f"{folder}/installer", entry) for entry in tools]
        files.append(text_file(f"{folder}/requirements.txt", requirements(wheels)))
    if component.debs:
        debs = [entry for entry in lock.of("deb") if not role or role in entry.roles]
        index = debian_control.filter_index(texts.packages_index, {entry.file for entry in debs})
        release = debian_control.release_text(index.encode())
        files += [_artifact(f"{folder}/debs", entry) for entry in debs]
        files.append(text_file(f"{folder}/debs/Packages", index))
        files.append(text_file(f"{folder}/debs/Release", release))
    return files


def requirements(wheels: Sequence[Entry]) -> str:
    """Return a requirements file: one pin with checksum per wheel, without the install tool's."""
    return "".join(
        f"{normalized(entry.name)}=={entry.version} --hash=sha256:{entry.sha256}\n"
        for entry in sorted(wheels, key=lambda e: normalized(e.name))
        if not entry.only_installs
    )


def parameters(
    component: Component, preset: Preset, lock: Lock, role: str = "", *, of_runtime: bool = False
) -> dict[str, Any]:
    """Return the component's parameters by file name: text, true or false, or a list of texts.

    With ``of_runtime`` those are left out that only change the dev image.
    """
    part = component.part(preset)
    if part is None:
        return {"enabled": False, "python": preset.python}
    common: dict[str, Any] = {
        "enabled": True,
        "python": preset.python,
        "cuda": preset.cuda,
        "epoch": str(epoch_of(preset, lock.epoch)),
    }
    left_out = {
        option.name for option in component.options or () if of_runtime and not option.runtime
    }
    own = {
        # An option with the name of a common parameter, such as tensorrt.python, gets its
        # component's name in front.
        f"{component.name}.{key}" if key in common else key: _plain(value)
        for key, value in part.items()
        if key not in left_out and _is_parameter(value)
    }
    if component.debs:
        # TensorRT as .debs is installed with all others, so that apt orders them.
        own["packages"] = list(preset.debs(role)) if role else []
    if "*" in component.wheels and preset.not_in_runtime:
        own["not-in-runtime"] = [
            f"{package} {pattern}"
            for package, patterns in preset.not_in_runtime.items()
            for pattern in patterns
        ]
    for entry in _sources(component, lock):
        common[f"source-{entry.name}.folder"] = preset.sources[entry.name].folder
    return {**own, **common}


def _sources(component: Component, lock: Lock) -> Iterator[Entry]:
    return (e for e in lock.of("source", "tensorrt") if component.uses_source(e.name))


def _artifact(folder: str, entry: Entry) -> ContextFile:
    path = f"{folder}/{entry.file}"
    return ContextFile(path=path, origin="artifact", source=entry.path, sha256=entry.sha256)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_parameter(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(member, str) for member in value)
    return isinstance(value, (str, bool, int))


def _parameter_text(value: Any) -> str:
    if isinstance(value, bool):
        return "1\n" if value else "0\n"
    if isinstance(value, list):
        return "".join(f"{member}\n" for member in value)
    return f"{value}\n"
