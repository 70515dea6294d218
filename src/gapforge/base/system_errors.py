"""What the operating system and Python's own parsers say is wrong with a file, in the reader's language.

They know English only: the C library is never told the reader's language, and a site may lack its translations.
"""

from __future__ import annotations

import errno
import json

from gapforge.base.text import tr

_SYSTEM = {
    errno.ENOENT: "그런 파일이나 폴더가 없음",
    errno.EACCES: "권한이 없음",
    errno.EPERM: "허용되지 않음",
    errno.EEXIST: "이미 있음",
    errno.ENOTDIR: "폴더가 있어야 할 곳에 파일이 있음",
    errno.EISDIR: "파일이 있어야 할 곳에 폴더가 있음",
    errno.ENOTEMPTY: "폴더가 비어 있지 않음",
    errno.ELOOP: "심볼릭 링크를 따라갈 수 없음",
    errno.ENAMETOOLONG: "이름이 너무 김",
    errno.ENOSPC: "디스크가 가득 참",
    errno.EDQUOT: "디스크 할당량을 다 씀",
    errno.EROFS: "읽기 전용 파일 시스템임",
    errno.EFBIG: "파일이 너무 큼",
    errno.EIO: "입출력 오류",
    errno.EBUSY: "다른 곳에서 쓰는 중임",
    errno.ETXTBSY: "실행 중인 파일임",
    errno.EXDEV: "다른 파일 시스템에 있음",
    errno.EMFILE: "열어 둔 파일이 너무 많음",
    errno.ENFILE: "시스템 전체에 열린 파일이 너무 많음",
    errno.EMLINK: "하드 링크가 너무 많음",
    errno.ENOMEM: "메모리가 모자람",
    errno.EINVAL: "쓸 수 없는 값",
    errno.EOPNOTSUPP: "지원하지 않는 동작",
    errno.ENOEXEC: "실행할 수 있는 형식이 아님",
    errno.ENODEV: "그런 장치가 없음",
    errno.ENXIO: "그런 장치나 주소가 없음",
    errno.ENOMEDIUM: "매체가 없음",
    errno.ESTALE: "네트워크 파일 시스템이 끊어짐",
    errno.ECONNREFUSED: "연결을 거부함",
    errno.ECONNRESET: "상대가 연결을 끊음",
    errno.ETIMEDOUT: "제시간에 응답하지 않음",
}
# Of a text that is no JSON, without what it quotes after a colon.
_JSON = {
    "Expecting value": "값이 와야 함",
    "Expecting property name enclosed in double quotes": "큰따옴표로 묶은 키가 와야 함",  # no tr: the parser's own words
    "Expecting ':' delimiter": "':'이 와야 함",
    "Expecting ',' delimiter": "','가 와야 함",
    "Illegal trailing comma before end of object": "마지막 항목 뒤에 쉼표가 있음",  # no tr: the parser's own words
    "Illegal trailing comma before end of array": "마지막 항목 뒤에 쉼표가 있음",  # no tr: the parser's own words
    "Extra data": "끝난 뒤에 내용이 더 있음",
    "Unterminated string starting at": "문자열이 닫히지 않음",
    "Invalid control character at": "문자열 안에 제어 문자가 있음",  # no tr: the parser's own words
    "Invalid \\escape": "문자열에 쓸 수 없는 \\ 표기",
    "Invalid \\uXXXX escape": "문자열에 쓸 수 없는 \\u 표기",  # no tr: the parser's own words
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "맨 앞에 BOM이 있음",
}


def os_says(error: OSError) -> str:
    """What the operating system says, without the file's name."""
    en = error.strerror or str(error)
    ko = _SYSTEM.get(error.errno or 0, en)
    return tr(ko, en)


def unreadable(error: OSError) -> str:
    """What is wrong with a file that the system does not let us read."""
    return tr(f"읽을 수 없음: {os_says(error)}", f"cannot be read: {os_says(error)}")


def unlistable(error: OSError) -> str:
    """What is wrong with a folder whose content the system does not tell."""
    return tr(f"목록을 볼 수 없음: {os_says(error)}", f"cannot be listed: {os_says(error)}")


def unexaminable(error: OSError) -> str:
    """What is wrong with something of which the system does not even tell what it is."""
    return tr(f"살펴볼 수 없음: {os_says(error)}", f"cannot be examined: {os_says(error)}")


def json_says(error: json.JSONDecodeError) -> str:
    """What is wrong with the text, without where."""
    ko, en = _JSON.get(error.msg.partition(": ")[0], error.msg), error.msg
    return tr(ko, en)


def says(error: Exception) -> str:
    """The whole of what an error of the system or of a parser says; any other speaks for itself."""
    ko = en = str(error)
    if isinstance(error, OSError) and error.strerror:
        ko = f"{error.filename}: {os_says(error)}" if error.filename else os_says(error)
    elif isinstance(error, json.JSONDecodeError):
        ko = f"{error.lineno}행 {error.colno}열: {json_says(error)}"
    elif isinstance(error, UnicodeDecodeError):
        ko = f"{error.encoding.upper()} 텍스트가 아님(바이트 위치 {error.start})"
    return tr(ko, en)
