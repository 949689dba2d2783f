"""The train step lowers the loss, keeps the backbone, and is repeatable."""

import jax
import numpy as np

from losa_jax.detection.decode import DecodeSettings
from losa_jax.training.step import (
    _moving_average,
    make_moments_step,
    make_predict_step,
)


def test_loss_falls_and_only_the_trained_tree_has_an_optimizer(
        tiny_model, tiny_batch, run_key):
    model = tiny_model()
    step = model.step
    state, losses = model.state, []
    for _ in range(25):
        state, metrics = step(state, model.frozen, tiny_batch, run_key)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0]
    assert int(state.step) == 25
    moments = {leaf.shape for leaf in jax.tree.leaves(state.optimizer)
               if leaf.ndim}
    frozen_only = {leaf.shape for leaf in jax.tree.leaves(model.frozen)} - {
        leaf.shape for leaf in jax.tree.leaves(state.trained)}
    assert not moments & frozen_only


def test_a_step_depends_on_its_number_not_on_history(
        tiny_model, tiny_batch, run_key):
    model = tiny_model()
    step = model.step
    first, _ = step(model.state, model.frozen, tiny_batch, run_key)
    saved = jax.tree.map(np.asarray, first)
    one, metrics_one = step(first, model.frozen, tiny_batch, run_key)
    two, metrics_two = step(saved, model.frozen, tiny_batch, run_key)
    assert float(metrics_one["loss"]) == float(metrics_two["loss"])
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_each_step_draws_other_random_numbers(tiny_model, tiny_batch, run_key):
    """They decide about drop path; all else is equal."""
    model = tiny_model()
    losses = {float(model.step(
        model.state.replace(step=np.int32(number)), model.frozen, tiny_batch,
        run_key)[1]["loss"]) for number in range(6)}
    assert len(losses) > 1


def test_deep_supervision_adds_the_loss_after_the_first_of_two_taps(
        tiny_model, tiny_batch, run_key):
    rng = np.random.default_rng(0)
    shaken = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(
            np.float32), tiny_model().state.trained)
    first_alone = jax.tree.map(np.array, shaken)
    for gate in ("short_gate", "long_gate"):
        first_alone["adapter"]["taps"][gate]["gate"][1] = 0

    def metrics(model, trained):
        # Step 1 draws the same numbers for all.
        return model.step(model.state.replace(trained=trained),
                          model.frozen, tiny_batch, run_key)[1]

    plain, deep = tiny_model(), tiny_model(deep_supervision=0.5)
    whole, first = (float(metrics(plain, trained)["loss"])
                    for trained in (shaken, first_alone))
    assert abs(whole - first) > 1e-3
    got = metrics(deep, shaken)
    np.testing.assert_allclose(got["deep_supervision_loss"], first, rtol=1e-5)
    np.testing.assert_allclose(got["loss"], whole + 0.5 * first, rtol=1e-5)


def test_moving_average_includes_the_current_step(
        tiny_model, tiny_batch, run_key):
    model = tiny_model()
    after, _ = model.step(model.state, model.frozen, tiny_batch, run_key)
    before, new, mean = jax.device_get(
        (model.state.ema, after.trained, after.ema))
    # (1 + 0) / (10 + 0) of the old.
    jax.tree.map(
        lambda before, new, mean: np.testing.assert_allclose(
            mean, 0.1 * before + 0.9 * new, rtol=1e-5, atol=1e-6),
        before, new, mean)
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(
        jax.tree.leaves(before), jax.tree.leaves(new), strict=True))


def test_normalizer_follows_the_positive_points(
        tiny_model, tiny_batch, run_key):
    model = tiny_model()
    state, metrics = model.step(
        model.state, model.frozen, tiny_batch, run_key)
    positives = float(metrics["positive_points"])
    assert positives > 3
    assert float(state.normalizer) == np.float32(
        0.9 * 10 + 0.1 * positives)


def test_moving_average_equals_hand_computed_values():
    old, new = {"a": np.float32(1.0)}, {"a": np.float32(3.0)}
    assert np.isclose(_moving_average(old, new, 0, 0.9, False)["a"], 1.2)
    # (1 + 0) / (10 + 0) = 0.1 at first, 0.9 in the end.
    assert np.isclose(_moving_average(old, new, 0, 0.9, True)["a"], 2.8)
    assert np.isclose(_moving_average(old, new, 10 ** 6, 0.9, True)["a"],
                      1.2)


