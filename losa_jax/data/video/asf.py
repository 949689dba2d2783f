"""The size of a file in ASF (.wmv), which its header gives."""

import uuid
from pathlib import Path

_HEAD_BYTES = 2**16
_FILE_PROPERTIES = uuid.UUID(
    "8cabdca1-a947-11cf-8ee4-00c00c205365").bytes_le


def promised_bytes(path: Path) -> int:
    """Returns the size of an ASF file (.wmv) by its header; 0 for a broadcast
    (ASF specification, section 3.2)."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    start = head.find(_FILE_PROPERTIES)
    if start < 0 or len(head) < start + 92 or head[start + 88] & 1:
        return 0
    return int.from_bytes(head[start + 40:start + 48], "little")
