"""A miniature of each further data set, in its very layout and with features
that show the actions, trains, evaluates and is scored."""

import importlib
import json

import jax
import numpy as np
import pytest

from losa_jax import score
from losa_jax.errors import InputError
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.train import train
from losa_jax.training import build

WIDTH = 16
SECONDS = 16.0
NAMES = ("run", "jump", "fall", "sit", "stand")


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    """Programs of one device compile faster than those of eight."""
    build_mesh = build.build_mesh
    monkeypatch.setattr(build, "build_mesh", lambda config: build_mesh(
        config, jax.devices()[:1]))


def _made_up(seed, num_videos=6):
    """Returns {number of a video: [(start, end, class)]}; every class is in
    the first ones, and some actions have two classes."""
    rng = np.random.default_rng(seed)
    videos = []
    for number in range(num_videos):
        actions = []
        for place in range(4):
            start = SECONDS * place / 4 + rng.uniform(0.1, 1.5)
            end = start + rng.uniform(1, 2)
            label = (number + place) % len(NAMES)
            actions.append((round(start, 2), round(end, 2), label))
        start, end, label = actions[0]
        videos.append([*actions, (start, end, (label + 2) % len(NAMES))])
    return videos


def _features(actions, count, stride, clip, fps, *, width=WIDTH, seed=0):
    """Returns [count, width]: channel k is high during actions of class k."""
    middle = (np.arange(count) * stride + clip / 2) / fps
    features = np.random.default_rng(seed).normal(0, 0.1, (count, width))
    for start, end, label in actions:
        features[(middle >= start) & (middle <= end), label % width] += 2
    return features.astype(np.float32)


