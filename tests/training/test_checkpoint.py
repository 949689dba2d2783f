"""Checkpoints are restored exactly; the latest and the best are kept."""

import asyncio
import concurrent.futures
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
from losa_jax.training.checkpoint import BEST, LAST, Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    with_folder = Checkpoints(tmp_path)
    yield with_folder
    with contextlib.suppress(InputError):  # reported already
        with_folder.close()


def _at(state, step):
    return state.replace(step=np.int32(step) + jax.numpy.zeros((), "int32"))


def test_round_trip_is_exact(checkpoints, tiny_model):
    state = _at(tiny_model().state, 7)
    checkpoints.save(7, state, {"epoch": 2, "names": ["a"]})
    got, facts = checkpoints.restore(LAST, state)
    assert facts == {"epoch": 2, "names": ["a"]}
    jax.tree.map(np.testing.assert_array_equal, got, state)


def test_arrays_on_all_devices_are_saved_without_compiling(
        checkpoints, caplog):
    mesh = sharding.make_mesh((8, 1, 1))
    arrays = jax.device_put(
        {size: np.arange(size, dtype=np.float32) for size in (8, 16, 24)},
        sharding.replicated(mesh))
    jax.block_until_ready(arrays)
    with jax.log_compiles(True):
        checkpoints.save(1, arrays, {})
        checkpoints.wait()
    assert "Compiling" not in caplog.text
    got, _ = checkpoints.restore(LAST, arrays)
    jax.tree.map(np.testing.assert_array_equal, got, arrays)


def _kept(workdir):
    return {path.name for path in (workdir / "checkpoints").iterdir()
            if path.is_dir()}


def test_the_best_survives_newer_checkpoints(checkpoints, tiny_model,
                                             tmp_path):
    state = tiny_model().state
    for step, average_map in ((1, 0.25), (2, 0.5), (3, 0.5), (4, None),
                              (5, None)):
        checkpoints.save(step, _at(state, step), {"saved": step})
        if average_map is not None:
            checkpoints.set_evaluated(step, average_map)
    assert checkpoints.latest_step() == 5
    assert _kept(tmp_path) == {"2", "4", "5"}
    for manager in (checkpoints, Checkpoints(tmp_path)):
        got, facts = manager.restore(BEST, state)
        assert facts == {"saved": 2} and int(got.step) == 2
        got, facts = manager.restore(LAST, state)
        assert facts == {"saved": 5} and int(got.step) == 5
        assert manager.facts() == {"saved": 5}
        assert (manager.evaluated_step(), manager.best_map()) == (3, 0.5)
    checkpoints.save(6, _at(state, 6), {})
    checkpoints.set_evaluated(6, 0.75)
    assert _kept(tmp_path) == {"2", "5", "6"}
    checkpoints.save(7, _at(state, 7), {})
    checkpoints.wait()
    assert _kept(tmp_path) == {"6", "7"}
    assert int(checkpoints.restore(BEST, state)[0].step) == 6


def test_what_was_evaluated_is_refused_where_it_is_damaged(
        checkpoints, tiny_model, tmp_path):
    checkpoints.save(1, tiny_model().state, {})
    checkpoints.set_evaluated(1, 0.25)
    (tmp_path / "checkpoints/evaluated.json").write_text('{"last_step": 1')
    with pytest.raises(InputError, match="evaluated.json is damaged"):
        Checkpoints(tmp_path)


def test_only_the_newest_are_kept_where_none_is_best(
        checkpoints, tiny_model, tmp_path):
    assert checkpoints.latest_step() is None
    for step in (1, 2, 3):
        checkpoints.save(step, tiny_model().state, {})
    checkpoints.wait()
    assert _kept(tmp_path) == {"2", "3"}
    assert checkpoints.latest_step() == 3 and not checkpoints.has_best()


def test_a_run_that_was_killed_while_it_evaluated_resumes_there(
        checkpoints, tiny_model, tmp_path):
    class Iterator:
        state = {"next_index": 6}

        def get_state(self):
            return self.state

        def set_state(self, state):
            self.state = state

    state = tiny_model().state
    checkpoints.save(4, _at(state, 4), {}, Iterator())
    checkpoints.set_evaluated(4, 0.5)
    checkpoints.save(6, _at(state, 6), {"epoch": 3}, Iterator())
    checkpoints.wait()
    resumed = Iterator()
    resumed.state = {}
    after = Checkpoints(tmp_path)
    got, facts = after.restore(LAST, state, resumed)
    assert facts == {"epoch": 3} and int(got.step) == 6
    assert resumed.state == {"next_index": 6}
    assert after.evaluated_step() == 4


