"""Write and read repair requests: the missing parts of a bundle, small enough for a mail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import BundleError
from gapforge.base.files import SHA256_HEX
from gapforge.base.i18n import N_, _
from gapforge.base.system_errors import os_reason
from gapforge.bundle.bundle_index import index_name, read_index
from gapforge.bundle.volume_format import (
    BUNDLE_ID,
    FORMAT,
    MAX_VOLUMES,
    REPOSITORY,
    BundledPreset,
    Damaged,
    Part,
    check_order,
    compact_json,
    parse_document,
    parse_number,
    parse_optional_text,
    parse_part,
    parse_presets,
    parse_text,
    read_json,
    unknown_form,
)
from gapforge.bundle.volume_plan import Plan

_FIELDS, _LISTS = ("format", "request", "bundle", "views", "tool"), ("volumes", "objects")


@dataclass(frozen=True, kw_only=True)
class RepairRequest:
    """The known missing ``parts``, and the numbers of the ``volumes`` whose contents are unknown.

    ``presets`` and ``tool`` are those of the bundle.
    """

    bundle: str
    parts: tuple[Part, ...] = ()
    volumes: tuple[int, ...] = ()
    presets: tuple[BundledPreset, ...] = ()
    tool: str = ""

    @property
    def file(self) -> str:
        return request_name(self.bundle)

    def render(self) -> bytes:
        """Return the bytes of the request file."""
        return compact_json(
            {
                "format": FORMAT,
                "request": "repair",
                "bundle": self.bundle,
                "volumes": list(self.volumes),
                "objects": [part.to_json() for part in self.parts],
                "views": [preset.to_json() for preset in self.presets],
                "tool": self.tool,
            }
        )


def request_name(bundle: str) -> str:
    """Return the file name of the repair request of a bundle."""
    return f"repair-{bundle}.json"


def read_request(path: Path) -> RepairRequest:
    """Return the request in a file. Raise BundleError if it is not valid or was changed."""
    try:
        return _parse_request(path)
    except Damaged as error:
        raise BundleError(
            _("{path} is not a valid repair request: {why}", path=path, why=error),
            hint=_("ask the site to send repair-BUNDLE.json again, unchanged"),
        ) from None
    except OSError as error:
        raise BundleError(
            _("{path} cannot be read: {why}", path=path, why=os_reason(error)),
            hint="./gapforge pack --repair FILE --to FOLDER",
        ) from None


def _parse_request(path: Path) -> RepairRequest:
    raw = parse_document(read_json(path), _FIELDS, _LISTS, N_("repair request"))
    if raw["request"] != "repair":
        raise unknown_form(N_("repair request"))
    parts = tuple(parse_part(row) for row in raw["objects"])
    check_order(parts)
    return RepairRequest(
        bundle=parse_text(raw["bundle"], BUNDLE_ID, N_("bundle id")),
        parts=parts,
        volumes=tuple(
            parse_number(number, 1, MAX_VOLUMES, N_("volume number")) for number in raw["volumes"]
        ),
        presets=parse_presets(raw["views"]),
        tool=parse_optional_text(raw["tool"], SHA256_HEX, REPOSITORY),
    )


def requested_parts(
    request: RepairRequest, folders: Sequence[Path]
) -> tuple[list[Part], tuple[BundledPreset, ...], str]:
    """Return every part that the request needs, and the presets and the tool of the bundle.

    The index of the bundle, in one of ``folders``, tells what requested volumes contain. Raise
    BundleError if it is in none of them.
    """
    if not request.volumes and request.presets:
        return merge_parts(request.parts), request.presets, request.tool
    plan = _find_plan(request.bundle, folders)
    if plan is None:
        index = index_name(request.bundle)
        raise BundleError(
            _(
                "the request asks for whole volumes of bundle {bundle}; without {index} it is "
                "unknown what they contain",
                bundle=request.bundle,
                index=index,
            ),
            hint=_("put {index} beside the request, or pack the bundle again", index=index),
        )
    parts = set(request.parts)
    for number in request.volumes:
        if number > len(plan.volumes):
            raise BundleError(
                _(
                    "the request asks for volume {number} of bundle {bundle}, which has {count}",
                    number=number,
                    bundle=request.bundle,
                    count=len(plan.volumes),
                ),
                hint=_("ask the site to send its request again"),
            )
        parts |= set(plan.volumes[number - 1])
    return merge_parts(parts), plan.presets, plan.tool


def _find_plan(bundle: str, folders: Iterable[Path]) -> Plan | None:
    for folder in folders:
        try:
            plan = read_index(folder / index_name(bundle)).plan
        except (Damaged, OSError):
            continue
        if plan.bundle == bundle:  # not the index of another bundle under this name
            return plan
    return None


def merge_parts(parts: Iterable[Part]) -> list[Part]:
    """Return the same bytes in sorted parts that neither overlap nor touch."""
    merged: list[Part] = []
    for part in sorted(set(parts)):
        last = merged[-1] if merged else None
        if (
            last is not None
            and (last.sha256, last.size) == (part.sha256, part.size)
            and part.offset <= last.end
        ):
            end = max(last.end, part.end)
            merged[-1] = Part(part.sha256, part.size, last.offset, end - last.offset)
        else:
            merged.append(part)
    return merged
