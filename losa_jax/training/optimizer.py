"""AdamW with parameter groups, warm-up and cosine decay."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax


def learning_rate_schedule(base: float, warmup_steps: int, total_steps: int,
                           final: float) -> optax.Schedule:
    """Returns a linear warm-up from 0 to `base`, then a cosine to `final`.

    This is ActionFormer's schedule
    (github.com/happyharrycn/actionformer_release) in closed form; step t of
    the warm-up has the rate base t / (warmup_steps - 1).
    """
    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        warm = base * step / max(warmup_steps - 1, 1)
        done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        cosine = (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1))) / 2
        cool = final + (base - final) * cosine
        return jnp.where(step < warmup_steps, warm, cool)

    return schedule


def decays(path: str) -> bool:
    """Whether a parameter decays: kernels do, biases and scales do not."""
    return path.rsplit("/", 1)[-1] == "kernel"


def make_optimizer(schedule: optax.Schedule, params: Any, *,
                   weight_decay: float, gradient_clip: float,
                   rate_factors: dict[str, float],
                   decay_factors: dict[str, float] | None = None,
                   second_moment_decay: float = 0.999
                   ) -> optax.GradientTransformation:
    """Returns AdamW with clipping and parameter groups.

    Args:
      schedule: learning rate by step.
      weight_decay: of kernels.
      gradient_clip: largest global norm; 0 does not clip.
      rate_factors: {regular expression: factor on the learning rate}; the
        first that matches a part of the path counts, without one 1.
      decay_factors: the same for the weight decay.
      second_moment_decay: Adam's b2.
    """
    def factor(factors: dict[str, float], path: str) -> float:
        return next((value for pattern, value in factors.items()
                     if re.search(pattern, path)), 1.0)

    paths = jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True,
                                             separator="/"), params)
    rates = jax.tree.map(lambda path: factor(rate_factors, path), paths)
    decay = jax.tree.map(
        lambda path: weight_decay * factor(decay_factors or {}, path)
        if decays(path) else 0.0, paths)

    def decay_and_scale(updates, params):
        return jax.tree.map(lambda u, p, d, rate: rate * (u + d * p),
                            updates, params, decay, rates)

    return optax.chain(
        optax.clip_by_global_norm(gradient_clip) if gradient_clip > 0
        else optax.identity(),
        optax.scale_by_adam(b1=0.9, b2=second_moment_decay, eps=1e-8),
        optax.stateless(decay_and_scale),
        optax.scale_by_learning_rate(schedule),
    )
