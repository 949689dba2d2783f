"""What LoSA learned to use, from its parameters."""

import numpy as np
import pytest
from flax import nnx

from losa_jax.models.adapters.losa import LosaAdapter, LosaSpec
from losa_jax.models.ops.params import parameters
from losa_jax.training.diagnostics import gate_diagnostics, memory_diagnostics


@pytest.fixture(scope="module")
def tree():
    spec = LosaSpec(in_width=4, width=2, num_taps=2, clip_tokens=2,
                    tap_grid=(1, 1), attention_heads=1)
    return {"losa": parameters(LosaAdapter(spec, rngs=nnx.Rngs(0)))}


def test_a_gate_is_open_or_closed(tree):
    fresh = gate_diagnostics(tree, (3, 7), "none")
    assert set(fresh) == {f"{what}/{span}/block_{block}"
                          for what in ("gate", "added")
                          for span in ("short", "long") for block in (3, 7)}
    assert fresh["gate/short/block_3"] == 1
    # Up-projections start as the zero map.
    assert fresh["added/long/block_7"] == 0

    taps = tree["losa"]["taps"]["short_gate"]
    learned = {"losa": {"taps": {"short_gate": {
        "gate": np.array([[2.0, -2, 0, 0], [0.0, 0, 0, 0]]),
        "up": {**taps["up"], "kernel": np.ones((2, 2, 4))}}}}}
    by_hand = gate_diagnostics(learned, (3, 7), "none")
    assert by_hand["gate/short/block_3"] == 1
    assert by_hand["added/short/block_3"] == pytest.approx(2 ** 0.5)
    assert by_hand["added/short/block_7"] == 0
    assert not any("long" in name for name in by_hand)
    assert gate_diagnostics(learned, (3, 7), "tanh")[
        "gate/short/block_3"] == pytest.approx(np.tanh(2) / 2)
    assert gate_diagnostics(learned, (3, 7), "sigmoid")[
        "gate/short/block_7"] == 0.5


def test_a_run_without_losa_has_no_gates():
    assert gate_diagnostics({"head": {"kernel": np.ones(2)}}, (), "none") == {}


def test_memory_is_that_of_this_process():
    assert 0.05 < memory_diagnostics()["host_memory_gib"] < 100
