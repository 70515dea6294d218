"""Start gapforge: ./gapforge, build.py, gapforge-receive.pyz or ``python3 -m gapforge``.

An older Python must parse this file too, to print which version is needed.
"""

import gettext
import io
import os
import sys

FOLDER = os.path.dirname(os.path.realpath(__file__))
CATALOGUE = os.path.join("locale", "ko", "LC_MESSAGES", "gapforge.mo")


def _(message: str) -> str:
    """Translate as gapforge.base.i18n does, which an older Python cannot import."""
    keys = ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    languages = [os.environ[key].strip() for key in keys if os.environ.get(key, "").strip()]
    if not languages or not languages[0].lower().startswith("ko"):
        return message
    try:
        if os.path.isfile(__file__):
            with open(os.path.join(FOLDER, "..", "..", CATALOGUE), "rb") as file:
                data = file.read()
        else:  # in an archive
            data = __spec__.loader.get_data(CATALOGUE)  # type: ignore[union-attr]
    except OSError:
        return message
    return gettext.GNUTranslations(io.BytesIO(data)).gettext(message)


if __name__ == "__main__":
    if sys.version_info < (3, 10):
        sys.exit(
            _("error: gapforge needs Python 3.10 or newer; Ubuntu 22.04 has it as /usr/bin/python3")
        )
    sys.dont_write_bytecode = True  # the project folder may be read-only
    if not __package__:  # run as a file; its folder would hide modules of the same names
        others = [path for path in sys.path if os.path.realpath(path) != FOLDER]
        sys.path[:] = [os.path.dirname(FOLDER), *others]
    from gapforge.cli.main import main

    sys.exit(main(sys.argv[1:]))
