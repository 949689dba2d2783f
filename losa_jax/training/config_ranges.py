"""Checks the values in a config that no spec of a model checks."""

import math
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from losa_jax.data.features import files
from losa_jax.data.windows.random_operations import OPERATIONS
from losa_jax.detection import per_frame
from losa_jax.errors import (
    InputError,
    check_between,
    check_choice,
    check_whole,
    fields_as_keys,
    listed,
)

# Section, least value, keys.
_WHOLE = (
    ("data", 0, "num_threads cache_copies"),
    ("features", 0, "width"),
    ("window", 1, "clip_samples frame_stride"),
    ("window", 0, "samples tokens per_video clip_overlap"),
    ("augment", 0, "size random_operations"),
    ("backbone", 0, "chunk_clips width depth heads mlp_width patch"),
    ("adapter", 0, "num_taps top_blocks width"),
    ("train", 1, "batch_windows log_every_steps"),
    ("train", 0, "epochs schedule_epochs evaluate_every_epochs "
     "checkpoint_every_epochs evaluate_from_epoch"),
    ("evaluate", 1, "batch_windows video_scores_top"),
    ("mesh", 0, "data clip fsdp"),
)
# Section, bounds (infinite: none), bounds that are not allowed, keys.
_REAL = (
    ("data", 0, math.inf, (), "frame_cache_gib"),
    ("data", 0, 1, (1,), "min_action_share"),
    ("features", 0, math.inf, (), "stride_frames clip_frames fps"),
    ("window", 0, math.inf, (), "sample_fps"),
    ("window", 0, 1, (1,), "overlap"),
    ("window", 0, 1, (), "min_action_kept"),
    ("augment", 0, 1, (), "flip_probability hue_jitter"),
    ("augment", 0, math.inf, (), "color_jitter"),
    ("adapter", 0, math.inf, (), "learning_rate_factor weight_decay_factor "
     "gate_learning_rate_factor backbone_learning_rate_factor"),
    ("loss", 0, math.inf, (0,), "initial_normalizer"),
    ("loss", 0, math.inf, (), "deep_supervision"),
    ("loss", 0, math.inf, (), "hard_negative_weight"),
    ("train", 0, math.inf, (0,), "learning_rate"),
    ("train", 0, math.inf, (), "final_learning_rate warmup_epochs "
     "weight_decay gradient_clip"),
    ("train", 0, 1, (1,), "ema_decay"),
)
# Section, key of ascending positive numbers, how many, the largest.
_TUPLES = (
    ("window", "short_crop_ratio", (0, 2), 1),
    ("augment", "crop_area", (2,), 1),
    ("augment", "crop_ratio", (2,), math.inf),
)
_MAX_SEED = 2 ** 32 - 1
# No machine has so many cores for one process; a typing error has.
_MAX_THREADS = 1024


def check_ranges(config: Any) -> None:
    """Raises InputError that names every number which cannot be."""
    problems: list[str] = []

    def attempt(section: str, check: Any, *arguments: Any,
                **options: Any) -> None:
        part = config[section] if section else config
        key = f"config.{section}" if section else "config"
        try:
            with fields_as_keys(ConfigDict, key):
                check(part, *arguments, **options)
        except InputError as error:
            problems.append(str(error))

    attempt("", check_whole, 0, "seed")
    attempt("", check_between, -math.inf, _MAX_SEED, "seed")
    attempt("augment", check_between, -math.inf, len(OPERATIONS),
            "random_operations")
    attempt("data", check_between, -math.inf, _MAX_THREADS, "num_threads")
    for section, least, names in _WHOLE:
        for name in names.split():
            attempt(section, check_whole, least, name)
    for section, low, high, without, names in _REAL:
        for name in names.split():
            attempt(section, check_between, low, high, name, without=without)
    for section, name, lengths, high in _TUPLES:
        attempt(section, _check_elements, name, lengths, high)
    attempt("evaluate", _check_thresholds)
    attempt("augment", check_choice, "per", ("window", "clip"))
    attempt("evaluate", check_choice, "per_frame",
            ("", *per_frame.PROTOCOLS))
    attempt("features", check_choice, "resize", tuple(files.RESIZE))
    attempt("features", _check_channels)
    named = " ".join(problems)
    problems += [
        f"config.{key}={value}: must be a finite number"
        for key, value in flatten_dict(config.to_dict(), sep=".").items()
        if isinstance(value, float) and not math.isfinite(value)
        and f"config.{key}=" not in named]
    if problems:
        raise InputError(problems[0] if len(problems) == 1 else
                         f"{len(problems)} values cannot be:"
                         + listed(problems))


def doubts(config: Any) -> list[str]:
    """Returns lines about values for training that are rarely meant."""
    data, train = config.data, config.train
    lines = []
    if data.train_subset.lower() == data.test_subset.lower():
        lines.append(
            "config.data.train_subset and config.data.test_subset are both "
            f"{data.train_subset!r}: the mAP is that of the videos that were "
            "trained on, and says little about others")
    shorter = min(("epochs", "schedule_epochs"), key=lambda key: train[key])
    if train[shorter] == 0:  # to be fitted
        pass
    elif train.warmup_epochs >= train[shorter]:
        lines.append(
            f"config.train.warmup_epochs={train.warmup_epochs:g} is not less "
            f"than config.train.{shorter}={train[shorter]}: the learning rate "
            "rises to the end and never decays: lower warmup_epochs")
    elif train.epochs > train.schedule_epochs:
        lines.append(
            f"config.train.epochs={train.epochs} is more than "
            f"config.train.schedule_epochs={train.schedule_epochs}: in the "
            f"last {train.epochs - train.schedule_epochs} epochs the learning "
            "rate is almost 0: set both to one number")
    if train.final_learning_rate > train.learning_rate:
        lines.append(
            f"config.train.final_learning_rate={train.final_learning_rate:g} "
            f"is above config.train.learning_rate={train.learning_rate:g}: "
            "the learning rate rises to the end: lower final_learning_rate")
    return lines


def _check_elements(section: Any, name: str, lengths: tuple[int, ...],
                    high: float) -> None:
    values = tuple(section[name])
    if len(values) not in lengths or list(values) != sorted(values) or any(
            not (math.isfinite(value) and 0 < value <= high)
            for value in values):
        raise InputError(
            f"ConfigDict.{name}={values}: give "
            f"{' or '.join(map(str, lengths))} numbers above 0"
            + (f" and at most {high:g}" if math.isfinite(high) else "")
            + ", the smaller one first")


def _check_thresholds(evaluate: Any) -> None:
    values = tuple(evaluate.tiou_thresholds)
    if not values or any(not 0 < value <= 1 for value in values):
        raise InputError(f"ConfigDict.tiou_thresholds={values}: give one or "
                         "more numbers above 0 and at most 1")


def _check_channels(features: Any) -> None:
    channels = tuple(features.channels)
    if channels and not (len(channels) == 2
                         and 0 <= channels[0] < channels[1]
                         and channels[1] - channels[0] == features.width):
        raise InputError(
            f"ConfigDict.channels={channels}: give the first channel and one "
            "past the last, config.features.width="
            f"{features.width} of them, or ()")
