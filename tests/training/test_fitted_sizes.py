"""Sizes fitted to a data set are at least those chosen for it by hand."""

import json

import numpy as np
import pytest

from configs import custom, quick, thumos
from losa_jax.data.annotations.load import load_annotations
from losa_jax.errors import InputError
from losa_jax.models.backbones import SIZES
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.training.fitted_sizes import (
    KEYS,
    DataFacts,
    automatic_keys,
    choose_sizes,
    set_values,
)
from tests.custom_recipe import custom_config

VIT_S = VideoMaeSpec(**SIZES["vit_s"])


def _facts(lengths, durations, fps=30.0, short_side=0):
    return DataFacts(lengths, durations, fps, short_side)


def _of_annotations(path, subset):
    videos = load_annotations(path).subset(subset)
    return _facts(
        [action.end_seconds - action.start_seconds for video in videos
         for action in video.actions
         if action.end_seconds > action.start_seconds],
        [video.duration_seconds for video in videos])


def _fitted(facts, backbone=VIT_S, **keys):
    config = custom.get_config()
    set_values(config, keys)
    values = choose_sizes(config, facts, backbone)
    set_values(config, values)
    return config, values


def _check_against(facts, config, *, fps, window_seconds, tokens_a_second):
    """Asserts that the sizes resolve the actions at least as well as those of
    another recipe, with windows that hold at least as many of them."""
    rate = config.window.sample_fps
    lengths = np.array(facts.lengths_seconds)
    window = config.window.samples / rate
    assert rate >= fps
    assert (lengths <= window).mean() >= (lengths <= window_seconds).mean()
    here = rate * config.window.tokens / config.window.samples
    assert here >= tokens_a_second


@pytest.mark.shared
def test_thumos_gets_its_published_window(shared_dir):
    facts = _of_annotations(shared_dir / "data/thumos14/thumos14.json",
                            "validation")
    config, _ = _fitted(facts)
    published = thumos.get_config("s").window
    fps = 30 / published.frame_stride
    _check_against(facts, config, fps=fps,
                   window_seconds=published.samples / fps,
                   tokens_a_second=fps * published.tokens / published.samples)
    # 102.4 s, as published.
    assert config.window.samples / config.window.sample_fps == pytest.approx(
        published.samples / fps, rel=0.01)


@pytest.mark.shared
def test_activitynet_gets_windows_of_whole_videos(shared_dir):
    folder = shared_dir / "data/activitynet"
    facts = _of_annotations(f"{folder / 'anet_anno_action.json'},"
                            f"{folder / 'video_info_new.csv'}", "training")
    config, _ = _fitted(facts)
    middle = np.median(facts.durations_seconds)
    _check_against(facts, config, fps=768 / middle * 0.95,
                   window_seconds=middle, tokens_a_second=192 / middle * 0.95)
    window = config.window.samples / config.window.sample_fps
    assert (np.array(facts.durations_seconds) <= window).mean() > 0.9


@pytest.mark.shared
def test_gestures_get_the_recipe_made_by_hand(shared_dir):
    facts = _of_annotations(shared_dir / "data/gestures/gestures.json",
                            "training")
    config, _ = _fitted(facts)
    by_hand = custom_config()
    assert config.window.sample_fps == by_hand.window.sample_fps
    assert (config.window.samples / config.window.tokens
            == by_hand.window.samples / by_hand.window.tokens)
    assert config.head.num_levels == by_hand.head.num_levels
    assert config.window.samples == by_hand.window.samples
    assert config.train.epochs > by_hand.train.epochs


def test_a_value_that_is_set_is_kept_and_decides_the_others():
    facts = _facts([1.0, 2.0, 3.0] * 10, [60.0] * 10)
    _, all_fitted = _fitted(facts)
    assert set(all_fitted) == set(KEYS)
    config, values = _fitted(facts, **{"window.sample_fps": 5.0})
    assert "window.sample_fps" not in values
    assert config.window.sample_fps == 5.0
    assert (config.window.samples / 5.0 ==
            pytest.approx(all_fitted["window.samples"] / 10, rel=0.5))
    config, values = _fitted(facts, **{key: value for key, value
                                       in all_fitted.items()})
    assert values == {} and automatic_keys(config) == []


@pytest.mark.parametrize("seed", range(200))
def test_sizes_of_any_data_set_fit_each_other(seed):
    rng = np.random.default_rng(seed)
    num_videos = int(rng.integers(1, 300))
    durations = np.exp(rng.uniform(np.log(2), np.log(7200), num_videos))
    longest = durations.max()
    lengths = np.minimum(np.exp(rng.normal(
        rng.uniform(-2, 5), rng.uniform(0, 1.5),
        int(rng.integers(1, 2000)))), longest)
    config, _ = _fitted(_facts(lengths.tolist(), durations.tolist(),
                               float(rng.choice([10, 25, 29.97, 60])),
                               int(rng.choice([0, 48, 144, 1080]))))
    window, train = config.window, config.train
    assert window.samples % window.clip_samples == 0
    assert window.samples % window.tokens == 0
    assert window.tokens % 2 ** (config.head.num_levels - 1) == 0
    assert 1 <= config.head.num_levels <= 8
    assert config.augment.size % VIT_S.patch == 0
    assert window.samples / window.sample_fps >= np.quantile(lengths, .99)
    steps = train.epochs * max(
        1, num_videos * window.per_video // train.batch_windows)
    assert train.batch_windows <= num_videos * window.per_video
    assert 50 <= steps <= 60 * len(lengths) ** .5 * 3 + 5 * num_videos
    assert train.schedule_epochs == train.epochs
    assert 1 <= train.evaluate_every_epochs <= train.epochs


def test_very_short_actions_are_sampled_at_the_rate_of_the_videos():
    config, _ = _fitted(_facts([0.2] * 20, [30.0] * 4, fps=25.0))
    assert config.window.sample_fps == 25.0
    assert config.window.tokens == config.window.samples


def test_actions_of_hours_get_windows_that_fit_into_memory():
    config = custom.get_config()
    values = choose_sizes(
        config, DataFacts([3600.0] * 9, [7200.0] * 3, 25.0), None)
    assert values["window.sample_fps"] == 0.56
    assert values["window.samples"] == 4096


def test_pixels_are_no_more_than_the_backbone_and_the_videos_have():
    facts = _facts([1.0], [60.0], short_side=100)
    assert _fitted(facts)[0].augment.size == 96
    assert _fitted(facts._replace(short_side=0))[0].augment.size == 112
    assert _fitted(facts._replace(short_side=9))[0].augment.size == 16


def test_windows_of_whole_videos_are_not_fitted():
    with pytest.raises(InputError, match="set --config.window.samples and"):
        _fitted(_facts([1.0], [60.0]), **{"window.sampling": "resize"})


def test_only_the_recipe_of_own_videos_is_fitted():
    assert automatic_keys(custom.get_config()) == list(KEYS)
    assert automatic_keys(quick.get_config()) == []
    assert automatic_keys(thumos.get_config("s")) == []


def test_the_facts_of_a_data_set_are_a_sentence():
    facts = _facts([1.0, 1.0, 2.0], [60.0, 50.0])
    assert str(facts) == ("3 actions (1 s short, 1 s median, 1.98 s long) in 2 "
                          "videos")
    json.dumps(choose_sizes(custom.get_config(), facts, None))
