"""Shapes of short texts in presets and component descriptions: names, versions, URLs, options."""

from __future__ import annotations

from dataclasses import replace

from gapforge.base import limits
from gapforge.base.i18n import N_
from gapforge.model import names
from gapforge.model.schema import Text

_NAME_IN_WORDS = N_("lower-case letters, digits, '.', '_', '-'")
_PATH_IN_WORDS = N_("a path")

NAME = Text(N_("name"), r"[a-z0-9][a-z0-9._-]*", _NAME_IN_WORDS, limits.NAME)
PRESET_NAME = Text(N_("name"), names.PRESET_NAME.pattern, _NAME_IN_WORDS)
VERSION = Text(
    N_("version"),
    r"[0-9]+([-+~.][0-9A-Za-z.+~-]+)?",
    N_('digits and dots, such as "12.4"'),
    limits.VERSION,
)
DOTTED = Text(
    N_("version"), r"[0-9]+(\.[0-9]+)*", N_('digits and dots, such as "3.10"'), limits.VERSION
)
PYTHON = Text(N_("Python, major.minor"), r"3\.[0-9]{1,3}", N_('such as "3.10"'))
SHA256 = Text(
    N_("SHA-256 of the file, lower-case hex"), r"[0-9a-f]{64}", N_("64 lower-case hex digits")
)
DIGEST = Text(
    N_("registry digest"), r"sha256:[0-9a-f]{64}", N_('"sha256:" and 64 lower-case hex digits')
)
URL = Text(
    N_("address"), r"(https?|file)://[^\s\x00-\x1f]+", N_("an http(s):// or file:// address")
)
FILE = Text(
    N_("file name"),
    r"[A-Za-z0-9_][A-Za-z0-9._+~-]*",
    N_("a plain file name without '/'"),
    limits.NAME_BYTES,
)
PATH = Text(N_("path inside the project or archive"), r"[^\x00-\x1f\\]+", _PATH_IN_WORDS)
PACKAGE = Text(
    N_("APT package, or package=version"),
    # APT takes a final "-" as a request to remove the package, after a version too.
    r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]*[A-Za-z0-9.+~])?",
    N_(
        'an APT package name without a final "-", such as "nasm" or '
        '"libnvinfer8=8.6.1.6-1+cuda11.8"'
    ),
)
REQUIREMENT = Text(
    N_("Python requirement"),
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?\s*((==|>=|<=|<|>|~=|!=)[^;@\s]+)?",
    N_('a requirement such as "numpy==1.26.4"'),
)
PYTHON_PACKAGE = Text(
    N_("Python package as indexes write it: lower case, with single hyphens"),
    r"[a-z0-9]+(-[a-z0-9]+)*",
    N_('lower-case letters, digits and single hyphens, such as "typing-extensions"'),
    limits.NAME,
)
FILE_PATTERN = Text(
    N_("pattern for paths, with *, ? and [...]"),
    r"[^\x00-\x1f\\]+",
    N_('a pattern such as "*.h"'),
    limits.NAME,
)
OPTION = Text(N_("build option, one word"), r"[^\x00-\x1f]+", N_("an option on one line"))
ENV_KEY = Text(N_(".env key"), r"[A-Z_][A-Z0-9_]*", N_("upper-case letters, digits and '_'"))


def described(shape: Text, about: str) -> Text:
    """Return the same shape, which the schema describes as ``about``."""
    return replace(shape, about=about)


def path(about: str) -> Text:
    """Return the shape of a path that the schema describes as ``about``."""
    return described(PATH, about)
