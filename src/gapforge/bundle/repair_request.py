"""The repair request: what a site lacks of a bundle, in a file small enough for a mail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import BundleError
from gapforge.base.files import SHA256_HEX
from gapforge.base.i18n import _
from gapforge.base.system_errors import os_says
from gapforge.bundle.volume_format import (
    BUNDLE_ID,
    FORMAT,
    MAX_INDEX,
    MAX_VOLUMES,
    Damaged,
    Span,
    View,
    check_order,
    compact,
    number_in,
    open_regular,
    parse_json,
    parse_span,
    parse_views,
    text_in,
    text_or_none,
)
from gapforge.bundle.volume_plan import index_name, read_index


@dataclass(frozen=True)
class Request:
    """``spans`` of objects that are known to be missing, and the numbers of ``volumes`` of which nothing is known.

    ``views`` and ``tool`` are those of the bundle.
    """

    bundle: str
    spans: tuple[Span, ...]
    volumes: tuple[int, ...]
    views: tuple[View, ...]
    tool: str = ""

    @property
    def file(self) -> str:
        return f"repair-{self.bundle}.json"

    def render(self) -> bytes:
        """The request's bytes."""
        return compact(
            {
                "format": FORMAT,
                "request": "repair",
                "bundle": self.bundle,
                "volumes": list(self.volumes),
                "objects": [span.to_json() for span in self.spans],
                "views": [view.to_json() for view in self.views],
                "tool": self.tool,
            }
        )


def read_request(path: Path) -> Request:
    """A request out of a file. Raises BundleError when it is none, or was changed by hand or by mail."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_INDEX:
                raise Damaged(
                    _(
                        "has {size} bytes; no more than {max_index} are read",
                        size=size,
                        max_index=MAX_INDEX,
                    )
                )
            raw = parse_json(os.pread(file.fileno(), size, 0))
        keys = {"format", "request", "bundle", "volumes", "objects", "views", "tool"}
        if (
            type(raw) is not dict
            or set(raw) != keys
            or raw["format"] != FORMAT
            or raw["request"] != "repair"
        ):
            raise Damaged(_("is no repair request"))
        if type(raw["volumes"]) is not list or type(raw["objects"]) is not list:
            raise Damaged(_("is no repair request"))
        spans = tuple(parse_span(row) for row in raw["objects"])
        check_order(spans)
        volumes = tuple(number_in(n, 1, MAX_VOLUMES, lambda: _("a volume")) for n in raw["volumes"])
        bundle = text_in(raw["bundle"], BUNDLE_ID, lambda: _("a bundle"))
        views = parse_views(raw["views"])
        tool = text_or_none(raw["tool"], SHA256_HEX, lambda: _("gapforge itself as"))
        return Request(bundle, spans, volumes, views, tool)
    except Damaged as error:
        raise BundleError(
            _("{path} {error}", path=path, error=error),
            hint=_("have the site send repair-BUNDLE.json again, unchanged"),
        ) from None
    except OSError as error:
        raise BundleError(
            _("{path} cannot be read: {why}", path=path, why=os_says(error)),
            hint="./gapforge pack --repair FILE --to FOLDER",
        ) from None


def wanted_spans(
    request: Request, places: Sequence[Path]
) -> tuple[list[Span], tuple[View, ...], str]:
    """Every span that answers the request, and the bundle's views and tool.

    What whole volumes held is looked up in the bundle's index, in one of the folders ``places``. Raises BundleError
    when it is in none of them.
    """
    spans, views, tool = set(request.spans), request.views, request.tool
    if request.volumes or not views:
        plan = None
        for place in places:
            try:
                found = read_index(place / index_name(request.bundle)).plan
            except (Damaged, OSError):
                continue
            if found.bundle == request.bundle:  # and no other one under its name
                plan = found
                break
        if plan is None:
            bundle, index = request.bundle, index_name(request.bundle)
            raise BundleError(
                _(
                    "the request asks for whole volumes of bundle {bundle}, and {index} "
                    "is not here to tell what was in them",
                    bundle=bundle,
                    index=index,
                ),
                hint=_("put {index} beside the request, or pack the bundle again", index=index),
            )
        views, tool = plan.views, plan.tool
        for number in request.volumes:
            if number > len(plan.volumes):
                raise BundleError(
                    _(
                        "bundle {bundle} has {count} volumes, not {number}",
                        bundle=request.bundle,
                        count=len(plan.volumes),
                        number=number,
                    ),
                    hint=_("have the site send its request again"),
                )
            spans |= set(plan.volumes[number - 1])
    return disjoint(spans), views, tool


def disjoint(spans: set[Span]) -> list[Span]:
    """The same bytes with nothing twice: spans of one object that touch become one."""
    result: list[Span] = []
    for span in sorted(spans):
        last = result[-1] if result else None
        if (
            last is not None
            and last.sha256 == span.sha256
            and last.size == span.size
            and span.offset <= last.end
        ):
            end = max(last.end, span.end)
            result[-1] = Span(span.sha256, span.size, last.offset, end - last.offset)
        else:
            result.append(span)
    return result
