"""Results on meshes of eight host devices equal those of one device."""

import dataclasses
import math
import re

import jax
import numpy as np
import optax
import pytest

from configs import activitynet, thumos
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.training import build


@pytest.fixture(scope="module")
def eight_windows():
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 20, (8, 2, 1)).astype(np.float32)
    lengths = rng.uniform(3, 9, (8, 2, 1)).astype(np.float32)
    return {
        "frames": rng.integers(0, 256, (8, 32, 16, 16, 3), np.uint8),
        "valid_samples": np.tile(np.array([32, 21], np.int32), 4),
        "segments": np.concatenate([starts, starts + lengths], -1),
        "labels": rng.integers(0, 3, (8, 2)).astype(np.int32),
        "action_valid": np.tile([[True, True], [True, False]], (4, 1)),
        "loss_weights": rng.choice(np.float32([0, 1, 3]), (8, 32, 3)),
    }


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (1, 1, 8),
                                   (2, 2, 2)])
def test_a_step_is_the_same_on_every_mesh(
        shape, tiny_model, eight_windows, run_key, monkeypatch):
    """Compares gradients, relative to each tensor's largest value, and
    parameters with the update that follows from the mesh's own gradients.

    Adam's first update divides a gradient by its size, which enlarges the
    rounding of an element near zero: from those gradients it is exact.

    The biases of attention keys have the gradient zero, because softmax
    ignores a constant that is added to all keys. What is computed for them
    is rounding, which differs between meshes: it only has to be small.
    """
    # Else nothing of so small a model would be spread over fsdp.
    monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 2**10)
    single = tiny_model()
    # Up-projections start at zero, and nothing behind them has a gradient.
    rng = np.random.default_rng(5)
    moved = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.02 * rng.normal(size=leaf.shape),
                                leaf.dtype), single.state.trained)
    start = dataclasses.replace(single.state, trained=moved, ema=moved)

    mesh = sharding.make_mesh(shape)
    model = tiny_model(mesh)
    state = sharding.put(start, sharding.parameter_shardings(start, mesh))
    want_state, want = single.step(start, single.frozen, eight_windows,
                                   run_key)
    frozen = sharding.put(model.frozen,
                          sharding.parameter_shardings(model.frozen, mesh))
    batch = sharding.put(eight_windows,
                         sharding.batch_shardings(eight_windows, mesh))
    compiled = model.step.lower(state, frozen, batch, run_key).compile()
    num_windows, crossing = 8, compiled
    if shape == (1, 8, 1):
        # With eight windows and none over `data` one tap at a time is
        # gathered. No mesh that is chosen has this shape; with two windows
        # nothing is.
        two = {name: value[:2] for name, value in eight_windows.items()}
        num_windows, crossing = 2, model.step.lower(
            state, frozen, sharding.put(
                two, sharding.batch_shardings(two, mesh)), run_key).compile()
    _crosses_only_what_is_small(crossing.as_text(), frozen, num_windows)
    got_state, got = compiled(state, frozen, batch, run_key)
    assert float(got["loss"]) == pytest.approx(float(want["loss"]), rel=1e-5)
    assert float(got["gradient_norm"]) == pytest.approx(
        float(want["gradient_norm"]), rel=1e-5)
    want_gradients = _gradients(want_state)
    largest = max(np.abs(leaf).max() for leaf in want_gradients.values())
    idle = {name for name, leaf in want_gradients.items()
            if np.abs(leaf).max() < 1e-9 * largest}
    assert idle == {
        name for name in want_gradients if name.endswith("keys")
        or name.startswith("['head']")
        and name.endswith(("['key']['bias']", "['key_norm']['bias']"))}
    got_gradients = _gradients(got_state)
    for name in want_gradients.keys() - idle:
        want_one = want_gradients[name]
        np.testing.assert_allclose(
            got_gradients[name], want_one, rtol=1e-5,
            atol=1e-5 * np.abs(want_one).max(), err_msg=name)
    start_values = _named(moved)
    # The exponential moving average takes over 0.9 of the first update.
    for tree, share in (("trained", 1.0), ("ema", 0.9)):
        ours, theirs = (_named(getattr(state, tree))
                        for state in (got_state, want_state))
        for name in theirs.keys() - idle:
            value = start_values[name]
            expected = value + share * _first_update(
                name, value, got_gradients[name])
            off = np.linalg.norm(ours[name] - expected)
            assert off <= 1e-5 * np.linalg.norm(expected), name
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5,
                                       atol=2e-5, err_msg=name)
    for name in idle:
        moved_by = _named(got_state.trained)[name] - start_values[name]
        assert np.abs(moved_by).max() < 1e-4


def _named(tree):
    named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf
             in jax.tree_util.tree_leaves_with_path(tree)}
    for name in [name for name in named if "['key_value']['bias']" in name]:
        bias = named.pop(name)
        named[f"{name} keys"], named[f"{name} values"] = np.split(
            bias, 2, axis=-1)
    return named


def _gradients(state):
    """Returns Adam's first moment, a tenth of the first step's gradients."""
    return _named(optax.tree.get(state.optimizer, "mu"))


def _first_update(name, value, moment):
    """Returns AdamW's first update in float64, with the tiny model's rates."""
    gradient = 10 * moment.astype(np.float64)
    rate = 0.005 if name.startswith("['adapter']") else 0.01
    decay = 0.05 if name.endswith("['kernel']") else 0.0
    return -rate * (gradient / (np.abs(gradient) + 1e-8) + decay * value)


