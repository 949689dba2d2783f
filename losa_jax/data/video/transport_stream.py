"""The end of an MPEG transport stream, which has no header that tells it.

The packets are of ISO/IEC 13818-1, section 2.4.3.
"""

from collections.abc import Iterable
from pathlib import Path

# Packets alone, behind a time code (.m2ts, .MTS), or before a checksum:
# {bytes from one to the next: bytes before the first}.
_STRIDES = {188: 0, 192: 4, 204: 0}
_SYNC = 0x47
_CHECKED_PACKETS = 5
_TAIL_PACKETS = 20_000
_PROGRAMS_ID = 0
_TABLE_PACKETS = 2  # the table of programs, and that of a program's streams


def ends_inside_frame(path: Path, stream_ids: Iterable[int]) -> bool:
    """Returns whether a file ends inside a packet, inside a frame of one of
    the streams, or with the table of programs, which frames would follow.

    The last packet of a frame is filled up, unless the frame happens to end
    with it (one of 184).
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_CHECKED_PACKETS * max(_STRIDES))
        stride = next((stride for stride, offset in _STRIDES.items()
                       if set(head[offset:_CHECKED_PACKETS * stride:stride])
                       == {_SYNC}), None)
        if stride is None:  # begins inside a packet
            return False
        if num_bytes % stride:
            return True
        file.seek(max(0, num_bytes - _TAIL_PACKETS * stride))
        tail = file.read()
    ids = [int.from_bytes(tail[start + 1:start + 3], "big") & 0x1FFF
           for start in range(_STRIDES[stride], len(tail), stride)]
    if _PROGRAMS_ID in ids[-_TABLE_PACKETS:]:
        return True
    open_ids = set(stream_ids)
    for number, stream_id in reversed([*enumerate(ids)]):
        if stream_id in open_ids:
            packet = tail[number * stride + _STRIDES[stride]:]
            open_ids.remove(stream_id)
            if not _is_filled_up(packet):
                return True
    return False


def _is_filled_up(packet: bytes) -> bool:
    """Whether the adaptation field of a packet is longer than its content."""
    if not packet[3] & 0x20:  # has no such field
        return False
    num_bytes, flags = packet[4], packet[5]
    content = 1 + 6 * (flags >> 4 & 1) + 6 * (flags >> 3 & 1) + (flags >> 2 & 1)
    return not flags & 0x1F or num_bytes > content
