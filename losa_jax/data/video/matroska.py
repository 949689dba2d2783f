"""The beginning of a Matroska file (RFC 9559), where players skip damage."""

from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# What may stand in a segment before its first cluster.
_BEFORE = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469,
           0x1043A770, 0x1254C367, 0xEC, 0xBF}


def lost_start(path: Path, first_packet_byte: int | None) -> bool:
    """Returns whether packets before the first one that can be read are lost:
    the file is shorter than its segment, or the packet is not in the first
    cluster."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        element, _, end = _element(file)
        if element != _EBML or end is None:
            return True
        file.seek(end)
        element, _, end = _element(file)
        if element != _SEGMENT or (end is not None and end > num_bytes):
            return True
        while True:
            element, start, end = _element(file)
            if element == _CLUSTER:
                return not start < (first_packet_byte or 0) < (
                    end or num_bytes)
            if element not in _BEFORE or end is None:
                return True
            file.seek(end)


def _element(file: BinaryIO) -> tuple[int, int, int | None]:
    """Reads the head of an element: its number, where it starts, and where it
    ends, None where that is not known."""
    start = file.tell()
    number, _ = _number(file)
    size, num_bytes = _number(file)
    size &= (1 << 7 * num_bytes) - 1
    is_known = size != (1 << 7 * num_bytes) - 1
    return number, start, file.tell() + size if is_known else None


def _number(file: BinaryIO) -> tuple[int, int]:
    """Reads an integer whose leading zero bits count its bytes, and them."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 1
    num_bytes = 9 - first[0].bit_length()
    return int.from_bytes(first + file.read(num_bytes - 1), "big"), num_bytes
