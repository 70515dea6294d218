"""The shape of a preset. It validates presets and becomes schemas/preset.schema.json.

The options of components come from their descriptions. ``preset_rules`` checks what no shape can
express.
"""

from __future__ import annotations

from functools import lru_cache

from gapforge.base.i18n import N_
from gapforge.model.component import UNDECLARED, Component
from gapforge.model.schema import (
    AnyOf,
    Choice,
    Flag,
    Items,
    Nullable,
    Number,
    Record,
    Shape,
    Table,
    Text,
    Variant,
)
from gapforge.model.text_shapes import (
    DIGEST,
    DOTTED,
    ENV_KEY,
    FILE,
    FILE_PATTERN,
    NAME,
    OPTION,
    PACKAGE,
    PRESET_NAME,
    PYTHON_PACKAGE,
    REQUIREMENT,
    SHA256,
    URL,
    VERSION,
    path,
)

FORMAT = 1

_SOURCE_COMMON: dict[str, Shape] = {
    "file": FILE,
    "folder": path("folder inside the archive to use; the only top folder when absent"),
    "version": VERSION,
    "licence": Text("SPDX licence expression"),
    "homepage": URL,
}

SOURCE = Variant(
    {
        "urls": Record(
            {
                "urls": Items(URL, "addresses in order of preference", least=1),
                "sha256": Nullable(SHA256, 'SHA-256; null only together with "trust": "first-use"'),
            },
            {
                **_SOURCE_COMMON,
                "size": Number("size in bytes"),
                "trust": Choice(("first-use",), "nobody published a hash"),
                "private": Flag("from a private GitHub repository: sync needs GITHUB_TOKEN"),
                "gated": Text(
                    "what a person must do to download it (login, licence); then use --from DIR"
                ),
            },
        ),
        "sdist": Record(
            {
                "sdist": Text(
                    "NAME==VERSION of a source distribution on the default Python index",
                    r"[A-Za-z0-9._-]+==[0-9A-Za-z.+!-]+",
                    "NAME==VERSION",
                ),
                "sha256": SHA256,
            },
            _SOURCE_COMMON,
        ),
        "apt-source": Record(
            {
                "apt-source": Text(
                    "source package whose upstream tarball is wanted, from the base's APT sources",
                    r"[a-z0-9][a-z0-9+.-]+",
                    N_("an APT source package name"),
                )
            },
            _SOURCE_COMMON,
        ),
    },
    about="where a source archive comes from",
)

BASE = Variant(
    {
        "image": Record(
            {"image": Text("registry/name:tag", r"[a-z0-9][A-Za-z0-9._:/-]*", "registry/name:tag")},
            {
                "digest": DIGEST,
                "private": Flag("its registry requires a login: sync needs REGISTRY_LOGINS"),
            },
        ),
        "archive": Record({"archive": path("a `docker save` archive")}, {"sha256": SHA256}),
        "mmdebstrap": Record(
            {
                "mmdebstrap": Record(
                    {"suite": NAME},
                    {
                        "variant": Choice(("minbase", "apt", "essential", "buildd", "important")),
                        "components": Items(NAME),
                        "include": Items(PACKAGE),
                    },
                )
            }
        ),
    },
    about="base image: from a registry, an archive, or made from packages",
)

