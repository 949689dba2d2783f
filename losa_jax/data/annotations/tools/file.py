"""An annotation file: its bytes as text, JSON or XML; files in archives."""

import gzip
import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from losa_jax.errors import InputError
from losa_jax.utils import text_files
from losa_jax.utils.file_type import link_to_nothing, stand_in

# What an archive may hold, unpacked.
_MAX_BYTES = 2**30
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Object files of Praat, which writes UTF-16 if a letter is not ASCII.
_PRAAT = "ooTextFile"
_AGAIN = ("it may still be written, or was copied in part: save or export it "
          "again")


@dataclass(eq=False)
class File:
    """A file, or a member of an archive.

    Attributes:
      path: of the file on the disk.
      name: for messages.
      encoding: of its text if that is not UTF-8.
    """

    path: Path
    name: str
    content: bytes
    encoding: str = ""

    @cached_property
    def text(self) -> str:
        """The text; InputError that names the encoding option if it is in
        another encoding."""
        content = self.content
        try:
            if self.encoding and not _is_utf8(content):
                return content.decode(self.encoding).lstrip("\ufeff")
            if content.startswith(_WIDE_MARKS) and any(
                    _PRAAT.encode(codec) in content[:200]
                    for codec in ("utf-16-le", "utf-16-be")):
                return content.decode("utf-16")
        except (LookupError, UnicodeError) as error:
            raise InputError(
                f"{self.name}: cannot be read as {self.encoding or 'UTF-16'} "
                f"({error}): give its encoding, as --encoding=cp1252"
            ) from error
        try:
            return text_files.decode(Path(self.name), content)
        except InputError as error:
            if not text_files.seeming_encoding(content):
                raise
            raise InputError(f"{error}; or name its encoding, as --encoding="
                             f"{_codec_of(content)}{_where(content)}"
                             ) from error

    @cached_property
    def json(self) -> Any:
        """The content of a JSON file; None for another file."""
        if self.is_archive or self.content.lstrip(
                b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
            return None
        return text_files.parse_json(self.text, self.name, _AGAIN)

    @cached_property
    def xml(self) -> ElementTree.Element | None:
        """The root of an XML file; None for another file."""
        start = self.content[:200].replace(b"\0", b"")
        for mark in (*_WIDE_MARKS, b"\xef\xbb\xbf"):
            start = start.removeprefix(mark)
        if not start.lstrip().startswith(b"<"):
            return None
        return parse_xml(self.content, self.name)

    @cached_property
    def is_archive(self) -> bool:
        """Whether this is a zip file."""
        return self.content.startswith(b"PK\3\4")

    def members(self, *endings: str) -> list["File"]:
        """Returns the files in a zip file whose name, with its folders, has
        one of these endings; InputError for a damaged archive."""
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
                infos = [info for info in archive.infolist()
                         if f"/{info.filename}".lower().endswith(endings)
                         and not info.filename.startswith("__MACOSX")]
                if sum(info.file_size for info in infos) > _MAX_BYTES:
                    raise InputError(f"{self.name}: is too large: unpack it")
                return [File(self.path, f"{self.name}:{info.filename}",
                             archive.read(info), self.encoding)
                        for info in infos]
        except InputError:
            raise
        except Exception as error:  # a damaged archive can raise anything
            raise InputError(f"{self.name}: not a zip file that can be read "
                             f"({error}): {_AGAIN}") from error


def open_file(path: Path, encoding: str = "") -> File:
    """Reads a file, unpacking .gz; InputError where this is impossible."""
    try:
        before = path.stat()
        content = path.read_bytes()
        after = path.stat()
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(_MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            link_to_nothing(path) or f"{path}: cannot be read "
            f"({getattr(error, 'strerror', None) or error}): check the path"
        ) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size,
                                                after.st_mtime_ns):
        raise InputError(f"{path}: changed while it was read: wait until it is "
                         "written")
    if reason := stand_in(path):
        raise InputError(f"{path}: not a text file but {reason}")
    return File(path, str(path), content, encoding)


def parse_xml(content: bytes, name: str) -> ElementTree.Element:
    """Returns the root of an XML document; InputError for one that is cut or
    declares a DOCTYPE, whose entities could expand without limit."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> NoReturn:
        raise InputError(
            f"{name}: has a DOCTYPE or entities, which no annotation tool "
            "writes and which are not read: remove them")

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.buffer_text = True
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"{name}: not a complete XML document ({error}): "
                         f"{_AGAIN}") from error
    return builder.close()


def _is_utf8(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _codec_of(content: bytes) -> str:
    seeming = text_files.seeming_encoding(content)
    return seeming.lower().replace("windows-", "cp").replace(
        "shift-jis", "shift_jis") if seeming.isascii() and (
            " " not in seeming and seeming) else "cp1252"


def _where(content: bytes) -> str:
    """Returns where the first byte is that is no UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        return f" (byte 0x{content[error.start]:02x} in line {line})"
    return ""
