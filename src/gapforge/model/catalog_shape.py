"""The shapes of the documents in ``catalog/``. They become schemas/catalog-*.schema.json."""

from __future__ import annotations

from collections.abc import Mapping

from gapforge.base.i18n import N_
from gapforge.model.schema import Choice, Flag, Items, Nullable, Number, Record, Shape, Table, Text
from gapforge.model.text_shapes import SHA256, described

FORMAT = 1

_DOTTED = Text("version", r"[0-9]+(\.[0-9]+)*", N_('digits and dots, such as "12.4"'))
_SHA256 = described(SHA256, "SHA-256")
_HASH = Nullable(_SHA256, "null: nobody published one")
_MD5 = Text("MD5", r"[0-9a-f]{32}", N_("32 lower-case hex digits"))
_URL = Text("address", r"https://[^\s\x00-\x1f]+", N_("an https:// address"))
_FILE = Text("file name", r"[A-Za-z0-9_][A-Za-z0-9._+~-]*", N_("a plain file name"))
_BUILD = Text("CUDA build", r"cpu|cu[0-9]{2,3}", N_('"cpu" or "cu118"'))
_SOURCE = Items(Text("public document or repository"), "where the fact was read", least=1)


def _facts(
    required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None, about: str = ""
) -> Items:
    """Return the shape of a list of facts, each with its source."""
    return Items(Record({**required, "source": _SOURCE}, optional or {}), about)


_NOTES = _facts({"fact": Text()})
_ARCHIVE = Record(
    {"file": _FILE, "url": _URL, "sha256": _HASH, "source": _SOURCE},
    {"made_by_host": Flag("the hosting site makes this archive on demand")},
)
_ARCHIVES = Items(_ARCHIVE, least=1)
_ABOUT = Table(
    Record({"licence": Text("SPDX licence expression"), "homepage": _URL}, {"gated": Text()}),
    about="what a preset's source says of an archive, by the name of the source",
)
_BOTH = Record({"ko": Text(), "en": Text()})
_READ = Text("when the sources were read", r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "YYYY-MM-DD")


def _document(required: Mapping[str, Shape]) -> Record:
    header = {"format": Choice((FORMAT,), "version of this format"), "read": _READ}
    return Record({**header, **required}, {"$schema": Text()})


