"""A config is completed: sizes fitted to the data, a backbone by name."""

import json

import pytest

from configs import custom
from losa_jax.data.annotations.load import load_annotations
from losa_jax.errors import InputError
from losa_jax.jobs import check_data as check_job
from losa_jax.jobs import fit_config as module
from losa_jax.jobs.check_data import check_data
from losa_jax.jobs.fit_config import fit_config
from losa_jax.training.fitted_sizes import KEYS, automatic_keys
from tests.data.tiny_set import make_tiny_set


@pytest.fixture
def tiny(tmp_path, config):
    """Returns custom.py for a tiny set, with the tests' backbone."""
    folder = make_tiny_set(tmp_path)
    ours = custom.get_config()
    ours.data.annotations = str(folder / "annotations.json")
    ours.data.videos = str(folder / "videos")
    ours.backbone.checkpoint = config.backbone.checkpoint
    return ours


def _values(config):
    return {key: config[key.split(".")[0]][key.split(".")[1]] for key in KEYS}


def _change(config, function):
    path = config.data.annotations
    with open(path) as file:
        database = json.load(file)["database"]
    for entry in database.values():
        function(entry)
    with open(path, "w") as file:
        json.dump({"database": database}, file)


def test_sizes_are_set_and_printed_with_what_they_are_for(tiny, tmp_path,
                                                          capsys):
    fit_config(tiny, tmp_path / "run")
    assert automatic_keys(tiny) == []
    assert tiny.window.sample_fps == 25.0  # actions of 0.23 s
    assert tiny.augment.size == 32  # of videos and backbone
    printed = capsys.readouterr().out
    assert "8 actions (0.233 s short, " in printed and "in 4 videos" in printed
    for key, value in _values(tiny).items():
        assert f"{key}={value:g}" in printed


@pytest.mark.parametrize("place", ["run", "run/rounds/2", "other"])
def test_the_sizes_of_a_run_stay_when_videos_are_added(tiny, tmp_path, capsys,
                                                       place):
    workdir, folder = tmp_path / "run", tmp_path / place
    (folder / "checkpoints").mkdir(parents=True)
    if place == "other":
        tiny.train.start_from = str(folder)
    stored = dict.fromkeys(KEYS, 64) | {"window.sample_fps": 5.0}
    (folder / "config.json").write_text(json.dumps({
        section: {key.split(".")[1]: value for key, value in stored.items()
                  if key.startswith(f"{section}.")}
        for section in ("window", "augment", "head", "train")}))
    tiny.window.samples = 32
    fit_config(tiny, workdir)
    assert _values(tiny) == stored | {"window.samples": 32}
    printed = capsys.readouterr().out
    assert f"sizes of the run in {folder}" in printed
    assert "window.samples=" not in printed


def test_lengths_come_from_the_annotations_where_there_are_no_videos(
        tiny, tmp_path):
    by_files = tiny.copy_and_resolve_references()
    fit_config(by_files, tmp_path / "a")
    tiny.data.videos = ""
    fit_config(tiny, tmp_path / "b")
    assert _values(tiny) == _values(by_files)
    assert not (tmp_path / "b").exists()


def test_sizes_need_annotations_or_values(tiny, tmp_path):
    tiny.data.videos = ""
    _change(tiny, lambda entry: entry.pop("duration"))
    with pytest.raises(InputError, match='4 videos, as training.0, have no '
                       '"duration" or "fps": set --config.data.videos, or --'):
        fit_config(tiny, tmp_path / "run")
    tiny.data.annotations = ""
    with pytest.raises(InputError, match="config.window.sample_fps=0 is fitted "
                       "to annotations: set --config.data.annotations, or "
                       "--config.window.sample_fps=VALUE --config.window.sam"):
        fit_config(tiny, tmp_path / "run")


