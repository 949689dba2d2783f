"""Weights of a run are the start of another one with other classes."""

import jax
import numpy as np
import pytest

from configs import quick
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.models.ops import params
from losa_jax.training import build, restore, start_from
from losa_jax.training.checkpoint import Checkpoints

OLD = ["jump", "run", "swim"]
NEW = ["dive", "swim", "jump", "walk"]


@pytest.fixture
def mesh():
    return sharding.make_mesh((1, 1, 1), jax.devices()[:1])


def _config(head="actionformer"):
    """Returns a head on features, so that there is no backbone."""
    config = quick.get_config()
    config.features.folder = "somewhere"
    config.features.width = 12
    config.adapter.kind = "none"
    config.head.kind = head
    config.head.width = 16
    config.head.num_levels = 2
    config.head.num_stem_blocks = config.head.num_embedding_convs = 1
    config.window.samples = config.window.tokens = 32
    config.window.clip_samples = 1
    return config


def _state(config, names, mesh, seed):
    config.seed = seed
    model = build.build_model(config, len(names), mesh)
    state, _ = restore.fresh_state(config, model, mesh, steps_per_epoch=1)
    return model, state, restore.run_facts(config, names, model)


def _saved(config, workdir, mesh):
    """Saves a run whose best checkpoint is not the last one."""
    model, state, facts = _state(config, OLD, mesh, seed=1)
    checkpoints, states = Checkpoints(workdir), {}

    def shifted(number):
        return jax.tree.map(lambda leaf: np.asarray(leaf) + np.asarray(
            number, leaf.dtype), state).replace(step=np.int32(number))

    for step in (3, 6):
        states[step] = shifted(step)
        checkpoints.save(step, sharding.put(
            states[step], sharding.of_leaves(state)), facts)
        checkpoints.set_evaluated(step, 1 / step)
    checkpoints.close()
    return model, jax.tree.map(np.asarray, states[3])


@pytest.mark.parametrize("head", ["actionformer", "tridet"])
def test_known_classes_keep_their_outputs(head, tmp_path, mesh, capsys):
    old_model, old = _saved(_config(head), tmp_path / "old", mesh)
    config = _config(head)
    config.train.gradient_clip = 0.0  # the optimizer's state has other parts
    model, fresh, facts = _state(config, NEW, mesh, seed=2)
    start = start_from.load_start(tmp_path / "old", facts, model, mesh, fresh)
    assert start.fact == {"folder": str(tmp_path / "old"), "step": 3,
                          "map": pytest.approx(1 / 3)}
    assert ("step 3; new classes: dive, walk; classes that are dropped: run"
            in capsys.readouterr().out)
    axes = start_from.class_axes(model, len(NEW))
    assert len(axes) == (2 if head == "actionformer" else 6)
    assert all("/out/" in name for name in axes)

    state = start.state
    got, was, new = (params.flatten(jax.tree.map(np.asarray, tree)) for tree
                     in (state.trained, old.ema, fresh.trained))
    for name, value in got.items():
        if name not in axes:
            np.testing.assert_array_equal(value, was[name])
            continue
        for number, label in enumerate(NEW):
            source, row = ((was, OLD.index(label)) if label in OLD
                           else (new, number))
            np.testing.assert_array_equal(
                value.take(number, axes[name]),
                source[name].take(row, axes[name]))
    jax.tree.map(np.testing.assert_array_equal, state.trained, state.ema)
    assert int(state.step) == 0
    np.testing.assert_array_equal(state.normalizer, old.normalizer)
    jax.tree.map(np.testing.assert_array_equal, state.statistics,
                 old.statistics)
    # The optimizer starts afresh.
    jax.tree.map(np.testing.assert_array_equal, state.optimizer,
                 fresh.optimizer)
    # The state can be donated: no buffer is in it twice.
    pointers = [leaf.unsafe_buffer_pointer()
                for leaf in jax.tree.leaves((state.trained, state.ema))]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("key, value, message", [
    ("head.width", 32, r"config.head.width: the run has 16, this command 32"
     r"(?s:.*)parameter head/.*set the keys as they are there "
     r"\(--config.head.width=16"),
    ("head.num_levels", 3, "config.head.num_levels: the run has 2"),
    ("features.width", 24, "parameter head/"),
    ("head.kind", "tridet", "config.head.kind: the run has \"actionformer\""),
])
def test_weights_of_another_model_are_refused(
        tmp_path, mesh, key, value, message):
    _saved(_config(), tmp_path, mesh)
    config = _config()
    section, name = key.split(".")
    config[section][name] = value
    model, fresh, facts = _state(config, NEW, mesh, seed=2)
    with pytest.raises(InputError, match=f"(?s)do not fit.*{message}"):
        start_from.load_start(tmp_path, facts, model, mesh, fresh)


def test_other_blocks_and_weights_of_the_backbone_are_refused(tmp_path, mesh):
    """Their shapes are the same."""
    _saved(_config(), tmp_path, mesh)
    model, fresh, facts = _state(_config(), NEW, mesh, seed=2)
    facts["backbone"], facts["tap_layers"] = "0123", [7]
    with pytest.raises(InputError, match="(?s)weights of the backbone.*"
                       r"config.adapter.tap_layers: the run has \[\]"):
        start_from.load_start(tmp_path, facts, model, mesh, fresh)


def test_a_folder_without_a_run_is_refused(tmp_path, mesh):
    model, fresh, facts = _state(_config(), NEW, mesh, seed=2)
    with pytest.raises(InputError, match="typo holds no run"):
        start_from.load_start(tmp_path / "typo", facts, model, mesh, fresh)
