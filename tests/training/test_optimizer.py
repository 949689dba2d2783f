"""Schedule and AdamW groups against closed forms and public numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from losa_jax.training import optimizer


def test_schedule_equals_hand_computed_values():
    schedule = optimizer.learning_rate_schedule(1e-3, 5, 25, 1e-5)
    assert float(schedule(0)) == 0.0
    assert float(schedule(2)) == pytest.approx(5e-4)
    assert float(schedule(4)) == pytest.approx(1e-3)
    assert float(schedule(5)) == pytest.approx(1e-3)
    # Half-way of the cosine: the mean of both ends.
    assert float(schedule(15)) == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-5)
    assert float(schedule(25)) == pytest.approx(1e-5)
    assert float(schedule(99)) == pytest.approx(1e-5)


def _tree():
    return {"adapter": {"up": {"kernel": jnp.ones((2, 2)),
                               "bias": jnp.ones(2)},
                        "gate": jnp.ones(2)},
            "head": {"conv": {"kernel": jnp.ones((2, 2))}}}


def test_groups_have_their_own_learning_rate_and_decay():
    params = _tree()
    transformation = optimizer.make_optimizer(
        lambda step: 0.1, params, weight_decay=0.5, gradient_clip=0.0,
        rate_factors={"^adapter/gate": 3.0, "^adapter/": 0.5},
        decay_factors={"^adapter/": 2.0})
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = transformation.update(
        gradients, transformation.init(params), params)
    # Adam's first step is 1 for a constant gradient; kernels add 0.5 decay,
    # those of the adapter 1.
    np.testing.assert_allclose(updates["head"]["conv"]["kernel"], -0.15,
                               rtol=1e-5)
    np.testing.assert_allclose(updates["adapter"]["up"]["kernel"], -0.1,
                               rtol=1e-5)
    np.testing.assert_allclose(updates["adapter"]["up"]["bias"], -0.05,
                               rtol=1e-5)
    np.testing.assert_allclose(updates["adapter"]["gate"], -0.3, rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    gradients = {"a": jnp.full(3, 2.0), "b": jnp.full(4, -1.0)}
    transformation = optimizer.make_optimizer(
        lambda step: 1.0, params, weight_decay=0.0, gradient_clip=1.0,
        rate_factors={})
    clip = transformation.init(params)
    _, state = transformation.update(gradients, clip, params)
    # Adam's first moment is a tenth of the clipped gradient; norm 4 -> 1.
    adam = next(part for part in jax.tree.leaves(
        state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
        if isinstance(part, optax.ScaleByAdamState))
    np.testing.assert_allclose(adam.mu["a"], 0.1 * 2.0 / 4, rtol=1e-5)


@pytest.mark.shared
def test_one_step_equals_the_public_run(shared_dir):
    """Gradients of the fixture in, its parameters after one AdamW step out."""
    folder = shared_dir / "data/parity"
    data = np.load(folder / "actionformer_tiny.npz")
    settings = json.loads(
        (folder / "actionformer_tiny_config.json").read_text())["optimizer"]

    def ours(name):
        """The public name with our word for decayed arrays."""
        decays = name.endswith("conv.weight") or (
            name.endswith(".weight") and data[f"param/{name}"].ndim == 3
            and data[f"param/{name}"].shape[0] > 1)
        return name.replace(".", "_") + ("/kernel" if decays else "/other")

    names = [key.removeprefix("grad/") for key in data
             if key.startswith("grad/")]
    params = {ours(n): jnp.asarray(data[f"param/{n}"]) for n in names}
    gradients = {ours(n): jnp.asarray(data[f"grad/{n}"]) for n in names}
    transformation = optimizer.make_optimizer(
        lambda step: settings["learning_rate"], params,
        weight_decay=settings["weight_decay"],
        gradient_clip=settings["clip_grad_l2norm"], rate_factors={})

    @jax.jit
    def step(params, gradients):
        updates, _ = transformation.update(
            gradients, transformation.init(params), params)
        return (optax.apply_updates(params, updates),
                optax.tree.norm(gradients))

    after, norm = step(params, gradients)
    assert float(norm) == pytest.approx(
        float(data["step/grad_norm_before_clip"]), rel=1e-5)
    stored = [key for key in data if key.startswith("param_after/")]
    assert stored
    for key in stored:
        name = key.removeprefix("param_after/")
        if f"grad/{name}" in data:
            np.testing.assert_allclose(after[ours(name)], data[key],
                                       atol=2e-6, err_msg=name)


def test_only_kernels_decay():
    assert optimizer.decays("adapter/up/kernel")
    assert not any(map(optimizer.decays, (
        "a/bias", "a/scale", "adapter/taps/long_gate/gate", "reg_scale")))
