"""Translate messages: English in the code, Korean from a gettext catalogue."""

from __future__ import annotations

import functools
import gettext as library
import io
import os
import re
import shlex
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

CATALOGUE = Path("locale", "ko", "LC_MESSAGES", "gapforge.mo")
_FORMATTER = string.Formatter()
# Korean particles as a translation writes them: the form after a final consonant, the form after a
# vowel. The source holds no Hangul, hence the escapes.
_PARTICLES = {
    "\uc744(\ub97c)": ("\uc744", "\ub97c"),  # eul/reul
    "\uc774(\uac00)": ("\uc774", "\uac00"),  # i/ga
    "\uc740(\ub294)": ("\uc740", "\ub294"),  # eun/neun
    "\uc640(\uacfc)": ("\uacfc", "\uc640"),  # gwa/wa
    "(\uc73c)\ub85c": ("\uc73c\ub85c", "\ub85c"),  # euro/ro
    "(\uc774)\ub77c\uace0": ("\uc774\ub77c\uace0", "\ub77c\uace0"),  # irago/rago
    "(\uc774)\ub77c\ub294": ("\uc774\ub77c\ub294", "\ub77c\ub294"),  # iraneun/raneun
    "(\uc774)\ub098": ("\uc774\ub098", "\ub098"),  # ina/na
    "(\uc774)\uba74": ("\uc774\uba74", "\uba74"),  # imyeon/myeon
    "(\uc774)\uba70": ("\uc774\uba70", "\uba70"),  # imyeo/myeo
}
_FIRST_SYLLABLE, _LAST_SYLLABLE = "\uac00", "\ud7a3"
_PARTICLE = re.compile("|".join(map(re.escape, _PARTICLES)))
_forced: ContextVar[str] = ContextVar("gapforge_language", default="")


class Message(str):
    """A translated text with its English template ``id`` and the ``values`` in it."""

    id: str
    values: Mapping[str, object]

    def __new__(cls, text: str, template: str, values: Mapping[str, object]) -> Message:
        """Make a message from its text, its English template and its values."""
        made = super().__new__(cls, text)
        made.id, made.values = template, values
        return made

    def __getnewargs__(self) -> tuple[str, str, Mapping[str, object]]:  # type: ignore[override]
        """Return the arguments of ``__new__`` for copies and pickles."""
        return str(self), self.id, self.values


def language(environ: Mapping[str, str] | None = None) -> str:
    """Return "ko" or "en" by the first set of GAPFORGE_LANG, LC_ALL, LC_MESSAGES and LANG."""
    env = os.environ if environ is None else environ
    for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = env.get(key, "").strip().lower()
        if value:
            return "ko" if value.startswith("ko") else "en"
    return "en"


@contextmanager
def use_language(chosen: str) -> Iterator[None]:
    """Translate to ``chosen``, "ko" or "en", during the block, whatever the environment says."""
    before = _forced.set(chosen)
    try:
        yield
    finally:
        _forced.reset(before)


def _(message: str, /, **values: object) -> str:
    """Return ``message`` as a Message of the reader's language with ``values`` in its placeholders.

    ``{path!q}`` is quoted for a shell: every value in a command that a reader may paste is written
    in this way. Without values the braces of the text stay as they are.
    """
    text = _catalogue().gettext(message) if message else ""
    return Message(_filled(text, values) if values else text, message, values)


def ngettext(one: str, many: str, count: int, /, **values: object) -> str:
    """Return ``one`` or ``many`` as ``_`` does, depending on ``count``, which is also a value."""
    text = _catalogue().ngettext(one, many, count)
    values = {"count": count, **values}
    return Message(_filled(text, values), one, values)


def pgettext(context: str, message: str, /, **values: object) -> str:
    """Return ``message`` as ``_`` does. ``context`` distinguishes it from equal texts elsewhere."""
    text = _catalogue().pgettext(context, message)
    return Message(_filled(text, values) if values else text, message, values)


