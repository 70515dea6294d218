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
    PYTHON,
    PYTHON_PACKAGE,
    REQUIREMENT,
    SHA256,
    URL,
    VERSION,
    described,
    path,
)

FORMAT = 1

_SOURCE_COMMON: dict[str, Shape] = {
    "file": FILE,
    "folder": path(N_("folder inside the archive to use; the only top folder when absent")),
    "version": described(VERSION, N_("version of the software in the archive")),
    "licence": Text(N_("SPDX licence expression")),
    "homepage": described(URL, N_("home page of the project")),
}

SOURCE = Variant(
    {
        "urls": Record(
            {
                "urls": Items(URL, N_("addresses in order of preference"), least=1),
                "sha256": Nullable(
                    SHA256, N_('SHA-256; null only together with "trust": "first-use"')
                ),
            },
            {
                **_SOURCE_COMMON,
                "size": Number(N_("size in bytes")),
                "trust": Choice(("first-use",), N_("nobody published a hash")),
                "private": Flag(N_("from a private GitHub repository: sync needs GITHUB_TOKEN")),
                "gated": Text(
                    N_("what a person must do to download it (login, licence); then use --from DIR")
                ),
            },
        ),
        "sdist": Record(
            {
                "sdist": Text(
                    N_("NAME==VERSION of a source distribution on the default Python index"),
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
                    N_(
                        "source package whose upstream tarball is wanted, from the base's APT "
                        "sources"
                    ),
                    r"[a-z0-9][a-z0-9+.-]+",
                    N_("an APT source package name"),
                )
            },
            _SOURCE_COMMON,
        ),
    },
    about=N_("where a source archive comes from"),
)

BASE = Variant(
    {
        "image": Record(
            {
                "image": Text(
                    N_("registry/name:tag"), r"[a-z0-9][A-Za-z0-9._:/-]*", "registry/name:tag"
                )
            },
            {
                "digest": DIGEST,
                "private": Flag(N_("its registry requires a login: sync needs REGISTRY_LOGINS")),
            },
        ),
        "archive": Record({"archive": path(N_("a `docker save` archive"))}, {"sha256": SHA256}),
        "mmdebstrap": Record(
            {
                "mmdebstrap": Record(
                    {"suite": described(NAME, N_("suite of the distribution, such as bookworm"))},
                    {
                        "variant": Choice(
                            ("minbase", "apt", "essential", "buildd", "important"),
                            N_("which packages mmdebstrap installs (default minbase)"),
                        ),
                        "components": Items(
                            described(NAME, N_("component of the distribution, such as main")),
                            N_("components of the distribution to use (default main)"),
                        ),
                        "include": Items(PACKAGE, N_("further packages to install")),
                    },
                    N_("a base image that mmdebstrap makes from packages of a distribution"),
                )
            }
        ),
    },
    about=N_("base image: from a registry, an archive, or made from packages"),
)

