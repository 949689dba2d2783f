"""Training on rendered videos, interrupted and resumed, and evaluation."""

import json
import os
import re
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.jobs import evaluate as evaluate_job
from losa_jax.jobs import train as train_job
from losa_jax.jobs.evaluate import Evaluator, evaluate
from losa_jax.training import build, restore
from losa_jax.utils.interrupt import Interrupted
from losa_jax.weights.backbone_folder import stored_fingerprint

pytestmark = pytest.mark.slow


def _trace(workdir):
    lines = [json.loads(line) for line in
             (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines
            for key in ("loss", "map") if key in line]


class _Died(Exception):
    pass


class _WatchedSteps:
    """Train steps that note how many had been started when the host asked
    for a metric of one."""

    def __init__(self, monkeypatch):
        self.started, self.asked, self.compiled = 0, set(), []
        real = build.jit_train_step
        watched = self

        class Metric:
            def __init__(self, value, step):
                self.value, self.step = value, step

            def __array__(self, *_, **__):
                watched.asked.add((self.step, watched.started))
                return np.asarray(self.value)

        def jit_train_step(*arguments):
            step = real(*arguments)
            watched.compiled.append(step)

            def run(*inputs):
                state, metrics = step(*inputs)
                watched.started += 1
                return state, {name: Metric(value, watched.started)
                               for name, value in metrics.items()}

            run.lower = step.lower
            return run

        monkeypatch.setattr(build, "jit_train_step", jit_train_step)


def test_a_resumed_run_equals_an_uninterrupted_run(
        config, tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    steps = _WatchedSteps(monkeypatch)
    real_run, evaluated = Evaluator.run, []

    def run(evaluator, parameters, *rest):
        evaluated.append(jax.tree.map(np.array, parameters))
        return real_run(evaluator, parameters, *rest)

    monkeypatch.setattr(Evaluator, "run", run)
    config = config.copy_and_resolve_references()
    config.backbone.keep_copy = True
    report = train_job.train(config, whole)
    assert "losa_jax.predict VIDEO_OR_FOLDER --checkpoint=" in (
        capsys.readouterr().out)
    # The run is found with its backbone wherever it is moved.
    assert stored_fingerprint(whole / "backbone") == stored_fingerprint(
        whole / restore.run_facts_of(whole)["backbone_from_workdir"])
    assert len(_trace(whole)) == 6 + 3
    # Three epochs of two steps, logged at their ends: nothing is asked of
    # the device between, and all steps are one program.
    assert steps.asked == {(1, 2), (2, 2), (3, 4), (4, 4), (5, 6), (6, 6)}
    assert [step._cache_size() for step in steps.compiled] == [1]
    # Evaluations during and after training use the same parameters, and the
    # best checkpoint is not evaluated twice in a row.
    best = json.loads((whole / "map.json").read_text())["step"] // 2 - 1
    assert len(evaluated) == (3 if best == 2 else 4)
    jax.tree.map(np.testing.assert_array_equal, evaluated[best],
                 evaluated[-1])
    monkeypatch.undo()

    # Ends in the third epoch, after metrics that no checkpoint holds.
    real_write, count = train_job._write_metrics, [0]

    def write_and_die(pending, *rest):
        real_write(pending, *rest)
        count[0] += bool(pending)
        if count[0] == 3:
            raise _Died

    monkeypatch.setattr(train_job, "_write_metrics", write_and_die)
    with pytest.raises(_Died):
        train_job.train(config, broken)
    assert len(_trace(broken)) == 6 + 2
    monkeypatch.undo()
    capsys.readouterr()
    resumed = train_job.train(config, broken)
    assert "resumed" in capsys.readouterr().out
    assert _trace(broken) == _trace(whole)
    assert resumed.average_map == report.average_map
    files = [json.loads((folder / "predictions.json").read_text())
             for folder in (whole, broken)]
    assert files[0] == files[1] and len(files[0]["results"]) == 2

    # A signal ends an evaluation after a batch; the next start repeats it.
    stopped = tmp_path / "stopped"
    real_put, batches = evaluate_job.put_batch, []

    def put_and_signal(*arguments):
        batches.append(1)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_put(*arguments)

    monkeypatch.setattr(evaluate_job, "put_batch", put_and_signal)
    with pytest.raises(Interrupted, match="SIGTERM, before this evaluation "
                       "had ended: start the same command again"):
        train_job.train(config, stopped)
    assert len(batches) == 2
    assert _trace(stopped) == _trace(whole)[:2]
    monkeypatch.undo()
    assert train_job.train(config, stopped).average_map == report.average_map
    assert _trace(stopped) == _trace(whole)

    # --mode=eval alone gives the same from the finished folder.
    (broken / "predictions.json").unlink()
    again = evaluate(config, broken, report_pages=0)
    np.testing.assert_array_equal(again.map_per_threshold,
                                  report.map_per_threshold)
    assert json.loads((broken / "predictions.json").read_text()) == files[0]

    # Its pages show these very predictions, and the video itself.
    assert "videos/untrimmed_" in (broken / "report/index.html").read_text()
    for name, detections in files[0]["results"].items():
        page = broken / f"report/videos/{name}.html"
        text = page.read_text()
        assert f"/{name}.mp4" in text
        (data,) = re.findall(
            r'<script type="application/json"[^>]*>(.*?)</script>', text,
            re.DOTALL)
        assert sorted(row[3] for row in json.loads(data)["predictions"]) == (
            sorted(one["score"] for one in detections))
        assert json.loads(data)["poster"] >= 0

    assert '"gate/short/' in (broken / "metrics.jsonl").read_text()
    # A run is not resumed with another configuration.
    other = config.copy_and_resolve_references()
    other.train.learning_rate = 5e-3
    stored = (broken / "config.json").read_text()
    with pytest.raises(InputError, match="(?s)run with other settings.*train"):
        train_job.train(other, broken)
    assert (broken / "config.json").read_text() == stored
    # With other actions it goes on where this is accepted.
    annotations = json.loads(Path(config.data.annotations).read_text())
    name = next(name for name, video in annotations["database"].items()
                if video["subset"] == config.data.train_subset)
    annotations["database"][name]["annotations"][0]["segment"][1] -= 0.1
    other = config.copy_and_resolve_references()
    other.data.annotations = str(tmp_path / "shorter.json")
    Path(other.data.annotations).write_text(json.dumps(annotations))
    other.data.accept_changes = True
    assert train_job.train(other, broken).average_map == resumed.average_map
    assert not (broken / "rounds").exists()


def test_evaluating_a_folder_without_a_run_leaves_nothing(config, tmp_path):
    with pytest.raises(InputError, match="holds no run to evaluate"):
        evaluate(config, tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_window_of_broken_clips_is_refused_before_videos_are_read(
        config, tmp_path):
    odd = config.copy_and_resolve_references()
    odd.window.samples = 50
    odd.data.videos = "/nowhere"
    with pytest.raises(InputError, match="samples=50 is no multiple of"):
        train_job.train(odd, tmp_path / "run")


def test_a_loss_that_is_not_finite_names_step_and_videos(
        config, tmp_path, monkeypatch):
    real = build.make_train_step

    def poisoned(*arguments, **settings):
        step = real(*arguments, **settings)

        def poison(state, *rest):
            state, metrics = step(state, *rest)
            bad = jax.numpy.where(state.step == 2, jax.numpy.nan, 0.0)
            return state, {**metrics, "loss": metrics["loss"] + bad}

        return poison

    monkeypatch.setattr(build, "make_train_step", poisoned)
    with pytest.raises(InputError, match="step 2: loss=nan.*"
                                         "untrimmed_training_"):
        train_job.train(config, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_a_broken_video_stops_or_is_skipped(config, tmp_path, capsys):
    import shutil
    from pathlib import Path

    videos = tmp_path / "videos"
    shutil.copytree(config.data.videos, videos)
    victim = sorted(Path(videos).glob("*training*"))[0]
    victim.write_bytes(victim.read_bytes()[:2000])
    bad = config.copy_and_resolve_references()
    bad.data.videos = str(videos)
    with pytest.raises(InputError, match="(?s)1 of 4 videos.*"
                       + victim.stem) as caught:
        train_job.train(bad, tmp_path / "stop")
    assert "on_broken_video=skip" in str(caught.value)
    bad.data.on_broken_video = "skip"
    bad.train.epochs = 1
    train_job.train(bad, tmp_path / "skip")
    text = capsys.readouterr().out
    assert "1 videos were skipped" in text and victim.stem in text
