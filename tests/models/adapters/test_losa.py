"""LoSA: step 0, padding, ranges, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.adapters.attention_pool import AttentionPool
from losa_jax.models.adapters.base import check_features
from losa_jax.models.adapters.losa import (
    LongRangeAdapter,
    LosaAdapter,
    LosaSpec,
    ShortRangeAdapter,
)
from losa_jax.models.ops.params import Template, flatten, nest, parameters


def _spec(**changes):
    values = dict(in_width=12, width=8, num_taps=2, clip_tokens=4,
                  tap_grid=(3, 3), attention_heads=2)
    return LosaSpec(**{**values, **changes})


def _inputs(clips=3, b=2):
    rng = np.random.default_rng(0)
    last = jnp.asarray(rng.normal(size=(b, clips, 4, 12)), jnp.float32)
    taps = jnp.asarray(rng.normal(size=(2, b, clips, 4, 3, 3, 12)),
                       jnp.float32)
    return last, taps, jnp.ones((b, clips, 4), bool)


def _perturbed(spec, dtype=np.float32):
    flat = flatten(parameters(LosaAdapter(spec, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(1)
    tree = nest({name: (leaf + 0.3 * rng.normal(size=leaf.shape)).astype(
        dtype) for name, leaf in flat.items()})
    return Template(lambda: LosaAdapter(spec, rngs=nnx.Rngs(0))).bind(tree)


def test_long_range_attention_sees_the_whole_window():
    last, taps, valid = _inputs()
    model = _perturbed(_spec(ranges="long", long_mixer="attention"))
    before = model(last, taps, valid)
    changed = taps.at[:, :, 1, 0].add(np.linspace(0, 3, 12))
    moved = np.abs(np.asarray(model(last, changed, valid) - before))
    assert (moved.max((0, 2)) > 1e-6).all()


@pytest.mark.parametrize("tap_pool", ["grid", "attention"])
@pytest.mark.parametrize("gates", ["none", "tanh", "sigmoid"])
@pytest.mark.parametrize("ranges", ["short", "long", "both"])
def test_step_zero_is_exactly_the_last_layer(gates, ranges, tap_pool):
    last, taps, valid = _inputs()
    model = LosaAdapter(_spec(gates=gates, ranges=ranges, tap_pool=tap_pool),
                        rngs=nnx.Rngs(0))
    out = model(last, taps, valid)
    np.testing.assert_array_equal(out, last.reshape(2, 12, 12))


@pytest.mark.parametrize("changes", [
    {"gates": "none"}, {"gates": "tanh"}, {"gates": "sigmoid"},
    {"tap_pool": "attention"}, {"cross_attention": False},
    {"short_kernel": 1, "long_grid": 1}])
def test_every_adapter_starts_to_learn(changes):
    """The zero start must not be a fixed point: after one step of gradient
    descent every up-projection or gate has moved, and then everything has a
    gradient."""
    last, taps, valid = _inputs()
    spec = _spec(**changes)
    template = Template(lambda: LosaAdapter(spec, rngs=nnx.Rngs(0)))
    tree = parameters(LosaAdapter(spec, rngs=nnx.Rngs(0)))
    target = np.random.default_rng(2).normal(size=(2, 12, 12))

    @jax.jit
    def gradient(tree):
        return jax.grad(lambda tree: jnp.mean(
            (template.bind(tree)(last, taps, valid) - target) ** 2))(tree)

    for _ in range(4):
        tree = jax.tree.map(lambda p, g: p - 0.5 * g, tree, gradient(tree))
    dead = [name for name, leaf in flatten(gradient(tree)).items()
            if not np.abs(leaf).max() > 0]
    assert dead == []


@pytest.mark.parametrize("tap_pool", ["grid", "attention"])
def test_no_gradient_into_the_taps(tap_pool):
    last, taps, valid = _inputs()
    model = _perturbed(_spec(tap_pool=tap_pool))
    gradient = jax.grad(lambda taps: model(last, taps, valid).sum())(taps)
    np.testing.assert_array_equal(gradient, 0.0)


def test_short_range_stays_in_its_clip():
    last, taps, valid = _inputs()
    model = _perturbed(_spec(ranges="short"))
    before = model(last, taps, valid)
    changed = taps.at[:, :, 1].add(1.0)
    after = model(last, changed, valid)
    moved = np.abs(np.asarray(after - before)).max(-1).reshape(2, 3, 4)
    assert (moved[:, 1] > 0).all()
    assert (moved[:, [0, 2]] == 0).all()


@pytest.mark.parametrize("kernel, reach", [(3, 1), (7, 3)])
def test_long_range_crosses_clips_by_its_kernel(kernel, reach):
    last, taps, valid = _inputs()
    model = _perturbed(_spec(ranges="long", long_kernel=kernel))
    before = model(last, taps, valid)
    # Token 4 is the first of the second clip.
    changed = taps.at[:, :, 1, 0].add(1.0)
    after = model(last, changed, valid)
    moved = np.abs(np.asarray(after - before)).max((0, 2)) > 0
    np.testing.assert_array_equal(np.flatnonzero(moved),
                                  np.arange(4 - reach, 4 + reach + 1))


@pytest.mark.parametrize("long_grid", [1, 2, 9])
def test_the_long_range_reads_its_map_of_the_tap(long_grid):
    """Cells that are equal give what they give one by one; 9 is every cell."""
    last, taps, valid = _inputs()
    adapters = [LongRangeAdapter(_spec(long_grid=side), nnx.Rngs(0))
                for side in (0, long_grid)]
    equal = jnp.broadcast_to(taps[0][..., :1, :1, :], taps[0].shape)
    each, pooled = (one(equal, valid) for one in adapters)
    np.testing.assert_allclose(pooled, each, atol=1e-5)
    each, pooled = (one(taps[0], valid) for one in adapters)
    assert np.allclose(pooled, each, atol=1e-5) == (long_grid == 9)


def test_a_long_range_map_of_one_cell_is_a_formula_of_the_mean():
    """LayerNorm, GELU and the convolution along time by NumPy."""
    last, taps, valid = _inputs(clips=2, b=1)
    model = LongRangeAdapter(_spec(long_grid=1), nnx.Rngs(0))

    def linear(layer, x):
        return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

    mean = np.asarray(taps[0]).reshape(8, 9, 12).mean(1)
    x = np.asarray(jax.nn.gelu(linear(model.down, mean), approximate=False))
    kernel = np.asarray(model.mixer.kernel[...])
    padded = np.pad(x, ((1, 1), (0, 0)))
    x = x + linear(model.pointwise, sum(
        padded[i:i + 8] * kernel[i] for i in range(3)))
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-6)
    hidden = jax.nn.gelu(linear(model.mlp.fc1, normed), approximate=False)
    np.testing.assert_allclose(
        model(taps[0], valid)[0], x + linear(model.mlp.fc2,
                                             np.asarray(hidden)), atol=1e-5)


@pytest.mark.parametrize("changes", [
    {"ranges": "short"}, {"ranges": "long"}, {"ranges": "both"},
    {"long_mixer": "attention"},
    {"long_mixer": "attention", "long_key_pool": 4},
    {"tap_pool": "attention"}])
def test_padding_never_leaks(changes):
    """In float64: other lengths of window are other matrix products, whose
    rounding in float32 is as large as a small leak."""
    last, taps, _ = _inputs(clips=4, b=1)
    real = 6  # the second clip is half padding
    outputs = []
    with jax.enable_x64(True):
        model = _perturbed(_spec(**changes), np.float64)
        for clips, junk in ((2, 0.0), (2, 5.0), (4, 3.0)):
            valid = jnp.arange(clips * 4).reshape(1, clips, 4) < real
            some_last = jnp.where(valid[..., None], last[:, :clips], 0.0)
            some_taps = jnp.where(valid[None, ..., None, None, None],
                                  taps[:, :, :clips], junk)
            out = model(some_last.astype(np.float64),
                        some_taps.astype(np.float64), valid)
            assert out.dtype == np.float64
            outputs.append(np.asarray(out)[:, :real])
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=0, atol=1e-6)


def test_taps_add_up():
    """Two taps give what each alone gives, summed: one number by hand."""
    last, taps, valid = _inputs()
    model = _perturbed(_spec())
    both = model(last, taps, valid) - last.reshape(2, 12, 12)
    single = sum(
        jax.tree.map(lambda leaf, i=i: leaf[i], model.taps)(
            taps[i], last, valid) for i in range(2))
    np.testing.assert_allclose(both, single, atol=1e-5)


def test_without_tap_residual_attention_alone_carries_the_tap():
    last, taps, valid = _inputs()
    with_residual = LosaAdapter(_spec(ranges="short"), rngs=nnx.Rngs(0))
    without = LosaAdapter(_spec(ranges="short", tap_residual=False),
                   rngs=nnx.Rngs(0))
    one = jax.tree.map(lambda leaf: leaf[0], with_residual.taps).short
    other = jax.tree.map(lambda leaf: leaf[0], without.taps).short
    assert float(jnp.abs(one(taps[0], last, valid)).max()) > 0
    # The zero-initialized output projection makes it the MLP of zero.
    np.testing.assert_array_equal(other(taps[0], last, valid), 0.0)


def test_without_cross_attention_a_token_sees_itself_alone():
    last, taps, valid = _inputs()
    model = _perturbed(_spec(ranges="short", cross_attention=False))
    names = flatten(parameters(model))
    assert not any(part in name for name in names
                   for part in ("query", "key", "out", "from_last"))
    before = model(last, taps, valid)
    moved = model(last, taps.at[:, :, 1, 2].add(1.0), valid) - before
    np.testing.assert_array_equal(
        np.flatnonzero(np.abs(np.asarray(moved)).max((0, 2))), [1 * 4 + 2])


def test_the_sums_after_each_tap_end_with_the_result():
    """The first is that of a model whose second tap adds nothing."""
    last, taps, valid = _inputs()
    model = _perturbed(_spec())
    sums = model.sums(last, taps, valid)
    np.testing.assert_array_equal(sums[-1], model(last, taps, valid))
    for gate in (model.taps.short_gate, model.taps.long_gate):
        gate.gate[...] = gate.gate[...].at[1].set(0.0)
    np.testing.assert_allclose(sums[0], model(last, taps, valid), atol=1e-6)


def test_the_short_range_output_depends_on_the_places_of_patches():
    """The cross-attention starts silent, so only the pool is left."""
    spec = _spec(short_grid=3)
    adapter = ShortRangeAdapter(spec, nnx.Rngs(0))
    last, taps, valid = _inputs()
    # A kernel that sees no neighbors: cells can change places freely.
    moved = taps[0][..., ::-1, :, :]
    here, there = (np.asarray(adapter(tap, last, valid))
                   for tap in (taps[0], moved))
    assert not np.allclose(here, there, atol=1e-5)


def test_attention_pools_by_content_and_by_position():
    """A query takes one cell if its score is large, wherever it is."""
    rng = np.random.default_rng(0)
    pool = AttentionPool(12, 9, 2, nnx.Rngs(0))
    tap = jnp.asarray(rng.normal(size=(1, 1, 4, 3, 3, 12)), jnp.float32)
    places = pool.positions[...].reshape(3, 3, 12)
    # Queries that look for the token of the cell (2, 1) of the first step,
    # and for the position of the cell (0, 2).
    pool.queries[...] = 1000 * jnp.stack([tap[0, 0, 0, 2, 1] + places[2, 1],
                                          places[0, 2]])
    pooled = pool(tap)
    assert pooled.shape == (1, 1, 4, 2, 1, 12)
    np.testing.assert_allclose(pooled[0, 0, 0, 0, 0],
                               tap[0, 0, 0, 2, 1] + places[2, 1], atol=1e-5)
    still = pool(jnp.zeros_like(tap))
    np.testing.assert_allclose(
        still[..., 1, 0, :], jnp.broadcast_to(places[0, 2], (1, 1, 4, 12)),
        atol=1e-5)


def test_queries_of_size_zero_give_the_mean_of_the_cells():
    pool = AttentionPool(12, 9, 2, nnx.Rngs(0))
    pool.queries[...] = jnp.zeros((2, 12))
    _, taps, _ = _inputs()
    mean = taps[0].mean((3, 4)) + pool.positions[...].mean(0)
    np.testing.assert_allclose(
        pool(taps[0]), jnp.broadcast_to(
            mean[..., None, None, :], (2, 3, 4, 2, 1, 12)), atol=1e-5)


@pytest.mark.parametrize("tap_pool", ["grid", "attention"])
def test_the_gradient_stores_no_copies_of_many_taps(tap_pool):
    """Its memory is bounded by one tap's copies (16 times the taps else)."""
    spec = _spec(in_width=64, num_taps=8, tap_grid=(4, 4), tap_pool=tap_pool)
    template = Template(lambda: LosaAdapter(spec, rngs=nnx.Rngs(0)))
    tree = jax.eval_shape(
        lambda: parameters(LosaAdapter(spec, rngs=nnx.Rngs(0))))
    last = jax.ShapeDtypeStruct((1, 16, 4, 64), np.float32)
    taps = jax.ShapeDtypeStruct((8, 1, 16, 4, 4, 4, 64), np.float32)
    valid = jax.ShapeDtypeStruct((1, 16, 4), bool)

    def loss(parameters, last, taps, valid):
        return jnp.square(template.bind(parameters)(last, taps, valid)).sum()

    compiled = jax.jit(jax.grad(loss)).lower(
        tree, last, taps, valid).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 2.5 * np.prod(taps.shape) * 4