def test_prediction_ignores_other_windows(tiny_model, tiny_batch):
    model = tiny_model()
    predict = jax.jit(make_predict_step(model.encode, model.detector,
                                        DecodeSettings(top_k=50)))
    arguments = (model.state.trained, model.state.statistics, model.frozen)
    batch = {name: tiny_batch[name] for name in ("frames", "valid_samples")}
    both = predict(*arguments, batch)
    frames = tiny_batch["frames"].copy()
    frames[1] = 0
    other = predict(*arguments, {**batch, "frames": frames})
    for name in ("segments", "scores", "labels", "valid"):
        np.testing.assert_array_equal(getattr(both, name)[0],
                                      getattr(other, name)[0])
    assert np.abs(both.scores[1] - other.scores[1]).max() > 1e-5


def test_moments_are_those_of_the_valid_tokens(tiny_model, tiny_batch):
    model = tiny_model()
    count, total, squares = jax.jit(make_moments_step(model.encode, 2))(
        model.frozen, model.state.trained, tiny_batch)
    last = np.asarray(jax.jit(model.encode)(
        model.frozen, model.state.trained, tiny_batch,
        tiny_batch["valid_samples"], None).last).reshape(2, 16, 64)
    # 32 and 21 samples are 16 and 11 tokens of two frames.
    rows = np.concatenate([last[0], last[1, :11]])
    assert int(count) == 27
    np.testing.assert_allclose(total, rows.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(squares, (rows ** 2).sum(0), rtol=1e-4)


def test_a_window_that_one_process_cannot_read_is_left_out(
        tiny_model, tiny_batch, run_key):
    model = tiny_model()
    # Four devices share a window; one of them has not read its part.
    readable = np.array([[True] * 4, [True, True, False, True]])
    other = {name: array.copy() for name, array in tiny_batch.items()}
    other["frames"][1], other["segments"][1] = 0, [[1, 4], [5, 9]]
    steps = [model.step(model.state, model.frozen,
                        {**batch, "readable": readable}, run_key)
             for batch in (tiny_batch, other)]
    for one, two in zip(*map(jax.tree.leaves, steps), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, two)
    whole, _ = model.step(model.state, model.frozen,
                          {**tiny_batch, "readable": readable | True},
                          run_key)
    plain, _ = model.step(model.state, model.frozen, tiny_batch, run_key)
    for one, two in zip(*map(jax.tree.leaves, (whole, plain)), strict=True):
        np.testing.assert_array_equal(one, two)
    assert plain.normalizer > steps[0][0].normalizer

    # With no window at all, the parameters only decay.
    empty, metrics = model.step(model.state, model.frozen, {
        **tiny_batch, "readable": np.zeros((2, 4), bool)}, run_key)
    assert metrics["loss"] == 0 and metrics["gradient_norm"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(empty))

    def moments(batch):
        return jax.jit(make_moments_step(model.encode, 2))(
            model.frozen, model.state.trained, batch)

    first = {name: array[:1] for name, array in tiny_batch.items()}
    for one, two in zip(moments({**tiny_batch, "readable": readable}),
                        moments(first), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_a_step_returns_the_types_of_its_arguments(
        tiny_model, tiny_batch, run_key):
    """Otherwise the second step is compiled again; weak types count too."""
    model = tiny_model()
    got, _ = jax.eval_shape(model.step, model.state, model.frozen,
                            tiny_batch, run_key)

    def types(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype,
                                          leaf.weak_type), tree)

    assert types(got) == types(model.state)


def test_a_rejected_stretch_loses_score_and_an_unknown_one_does_nothing(
        tiny_model, tiny_batch, run_key):
    model = tiny_model()
    tokens = slice(8, 20)
    weights = np.zeros((2, 32, 3), np.float32)
    batch = {**tiny_batch, "loss_weights": weights,
             "action_valid": np.zeros((2, 2), bool)}
    state, metrics = model.step(model.state, model.frozen, batch, run_key)
    assert metrics["loss"] == 0 and metrics["gradient_norm"] == 0

    @jax.jit
    def logits(trained, batch):
        features = model.encode(model.frozen, trained, batch,
                                batch["valid_samples"], None)
        return model.detector.bind(trained)(
            features, model.state.statistics, batch["valid_samples"]
        ).class_logits[0, tokens]

    weights[0, tokens, 1] = 3.0
    for _ in range(10):
        state, metrics = model.step(state, model.frozen, batch, run_key)
        assert metrics["gradient_norm"] > 0
    change = np.asarray(logits(state.trained, tiny_batch)
                        - logits(model.state.trained, tiny_batch)).mean(0)
    assert change[1] < -0.2
    assert change[1] < 2 * change[[0, 2]].min()
