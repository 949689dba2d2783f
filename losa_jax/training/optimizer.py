"""AdamW with groups, warm-up and cosine, as the TAL recipes use it."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

# ActionFormer's end of the cosine (`eta_min`).
FINAL_LEARNING_RATE = 1e-8


def learning_rate_schedule(base: float, warmup_steps: int,
                           total_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then cosine to 1e-8.

    Closed form of ActionFormer's schedule
    (github.com/happyharrycn/actionformer_release): with W warm-up steps,
    lr(t) = base t / (W - 1) below W, then half a cosine.

    Args:
      base: peak learning rate.
      warmup_steps: W.
      total_steps: of the whole schedule; a run may stop earlier.
    """
    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        warm = base * step / max(warmup_steps - 1, 1)
        done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        cosine = (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1))) / 2
        cool = FINAL_LEARNING_RATE + (base - FINAL_LEARNING_RATE) * cosine
        return jnp.where(step < warmup_steps, warm, cool)

    return schedule


def parameter_paths(params: Any) -> Any:
    """A tree of the same form with each leaf's path, "adapter/taps/..."."""
    def name(path, _):
        return "/".join(str(getattr(key, "key", key)) for key in path)

    return jax.tree_util.tree_map_with_path(name, params)


def decays(path: str) -> bool:
    """Weight decay is for kernels alone: no biases, norms, scales, gates."""
    return path.rsplit("/", 1)[-1] == "kernel"


def make_optimizer(schedule: optax.Schedule, params: Any, *,
                   weight_decay: float, gradient_clip: float,
                   rate_factors: dict[str, float],
                   decay_factors: dict[str, float] | None = None,
                   second_moment_decay: float = 0.999
                   ) -> optax.GradientTransformation:
    """Clip, Adam, decoupled decay, per-group learning rate.

    Args:
      schedule: learning rate by step.
      params: the trained tree; groups are found by parameter path.
      weight_decay: of kernels.
      gradient_clip: largest global norm; 0 does not clip.
      rate_factors: {regular expression: factor on the learning rate}; the
        first that is found in a path counts, others have factor 1.
      decay_factors: the same for the weight decay of kernels.
      second_moment_decay: Adam's b2; the recipes' 0.999 remembers longer
        than a run of a thousand steps lasts.
    """
    paths = parameter_paths(params)

    def factor(factors: dict[str, float], path: str) -> float:
        for pattern, value in factors.items():
            if re.search(pattern, path):
                return value
        return 1.0

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