@pytest.mark.parametrize("wrong, message", [
    ({"in_width": 0}, "LosaSpec.in_width=0: must be at least 1"),
    ({"num_taps": 1.5}, "LosaSpec.num_taps=1.5: .* a whole number"),
    ({"clip_tokens": 0}, "LosaSpec.clip_tokens=0"),
    ({"tap_grid": 3}, "LosaSpec.tap_grid=3: give a tuple of two whole"),
    ({"tap_grid": [3, 3]}, "LosaSpec.tap_grid=.*: give a tuple of two"),
    ({"tap_grid": (3, 0)}, r"LosaSpec.tap_grid=\(3, 0\)"),
    ({"tap_grid": (3, 3, 3)}, r"LosaSpec.tap_grid=\(3, 3, 3\)"),
    ({"width": -8}, "LosaSpec.width=-8"),
    ({"width": 30, "attention_heads": 4},
     "LosaSpec.width=30 does not divide by LosaSpec.attention_heads=4"),
    ({"attention_heads": 0}, "LosaSpec.attention_heads=0"),
    ({"attention_heads": 8, "long_mixer": "attention"},
     "must be a multiple of 2 x LosaSpec.attention_heads=8"),
    ({"short_grid": 0}, "LosaSpec.short_grid=0"),
    ({"short_kernel": 5}, "LosaSpec.short_kernel=5: choose one of 1, 3"),
    ({"long_grid": -1}, "LosaSpec.long_grid=-1"),
    ({"mlp_ratio": 0}, "LosaSpec.mlp_ratio=0: must be above 0"),
    ({"mlp_ratio": float("nan")}, "LosaSpec.mlp_ratio=nan"),
    ({"mlp_ratio": 0.1}, "LosaSpec.mlp_ratio=0.1 .* is below 1"),
    ({"long_kernel": 4}, "LosaSpec.long_kernel=4: must be an odd number"),
    ({"long_key_pool": 0}, "LosaSpec.long_key_pool=0"),
    ({"tap_residual": "no"}, "LosaSpec.tap_residual='no': .* True, False"),
    ({"tap_pool": "mean"},
     "LosaSpec.tap_pool='mean': choose one of grid, attention"),
    ({"pool_queries": 0}, "LosaSpec.pool_queries=0: must be at least 1"),
    ({"pool_queries": 8}, "LosaSpec.pool_queries=8 has no effect with "
     "LosaSpec.tap_pool=grid: .* set LosaSpec.tap_pool=attention"),
    ({"tap_pool": "attention", "short_grid": 3},
     "LosaSpec.short_grid=3 has no effect with LosaSpec.tap_pool=attention"),
    ({"tap_pool": "attention", "short_kernel": 1},
     "LosaSpec.short_kernel=1 has no effect with LosaSpec.tap_pool=attention"),
    ({"tap_pool": "attention", "tap_grid": (1, 1)},
     r"tap_pool=attention has nothing .* LosaSpec.tap_grid=\(1, 1\)"),
    ({"tap_residual": False, "cross_attention": False},
     "LosaSpec.tap_residual=False and LosaSpec.cross_attention=False leave"),
    ({"gates": "tnah"}, "LosaSpec.gates='tnah': choose one of none, tanh"),
    ({"long_mixer": "atention"}, "LosaSpec.long_mixer='atention'")])
def test_invalid_specs_raise_an_error_that_names_the_field(wrong, message):
    with pytest.raises(InputError, match=message):
        _spec(**wrong)


@pytest.mark.parametrize("place, shape, message", [
    (0, (2, 3, 4, 10), r"last has shape .*10\): .* needs \(2, 3, 4, 12\)"),
    (1, (1, 2, 3, 4, 3, 3, 12), r"taps .* needs \(2, 2, 3, 4, 3, 3, 12\)"),
    (1, (2, 2, 3, 4, 6, 6, 12), "taps .* needs"),
    (2, (2, 12), r"valid .* needs \(2, 3, 4\)")])
def test_features_of_other_sizes_are_refused(place, shape, message):
    inputs = list(_inputs())
    inputs[place] = jnp.zeros(shape, inputs[place].dtype)
    with pytest.raises(InputError, match=message):
        check_features(_spec(), *inputs)


def test_the_adapter_refuses_features_that_do_not_fit_its_spec():
    with pytest.raises(InputError, match=r"taps .* needs \(3, 2, 3, 4, 3, 3"):
        LosaAdapter(_spec(num_taps=3), rngs=nnx.Rngs(0))(*_inputs())
