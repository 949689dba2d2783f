"""A run trains on what was reviewed, and notices when that has changed."""

import json

import numpy as np
import pytest

from configs import thumos_features
from losa_jax.data import reviews
from losa_jax.jobs.train import train

WIDTH, SECONDS, FPS = 8, 40.0, 5.0


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    database = {}
    for name in ("a", "b", "new", "t"):
        np.save(tmp_path / f"{name}.npy", rng.normal(
            size=(round(SECONDS * FPS), WIDTH)).astype(np.float32))
        database[name] = {
            "subset": "testing" if name == "t" else "training",
            "duration": SECONDS, "fps": FPS, "annotations": [
                {"label": "run", "segment": [start, start + 4]}
                for start in (5.0, 20.0)]}
    del database["new"]
    (tmp_path / "annotations.json").write_text(json.dumps(
        {"database": database}))
    config = thumos_features.get_config()
    config.data.annotations = str(tmp_path / "annotations.json")
    config.data.test_subset = "testing"
    config.data.reviews = str(tmp_path / "out")
    config.features.update(
        folder=str(tmp_path), width=WIDTH, stride_frames=1.0, clip_frames=1.0)
    config.window.update(samples=128, tokens=128, per_video=4)
    config.head.update(width=16, num_levels=3, num_stem_blocks=1,
                       num_embedding_convs=1, attention_heads=2)
    config.train.update(batch_windows=2, epochs=2, schedule_epochs=2,
                        warmup_epochs=1.0, ema_decay=0.9,
                        evaluate_from_epoch=2, checkpoint_every_epochs=2)
    config.loss.initial_normalizer = 20.0
    return config


def _review(folder, *verdicts):
    folder = folder / "out" / reviews.REVIEWS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    reviews.write_review(folder / "new.json", reviews.Review(
        "new", SECONDS, FPS, 1, False, tuple(
            reviews.JudgedAction("h0123456789ab", "run", start, start + 4,
                                 verdict, "ann",
                                 "2026-11-30T14:00:00+00:00")
            for start, verdict in verdicts)))


def test_a_run_trains_on_a_review_in_part(config, tmp_path, capsys):
    _review(tmp_path, (5.0, "accepted"), (30.0, "rejected"))
    train(config, tmp_path / "run")
    assert "1 in part) with 1 action, 1 hard neg" in capsys.readouterr().out
    videos = json.loads((tmp_path / "run/predictions.json").read_text())
    assert list(videos["results"]) == ["t"]
    # Verdicts that changed are another training set, of another round.
    _review(tmp_path, (5.0, "accepted"), (20.0, "rejected"))
    train(config, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "1 in part) with 1 action, 1 hard neg" in printed
    assert "training videos: 1, now 1; changed 1 (new)" in printed