_OWN = Record(
    {
        "format": Choice((FORMAT,), "version of this format"),
        "name": PRESET_NAME,
        "summary": AnyOf(
            (Text(), Record({"ko": Text(), "en": Text()})),
            "one line for lists and prompts, in one language or in both",
        ),
        "os": Record(
            {"id": Choice(("ubuntu", "debian")), "version": DOTTED},
            about="operating system of the base",
        ),
        "base": Record({"builder": BASE, "runtime": BASE}, about="base images"),
        "python": Record(
            {"version": Text("Python, major.minor", r"3\.[0-9]{1,3}", N_('such as "3.10"'))},
            {
                "packages": Items(REQUIREMENT, "Python packages besides PyTorch", unique=True),
                "without": Items(
                    PYTHON_PACKAGE,
                    "packages that others require and the image must not get, such as "
                    "opencv-python where OpenCV is built from source",
                    unique=True,
                ),
                "not-in-runtime": Table(
                    Items(FILE_PATTERN, "files as RECORD lists them; * also matches /", least=1),
                    PYTHON_PACKAGE,
                    "files of Python packages that only the dev image gets, by package",
                ),
            },
        ),
    },
    {
        "$schema": Text(),
        "apt": Record(
            {},
            {
                "builder": Items(
                    PACKAGE,
                    "packages of the builder besides those that components and their options need",
                    unique=True,
                ),
                "runtime": Items(
                    PACKAGE,
                    "packages of the runtime image that are loaded by name; those of the libraries "
                    "that its files link to are derived",
                    unique=True,
                ),
                "sources": Items(
                    Record(
                        {
                            "name": NAME,
                            "uri": URL,
                            "suite": Text(
                                "suite, or '/' for a flat repository",
                                r"[A-Za-z0-9./_-]+",
                                N_("a suite"),
                            ),
                        },
                        {
                            "components": Items(NAME),
                            "key": Record({"urls": Items(URL, least=1), "sha256": SHA256}),
                        },
                        about="an APT source besides the base image's own",
                    )
                ),
            },
        ),
        "sources": Table(
            SOURCE,
            NAME,
            "source archives by name; a component's component.json says which it takes",
        ),
        "application": Nullable(
            Record(
                {"source": path("default source folder, relative to the project")},
                {
                    "name": NAME,
                    "build": Text(
                        "how it is built: cmake (default), meson, make, or ./SCRIPT of its folder",
                        r"cmake|meson|make|\./[^\x00-\x1f\\]+",
                        N_('"cmake", "meson", "make", or a script such as "./build.sh"'),
                    ),
                    "cmake": Items(OPTION, "build cmake: options for cmake"),
                    "meson": Items(OPTION, "build meson: options for meson setup"),
                    "make": Items(OPTION, "build make: variables for make"),
                    "command": Items(
                        OPTION, "command that the image runs; the program NAME when absent", least=1
                    ),
                    "check": Items(
                        OPTION,
                        "command of the smoke check; {clip}, {output} and {summary} become files",
                    ),
                    "secrets": Items(
                        Record(
                            {"key": ENV_KEY, "pass": Choice(("secret", "build-arg"))},
                            {"required": Flag()},
                        )
                    ),
                },
            ),
            "the program of the image; null for none",
        ),
        "practice": Flag("true: not for delivery; the image is labelled so"),
        "cuda": Nullable(DOTTED, "CUDA of the base image, major.minor; null for none"),
        "cudnn": Nullable(DOTTED, "cuDNN of the base image"),
        "platform": Choice(("linux/amd64",)),
        "epoch": Number("SOURCE_DATE_EPOCH, seconds since 1970"),
        "pytorch": Nullable(
            Record(
                {"torch": VERSION},
                {
                    "torchvision": Nullable(VERSION),
                    "torchaudio": Nullable(VERSION),
                    "index": Text(
                        '"default", or the address of PyTorch\'s index',
                        r"default|(https?|file)://\S+",
                        N_('"default" or an address'),
                    ),
                },
            )
        ),
        "tensorrt": Nullable(
            Record(
                {"version": VERSION, "form": Choice(("tar", "deb"))},
                {
                    "python": Flag("install the Python binding (default true)"),
                    "builder": Items(PACKAGE, "form deb: packages of the builder"),
                    "runtime": Items(PACKAGE, "form deb: packages of the runtime"),
                },
            )
        ),
    },
)
OWN_KEYS = frozenset((*_OWN.required, *_OWN.optional, "components"))
_ANY_OPTIONS = Table(Nullable(UNDECLARED), NAME)


@lru_cache(maxsize=32)
def preset_shape(components: tuple[Component, ...] | None) -> Record:
    """Return the shape of a preset whose components are these.

    A preset sets their options under a key of their own or inside "components"; null means that it
    does not use them. With None, if no descriptions are at hand, options are not checked.
    """
    if components is None:
        others = {"components": _ANY_OPTIONS}
        return Record(
            _OWN.required, {**_OWN.optional, **others}, others=Table(Nullable(UNDECLARED))
        )
    shapes = {c.asked_by: Nullable(c.shape, c.summary) for c in components if c.asked_by}
    top = {name: shape for name, shape in shapes.items() if name not in OWN_KEYS}
    # component.check_preset reports unknown names, together with sources that nothing uses.
    inner = Record({}, shapes, "options of components, by name", others=_ANY_OPTIONS)
    return Record(_OWN.required, {**_OWN.optional, **top, "components": inner})
