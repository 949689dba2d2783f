"""Shares the tiny model of the tests of training."""

from tests.training.conftest import (  # noqa: F401
    run_key,
    tiny_batch,
    tiny_model,
)
