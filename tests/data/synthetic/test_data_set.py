"""The rendered data sets: files, labels, randomness, and no give-aways."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
import pytest

from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.synthetic import data_set, motion, scene
from losa_jax.data.synthetic.motion import ACTION_CLASSES, MOTION_CLASSES
from losa_jax.errors import InputError

_SMALL = {"num_training": 2, "num_testing": 1, "size": 32}


@pytest.fixture(scope="module")
def untrimmed(tmp_path_factory):
    return data_set.render_untrimmed_set(
        tmp_path_factory.mktemp("synthetic") / "untrimmed", **_SMALL)


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    return data_set.render_trimmed_set(
        tmp_path_factory.mktemp("synthetic") / "trimmed", **_SMALL)


@pytest.fixture(scope="module")
def plans():
    return [motion.plan_untrimmed(np.random.default_rng((3, i)))
            for i in range(400)]


def _database(folder):
    return json.loads((folder / "annotations.json").read_text())["database"]


@pytest.mark.parametrize("kind", ["untrimmed", "trimmed"])
def test_files_hold_what_the_annotations_say(kind, request):
    folder = request.getfixturevalue(kind)
    database = _database(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "annotations.json", "classes.txt", "videos"]
    assert ({path.name for path in (folder / "videos").iterdir()}
            == {f"{video_id}.mp4" for video_id in database})
    for video_id, entry in database.items():
        with av.open(str(folder / f"videos/{video_id}.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert (stream.width, stream.height) == (32, 32)
            assert stream.average_rate == entry["fps"]
            frames = [(frame.pts * stream.time_base, frame.key_frame)
                      for frame in container.decode(stream)]
        assert len(frames) == round(entry["duration"] * entry["fps"])
        assert [moment for moment, _ in frames] == [
            i / Fraction(entry["fps"]) for i in range(len(frames))]
        keys = [i for i, (_, is_key) in enumerate(frames) if is_key]
        assert keys[0] == 0
        assert max(np.diff([*keys, len(frames)])) <= 30


def test_annotations_can_be_read_and_lie_inside(untrimmed):
    names = load_class_names(untrimmed / "classes.txt")
    assert names == ACTION_CLASSES
    read = clipped_to(load_annotations(
        untrimmed / "annotations.json", names), {}, "error")
    assert len(read.subset("training")) == 2
    assert len(read.subset("testing")) == 1
    for entry in _database(untrimmed).values():
        assert 20 <= entry["duration"] <= 32
        edges = [0.0]
        for action in entry["annotations"]:
            assert names[action["label_id"]] == action["label"]
            edges += action["segment"]
        edges.append(entry["duration"])
        assert 3 <= len(entry["annotations"]) <= 6
        assert (np.diff(edges) > 0.49).all()


def test_a_trimmed_clip_is_one_action(trimmed):
    assert load_class_names(trimmed / "classes.txt") == MOTION_CLASSES
    for entry in _database(trimmed).values():
        [action] = entry["annotations"]
        assert action["segment"] == [0.0, entry["duration"]]
        # Half a frame of rounding at 20 frames a second.
        assert 1.975 <= entry["duration"] <= 2.525


def test_a_video_is_the_same_whatever_the_count(untrimmed, tmp_path):
    larger = data_set.render_untrimmed_set(
        tmp_path / "set", **{**_SMALL, "num_training": 3})
    for video_id, entry in _database(untrimmed).items():
        name = f"videos/{video_id}.mp4"
        assert (larger / name).read_bytes() == (untrimmed / name).read_bytes()
        assert _database(larger)[video_id] == entry
    assert len(_database(larger)) == 4


def test_the_same_pictures_give_the_same_file(tmp_path):
    # Memory is stirred between the tries: an encoder that reads what nobody
    # wrote (x264's macroblock tree did) gives several results.
    rng = np.random.default_rng(0)
    kept, results = [], set()
    plan, look = data_set._plan_video(
        {"kind": "trimmed", "seed": 0, "size": 32}, "training", 3)
    frames = [*scene.render_frames(
        look, *motion.follow(plan), plan.fps, 32)]
    for _ in range(60):
        kept = [*kept[-20:], rng.bytes(int(rng.integers(100, 200_000)))]
        scene.encode_video(tmp_path / "a.mp4", frames, plan.fps, 32)
        results.add((tmp_path / "a.mp4").read_bytes())
    assert len(results) == 1


def test_no_two_videos_share_a_stream():
    seen = set()
    for kind in ("untrimmed", "trimmed"):
        for seed in (0, 1):
            for subset in ("training", "testing"):
                for index in range(10):
                    plan, look = data_set._plan_video(
                        {"kind": kind, "seed": seed}, subset, index)
                    poses, _ = motion.follow(plan)
                    seen |= {float(poses[0, 0]), float(look.uniform())}
    assert len(seen) == 2 * 2 * 2 * 10 * 2


def test_pieces_fill_the_video_without_jumps(plans):
    for plan in plans[:100]:
        lengths = [piece.duration_seconds for piece in plan.pieces]
        assert min(lengths) > 0
        assert sum(lengths) == pytest.approx(plan.frame_count / plan.fps)
        for before, after in zip(
                plan.pieces[:-1], plan.pieces[1:], strict=True):
            assert before.opacity[1] == after.opacity[0]
            if before.opacity[1] > 0:
                np.testing.assert_allclose(
                    before.path(np.ones(1)), after.path(np.zeros(1)),
                    atol=1e-9)


def test_objects_rest_around_actions_and_move_within(plans):
    for plan in plans[:100]:
        poses, opacity = motion.follow(plan)
        seconds = np.arange(plan.frame_count) / plan.fps
        for _, start, end in plan.actions:
            for first, last in ((start - 0.6, start), (end, end + 0.6)):
                resting = poses[(seconds >= first) & (seconds < last)]
                np.testing.assert_allclose(
                    resting, np.tile(resting[0], (len(resting), 1)),
                    atol=1e-9)
            within = (seconds >= start) & (seconds < end)
            assert (opacity[within] == 1).all()
            assert (np.ptp(poses[within], axis=0) > [8, 8, 0.2]).any()


def test_durations_rates_classes_and_share(plans):
    actions = [(index, end - start) for plan in plans
               for index, start, end in plan.actions]
    classes, durations = map(np.array, zip(*actions, strict=True))
    assert durations.min() >= 0.5 - 1e-9 and durations.max() <= 8 + 1e-9
    assert durations.min() < 0.55 and durations.max() > 7.5
    # Log-uniform over four octaves; videos that would be crowded are drawn
    # again, so long actions are a little rarer than a quarter.
    octaves = np.histogram(durations, [0.5, 1, 2, 4, 8])[0] / len(durations)
    assert (octaves > 0.15).all() and (octaves < 0.35).all()
    # Neither frequency nor duration tells the class: within 4 sigma.
    expected = len(classes) / 8
    counts = np.bincount(classes, minlength=8)
    assert (abs(counts - expected) < 4 * np.sqrt(expected)).all()
    logs = np.log(durations)
    for index in range(8):
        distance = logs[classes == index].mean() - logs.mean()
        assert abs(distance) < 4 * logs.std() / np.sqrt(counts[index])
    assert {plan.fps for plan in plans} == {20, 24, 25, 30}
    length = sum(plan.frame_count / plan.fps for plan in plans)
    assert 0.3 < durations.sum() / length < 0.4


def _poses_of_actions(name, count):
    """Poses at random moments of random actions of a class [count, 3]."""
    rng = np.random.default_rng((5, ACTION_CLASSES.index(name)))
    return np.concatenate([
        motion.action_path(rng, name)(rng.uniform(size=1))
        for _ in range(count)])


def test_a_single_pose_does_not_tell_the_class():
    count = 2000
    poses = [_poses_of_actions(name, count) for name in ACTION_CLASSES]
    rest = [np.concatenate(poses[:i] + poses[i + 1:]) for i in range(8)]
    # Kolmogorov-Smirnov, each class against all others. 1.95 is the bound
    # that 1 in 1000 comparisons of like samples passes.
    bound = 1.95 * np.sqrt(1 / count + 1 / (7 * count))
    for mine, others in zip(poses, rest, strict=True):
        for axis in range(3):
            grid = np.sort(np.concatenate([mine[:, axis], others[:, axis]]))
            gap = (
                np.searchsorted(np.sort(mine[:, axis]), grid, "right") / count
                - np.searchsorted(np.sort(others[:, axis]), grid, "right")
                / (7 * count))
            assert abs(gap).max() < bound


# What the pose (x, y down, log radius) does in the first and in the last
# third of an action, by the meaning of its name.
_FIRST_MOVES = {
    "right_then_left": (1, 0, 0), "left_then_right": (-1, 0, 0),
    "down_then_up": (0, 1, 0), "up_then_down": (0, -1, 0),
    "grow_then_shrink": (0, 0, 1), "shrink_then_grow": (0, 0, -1),
}


@pytest.mark.parametrize("name", _FIRST_MOVES)
def test_swings_go_as_their_name_says(name):
    rng = np.random.default_rng(0)
    for _ in range(20):
        path = motion.action_path(rng, name)
        start, third, last_third, end = path(np.array([0, 1 / 3, 2 / 3, 1]))
        np.testing.assert_array_equal(
            np.sign(np.round(third - start, 9)), _FIRST_MOVES[name])
        np.testing.assert_array_equal(
            np.sign(np.round(end - last_third, 9)),
            -np.array(_FIRST_MOVES[name]))
        np.testing.assert_allclose(start, end, atol=1e-9)


@pytest.mark.parametrize("name,sense", [("clockwise", 1),
                                        ("counter_clockwise", -1)])
def test_circles_go_round_once_in_their_sense(name, sense):
    rng = np.random.default_rng(0)
    for _ in range(20):
        poses = motion.action_path(rng, name)(
            np.linspace(0, 1, 101))
        x, y = poses[:, 0], poses[:, 1]
        # Shoelace: positive is clockwise where y points down.
        area = 0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])
        radius = np.ptp(x) / 2
        assert area == pytest.approx(sense * np.pi * radius**2, rel=0.02)
        np.testing.assert_allclose(poses[0], poses[-1], atol=1e-9)


def test_slides_go_as_their_name_says():
    moves = {"slide_right": (1, 0, 0), "slide_left": (-1, 0, 0),
             "slide_down": (0, 1, 0), "slide_up": (0, -1, 0),
             "grow": (0, 0, 1), "shrink": (0, 0, -1)}
    seen = set()
    for seed in range(200):
        plan = motion.plan_trimmed(np.random.default_rng((7, seed)))
        name = MOTION_CLASSES[plan.actions[0][0]]
        seen.add(name)
        poses, _ = motion.follow(plan)
        if name in moves:
            np.testing.assert_array_equal(
                np.sign(np.round(poses[-1] - poses[0], 9)), moves[name])
        elif name == "still":
            assert np.ptp(poses, axis=0).max() == 0
    assert seen == set(MOTION_CLASSES)


def _render(poses, opacity, size=64, seed=11):
    rng = np.random.default_rng(seed)
    return np.stack(list(scene.render_frames(
        rng, np.asarray(poses, float), np.asarray(opacity, float), 25, size)))


def test_the_scene_does_not_depend_on_the_motion():
    hidden = np.zeros(5)
    first = _render(np.tile([20, 20, 2.0], (5, 1)), hidden)
    second = _render(np.tile([40, 30, 2.3], (5, 1)), hidden)
    np.testing.assert_array_equal(first, second)


def test_shapes_of_one_radius_share_one_area():
    # 2.6 r^2 with r = 64 / 4; 40 draws hold triangles, stars and discs.
    for seed in range(40):
        sprite = scene.draw_sprite(np.random.default_rng(seed), 64)
        opacity = sprite[..., 3]
        # Drawing adds an eighth of a pixel all around: 1.6 % for a disc.
        assert opacity.sum() == pytest.approx(2.6 * 16**2, rel=0.04)
        # Nothing is cut off at the border of the sprite.
        edge = np.concatenate([opacity[[0, -1]], opacity[:, [0, -1]].T])
        assert edge.max() < 0.05


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("size", [64, 96])
def test_the_object_is_drawn_where_and_as_large_as_its_pose(size, seed):
    poses = np.array([[20, 24, np.log(6.0)], [44, 36, np.log(6.0)],
                      [32, 32, np.log(12.0)]])
    scale = size / 64
    shown = _render(poses, np.ones(3), size, seed).astype(float)
    empty = _render(poses, np.zeros(3), size, seed).astype(float)
    change = abs(shown - empty).max(axis=3)
    # Halfway up the soft edge is where the shape ends.
    painted = [step > 0.5 * np.median(step[step > 20]) for step in change]
    for mask, (x, y, log_radius) in zip(painted, poses, strict=True):
        rows, columns = np.nonzero(mask)
        # Half a pixel of sway, and a shape's own lopsidedness.
        assert columns.mean() / scale == pytest.approx(x, abs=1.5)
        assert rows.mean() / scale == pytest.approx(y, abs=1.5)
        radius = np.exp(log_radius) * scale
        assert mask.sum() == pytest.approx(2.6 * radius**2, rel=0.2)


def test_a_crashed_run_is_finished_where_it_stopped(
        untrimmed, tmp_path, monkeypatch):
    folder = tmp_path / "set"

    class Crashes(ThreadPoolExecutor):
        def __init__(self, *_, **__):
            super().__init__(1)
            self.rendered = 0

        def submit(self, function, *arguments):
            if self.rendered == 2:
                raise KeyboardInterrupt
            self.rendered += 1
            return super().submit(function, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(data_set, "ProcessPoolExecutor", Crashes)
        with pytest.raises(KeyboardInterrupt):
            data_set.render_untrimmed_set(folder, **_SMALL)
    (folder / "videos/.0123456789ab.tmp").touch()
    before = {path: path.stat().st_mtime_ns
              for path in folder.glob("videos/*.mp4")}
    assert len(before) == 2
    with pytest.raises(InputError, match="or delete this one"):
        data_set.render_untrimmed_set(folder, **_SMALL, seed=1)

    data_set.render_untrimmed_set(folder, **_SMALL)
    assert all(path.stat().st_mtime_ns == moment
               for path, moment in before.items())
    for name in ("annotations.json", "classes.txt"):
        assert (folder / name).read_bytes() == (untrimmed / name).read_bytes()
    for path in (untrimmed / "videos").iterdir():
        assert (folder / "videos" / path.name).read_bytes() == (
            path.read_bytes())


def test_a_complete_set_is_left_as_it_is(untrimmed, monkeypatch):
    def refuse(*_):
        raise AssertionError("rendered again")

    monkeypatch.setattr(data_set, "ProcessPoolExecutor", refuse)
    assert data_set.render_untrimmed_set(untrimmed, **_SMALL) == untrimmed


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"size": 64}, {"num_training": 3}, {"num_testing": 2}])
def test_other_parameters_are_refused(untrimmed, change):
    with pytest.raises(InputError, match="needed: choose another"):
        data_set.render_untrimmed_set(untrimmed, **{**_SMALL, **change})


def test_another_kind_or_a_foreign_folder_is_refused(untrimmed, tmp_path):
    with pytest.raises(InputError, match="needed: choose another"):
        data_set.render_trimmed_set(untrimmed, **_SMALL)
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        data_set.render_trimmed_set(tmp_path, **_SMALL)
    (tmp_path / "annotations.json").write_text("[1]")
    with pytest.raises(InputError, match="other annotations"):
        data_set.render_trimmed_set(tmp_path, **_SMALL)


def test_wrong_parameters_are_named_together(tmp_path):
    with pytest.raises(InputError) as error:
        data_set.render_trimmed_set(
            tmp_path, num_training=-1, num_testing=0, seed=-2, size=31)
    for name in ("num_training=-1", "seed=-2", "size=31", "even"):
        assert name in str(error.value)


def _die(*_):
    os._exit(1)


def test_a_killed_worker_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(data_set, "_render_video", _die)
    with pytest.raises(InputError, match="was killed.*again to continue"):
        data_set.render_trimmed_set(tmp_path / "set", **_SMALL)


def test_workers_do_not_load_jax():
    code = ("import sys, losa_jax.data.synthetic.data_set; "
            "sys.exit('jax' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
