"""Checkpoints come back as they were, and a repeated one replaces the old."""

import contextlib
import errno
import os
import threading
import time
import types

import jax
import numpy as np
import pytest

from losa_jax.distributed import sharding
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
    with contextlib.suppress(InputError):  # told already
        with_folder.close()


def _at(state, step):
    return state.replace(step=np.int32(step) + jax.numpy.zeros((), "int32"))


def test_round_trip_is_exact(checkpoints, tiny_model):
    state = _at(tiny_model().state, 7)
    checkpoints.save(LAST, 7, state, {"best_map": 0.25, "names": ["a"]})
    got, facts = checkpoints.restore(LAST, abstract_state(state))
    assert facts == {"best_map": 0.25, "names": ["a"]}
    jax.tree.map(np.testing.assert_array_equal, got, state)


def test_arrays_on_all_devices_are_saved_without_compiling(
        checkpoints, caplog):
    mesh = sharding.make_mesh((8, 1, 1))
    arrays = jax.device_put(
        {size: np.arange(size, dtype=np.float32) for size in (8, 16, 24)},
        sharding.replicated(mesh))
    jax.block_until_ready(arrays)
    with jax.log_compiles(True):
        checkpoints.save(LAST, 1, arrays, {})
        checkpoints.wait()
    assert "Compiling" not in caplog.text
    got, _ = checkpoints.restore(LAST, abstract_state(arrays))
    jax.tree.map(np.testing.assert_array_equal, got, arrays)


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
    checkpoints.wait()
    kept = {p.name for p in (tmp_path / "checkpoints/last").iterdir()}
    assert kept == {"2", "3"} and checkpoints.latest_step() == 3


@pytest.fixture
def renames(monkeypatch):
    """Checkpoints that got their names, in order; whose folder's name is in
    `held` waits for `go`, and fails where `error` is set."""
    found = types.SimpleNamespace(done=[], held="", go=threading.Event(),
                                  error=None)
    real = os.rename

    def rename(source, target, **rest):
        if found.held and found.held in str(target):
            assert found.go.wait(60)
            if found.error is not None:
                raise found.error
        found.done.append("/".join(str(target).split("/")[-2:]))
        return real(source, target, **rest)

    monkeypatch.setattr(os, "rename", rename)
    yield found
    found.go.set()


def test_a_half_written_checkpoint_is_never_picked(
        checkpoints, tiny_model, tmp_path, renames):
    """Nor does the training wait for it, or spoil what is being written."""
    state = _at(tiny_model().state, 4)
    checkpoints.save(LAST, 4, state, {})
    assert checkpoints.latest_step() == 4  # waits
    state = _at(jax.tree.map(jax.numpy.copy, state), 5)
    want = jax.tree.map(np.array, state)
    renames.held = "last/5"
    checkpoints.save(LAST, 5, state, {})
    spoiled = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree),
        donate_argnums=0)(state)
    # On a CPU jax copies, and does not donate, what the writer still looks at.
    jax.tree.map(lambda leaf: leaf.delete(), state)
    checkpoints.check()
    # What a kill would leave now lies under another name.
    after = Checkpoints(tmp_path)
    assert after.latest_step() == 4
    assert any("5.orbax" in path.name
               for path in (tmp_path / "checkpoints/last").iterdir())
    renames.go.set()
    checkpoints.wait()
    after = Checkpoints(tmp_path)
    got, _ = after.restore(LAST, abstract_state(spoiled))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    after.close()


def test_the_last_one_is_whole_after_the_best_it_knows_of(
        checkpoints, tiny_model, renames):
    state = tiny_model().state
    renames.held = "best/3"
    checkpoints.save(BEST, 3, state, {})
    checkpoints.save(LAST, 3, state, {})
    time.sleep(0.3)
    assert [name for name in renames.done if "/3" in name] == []
    renames.go.set()
    checkpoints.wait()
    assert [name for name in renames.done if "/3" in name] == [
        "best/3", "last/3"]


def test_a_write_that_fails_is_told(checkpoints, tiny_model, tmp_path,
                                    renames):
    state = tiny_model().state
    checkpoints.save(LAST, 1, state, {})
    checkpoints.wait()
    renames.held = "last/2"
    renames.error = OSError(errno.ENOSPC, "No space left on device")
    checkpoints.save(LAST, 2, state, {})
    checkpoints.check()
    renames.go.set()
    message = "(?s)last/2 could not be written .*No space left.*whole"
    with pytest.raises(InputError, match=message):
        for _ in range(600):  # as steps go by
            checkpoints.check()
            time.sleep(0.1)
    with pytest.raises(InputError, match=message), checkpoints.awaited():
        pass
    renames.held = ""
    left = tmp_path / "checkpoints/last"
    assert len(list(left.glob("2.orbax*"))) == 1
    after = Checkpoints(tmp_path, only_writer=True)
    assert after.latest_step() == 1
    after.save(LAST, 3, state, {})
    assert after.latest_step() == 3
    assert not list(left.glob("2.orbax*"))
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


def test_only_entries_that_differ_are_listed(tmp_path):
    saved = {"model": {"head": {"kind": "tridet", "width": 8}, "size": 96}}
    now = {"model": {"head": {"kind": "tridet", "width": 4, "new": [1]},
                     "size": 96}}
    with pytest.raises(InputError) as raised:
        same_facts(saved, now, ("model",), tmp_path)
    assert [line.strip() for line in str(raised.value).splitlines()[1:-1]] == [
        "model.head.width: saved 8, now 4",
        "model.head.new: saved null, now [1]"]
