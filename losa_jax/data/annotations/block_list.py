"""Reads which videos to leave out."""

from collections.abc import Collection
from pathlib import Path

from losa_jax.data.annotations import thumos_facts
from losa_jax.errors import InputError
from losa_jax.utils.names import did_you_mean
from losa_jax.utils.text_files import read_lines


def blocked_videos(block_list: str, known: Collection[str]
                   ) -> tuple[dict[str, str], list[str]]:
    """Returns {video id: reason} of the videos that a block list excludes, and
    lines about those of its ids that are not in `known`.

    A line of the file is the id of a video, which may be followed by a blank
    and a remark; lines that begin with "#" and are no id are comments.

    Raises:
      InputError: neither the name of a protocol nor a file.
    """
    if not block_list:
        return {}, []
    if block_list in thumos_facts.EXCLUDED:
        return thumos_facts.EXCLUDED[block_list], []
    path = Path(block_list)
    if not path.is_file():
        raise InputError(f"{block_list}: neither a file of ids to leave out, "
                         f"one a line, nor one of "
                         f"{', '.join(thumos_facts.EXCLUDED)}")
    blocked: dict[str, str] = {}
    unknown = []
    for _, line in read_lines(path):
        first, *remark = line.split(maxsplit=1)
        if line in known or first not in known:
            first, remark = line, []
        if first not in known and first.startswith("#"):
            continue
        blocked[first] = f"is listed in {path.name}" + "".join(
            f": {text}" for text in remark)
        if first not in known:
            unknown.append(first)
    doubts = [f"{path}: {len(unknown)} of {len(blocked)} ids are not in the "
              f"annotations, the first {unknown[0]!r}"
              f"{did_you_mean(unknown[0], known)}"] if unknown else []
    return blocked, doubts
