"""A finished run moves to rounds/N, whatever interrupts the move."""

import json
import os

import pytest

from losa_jax.training import rounds
from losa_jax.utils import run_files

FILES = {
    "metrics.jsonl": "{}", "predictions.json": "{}", "map.json": "{}",
    "thresholds.json": "{}", "cost.json": "{}", "again.json": "{}",
    "report/index.html": "page", "tensorboard/events": "scalars",
    "config.json": "{}", "checkpoints/7/state/a": "weights",
    "checkpoints/evaluated.json": json.dumps({"best_step": 7})}
# These stay, whatever they hold.
OTHERS = {"log.txt": "line", "probed_videos.json": "{}", "taps/cache.json": "",
          "predictions/reviews/one.json": "{}", "backbone/facts.json": "{}",
          "export/manifest.json": "{}"}


def _write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text()
            for path in folder.rglob("*") if path.is_file()}


class _Killed(BaseException):
    pass


def test_each_round_gets_the_next_number(tmp_path):
    _write(tmp_path, {**FILES, **OTHERS})
    assert rounds.latest(tmp_path) is None
    for number in (1, 2):
        _write(tmp_path, FILES)
        folder = rounds.retire(tmp_path)
        assert folder == tmp_path / "rounds" / str(number)
        assert rounds.latest(tmp_path) == folder
        assert _content(folder) == FILES
    assert _content(tmp_path) == OTHERS | {
        f"rounds/{number}/{name}": text for number in (1, 2)
        for name, text in FILES.items()}


@pytest.mark.parametrize("survived", range(12))
def test_a_move_that_is_killed_is_completed_by_the_next_start(
        tmp_path, monkeypatch, survived):
    """Killed after `survived` operations, in front of the next one."""
    _write(tmp_path, {**FILES, **OTHERS})
    count, real = [0], os.replace

    def replace(source, target):
        if count[0] == survived:
            raise _Killed
        count[0] += 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            rounds.retire(tmp_path)
        except _Killed:
            assert survived < 10
    folder = rounds.latest(tmp_path)
    if survived == 0:  # still the finished run
        assert folder is None
        assert FILES.items() <= _content(tmp_path).items()
        assert rounds.retire(tmp_path).name == "1"
    else:
        assert not (tmp_path / "checkpoints").exists()
        (tmp_path / "checkpoints").mkdir()  # as a start makes it
        rounds._move_rest(tmp_path, folder)
    assert _content(tmp_path) == OTHERS | {
        f"rounds/1/{name}": text for name, text in FILES.items()}


def test_files_of_the_next_round_are_not_moved(tmp_path):
    """A round may be killed before its first checkpoint."""
    _write(tmp_path, {name: text for name, text in FILES.items()
                      if name != run_files.BROKEN_FILE})
    folder = rounds.retire(tmp_path)
    new = {"config.json": "new", "broken_videos.json": "new"}
    _write(tmp_path, new)
    rounds._move_rest(tmp_path, folder)
    assert new.items() <= _content(tmp_path).items()