SHAPES: Mapping[str, Record] = {
    "cuda": _document(
        {
            "images": _facts(
                {
                    "cuda": _DOTTED,
                    "builder": Text("registry/name:tag"),
                    "runtime": Text("registry/name:tag"),
                    "cudnn": Nullable(_DOTTED),
                    "driver": _DOTTED,
                },
                {"note": Text()},
            ),
            "drivers": _facts(
                {"cuda": _DOTTED, "driver": _DOTTED},
                about="the driver that comes with each toolkit",
            ),
            "minor_compatibility": _facts(
                {"cuda": _DOTTED, "driver": _DOTTED},
                {"note": Text()},
                "the least driver for any toolkit of a major version",
            ),
            "host_compilers": _facts(
                {"cuda": _DOTTED, "gcc": _DOTTED}, about="the newest GCC nvcc takes"
            ),
            "notes": _NOTES,
        }
    ),
    "gpu": _document(
        {
            "architectures": _facts(
                {
                    "compute": _DOTTED,
                    "name": Text(),
                    "examples": Items(Text()),
                    "first_cuda": Nullable(_DOTTED),
                },
                {"dropped_in": _DOTTED, "note": Text()},
            ),
            "suggestions": _facts(
                {"cuda_from": _DOTTED, "cuda_to": _DOTTED, "architectures": Items(_DOTTED)}
            ),
        }
    ),
    "python": _document(
        {
            "ubuntu2204": _facts(
                {"python": _DOTTED, "from": Choice(("archive", "release-candidate"))},
                {"note": Text()},
            ),
            "compilers": _facts(
                {"os": Text(), "gcc": _DOTTED}, about="GCC that build-essential brings"
            ),
            "requires": _facts(
                {"package": Text(), "requires": Items(Text())},
                about="packages that bring a module which an image may build itself",
            ),
            "notes": _NOTES,
        }
    ),
    "pytorch": _document(
        {
            "releases": _facts(
                {
                    "torch": _DOTTED,
                    "torchvision": _DOTTED,
                    "torchaudio": Nullable(_DOTTED),
                    "pythons": Items(_DOTTED),
                    "torchvision_pythons": Items(_DOTTED),
                    "builds": Items(_BUILD),
                    "default_build": _BUILD,
                    "cudnn": Table(_DOTTED, _BUILD),
                },
                {"numpy_below": _DOTTED, "note": Text()},
            ),
            "architectures": _facts(
                {
                    "from": _DOTTED,
                    "below": _DOTTED,
                    "builds": Items(_BUILD),
                    "compute": Items(_DOTTED),
                },
                about="the compute capabilities for which a build of torch has code",
            ),
            "wheels": _facts(
                {"file": _FILE, "sha256": _SHA256},
                about="what PyTorch published; two indexes may have different files of one name",
            ),
            "index": Record({"pattern": _URL, "source": _SOURCE}),
            "notes": _NOTES,
        }
    ),
    "tensorrt": _document(
        {
            "releases": _facts(
                {
                    "version": _DOTTED,
                    "tars": _facts(
                        {"cuda": _DOTTED, "file": _FILE, "url": _URL, "sha256": _HASH},
                        {"size": Number("bytes"), "cuda_from": _DOTTED, "cuda_to": _DOTTED},
                    ),
                    "cudnn": _DOTTED,
                    "cudnn_needed": Flag(),
                    "pythons": Items(_DOTTED, "Pythons whose wheel in the tar was named"),
                    "pythons_complete": Flag("whether pythons names all of them"),
                    "apt_versions": Items(Text()),
                },
                {"note": Text()},
            ),
            "archives": _ABOUT,
            "packages": _facts({"major": _DOTTED, "names": Items(Text())}),
            "first": _facts(
                {"compute": _DOTTED, "from": _DOTTED},
                about="the first release in this catalog's range that supports a GPU",
            ),
            "dropped": _facts({"compute_below": _DOTTED, "from": _DOTTED}),
            "notes": _NOTES,
        }
    ),
    "ffmpeg": _document(
        {
            "releases": Items(Record({"version": _DOTTED, "archives": _ARCHIVES})),
            "archives": _ABOUT,
            "headers": _facts({"version": _DOTTED, "archives": _ARCHIVES}, {"driver": _DOTTED}),
            "headers_for": _facts(
                {
                    "from": _DOTTED,
                    "below": _DOTTED,
                    "least": Items(_DOTTED, least=1),
                    "most": _DOTTED,
                    "tested": Items(_DOTTED),
                },
                {"note": Text()},
            ),
            "nonfree": _facts({"option": Text()}),
            "nvcc_default": _facts(
                {"from": _DOTTED, "below": _DOTTED, "compute": _DOTTED, "fails_from_cuda": _DOTTED}
            ),
            "notes": _NOTES,
        }
    ),
    "opencv": _document(
        {
            "releases": _facts({"version": _DOTTED, "opencv": _ARCHIVE, "contrib": _ARCHIVE}),
            "cuda_needs": _facts(
                {"cuda": _DOTTED, "opencv": _DOTTED, "for": Choice(("cuda", "dnn")), "why": _BOTH}
            ),
            "cuda_confirmed": Record({"from": _DOTTED, "to": _DOTTED, "source": _SOURCE}),
            "cuda_fails": _facts({"cuda": _DOTTED, "opencv_to": _DOTTED}),
            "cuda_built": _facts(
                {"opencv": _DOTTED, "cuda": _DOTTED},
                about="outside cuda_confirmed: a public recipe builds this OpenCV under this CUDA",
            ),
            "cudnn_needs": _facts({"cudnn": _DOTTED, "opencv": _DOTTED}),
            "ffmpeg_fails": _facts(
                {"ffmpeg": _DOTTED, "opencv_to": _DOTTED},
                about="from this FFmpeg on, OpenCV up to opencv_to does not compile",
            ),
            "ffmpeg_built": _facts(
                {"opencv": _DOTTED, "ffmpeg": _DOTTED},
                about="the newest FFmpeg that an OpenCV is known to build with",
            ),
            "numpy_needs": _facts({"numpy": _DOTTED, "opencv": _DOTTED}),
            "downloads": _facts(
                {
                    "opencv": Items(_DOTTED),
                    "id": Text("OpenCV's cache folder"),
                    "file": _FILE,
                    "md5": _MD5,
                    "url": _URL,
                    "sha256": _HASH,
                    "switch_off": Text(),
                },
                {
                    "size": Number("bytes"),
                    "module": Text("only if this module is built"),
                    "flags": Items(Text(), "only with these options of the component"),
                    "option": Text("only with this option of CMake"),
                    "note": Text(),
                },
                "what the configure step fetches",
            ),
            "archives": _ABOUT,
            "notes": _NOTES,
        }
    ),
    # Where `outdated` looks for newer releases; nothing else reads it.
    "upstreams": _document(
        {
            "upstreams": Table(
                Record(
                    {
                        "kind": Choice(("github-tags", "listing", "registry")),
                        "address": Text("listing page, tags API or image name"),
                        "pattern": Text(
                            "regular expression for a whole tag or file name, "
                            "with the group (?P<version>…)"
                        ),
                        "source": _SOURCE,
                    },
                    {
                        "archive": Text(
                            "address of a release's archive; {version} and {tag} are filled in",
                            r"https://\S+",
                            "https://…",
                        ),
                        "note": Text(),
                    },
                ),
                about='by the name of a preset\'s source, or "base"',
            )
        }
    ),
}
