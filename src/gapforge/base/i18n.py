"""Messages in the reader's language: English in the code, Korean from a gettext catalogue."""

from __future__ import annotations

import functools
import gettext as library
import io
import os
import re
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

CATALOGUE = Path("locale", "ko", "LC_MESSAGES", "gapforge.mo")
_FORMATTER = string.Formatter()
# Korean particles as a translation writes them: the form after a final consonant, the form after a vowel. The source
# holds no Hangul, hence the escapes.
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
    """A text for a reader that still knows what it was made of: the English template and the values in it."""

    id: str
    values: Mapping[str, object]

    def __new__(cls, text: str, template: str, values: Mapping[str, object]) -> Message:
        """Make the message ``text`` of an English ``template`` and its ``values``."""
        made = super().__new__(cls, text)
        made.id, made.values = template, values
        return made

    def __getnewargs__(self) -> tuple[str, str, Mapping[str, object]]:  # type: ignore[override]
        """Return what copies and pickles are made of."""
        return str(self), self.id, self.values


def language(environ: Mapping[str, str] | None = None) -> str:
    """Return "ko" or "en": GAPFORGE_LANG decides, then LC_ALL, LC_MESSAGES and LANG, the first that is set."""
    env = os.environ if environ is None else environ
    for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = env.get(key, "").strip().lower()
        if value:
            return "ko" if value.startswith("ko") else "en"
    return "en"


@contextmanager
def speaking(chosen: str) -> Iterator[None]:
    """Make messages in the language ``chosen``, "ko" or "en", whatever the environment asks for."""
    before = _forced.set(chosen)
    try:
        yield
    finally:
        _forced.reset(before)


def _(message: str, /, **values: object) -> str:
    """Return ``message`` in the reader's language, a Message, with ``values`` in the places that it names.

    Without any values the text stays as it is: its braces are braces.
    """
    text = _catalogue().gettext(message) if message else ""
    return Message(_filled(text, values) if values else text, message, values)


def ngettext(one: str, many: str, count: int, /, **values: object) -> str:
    """Return ``one`` or ``many`` in the reader's language, as ``count`` asks; ``{count}`` stands for it."""
    text = _catalogue().ngettext(one, many, count)
    values = {"count": count, **values}
    return Message(_filled(text, values), one, values)


def pgettext(context: str, message: str, /, **values: object) -> str:
    """Return ``message`` as ``_`` does, where it means something else than in other places: ``context`` says what."""
    text = _catalogue().pgettext(context, message)
    return Message(_filled(text, values) if values else text, message, values)


def template(text: str) -> str:
    """Return the English template that ``text`` was made of, the same in every language; ``text`` itself if none."""
    return text.id if isinstance(text, Message) else text


def N_(message: str) -> str:  # noqa: N802 - gettext's own name
    """Return ``message``, which is thereby in the catalogue and translated later, by ``_(CONSTANT)``."""
    return message


def spellings(message: str) -> tuple[str, ...]:
    """Return ``message`` as it is in each language, for what reads a text that some gapforge has written."""
    return tuple(dict.fromkeys((_korean().gettext(message), message)))


class Localized(str):
    """A text in the reader's language that keeps what it is in both."""

    ko: str
    en: str


def localized(*, ko: str, en: str) -> str:
    """Return the one of two texts, read from data that has both, that the reader's language asks for."""
    text = Localized(ko if _asked() == "ko" else en)
    text.ko, text.en = ko, en
    return text


def in_both_languages(message: str, **values: object) -> dict[str, str]:
    """Return ``message`` in Korean and in English, for documents that hold both: {"ko": …, "en": …}."""
    made = {}
    for chosen in ("ko", "en"):
        with speaking(chosen):
            values_then = {name: _again(value) for name, value in values.items()}
            made[chosen] = str(_(message, **values_then))
    return made


def rendered_in_both(text: str) -> dict[str, str]:
    """Return a Message, made before, in Korean and in English. A plain text is the same in both."""
    if isinstance(text, Message):
        return in_both_languages(text.id, **text.values)
    return {"ko": text, "en": text}


def _again(value: object) -> object:
    """Return ``value``, translated once more if it is a Message or has been in both languages from the start."""
    if isinstance(value, Localized):
        return localized(ko=value.ko, en=value.en)
    if not isinstance(value, Message):
        return value
    return _(value.id, **{name: _again(inner) for name, inner in value.values.items()})


def _asked() -> str:
    return _forced.get() or language()


def _catalogue() -> library.NullTranslations:
    return _korean() if _asked() == "ko" else _english()


@functools.cache
def _english() -> library.NullTranslations:
    return library.NullTranslations()


@functools.cache
def _korean() -> library.NullTranslations:
    """Return the Korean catalogue, or the English of the code where there is none."""
    data = catalogue_bytes()
    return library.GNUTranslations(io.BytesIO(data)) if data else _english()


def catalogue_bytes() -> bytes:
    """Return the compiled Korean catalogue, b"" where there is none. Works inside a zip archive too."""
    loader: Any = __spec__.loader
    for parent in (3, 2):  # of a checkout, whose package is in src; of an archive
        try:
            data: bytes = loader.get_data(str(Path(__file__).parents[parent] / CATALOGUE))
        except OSError:
            continue
        return data
    return b""


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """Return ``template`` with ``values`` in its places and with the particles that they ask for."""
    text = ""
    for literal, name, spec, conversion in _FORMATTER.parse(template):
        text = _with_particles(text, literal)
        if name is not None:
            value, _first = _FORMATTER.get_field(name, (), values)
            value = _FORMATTER.convert_field(value, conversion)
            text += format(value, _FORMATTER.vformat(spec or "", (), values))
    return text


def _with_particles(before: str, literal: str) -> str:
    """Return ``before`` followed by ``literal``, with each particle in the form that the text before it asks for."""
    start = 0
    for match in _PARTICLE.finditer(literal):
        before += literal[start : match.start()]
        before += _particle(before, *_PARTICLES[match[0]])
        start = match.end()
    return before + literal[start:]


def _particle(text: str, with_final: str, without_final: str) -> str:
    """Return the form that follows the last letter or digit of ``text``; digits are read as Korean numbers."""
    last = next((char for char in reversed(text) if char.isalnum()), "")
    if _FIRST_SYLLABLE <= last <= _LAST_SYLLABLE:
        sound = (ord(last) - ord(_FIRST_SYLLABLE)) % 28
        final, liquid = sound != 0, sound == 8
    else:
        final, liquid = last in "013678" or last.lower() in "lmn", last in ("1", "7", "8", "l", "L")
    return (
        with_final
        if final and not (liquid and with_final == _PARTICLES["(\uc73c)\ub85c"][0])
        else without_final
    )