def _exchanged_arrays(text):
    """Returns operands and results of all collectives, as "bf16[8,128]"."""
    shapes, collectives = {}, []
    for name, shape, opcode, operands in re.findall(
            r"^ *(?:ROOT )?%?([\w.\-]+) = (.+?) ([\w\-]+)\((.*)$", text,
            re.MULTILINE):
        shapes[name] = shape
        if re.match("all-|reduce-scatter|collective-permute", opcode):
            collectives += [name, *re.findall(r"%([\w.\-]+)",
                                              operands.partition(")")[0])]
    return {array for name in collectives for array in re.findall(
        r"\w+\[[\d,]*\]", shapes[name])}


def _size(array):
    sides = array[array.index("[") + 1:-1].split(",")
    return math.prod(int(side) for side in sides if side)


def _crosses_only_what_is_small(text, frozen, num_windows):
    """Asserts that devices exchange neither pixels nor taps."""
    arrays = _exchanged_arrays(text)
    assert arrays  # gradients at least
    assert not any(array.startswith("u8") for array in arrays), arrays
    # Of 2 taps, 8 clips, 2 steps, 2 x 2 cells and 64 channels.
    taps = 2 * num_windows * 8 * 2 * 4 * 64
    weights = {leaf.size for leaf in jax.tree.leaves(frozen)}
    for array in arrays:
        size = _size(array)
        # Half of them, gathered over one axis, would be too many too.
        assert size < taps / 2 or size in weights or 3 * size in weights, array


def test_large_parameters_are_spread_over_fsdp():
    mesh = sharding.make_mesh((1, 1, 8))
    tree = {"large": np.zeros((3, 512, 128)), "small": np.zeros((8, 8)),
            "odd": np.zeros((513, 129))}
    specs = sharding.parameter_shardings(tree, mesh)
    assert tuple(specs["large"].spec) == (None, "fsdp", None)
    assert tuple(specs["small"].spec) == ()
    assert tuple(specs["odd"].spec) == ()
    placed = sharding.put(tree, specs)
    assert placed["large"].addressable_shards[0].data.shape == (3, 64, 128)


@pytest.mark.parametrize("devices, batch, clips, want", [
    (1, 2, 16, (1, 1, 1)), (8, 2, 16, (2, 1, 4)), (8, 16, 48, (8, 1, 1)),
    (32, 2, 48, (2, 1, 16)), (8, 1, 6, (1, 2, 4)),
])
def test_axes_are_chosen(devices, batch, clips, want):
    assert sharding.mesh_shape(devices, batch, clips, data=0, clip=0,
                               fsdp=0) == want


@pytest.mark.parametrize("recipe, devices, want", [
    (thumos, 8, (2, 1, 4)), (thumos, 16, (2, 1, 8)), (thumos, 32, (2, 1, 16)),
    (thumos, 64, (2, 1, 32)), (thumos, 128, (2, 32, 2)),
    (activitynet, 8, (8, 1, 1)), (activitynet, 16, (16, 1, 1)),
    (activitynet, 32, (16, 1, 2)), (activitynet, 64, (16, 1, 4)),
    (activitynet, 128, (16, 1, 8)),
])
def test_the_mesh_of_a_recipe_follows_its_training_batch(
        recipe, devices, want):
    mesh = build.build_mesh(recipe.get_config("g1536"), [None] * devices)
    assert tuple(mesh.shape.values()) == want


def test_an_evaluation_batch_is_rounded_up_to_the_mesh():
    config = activitynet.get_config()
    for devices, want in (1, 2), (2, 2), (8, 8), (128, 16):
        mesh = build.build_mesh(config, [None] * devices)
        assert config.evaluate.batch_windows == 2
        assert build.evaluation_windows(config, mesh.shape) == want


def test_an_axis_may_divide_the_training_batch_alone():
    config = activitynet.get_config()
    config.mesh.data = 8
    assert build.build_mesh(config, [None] * 8).shape["data"] == 8


@pytest.mark.parametrize("devices, batch, axes, message", [
    (8, 2, (2, 4, 4), "is 32 devices, there are 8; set an axis to 0"),
    (8, 16, (16, 0, 0), "mesh.data=16 must divide the 8 devices and "
     "config.train.batch_windows=16: take 8"),
    (8, 2, (8, 1, 1), "data=8 .*batch_windows=2: take 2"),
    (10, 16, (5, 0, 0), "data=5 must divide the 10 devices .*: take 2"),
    (1, 2, (2, 0, 0), "data=2 must divide the 1 devices .*: take 1"),
    (8, 2, (0, 8, 0), "clip=8 .* the 12 clips of a window .*: take 4"),
    (8, 2, (0, 3, 0), "clip=3 must divide the 8 devices .*: take 2"),
    (8, 2, (0, 0, 3), "fsdp=3 must divide the 8 devices: take 2"),
])
def test_wrong_axes_are_refused_with_the_nearest(devices, batch, axes,
                                                 message):
    with pytest.raises(InputError, match=message):
        sharding.mesh_shape(devices, batch, 12, **dict(
            zip(sharding.AXES, axes, strict=True)))


def test_each_device_reads_only_its_slice(tmp_path):
    """Host memory never holds the whole array twice."""
    whole = np.arange(8 * 1024 * 64, dtype=np.float32).reshape(
        8, 1024, 64) % 2048
    read = []

    class Watched:
        shape, ndim, dtype = whole.shape, whole.ndim, whole.dtype

        def __getitem__(self, index):
            read.append(whole[index].size)
            return whole[index]

    mesh = sharding.make_mesh((1, 1, 8))
    tree = {"kernel": Watched()}
    placed = sharding.read_onto_mesh(
        tree, mesh, lambda leaf: np.float16)["kernel"]
    assert placed.dtype == np.float16
    assert max(read) == whole.size // 8
    np.testing.assert_array_equal(placed, whole.astype(np.float16))
