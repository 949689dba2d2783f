"""Tests check arrays against annotations: else wrong ones go unnoticed."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from losa_jax.detection.segments import segment_iou
from losa_jax.models.ops.resample import resize_time


@pytest.mark.parametrize("x", [
    jnp.zeros((2, 8)), jnp.zeros((2, 8, 3), int), np.zeros((2, 8, 3))])
def test_a_wrong_shape_dtype_or_class_of_an_array_is_an_error(x):
    with pytest.raises(TypeCheckError, match="resize_time.*\n.*'x'"):
        resize_time(x, 4)


def test_sizes_of_the_same_name_must_agree():
    with pytest.raises(TypeCheckError, match="segment_iou.*\n.*'second'"):
        segment_iou(np.zeros((3, 2)), np.zeros((4, 2)))