@pytest.mark.parametrize("name", ["last", "best"])
def test_checkpoints_of_an_older_version_are_refused(tmp_path, name):
    (tmp_path / "checkpoints" / name / "7").mkdir(parents=True)
    with pytest.raises(InputError, match="written by an older version.*"
                                         "choose another --workdir"):
        Checkpoints(tmp_path)


@pytest.fixture
def renames(monkeypatch):
    """Checkpoints that got their names, in order; whose folder's name is in
    `held` waits for `go`, and fails where `error` is set."""
    renames = types.SimpleNamespace(done=[], held="", go=threading.Event(),
                                  error=None)
    real = os.rename

    def rename(source, target, **rest):
        if renames.held and renames.held in str(target):
            assert renames.go.wait(60)
            if renames.error is not None:
                raise renames.error
        renames.done.append("/".join(str(target).split("/")[-2:]))
        return real(source, target, **rest)

    monkeypatch.setattr(os, "rename", rename)
    yield renames
    renames.go.set()


def test_an_incomplete_checkpoint_is_never_restored(
        checkpoints, tiny_model, tmp_path, renames):
    """Nor does the training wait for it, or spoil what is being written."""
    state = _at(tiny_model().state, 4)
    checkpoints.save(4, state, {})
    assert checkpoints.latest_step() == 4  # waits
    state = _at(jax.tree.map(jax.numpy.copy, state), 5)
    want = jax.tree.map(np.array, state)
    renames.held = "checkpoints/5"
    checkpoints.save(5, state, {})
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
               for path in (tmp_path / "checkpoints").iterdir())
    renames.go.set()
    checkpoints.wait()
    after = Checkpoints(tmp_path)
    got, _ = after.restore(LAST, spoiled)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    after.close()


def test_the_old_best_is_kept_until_a_new_one_is_evaluated(
        checkpoints, tiny_model, tmp_path, renames):
    state = tiny_model().state
    checkpoints.save(1, state, {})
    checkpoints.set_evaluated(1, 0.25)
    for step in (2, 3):
        checkpoints.save(step, state, {})
    checkpoints.wait()
    renames.held = "checkpoints/4"
    checkpoints.save(4, state, {})
    time.sleep(0.3)
    assert {"1", "2", "3"} <= _kept(tmp_path)
    assert Checkpoints(tmp_path).has_best()
    renames.go.set()
    checkpoints.set_evaluated(4, 0.5)
    assert {"1", "4"} <= _kept(tmp_path)
    checkpoints.save(5, state, {})
    checkpoints.wait()
    assert _kept(tmp_path) == {"4", "5"}


def test_a_failed_write_is_reported(checkpoints, tiny_model, tmp_path,
                                    renames):
    state = tiny_model().state
    checkpoints.save(1, state, {})
    checkpoints.wait()
    renames.held = "checkpoints/2"
    renames.error = OSError(errno.ENOSPC, "No space left on device")
    checkpoints.save(2, state, {})
    checkpoints.check()
    renames.go.set()
    message = "(?s)checkpoints/2 could not be written .*No space left.*complete"
    with pytest.raises(InputError, match=message):
        for _ in range(600):  # as steps go by
            checkpoints.check()
            time.sleep(0.1)
    with pytest.raises(InputError, match=message), checkpoints.awaited():
        pass
    renames.held = ""
    left = tmp_path / "checkpoints"
    assert not list(left.glob("2.orbax*"))  # its space is free again
    after = Checkpoints(tmp_path, only_writer=True)
    assert after.latest_step() == 1
    after.save(3, state, {})
    assert after.latest_step() == 3
    assert not list(left.glob("2.orbax*"))
    after.close()


def test_a_missing_checkpoint_is_reported(checkpoints, tiny_model):
    with pytest.raises(InputError,
                       match="no checkpoint under .*checkpoints.*train"):
        checkpoints.restore(LAST, tiny_model().state)


def test_another_model_is_refused(checkpoints, tiny_model):
    state = tiny_model().state
    checkpoints.save(1, state, {})
    other = state.replace(trained={"head": state.trained["head"]})
    with pytest.raises(InputError, match="checkpoints/1 does not fit"):
        checkpoints.restore(LAST, other)


def test_threads_may_call_closed_event_loops(checkpoints):
    """TensorStore's do so thousands of times on a full disk."""
    loop = asyncio.new_event_loop()
    loop.close()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(loop.call_soon_threadsafe, print).result()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)
