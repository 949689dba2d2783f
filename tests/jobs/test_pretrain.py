"""Pre-training on a handful of clips: stops, resumes, leaves a backbone."""

import json

import pytest

from configs import quick
from losa_jax.errors import InputError
from losa_jax.jobs import pretrain as pretrain_job
from losa_jax.jobs.stop import Interrupted
from losa_jax.models.weights import load_backbone

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
    config.pretrain.width = 16
    config.pretrain.depth = 2
    config.pretrain.heads = 2
    config.pretrain.log_every = 1
    config.pretrain.checkpoint_every = 2
    return config


def _losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["pretrain_loss"])
            for line in map(json.loads, lines)]


def test_a_stopped_pretraining_goes_on_as_if_it_had_not(
        config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain_job, "CALIBRATION_BATCHES", 2)
    backbones = []
    for name in ("whole", "stopped"):
        run = config.copy_and_resolve_references()
        run.backbone.checkpoint = str(tmp_path / f"{name}_backbone")
        backbones.append(run)
    pretrain_job.pretrain(backbones[0], tmp_path / "whole")

    class Stops(pretrain_job.StopSignal):
        steps = 0

        @property
        def came(self):
            self.steps += 1
            return "SIGTERM" if self.steps > 6 else ""

        @came.setter
        def came(self, value):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(pretrain_job, "StopSignal", Stops)
        with pytest.raises(Interrupted, match="pre-training step .* of 6"):
            pretrain_job.pretrain(backbones[1], tmp_path / "stopped")
    assert not (tmp_path / "stopped_backbone").exists()
    capsys.readouterr()
    pretrain_job.pretrain(backbones[1], tmp_path / "stopped")
    assert "resumed pre-training" in capsys.readouterr().out
    assert _losses(tmp_path / "whole") == _losses(tmp_path / "stopped")
    (_, one, _), (_, two, _) = (
        load_backbone(tmp_path / f"{name}_backbone")
        for name in ("whole", "stopped"))
    assert set(one) == set(two)
    for name in one:
        assert (one[name] == two[name]).all(), name

    other = backbones[1].copy_and_resolve_references()
    other.pretrain.learning_rate = 1.0
    with pytest.raises(InputError, match="other settings"):
        pretrain_job.pretrain(other, tmp_path / "stopped")
