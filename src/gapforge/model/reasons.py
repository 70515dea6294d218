"""Why a lock leaves something open. A lock says it in English, the same on every machine; people read their language."""

from __future__ import annotations

import re

from gapforge.base.i18n import language

DEFAULT_INDEX = "the default Python index"  # no tr: stands in locks
APT_SOURCES = "an APT source of the base image or of the preset"  # no tr: stands in locks
UNANSWERED = "did not answer"  # no tr: stands in locks
# What a lock may say, and what a Korean reader is shown for it; the first that fits counts. {who} and {rest} are
# such texts themselves.
_SAID: tuple[dict[str, str], ...] = (
    {"ko": "torch와 함께 해석되는데, {rest}", "en": "is resolved together with torch, and {rest}"},
    {"ko": "해시는 알지만 크기를 모름: {rest}", "en": "its hash is known, its size is not: {rest}"},
    {"ko": "크기가 적힌 곳이 없음", "en": "nobody states it"},
    {
        "ko": "공개된 해시가 없음: 처음 받은 것을 믿음",
        "en": "nobody published its hash: it is trusted as seen first",
    },
    {
        "ko": "매니페스트만 고정됨. 운영체제는 받을 때 읽음",
        "en": "is pinned by its manifest; its operating system is read when it is fetched",
    },
    {"ko": "받을 때 아카이브에서 읽음", "en": "is read from its archive when it is fetched"},
    {"ko": "받을 때 패키지로 만듦", "en": "is made from packages when it is fetched"},
    {"ko": "패키지를 받을 때 만듦", "en": "is made when the packages are fetched"},
    {
        "ko": "builder 기반 이미지의 APT 소스가 있어야 함",
        "en": "needs the APT sources of the builder's base image",
    },
    {
        "ko": "기반 이미지의 패키지 목록이 있어야 함",
        "en": "needs the package lists of the base images",
    },
    {
        "ko": "기본 Python 인덱스에 크기가 나와 있지 않음",
        "en": "the default Python index tells no size of it",
    },
    {"ko": "{who}에 {file}의 크기가 나와 있지 않음", "en": "{who} tells no size of {file}"},
    {"ko": "{who}에 {file}의 해시가 나와 있지 않음", "en": "{who} tells no hash of {file}"},
    {"ko": "{who}에 로그인해야 함", "en": "{who} wants a login"},
    {"ko": "{who}에서 답이 없음", "en": "{who} did not answer"},
    {"ko": "기본 Python 인덱스", "en": DEFAULT_INDEX},
    {"ko": "기반 이미지나 프리셋의 APT 소스", "en": APT_SOURCES},
    {"ko": "인덱스 {address}", "en": "index {address}"},
    {"ko": "레지스트리 {address}", "en": "registry {address}"},
    {"ko": "{address}, {who}", "en": "{address} and {who}"},
)


def told(reason: str) -> str:
    """``reason``, or the name of who was asked, as it stands in a lock, in the reader's language."""
    if language() != "ko":
        return reason
    for said in _SAID:
        if match := re.fullmatch(_pattern(said["en"]), reason):
            return said["ko"].format(
                **{name: told(part) for name, part in match.groupdict().items()}
            )
    return reason


def _pattern(text: str) -> str:
    parts = re.split(r"\{(\w+)\}", text)
    return "".join(
        re.escape(part)
        if number % 2 == 0
        else f"(?P<{part}>{'.+' if part in ('who', 'rest') else r'[^ ]+'})"
        for number, part in enumerate(parts)
    )
