"""Pre-training on a handful of clips: stops, resumes, leaves a backbone."""

import json

import pytest

from configs import quick
from losa_jax.distributed.stop_signal import Interrupted
from losa_jax.errors import InputError
from losa_jax.jobs import pretrain as pretrain_job
from losa_jax.weights.backbone_folder import open_backbone

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    config = quick.get_config()
    config.synthetic.folder = str(folder / "data")
    config.synthetic.num_trimmed_training = 12
    config.synthetic.num_trimmed_testing = 4
    config.synthetic.size = config.augment.size = 32
    config.pretrain.steps = 6
    config.pretrain.batch_clips = 4
    config.backbone.width = 16
    config.backbone.depth = 2
    config.backbone.heads = 2
    config.pretrain.log_every = 1
    config.pretrain.checkpoint_every = 2
    return config


def _losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["pretrain_loss"])
            for line in map(json.loads, lines)]


def _run(config, folder):
    run = config.copy_and_resolve_references()
    run.synthetic.folder = str(folder / "data")
    run.backbone.checkpoint = str(folder / "data/backbone")
    return run


class _Killed(Exception):
    pass


def test_a_broken_off_pretraining_goes_on_as_if_it_had_not(
        config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain_job, "CALIBRATION_BATCHES", 2)
    whole = _run(config, tmp_path / "whole")
    broken = _run(config, tmp_path / "broken")
    pretrain_job.pretrain(whole)

    class Stops(pretrain_job.StopSignal):
        """SIGTERM at step 3, later a death at step 6 with 4 saved."""

        steps = 0

        @property
        def came(self):
            Stops.steps += 1
            if Stops.steps == 3 + 3:
                raise _Killed
            return "SIGTERM" if Stops.steps == 3 else ""

        @came.setter
        def came(self, value):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(pretrain_job, "StopSignal", Stops)
        with pytest.raises(Interrupted, match="pre-training step 3 of 6"):
            pretrain_job.pretrain(broken)
        with pytest.raises(_Killed):
            pretrain_job.pretrain(broken)
    assert not (tmp_path / "broken/data/backbone").exists()
    capsys.readouterr()
    pretrain_job.ensure_backbone(broken)
    folders = [tmp_path / f"{name}/data/pretrain"
               for name in ("whole", "broken")]
    text = capsys.readouterr().out
    assert f"resumed pre-training in {folders[1]} at step 4 of 6" in text
    # Each step once, in order, with the very same loss.
    one, two = map(_losses, folders)
    assert [step for step, _ in one] == [step for step, _ in two] == [
        1, 2, 3, 4, 5, 6]
    assert one == two
    spec, _, _ = open_backbone(broken.backbone.checkpoint)
    assert (spec.width, spec.depth) == (16, 2)

    other = broken.copy_and_resolve_references()
    other.pretrain.learning_rate = 1.0
    stored = (folders[1] / "config.json").read_text()
    with pytest.raises(InputError, match="(?s)other settings.*delete "
                       + str(folders[1])):
        pretrain_job.pretrain(other)
    assert (folders[1] / "config.json").read_text() == stored