def _num_features(seconds, fps, stride, clip):
    return int((seconds * fps - clip) // stride) + 1


def _small(recipe, variant, folder, annotations, epochs=16):
    """Returns a recipe with a tiny head for the miniature."""
    module = importlib.import_module(f"configs.{recipe}")
    config = module.get_config(*([variant] if variant else []))
    config.data.annotations = annotations
    config.features.folder = str(folder)
    config.features.width = WIDTH
    config.window.samples = config.window.tokens = 128
    config.head.width, config.head.num_levels = 32, 2
    config.head.num_stem_blocks = 0
    config.head.num_embedding_convs = 1
    config.head.head_layers = 1
    config.head.attention_heads = 2
    config.head.attention_window = (9,)
    config.head.regression_edges = ()
    config.train.batch_windows = 2
    config.train.learning_rate, config.train.ema_decay = 4e-3, 0.95
    config.train.epochs = config.train.schedule_epochs = epochs
    config.train.warmup_epochs = 2.0
    config.train.evaluate_from_epoch = epochs
    config.train.checkpoint_every_epochs = epochs
    config.loss.initial_normalizer = 20.0
    return config


def _trained_and_scored(config, workdir, *flags):
    """Trains, which evaluates at the end, and scores the predictions; returns
    map.json and the file of the scoring."""
    train(config, workdir)
    content = json.loads((workdir / "map.json").read_text())
    thresholds = ",".join(map(str, config.evaluate.tiou_thresholds))
    assert score.main([
        str(workdir / "predictions.json"), f"--tiou={thresholds}",
        f"--annotations={config.data.annotations}", "--ties=stable",
        f"--subset={config.data.test_subset}",
        f"--json={workdir / 'scored.json'}", *flags]) == 0
    scored = json.loads((workdir / "scored.json").read_text())
    assert scored["average_map"] == pytest.approx(content["average_map"],
                                                  abs=1e-6)
    return content, scored


@pytest.mark.slow
def test_multithumos(tmp_path, capsys):
    content = {}
    for number, actions in enumerate(_made_up(0)):
        name = f"video_{'test' if number > 3 else 'validation'}_{number:07d}"
        content[name] = {
            "subset": "testing" if number > 3 else "training",
            "duration": SECONDS, "actions": [
                [label + 1, start, end] for start, end, label in actions]}
        # The flow's channels are not read.
        count = _num_features(SECONDS, 30, 4, 16)
        np.save(tmp_path / f"{name}.npy", np.hstack([
            _features(actions, count, 4, 16, 30),
            np.full((count, 8), 100, np.float32)]))
    (tmp_path / "multithumos.json").write_text(json.dumps(content))
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    config = _small("multithumos_features", "i3d_rgb", tmp_path,
                    f"{tmp_path}/multithumos.json,{tmp_path}/classes.txt")
    config.features.channels = (0, WIDTH)
    config.window.samples = config.window.tokens = 120
    evaluated, scored = _trained_and_scored(
        config, tmp_path / "run", "--per_frame=multithumos",
        f"--moments_per_second={count / SECONDS}")
    assert evaluated["average_map"] > 0.3
    assert len(evaluated["tiou_thresholds"]) == 9
    assert evaluated["class_names"] == list(NAMES)
    frames = evaluated["per_frame"]
    assert frames["frame_map"] > 0.5
    # Every feature of two videos.
    assert frames["num_moments"] == 2 * count == scored["per_frame"][
        "num_moments"]
    assert scored["per_frame"] == frames
    again = evaluate(config, tmp_path / "run", output=tmp_path / "again")
    assert again.average_map == pytest.approx(evaluated["average_map"],
                                              abs=1e-6)
    assert again.per_frame.frame_map == pytest.approx(frames["frame_map"])
    assert "per-frame mAP (multithumos): " in capsys.readouterr().out


def _epic_tables(folder, videos):
    """Writes the tables; the noun of class k is a step after the verb."""
    columns = ("narration_id,video_id,start_timestamp,stop_timestamp,verb,"
               "verb_class,noun,noun_class\n")
    nouns = ("cup", "lid", "pan", "bowl", "knife")
    rows = {"train": [], "validation": []}
    for number, actions in enumerate(videos):
        table = rows["train" if number < 4 else "validation"]
        for start, end, label in actions:
            noun = (label + 1) % len(nouns)
            table.append(
                f"x,P01_{number:02d},00:00:{start:05.2f},00:00:{end:05.2f},"
                f"{NAMES[label]},{label},{nouns[noun]},{noun}\n")
    for name, lines in rows.items():
        (folder / f"EPIC_100_{name}.csv").write_text(
            columns + "".join(lines))
    (folder / "EPIC_100_video_info.csv").write_text(
        "video_id,duration,fps\n" + "".join(
            f"P01_{number:02d},{SECONDS},59.94\n"
            for number in range(len(videos))))
    for word, names in (("verb", NAMES), ("noun", nouns)):
        (folder / f"EPIC_100_{word}_classes.csv").write_text(
            "id,key,instances\n" + "".join(
                f"{number},{name},\"['{name}']\"\n"
                for number, name in enumerate(names)))
    return [f"{folder}/EPIC_100_{name}.csv" for name in (
        "train", "validation", "video_info")]


@pytest.mark.slow
def test_epic_kitchens_with_pairs_of_verbs_and_nouns(tmp_path, capsys):
    videos = _made_up(1)
    tables = _epic_tables(tmp_path, videos)
    classes = {word: f"{tmp_path}/EPIC_100_{word}_classes.csv"
               for word in ("verb", "noun")}
    count = _num_features(SECONDS, 30, 4, 8)
    for number, actions in enumerate(videos):
        # Of copies with 30 frames a second, as the archives of the authors.
        np.savez(tmp_path / f"P01_{number:02d}.npz",
                 feats=_features(actions, count, 4, 8, 30))
    configs = {}
    for word, path in classes.items():
        config = configs[word] = _small("epic_features", word, tmp_path,
                                        ",".join([*tables, path]))
        config.features.stride_frames, config.features.clip_frames = 4.0, 8.0
        config.window.samples = config.window.tokens = 120
        report = train(config, tmp_path / word)
        assert report.average_map > 0.3 and len(report.class_names) == 5
    config = configs["verb"]
    config.data.annotations = ",".join([*tables, *classes.values()])
    report = evaluate(config, tmp_path / "verb", output=tmp_path / "action",
                      pair_with=tmp_path / "noun")
    assert report.average_map > 0.2
    assert len(report.class_names) == 5  # pairs that occur
    capsys.readouterr()
    assert score.main([
        str(tmp_path / "action/epic_submission.json"), "--protocol=epic",
        f"--annotations={config.data.annotations}", "--subset=validation",
        "--ties=stable", f"--json={tmp_path / 'scored.json'}"]) == 0
    scored = json.loads((tmp_path / "scored.json").read_text())
    assert scored["action"]["average_map"] == pytest.approx(
        report.average_map, abs=1e-6)
    assert min(scored[word]["average_map"] for word in classes) > 0.3
    with pytest.raises(InputError, match="'.*' is no verb of .*: give the run "
                                         "of verbs with --workdir"):
        evaluate(config, tmp_path / "noun", pair_with=tmp_path / "verb")
    config_file = tmp_path / "noun/config.json"
    config_file.write_text(config_file.read_text().replace(
        '"overlap": 0.5', '"overlap": 0.25'))
    with pytest.raises(InputError, match="sees other windows than"):
        evaluate(config, tmp_path / "verb", pair_with=tmp_path / "noun")
    config.features.stride_frames = 8.0
    with pytest.raises(InputError, match="another config.features.stride"):
        evaluate(config, tmp_path / "verb")


@pytest.mark.slow
def test_charades(tmp_path):
    videos = _made_up(2)
    rows = {"train": [], "test": []}
    for number, actions in enumerate([*videos, []]):
        name = f"AB{number:02d}C"
        text = ";".join(f"c{label:03d} {start:.2f} {end + 3 * (end > 15):.2f}"
                        for start, end, label in actions)
        if number == 0:
            text += ";c001 9.00 2.00"  # ends before it starts
        rows["train" if number < 4 or not actions else "test"].append(
            f'{name},"{text}",{SECONDS}\n')
        count = _num_features(SECONDS, 24, 3, 3)
        np.save(tmp_path / f"{name}.npy",
                _features(actions, count, 3, 3, 24))
    for name, lines in rows.items():
        (tmp_path / f"Charades_v1_{name}.csv").write_text(
            "id,actions,length\n" + "".join(lines))
    (tmp_path / "Charades_v1_classes.txt").write_text("".join(
        f"c{number:03d} {name} something\n"
        for number, name in enumerate(NAMES)))
    config = _small("charades_features", "i3d", tmp_path, ",".join(
        f"{tmp_path}/Charades_v1_{name}" for name in (
            "train.csv", "test.csv", "classes.txt")))
    config.features.stride_frames = config.features.clip_frames = 3.0
    content, scored = _trained_and_scored(config, tmp_path / "run",
                                          "--per_frame=charades")
    assert content["average_map"] > 0.3
    frames = content["per_frame"]
    assert frames == scored["per_frame"]
    assert frames["num_moments"] == 2 * 25 and frames["frame_map"] > 0.5


@pytest.mark.slow
def test_hacs_with_classes_of_tcanets_layout(tmp_path):
    database, scores = {}, {}
    for number, actions in enumerate(_made_up(3)):
        name = f"hacs_{number}"
        label = number % 2  # each video shows one class
        database[name] = {
            "subset": "training" if number < 4 else "validation",
            "duration": f"{SECONDS:.3f}", "annotations": [
                {"label": NAMES[label], "segment": [start, end]}
                for start, end, _ in actions[:4]]}
        if number == 4:  # an empty one
            database[name]["annotations"].append(
                {"label": NAMES[label], "segment": [3.0, 3.0]})
        count = _num_features(SECONDS, 15, 2, 8)
        np.save(tmp_path / f"{name}.npy", _features(
            [(start, end, 0) for start, end, _ in actions[:4]], count, 2, 8,
            15))
        scores[name] = [[4.0 * (k == label) for k in range(2)]]
    (tmp_path / "hacs.json").write_text(json.dumps({
        "version": "v1.1.1", "database": database}))
    (tmp_path / "scores.json").write_text(json.dumps({
        "class": NAMES[:2], "results": scores}))
    config = _small("hacs_features", "slowfast_proposals", tmp_path,
                    f"{tmp_path}/hacs.json")
    config.features.stride_frames, config.features.clip_frames = 2.0, 8.0
    config.evaluate.video_scores = f"{tmp_path}/scores.json"
    config.evaluate.video_scores_top = 2
    content, _ = _trained_and_scored(config, tmp_path / "run")
    assert content["class_names"] == sorted(NAMES[:2])
    assert content["average_map"] > 0.2


@pytest.mark.slow
def test_ego4d_with_joined_features(tmp_path, capsys):
    files = {"train": [], "val": []}
    count = _num_features(SECONDS, 30, 4, 8)
    for folder in ("slowfast", "egovlp"):
        (tmp_path / folder).mkdir()
    for number, actions in enumerate(_made_up(4)):
        split = "train" if number < 4 else "val"
        first = 100.0 * number
        files[split].append({"video_uid": f"v{number}", "split": split,
                             "clips": [{
            "clip_uid": f"clip{number}", "video_start_sec": first,
            "video_end_sec": first + SECONDS,
            "video_start_frame": int(30 * first),
            "video_end_frame": int(30 * (first + SECONDS)),
            "annotations": [{"labels": [{
                "label": NAMES[label], "video_start_time": first + start,
                "video_end_time": first + end, "primary": place != 1}]}
                for place, (start, end, label) in enumerate(actions)]}]})
        used = [action for place, action in enumerate(actions) if place != 1]
        features = _features(used, count, 4, 8, 30)
        np.save(tmp_path / f"slowfast/clip{number}.npy", features[:, :3])
        np.save(tmp_path / f"egovlp/clip{number}.npy", features[:, 3:])
    for split, videos in files.items():
        (tmp_path / f"moments_{split}.json").write_text(
            json.dumps({"videos": videos}))
    config = _small("ego4d_features", "slowfast_opentad", tmp_path,
                    f"{tmp_path}/moments_train.json,"
                    f"{tmp_path}/moments_val.json")
    config.features.folder = f"{tmp_path}/slowfast,{tmp_path}/egovlp"
    config.head.input_widths, config.head.input_projections = (3, 13), (8, 16)
    config.features.stride_frames, config.features.clip_frames = 4.0, 8.0
    config.window.samples = config.window.tokens = 64
    content, scored = _trained_and_scored(config, tmp_path / "run",
                                          "--protocol=ego4d")
    assert content["average_map"] > 0.2
    assert scored["num_actions"] == 2 * 4
    assert {f"kit_{number}x" for number in range(1, 6)} < {*scored["recall"]}
    assert content["recall"] == scored["recall"]
    # Of the evaluation and of the scoring.
    assert capsys.readouterr().out.count("kit's recall@5x  0.3: ") == 2


@pytest.mark.slow
def test_fineaction_with_classes_of_another_key(tmp_path):
    database, scores = {}, {}
    for number, actions in enumerate(_made_up(5)):
        name, label = f"v_{number:08d}", number % 2
        database[name] = {
            "subset": "training" if number < 4 else "validation",
            "duration": SECONDS, "fps": 30.0, "annotations": [
                {"label": NAMES[label], "segment": [start, end]}
                for start, end, _ in actions[:4]]}
        count = _num_features(SECONDS, 30, 4, 16)
        np.save(tmp_path / f"{name}.npy", _features(
            [(start, end, 0) for start, end, _ in actions[:4]], count, 4, 16,
            30))
        scores[name] = [0.1 + 0.8 * (k == label) for k in range(2)]
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    (tmp_path / "scores.json").write_text(json.dumps({
        "classes": NAMES[:2], "results": scores}))
    config = _small("fineaction_features", "videomaev2", tmp_path,
                    f"{tmp_path}/gt.json")
    config.features.stride_frames = 4.0
    config.window.samples = config.window.tokens = 96
    config.evaluate.video_scores = f"{tmp_path}/scores.json"
    content, _ = _trained_and_scored(config, tmp_path / "run")
    assert content["class_names"] == sorted(NAMES[:2])
    assert content["average_map"] > 0.2


@pytest.mark.slow
def test_epic_sounds(tmp_path):
    rows = {"train": [], "validation": []}
    count = _num_features(SECONDS, 30, 4, 8)
    for number, actions in enumerate(_made_up(6)):
        name = f"P01_{number:02d}"
        rows["train" if number < 4 else "validation"] += [
            f"x,{name},00:00:{start:06.3f},00:00:{end:06.3f},"
            f"{NAMES[label]} / other,{label}\n"
            for start, end, label in actions]
        np.savez(tmp_path / f"{name}.npz",
                 feats=_features(actions, count, 4, 8, 30))
    for name, lines in rows.items():
        (tmp_path / f"EPIC_Sounds_{name}.csv").write_text(
            "annotation_id,video_id,start_timestamp,stop_timestamp,class,"
            "class_id\n" + "".join(lines))
    (tmp_path / "EPIC_100_video_info.csv").write_text(
        "video_id,duration,fps\n" + "".join(
            f"P01_{number:02d},{SECONDS},59.94\n" for number in range(6)))
    config = _small("epic_sounds_features", None, tmp_path, ",".join(
        f"{tmp_path}/{name}.csv" for name in (
            "EPIC_Sounds_train", "EPIC_Sounds_validation",
            "EPIC_100_video_info")))
    config.features.stride_frames, config.features.clip_frames = 4.0, 8.0
    content, _ = _trained_and_scored(config, tmp_path / "run")
    assert content["class_names"] == [f"{name} / other" for name in NAMES]
    assert content["average_map"] > 0.2
