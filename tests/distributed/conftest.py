"""The tiny model of the tests of the step."""

from tests.training.conftest import (  # noqa: F401
    run_key,
    tiny_batch,
    tiny_model,
)
