"""Reads text files that users give, or that this program wrote."""

import codecs
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from losa_jax.errors import InputError
from losa_jax.utils.file_type import link_to_nothing, misplaced, stand_in

_BOMS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
         (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))
_CJK = "[\u3000-\u303f\u4e00-\u9fff\uff01-\uff60]+"
_KANA = "[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff60]+"
_HANGUL = "[\uac00-\ud7a3]+"
# Words of one case, but for the first letter.
_CYRILLIC = r"(?<!\w)([А-ЯЁ]?[а-яё]+|[А-ЯЁ]+)(?!\w)"
# (codec, name, pattern of its words, their least mean length), the most
# particular first. One letter between ASCII letters is Western European.
_ENCODINGS = (
    ("shift_jis", "Shift-JIS", _KANA, 1.5),
    ("euc_jp", "EUC-JP", "[\u4e00-\u9fff]*[\u3040-\u30ff]+", 1.5),
    ("cp1251", "Windows-1251", _CYRILLIC, 2.5),
    ("euc_kr", "EUC-KR", _HANGUL, 1.5),
    ("gb18030", "GBK", _CJK, 1.5),
    ("big5", "Big5", _CJK, 1.5),
    ("cp1252", "Windows-1252", "[À-ÖØ-öø-ÿŠšŽžŒœŸ]+", 0.0),
    ("shift_jis", "Shift-JIS", _KANA, 0.0),
    ("euc_kr", "EUC-KR", _HANGUL, 0.0),
    ("gb18030", "GBK", _CJK, 0.0))
_WORD_SHARE = 0.8
# How titles of `file_type` begin that are texts.
_TEXTS = ("a text", "a JSON", "an XML")
_SHOWN = 120  # characters


def read_text(path: Path, remedy: str = "") -> str:
    """Reads UTF-8, with or without a byte order mark; InputError, which names
    the encoding that the file seems to have, or the remedy."""
    try:
        content = path.read_bytes()
    except OSError as error:
        if path.is_dir():
            remedy = "name a file in it"
        raise InputError(
            link_to_nothing(path) or f"{path}: cannot be read "
            f"({error.strerror or error}): {remedy or 'check the path'}"
        ) from error
    text = decode(path, content)
    if reason := stand_in(path):
        raise InputError(f"{path}: not a text file but {reason}")
    return text


def decode(path: Path, content: bytes) -> str:
    """Returns bytes of a file as text; the InputError of `read_text` unless
    they are UTF-8."""
    try:
        # Programs add a mark to a file that has one.
        text = content.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content) from error
    if "\0" in text:  # as in UTF-16 without a byte order mark
        raise _not_utf8(path, content)
    return text


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Returns (number from 1, line in NFC) of the lines that are not empty,
    without blanks at their ends; InputError as of `read_text`."""
    lines = (nfc(line.strip().strip("\ufeff").strip())
             for line in read_text(path).splitlines())
    return [(number, line) for number, line in enumerate(lines, 1) if line]


def read_json(path: Path, remedy: str = "") -> Any:
    """Reads JSON; InputError, with the remedy, where this is impossible or an
    object has a key twice."""
    return parse_json(read_text(path, remedy), path, remedy)


def parse_json(text: str, where: Path | str, remedy: str = "") -> Any:
    """Returns the content of JSON, as `read_json`; `where` is the file, or
    the place in a file for the message."""
    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise _twice(where, text, pairs)
        return content

    try:
        return json.loads(text, object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        problem = (f"line {error.lineno}, column {error.colno}: {error.msg}"
                   if text.strip() else "it is empty")
        other = text.strip() and isinstance(where, Path) and misplaced(
            where, "a JSON", "JSON", remedy or "give a JSON file")
        raise InputError(other or (
            f"{where}: not JSON: {problem}; {remedy or 'correct it there'}"
            )) from error
    except (ValueError, RecursionError) as error:  # a number of 4301 digits
        raise InputError(f"{where}: not JSON that can be read ({error}); "
                         f"{remedy or 'correct it'}") from error


def nfc(text: str) -> str:
    """Returns a name in Unicode NFC: macOS stores names decomposed."""
    return unicodedata.normalize("NFC", text)


def seeming_encoding(content: bytes) -> str:
    """Returns the encoding that text seems to have which is not UTF-8, or ""
    for what is no text."""
    for bom, name in _BOMS:
        if content.startswith(bom):
            return name
    if b"\0" in content:
        wide = not (any(content[2::4]) or any(content[3::4])) or not (
            any(content[::4]) or any(content[1::4]))
        odd, even = content[1::2].count(0), content[::2].count(0)
        codec = ("utf-32" if wide else "utf-16") + (
            "-le" if odd > even else "-be")
        text = re.sub(r"[\n\r\t]", "", _decoded(content, codec))
        return (codec[:6].upper() if text and text.isprintable()
                and odd != even else "")
    for codec, name, pattern, least_length in _ENCODINGS:
        text = _decoded(content, codec)
        count = sum(not one.isascii() for one in text)
        words = [match[0] for match in re.finditer(pattern, text)
                 if not match[0].isascii()]
        if count and sum(map(len, words)) >= max(
                _WORD_SHARE * count, least_length * len(words)):
            return name
    # Controls are in no text.
    return "" if re.search(rb"[\x00-\x08\x0e-\x1a]", content) else (
        "an 8-bit encoding such as Windows-1252")


def _decoded(content: bytes, codec: str) -> str:
    """Returns the text, or "" where the codec cannot read it."""
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        return ""


def _not_utf8(path: Path, content: bytes) -> InputError:
    if reason := misplaced(path, _TEXTS, "a text file", "give one in UTF-8"):
        return InputError(reason)
    text = content.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    line = 1 + text[:text.find("\ufffd")].count("\n")
    if 0 < 2 * wrong < sum(not one.isascii() for one in text) - wrong:
        return InputError(
            f"{path}: is UTF-8 text but for {wrong} characters, the first in "
            f"line {line}: write them again, or copy the file again")
    # Of the bytes of UTF-16 that are UTF-8 too, about half are NUL.
    is_wide = wrong or content.count(0) > len(content) / 4
    encoding = seeming_encoding(content) if is_wide else ""
    if not encoding and not wrong:
        line = 1 + text[:text.find("\0")].count("\n")
        return InputError(
            f"{path}: has NUL characters, the first in line {line}: remove "
            "them, or copy the file again")
    if not encoding:
        return InputError(f"{path}: is no text: give a file in UTF-8")
    return InputError(
        f"{path}: is not UTF-8 text, it seems to be {encoding}: save it as "
        "UTF-8, in an editor or with iconv")


def _twice(where: Path | str, text: str, pairs: list[tuple[str, Any]]
           ) -> InputError:
    """Returns the error about the first key that an object has twice."""
    seen: set[str] = set()
    key = next(name for name, _ in pairs
               if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    places = [match.start() for match in re.finditer(
        re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text)]
    lines = [1 + text.count("\n", 0, place) for place in places]
    which = (f" (lines {lines[0]} and {lines[1]})"
             if len(lines) == 2 and lines[0] != lines[1] else "")
    shown = ", ".join(f"{json.dumps(name)}: {json.dumps(value)[:30]}"
                      for name, value in pairs[:50])[:_SHOWN]
    return InputError(
        f"{where}: one object has the key {json.dumps(key)} twice{which}, and "
        f"only one of the two could be used: {{{shown} ...}}: correct the file")
