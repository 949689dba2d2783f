"""Records of extracted features."""

import json

import pytest

from losa_jax.data.features.record import (
    read_record,
    record_path,
    write_record,
)
from losa_jax.errors import InputError


def test_records_of_several_processes_are_one(tmp_path):
    facts = {"stride_frames": 4, "width": 8}
    entry = {"fps": 30.0, "frame_count": 90, "length": 19}
    assert read_record(tmp_path) is None
    write_record(tmp_path, facts, {"a": entry}, {"x": "empty"}, 0)
    write_record(tmp_path, facts, {"b": entry}, {}, 1)
    write_record(tmp_path, facts, {"c": entry}, {}, 1)
    record = read_record(tmp_path)
    assert (record.facts, sorted(record.videos)) == (facts, ["a", "b", "c"])
    assert json.loads(record_path(tmp_path).read_text())["broken"] == {
        "x": "empty"}
    with pytest.raises(InputError, match=r"width=8 \(asked for 16\)"):
        write_record(tmp_path, {**facts, "width": 16}, {}, {}, 0)
    record_path(tmp_path).write_text("{")
    with pytest.raises(InputError, match="not JSON.*--mode=extract again"):
        read_record(tmp_path)
