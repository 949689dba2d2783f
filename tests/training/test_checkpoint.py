"""Checkpoints come back as they were, and a repeated one replaces the old."""

import os

import jax
import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.training.checkpoint import (
    BEST,
    LAST,
    Checkpoints,
    abstract_state,
    same_facts,
)


@pytest.fixture
def checkpoints(tmp_path):
    with_folder = Checkpoints(tmp_path)
    yield with_folder
    with_folder.close()


def _at(state, step):
    return state.replace(step=np.int32(step) + jax.numpy.zeros((), "int32"))


def test_round_trip_is_exact(checkpoints, tiny_model):
    state = _at(tiny_model().state, 7)
    checkpoints.save(LAST, 7, state, {"best_map": 0.25, "names": ["a"]})
    got, facts = checkpoints.restore(LAST, abstract_state(state))
    assert facts == {"best_map": 0.25, "names": ["a"]}
    jax.tree.map(np.testing.assert_array_equal, got, state)


@pytest.mark.parametrize("first, second", [(4, 4), (6, 4), (4, 6)])
def test_best_is_what_was_saved_last(checkpoints, tiny_model, first, second):
    """A run killed between saving best and last repeats some epochs; what it
    then finds best counts, whatever the step."""
    state = tiny_model().state
    checkpoints.save(BEST, first, _at(state, first), {"try": 1})
    checkpoints.save(BEST, second, _at(state, second), {"try": 2})
    got, facts = checkpoints.restore(BEST, abstract_state(state))
    assert facts == {"try": 2} and int(got.step) == second


def test_only_the_newest_are_kept(checkpoints, tiny_model, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(LAST, step, tiny_model().state, {})
    kept = {p.name for p in (tmp_path / "checkpoints/last").iterdir()}
    assert kept == {"2", "3"} and checkpoints.latest_step() == 3


def test_a_half_written_checkpoint_is_never_picked(checkpoints, tiny_model,
                                                   tmp_path):
    """What a kill in the middle of a save leaves lies under another name."""
    state = tiny_model().state
    folder = tmp_path / "checkpoints/last"
    checkpoints.save(LAST, 4, _at(state, 4), {})
    seen = []
    real = os.rename

    def killed(source, target, **rest):
        seen.append((str(source), str(target)))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(LAST, 5, _at(state, 5), {})
    assert os.rename is real and seen
    assert (folder / "4").is_dir() and not (folder / "5").exists()
    left = [path.name for path in folder.iterdir() if path.name != "4"]
    assert left and all("5" in name for name in left)

    after = Checkpoints(tmp_path)
    assert after.latest_step() == 4
    got, _ = after.restore(LAST, abstract_state(state))
    assert int(got.step) == 4
    after.save(LAST, 5, _at(state, 5), {})
    assert after.latest_step() == 5
    after.close()


def test_nothing_to_restore_is_said(checkpoints, tiny_model):
    with pytest.raises(InputError, match="no checkpoint under .*last.*train"):
        checkpoints.restore(LAST, abstract_state(tiny_model().state))


def test_another_model_is_refused(checkpoints, tiny_model):
    state = tiny_model().state
    checkpoints.save(LAST, 1, state, {})
    other = state.replace(trained={"head": state.trained["head"]})
    with pytest.raises(InputError, match="last/1 does not fit"):
        checkpoints.restore(LAST, abstract_state(other))


def test_changed_settings_are_listed(tmp_path):
    saved, now = {"a": 1, "b": [1, 2], "c": 3}, {"a": 1, "b": [1], "c": 4}
    same_facts(saved, now, ("a",), tmp_path)
    with pytest.raises(InputError) as caught:
        same_facts(saved, now, ("a", "b"), tmp_path)
    assert "b: saved [1, 2], now [1]" in str(caught.value)
    assert "c:" not in str(caught.value)
