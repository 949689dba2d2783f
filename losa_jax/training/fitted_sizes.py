"""Chooses sizes of windows, head and training that fit a data set.

Every config key of `KEYS` may be 0: it is then chosen from the lengths of the
actions, and the number and lengths of the videos. For THUMOS-14, ActivityNet
and the rendered videos of the quick start the rule gives about what was
published or chosen by hand; tests compare them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from losa_jax.errors import InputError, counted
from losa_jax.models.backbones.base import BackboneSpec

KEYS = ("window.sample_fps", "window.samples", "window.tokens",
        "window.per_video", "augment.size", "head.num_levels", "train.epochs",
        "train.schedule_epochs", "train.evaluate_every_epochs",
        "train.checkpoint_every_epochs")
# Samples in a short action, at usual rates, which are near VideoMAE's 7.5
# frames a second in training; a very short action still gets the least number.
_SAMPLES_OF_SHORT, _LEAST_SAMPLES_OF_SHORT = 24, 6
_USUAL_FPS = 3.0, 10.0
# Tokens in a short action: those of THUMOS' published recipe.
_TOKENS_OF_SHORT = 7.5
# A window holds a long action so many times, about THUMOS' figure, as far
# as this takes no more samples than this.
_ACTIONS_IN_WINDOW, _USUAL_SAMPLES = 6.5, (128, 1024)
# ... and at least so many times.
_LEAST_ACTIONS_IN_WINDOW = 2
# Actions of many minutes are sampled at a lower rate, for so many samples.
_MOST_SAMPLES = 4000
# ActionFormer's first level regresses up to 4 tokens; each level doubles it.
_FIRST_EDGE = 4
_LEVELS = range(5, 9)
_LEAST_TOP_TOKENS = 6
_PIXELS = 112
# Steps grow with the square root of the number of actions.
_STEPS = 60
_EPOCHS, _USUAL_EPOCHS = (5, 100), 15
_LEAST_STEPS_OF_EPOCH = 10
_EVALUATIONS = 6


class DataFacts(NamedTuple):
    """What the sizes depend on, of the training videos.

    Attributes:
      lengths_seconds: of all actions.
      durations_seconds: of all videos.
      fps: the median rate of the videos.
      short_side: the median of the shorter side of a frame, pixels; 0 if it
        is not known.
    """

    lengths_seconds: Sequence[float]
    durations_seconds: Sequence[float]
    fps: float
    short_side: int = 0

    def __str__(self) -> str:
        short, middle, long = np.quantile(self.lengths_seconds, (.1, .5, .99))
        return (f"{counted(len(self.lengths_seconds), 'action')} ({short:.3g} "
                f"s short, {middle:.3g} s median, {long:.3g} s long) in "
                f"{counted(len(self.durations_seconds), 'video')}")


def automatic_keys(config: Any) -> list[str]:
    """Returns the keys of a config that are to be chosen."""
    return [key for key in KEYS if not _value(config, key) and (
        key != "window.sample_fps" or config.window.sampling == "fps")]


def choose_sizes(config: Any, facts: DataFacts, backbone: BackboneSpec | None
                 ) -> dict[str, Any]:
    """Returns {key: value} of the keys that are 0.

    Args:
      config: its other keys are kept and decide the rest.
      backbone: None if unknown.

    Raises:
      InputError: a window that covers whole videos (sampling "resize") has
        no rate to choose sizes from.
    """
    keys, chosen = automatic_keys(config), dict[str, Any]()

    def value(key: str) -> Any:
        return chosen.get(key) or _value(config, key)

    def choose(key: str, number: float) -> None:
        if key in keys:
            chosen[key] = type(_value(config, key))(number)

    window = config.window
    short, usual, long = np.quantile(facts.lengths_seconds, (.1, .9, .99))
    choose("window.sample_fps", _round_rate(min(facts.fps, max(
        _LEAST_SAMPLES_OF_SHORT / short,
        min(float(np.clip(_SAMPLES_OF_SHORT / short, *_USUAL_FPS)),
            _MOST_SAMPLES / (_LEAST_ACTIONS_IN_WINDOW * long))))))
    if window.sampling == "resize":
        if {"window.samples", "window.tokens"} & set(keys):
            raise InputError(
                "config.window.sampling=resize makes a window of a whole "
                "video: set --config.window.samples and --config.window.tokens")
        rate = window.samples / float(np.median(facts.durations_seconds))
    elif window.sampling == "stride":
        rate = facts.fps / window.frame_stride
    else:
        rate = value("window.sample_fps")

    # Tokens: a power of two of samples, near the wanted rate.
    ratio = 2 ** max(0, round(math.log2(max(
        rate * short / _TOKENS_OF_SHORT, 1e-3))))
    if window.samples and window.tokens:
        ratio = max(1, window.samples // window.tokens)
    # Levels, for the tokens that a usual action lasts.
    reach = usual * rate / ratio / _FIRST_EDGE
    levels = config.head.num_levels or min(max(
        2 + math.ceil(math.log2(max(reach, 1e-3))), _LEVELS[0]), _LEVELS[-1])
    # Samples: long actions with what is around them.
    whole = float(np.quantile(facts.durations_seconds, .95)) * rate
    around = float(np.clip(_ACTIONS_IN_WINDOW * long * rate, *_USUAL_SAMPLES))
    around = max(around, _LEAST_ACTIONS_IN_WINDOW * long * rate)
    unit = math.lcm(window.clip_samples, ratio * 2 ** (levels - 1))
    samples = window.samples or unit * math.ceil(
        max(min(around, whole), 1.1 * long * rate) / unit)
    tokens = window.tokens or samples // ratio
    if not config.head.num_levels:
        while levels > 1 and (tokens % 2 ** (levels - 1) or (
                tokens < _LEAST_TOP_TOKENS * 2 ** (levels - 1))):
            levels -= 1
    choose("window.samples", samples)
    choose("window.tokens", tokens)
    choose("head.num_levels", levels)

    choose("augment.size", frame_size(backbone, facts.short_side))

    # Epochs: an epoch sees about every second of the videos.
    batch, num_videos = config.train.batch_windows, len(facts.durations_seconds)
    steps = _STEPS * math.sqrt(len(facts.lengths_seconds))
    windows = min(sum(facts.durations_seconds) * rate / samples,
                  steps * batch / _USUAL_EPOCHS)
    choose("window.per_video", max(
        1, round(windows / num_videos),
        math.ceil(_LEAST_STEPS_OF_EPOCH * batch / num_videos)))
    steps_of_epoch = max(1, num_videos * value("window.per_video") // batch)
    choose("train.epochs", min(max(
        round(steps / steps_of_epoch), _EPOCHS[0]), _EPOCHS[1]))
    choose("train.schedule_epochs", value("train.epochs"))
    for key in ("train.evaluate_every_epochs",
                "train.checkpoint_every_epochs"):
        choose(key, math.ceil(value("train.epochs") / _EVALUATIONS))
    return chosen


def frame_size(backbone: BackboneSpec | None, short_side: int = 0) -> int:
    """Returns the side of the square that the backbone sees, pixels, for
    videos of this shorter side (0: unknown)."""
    size = min(_PIXELS, short_side or _PIXELS)
    if backbone is None:
        return size
    size = min(size, *backbone.image_size)
    return max(size // backbone.patch, 1) * backbone.patch


def set_values(config: Any, values: Mapping[str, Any]) -> None:
    """Sets keys of a config, as {"window.samples": 256}."""
    for key, value in values.items():
        section, name = key.split(".")
        config[section][name] = value


def _value(config: Any, key: str) -> Any:
    section, name = key.split(".")
    return config[section][name]


def _round_rate(rate: float) -> float:
    """Returns a rate with two digits."""
    return float(f"{rate:.2g}")