def test_check_data_reports_videos_that_the_sizes_cannot_be_fitted_to(
        tiny, tmp_path, capsys):
    for path in (tmp_path / "videos").iterdir():
        path.write_bytes(b"no video")
    findings = check_data(tiny, tmp_path / "work")
    assert len(findings) == 6
    assert "0 of 6 videos can be read" in capsys.readouterr().out


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Returns the calls of a hub whose only model is the tests' backbone."""
    calls = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def download(name):
        calls.append(name)
        if name != "owner/tiny":
            raise InputError(f"{name}: no such model")
        return tmp_path / "tiny.safetensors", {"source": f"{name}@1"}

    monkeypatch.setattr("losa_jax.weights.hub.download", download)
    return calls


def test_a_backbone_by_name_is_fetched_once(tiny, config, hub, tmp_path,
                                            monkeypatch):
    converted = []

    def convert(path, output, *, origin):
        converted.append((path, origin))
        output.mkdir(parents=True)
        (output / "backbone.json").write_text("{}")

    monkeypatch.setattr(module, "convert", convert)
    for _ in range(2):
        tiny.backbone.checkpoint = "owner/tiny"
        module.fit_backbone(tiny)
        folder = tmp_path / "cache/losa_jax/backbones/owner--tiny"
        assert tiny.backbone.checkpoint == str(folder)
    assert hub == ["owner/tiny"]
    assert converted == [(tmp_path / "tiny.safetensors",
                          {"source": "owner/tiny@1"})]


def test_a_backbone_that_cannot_be_fetched_is_named_with_the_remedy(tiny, hub):
    tiny.backbone.checkpoint = "owner/other"
    with pytest.raises(InputError, match="(?s)config.backbone.checkpoint="
                       "owner/other: .*no such model\n--config.backbone.check"
                       "point=FOLDER names a backbone that `python -m losa_"):
        module.fit_backbone(tiny)


@pytest.mark.parametrize("name", ["", "here/there", "weights/a.pth", "a/b/c"])
def test_what_is_no_name_does_not_ask_the_hub(tiny, hub, name, tmp_path,
                                              monkeypatch):
    (tmp_path / "here/there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    tiny.backbone.checkpoint = name
    module.fit_backbone(tiny)
    assert tiny.backbone.checkpoint == name and hub == []


def test_features_that_are_cached_before_a_run_keep_their_sizes(tiny,
                                                               tmp_path):
    tiny.data.cache = str(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/cache.json").write_text(json.dumps(
        {"facts": {"sample_fps": 12.0, "size": 16}}))
    fit_config(tiny, tmp_path / "run")
    assert tiny.window.sample_fps == 12.0 and tiny.augment.size == 16
    assert automatic_keys(tiny) == []


def test_actions_without_a_length_are_named(tiny, tmp_path):
    def shorten(entry):
        for row in entry["annotations"]:
            row["segment"][1] = row["segment"][0]

    _change(tiny, shorten)
    with pytest.raises(InputError, match="annotations.json: no training"):
        fit_config(tiny, tmp_path / "run")


def test_check_data_reads_the_videos_that_a_training_will_cache(
        tiny, tmp_path, capsys):
    tiny.data.cache = str(tmp_path / "cache")
    tiny.window.align_to_clips = True
    (next((tmp_path / "videos").iterdir())).write_bytes(b"no video")
    findings = check_data(tiny, tmp_path / "work")
    assert [one.category for one in findings].count(
        "missing or unreadable") == 1
    assert "5 of 6 videos can be read" in capsys.readouterr().out


def test_check_data_reads_the_videos_that_cached_features_lack(tiny, tmp_path):
    class Store:
        def __contains__(self, name):
            return name == "training.0"

        def check(self, video):
            return f"features of {video.video_id}"

    videos = list(load_annotations(tiny.data.annotations).videos.values())[:3]
    (tmp_path / f"videos/{videos[1].video_id}.mp4").unlink()
    (tmp_path / "work").mkdir()
    infos, unreadable = check_job._check_features(
        tiny, videos, tmp_path / "work", Store())
    assert infos["training.0"] == "features of training.0"
    assert infos[videos[2].video_id].fps == 25.0
    assert list(unreadable) == [videos[1].video_id]