_OWN = Record(
    {
        "format": Choice((FORMAT,), N_("version of this format")),
        "name": PRESET_NAME,
        "summary": AnyOf(
            (
                Text(),
                Record(
                    {"ko": Text(N_("the line in Korean")), "en": Text(N_("the line in English"))}
                ),
            ),
            N_("one line for lists and prompts, in one language or in both"),
        ),
        "os": Record(
            {
                "id": Choice(("ubuntu", "debian"), N_("distribution")),
                "version": described(DOTTED, N_("release of the distribution, such as 22.04")),
            },
            about=N_("operating system of the base"),
        ),
        "base": Record({"builder": BASE, "runtime": BASE}, about=N_("base images")),
        "python": Record(
            {"version": PYTHON},
            {
                "packages": Items(REQUIREMENT, N_("Python packages besides PyTorch"), unique=True),
                "without": Items(
                    PYTHON_PACKAGE,
                    N_(
                        "packages that others require and the image must not get, such as "
                        "opencv-python where OpenCV is built from source"
                    ),
                    unique=True,
                ),
                "not-in-runtime": Table(
                    Items(
                        FILE_PATTERN, N_("files as RECORD lists them; * also matches /"), least=1
                    ),
                    PYTHON_PACKAGE,
                    N_("files of Python packages that only the dev image gets, by package"),
                ),
            },
            N_("Python of the image and its packages"),
        ),
    },
    {
        "$schema": Text(N_("this schema, by which an editor checks and completes the file")),
        "apt": Record(
            {},
            {
                "builder": Items(
                    PACKAGE,
                    N_(
                        "packages of the builder besides those that components and their "
                        "options need"
                    ),
                    unique=True,
                ),
                "runtime": Items(
                    PACKAGE,
                    N_(
                        "packages of the runtime image that are loaded by name; those of the "
                        "libraries that its files link to are derived"
                    ),
                    unique=True,
                ),
                "sources": Items(
                    Record(
                        {
                            "name": described(NAME, N_("name of the APT source in gapforge")),
                            "uri": described(URL, N_("address of the repository")),
                            "suite": Text(
                                N_("suite, or '/' for a flat repository"),
                                r"[A-Za-z0-9./_-]+",
                                N_("a suite"),
                            ),
                        },
                        {
                            "components": Items(
                                described(NAME, N_("component of the repository, such as main")),
                                N_("components of the repository to use; none for a flat one"),
                            ),
                            "key": Record(
                                {
                                    "urls": Items(
                                        URL, N_("addresses in order of preference"), least=1
                                    ),
                                    "sha256": SHA256,
                                },
                                about=N_("public key with which the repository is signed"),
                            ),
                        },
                        about=N_("an APT source besides the base image's own"),
                    ),
                    N_("APT sources besides the base image's own"),
                ),
            },
            N_("APT packages and sources of the images"),
        ),
        "sources": Table(
            SOURCE,
            NAME,
            N_("source archives by name; a component's component.json says which it takes"),
        ),
        "application": Nullable(
            Record(
                {"source": path(N_("default source folder, relative to the project"))},
                {
                    "name": described(
                        NAME, N_("name of the program; that of the source folder when absent")
                    ),
                    "build": Text(
                        N_(
                            "how it is built: cmake (default), meson, make, or ./SCRIPT of its "
                            "folder"
                        ),
                        r"cmake|meson|make|\./[^\x00-\x1f\\]+",
                        N_('"cmake", "meson", "make", or a script such as "./build.sh"'),
                    ),
                    "cmake": Items(OPTION, N_("build cmake: options for cmake")),
                    "meson": Items(OPTION, N_("build meson: options for meson setup")),
                    "make": Items(OPTION, N_("build make: variables for make")),
                    "command": Items(
                        OPTION,
                        N_("command that the image runs; the program NAME when absent"),
                        least=1,
                    ),
                    "check": Items(
                        OPTION,
                        N_(
                            "command of the smoke check; {clip}, {output} and {summary} become "
                            "files"
                        ),
                    ),
                    "secrets": Items(
                        Record(
                            {
                                "key": ENV_KEY,
                                "pass": Choice(
                                    ("secret", "build-arg"),
                                    N_(
                                        "how the build gets it: as a secret mount or as an argument"
                                    ),
                                ),
                            },
                            {"required": Flag(N_("true: no build without it (default false)"))},
                            N_("a setting that the build may read"),
                        ),
                        N_("settings of .env that its build may read"),
                    ),
                },
            ),
            N_("the program of the image; null for none"),
        ),
        "practice": Flag(N_("true: not for delivery; the image is labelled so")),
        "cuda": Nullable(DOTTED, N_("CUDA of the base image, major.minor; null for none")),
        "cudnn": Nullable(DOTTED, N_("cuDNN of the base image")),
        "platform": Choice(("linux/amd64",), N_("platform of the images")),
        "epoch": Number(N_("SOURCE_DATE_EPOCH, seconds since 1970")),
        "pytorch": Nullable(
            Record(
                {"torch": described(VERSION, N_("version of torch, such as 2.5.1+cu124"))},
                {
                    "torchvision": Nullable(
                        VERSION,
                        N_(
                            "version of torchvision; that of the catalog when absent, null for none"
                        ),
                    ),
                    "torchaudio": Nullable(
                        VERSION,
                        N_("version of torchaudio; that of the catalog when absent, null for none"),
                    ),
                    "index": Text(
                        N_('"default", or the address of PyTorch\'s index'),
                        r"default|(https?|file)://\S+",
                        N_('"default" or an address'),
                    ),
                },
            ),
            N_("PyTorch and the packages that belong to it; null for none"),
        ),
        "tensorrt": Nullable(
            Record(
                {
                    "version": described(VERSION, N_("version of TensorRT, with its build")),
                    "form": Choice(
                        ("tar", "deb"), N_("from NVIDIA's archive (tar) or from APT packages (deb)")
                    ),
                },
                {
                    "python": Flag(N_("install the Python binding (default true)")),
                    "builder": Items(PACKAGE, N_("form deb: packages of the builder")),
                    "runtime": Items(PACKAGE, N_("form deb: packages of the runtime")),
                },
            ),
            N_("TensorRT; null for none"),
        ),
    },
)
OWN_KEYS = frozenset((*_OWN.required, *_OWN.optional, "components"))
_ANY_OPTIONS = Table(
    Nullable(UNDECLARED, N_("options of a component of your own; null for none")), NAME
)


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
    inner = Record({}, shapes, N_("options of components, by name"), others=_ANY_OPTIONS)
    return Record(_OWN.required, {**_OWN.optional, **top, "components": inner})