def N_(message: str) -> str:  # noqa: N802 - gettext's own name
    """Mark a constant for the catalogue. It is translated at its use, by ``_(CONSTANT)``."""
    return message


class Localized(str):
    """A text in the reader's language, from data that has it in both languages."""

    ko: str
    en: str


def localized(*, ko: str, en: str) -> str:
    """Return the text in the reader's language, which keeps both for documents."""
    text = Localized(ko if _asked() == "ko" else en)
    text.ko, text.en = ko, en
    return text


def in_both_languages(message: str, **values: object) -> dict[str, str]:
    """Return ``message`` in both languages, for documents: {"ko": …, "en": …}."""
    made = {}
    for chosen in ("ko", "en"):
        with use_language(chosen):
            made[chosen] = str(_(message, **_translated_again(values)))
    return made


def rendered_in_both(text: str) -> dict[str, str]:
    """Return a Message in both languages. A plain text is the same in both."""
    if isinstance(text, Message):
        return in_both_languages(text.id, **text.values)
    return {"ko": text, "en": text}


def _translated_again(values: Mapping[str, object]) -> dict[str, object]:
    """Return ``values`` with every Message and Localized text in them translated once more."""
    again: dict[str, object] = dict(values)
    for name, value in values.items():
        if isinstance(value, Message):
            again[name] = _(value.id, **_translated_again(value.values))
        elif isinstance(value, Localized):
            again[name] = localized(ko=value.ko, en=value.en)
    return again


def _asked() -> str:
    return _forced.get() or language()


def _catalogue() -> library.NullTranslations:
    return _korean() if _asked() == "ko" else _english()


@functools.cache
def _english() -> library.NullTranslations:
    return library.NullTranslations()


@functools.cache
def _korean() -> library.NullTranslations:
    """Return the Korean catalogue, or none, which means English, if there is no file."""
    data = catalogue_bytes()
    return library.GNUTranslations(io.BytesIO(data)) if data else _english()


def catalogue_bytes() -> bytes:
    """Return the compiled Korean catalogue, also from a zip archive, or b"" without one."""
    loader: Any = __spec__.loader
    for parent in (3, 2):  # in a checkout, where the package is in src, and in an archive
        try:
            data: bytes = loader.get_data(str(Path(__file__).parents[parent] / CATALOGUE))
        except OSError:
            continue
        return data
    return b""


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """Fill ``template`` with ``values`` and the forms of the particles that fit them."""
    text = ""
    for literal, name, spec, conversion in _FORMATTER.parse(template):
        text = _with_particles(text, literal)
        if name is not None:
            value, _first = _FORMATTER.get_field(name, (), values)
            if conversion == "q":
                value = shlex.quote(str(value))
            else:
                value = _FORMATTER.convert_field(value, conversion)
            text += format(value, _FORMATTER.vformat(spec or "", (), values))
    return text


def _with_particles(before: str, literal: str) -> str:
    """Append ``literal`` to ``before``, with each particle in the form that fits."""
    start = 0
    for match in _PARTICLE.finditer(literal):
        before += literal[start : match.start()]
        before += _particle(before, *_PARTICLES[match[0]])
        start = match.end()
    return before + literal[start:]


def _particle(text: str, with_final: str, without_final: str) -> str:
    """Return the form after the last letter or digit of ``text``, read in Korean."""
    last = next((char for char in reversed(text) if char.isalnum()), "")
    if _FIRST_SYLLABLE <= last <= _LAST_SYLLABLE:
        sound = (ord(last) - ord(_FIRST_SYLLABLE)) % 28
        final, liquid = sound != 0, sound == 8
    else:
        final, liquid = last in "013678" or last.lower() in "lmn", last in ("1", "7", "8", "l", "L")
    if liquid and without_final == "\ub85c":  # "ro" follows the consonant l as it does a vowel
        return without_final
    return with_final if final else without_final
