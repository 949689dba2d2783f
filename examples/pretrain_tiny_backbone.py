"""Trains the tiny video transformer of configs/quick.py from scratch.

    python examples/pretrain_tiny_backbone.py --output=runs/tiny_backbone
    python examples/pretrain_tiny_backbone.py --hard

A transformer with VideoMAE's architecture learns to classify twelve motions in
rendered clips of 1.6 seconds, as public VideoMAE checkpoints are fine-tuned on
Kinetics. The result is a converted backbone folder with a card
(README.md); the folders that ship with the package, configs/tiny_backbone and
configs/hard_backbone, were made by this script. It needs 4 GiB of memory. With
--hard the motions are others, none of them a part of the actions of
configs/quick.py:hard.

The clips have another seed than the videos of the quick start, so that no clip
is a part of such a video.
"""

import argparse
import datetime
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.synthetic.data_set import render_trimmed_set
from losa_jax.data.synthetic.motion import MOTION_CLASSES, OTHER_CLASSES
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import Template, flatten, nest, parameters
from losa_jax.timeline import sample_grid
from losa_jax.training.optimizer import learning_rate_schedule, make_optimizer
from losa_jax.weights.backbone_folder import convert_backbone, save_source

# The quick start's videos have seed 0.
DATA_SEED = 1000
IMAGE_SIZE = 64
# As in configs/quick.py.
SAMPLE_FPS = 10.0
SPEC = VideoMaeSpec(
    width=96, depth=6, heads=4, mlp_width=384, clip_frames=16,
    image_size=(IMAGE_SIZE, IMAGE_SIZE), num_classes=len(MOTION_CLASSES))
# The class of a clip that is mirrored left to right, or played backwards.
MIRRORED = {"slide_right": "slide_left", "slide_left": "slide_right",
            "clockwise": "counter_clockwise",
            "counter_clockwise": "clockwise",
            "to_upper_left": "to_upper_right",
            "to_upper_right": "to_upper_left",
            "to_lower_left": "to_lower_right",
            "to_lower_right": "to_lower_left"}
REVERSED = {**MIRRORED, "slide_down": "slide_up", "slide_up": "slide_down",
            "grow": "shrink", "shrink": "grow",
            "to_upper_left": "to_lower_right",
            "to_lower_right": "to_upper_left",
            "to_upper_right": "to_lower_left",
            "to_lower_left": "to_upper_right",
            "spiral_out": "spiral_in", "spiral_in": "spiral_out"}
# For the scales of the initial parameters: 12 batches of 32.
NUM_SCALE_CLIPS = 384

CARD = """\
# Tiny video transformer for rendered videos

The frozen backbone of `{recipe}`: {parameters:,} parameters in
VideoMAE's architecture (width {spec.width}, {spec.depth} blocks, \
{spec.heads} heads, patches of
{spec.patch} x {spec.patch} pixels, tubelets of {spec.tubelet} frames), \
trained from scratch on
rendered videos only. For real videos, convert a public checkpoint
(docs/weights.md).

- Input: clips of {spec.clip_frames} frames at {fps:g} frames per second, \
{size} x {size} pixels.
- Data: {num_training:,} rendered trimmed clips of {spec.num_classes} {motions}
  (`losa_jax.data.synthetic`, seed {data_seed}; the quick start's videos have
  seed 0). No recorded or downloaded videos.
- Script: `python examples/pretrain_tiny_backbone.py{flags}`, {steps:,} steps of
  {batch_clips} clips, seed {seed}, {minutes:.0f} minutes on the {device}.
- Accuracy: {accuracy:.1f} % on {num_testing:,} other clips of the same \
motions (chance: {chance:.1f} %).
- Stored as float16, {date}. License: Apache-2.0, as the code.
"""


def load_clips(folder, subset, names):
    """Returns clips, uint8 [samples, height, width, 3] each, and labels, the
    places of their motions in `names`."""
    videos = load_annotations(
        folder / "annotations.json", names).subset(subset)

    def decode(video):
        info = probe_video(folder / f"videos/{video.video_id}.mp4", "none")
        grid = sample_grid(info.fps, info.frame_count, sampling="fps",
                           sample_fps=SAMPLE_FPS)
        return np.stack([frame.rgb() for frame in iterate_frames(
            info.path, grid.frame_indices(np.arange(grid.num_samples)), info)])

    with ThreadPoolExecutor(2) as pool:
        clips = list(tqdm(pool.map(decode, videos), f"decoding {subset} clips",
                          len(videos), unit="clip"))
    return clips, np.array([names.index(video.actions[0].label)
                            for video in videos])


def label_table(names, changes):
    """Returns int64 [classes]: the label of each class after a change."""
    return np.array([names.index(changes.get(name, name)) for name in names])


def training_batches(clips, labels, names, batch_clips, seed):
    """Yields shuffled batches: random 16 samples, mirrored, reversed."""
    rng = np.random.default_rng(seed)
    mirrored, backwards = (label_table(names, changes)
                           for changes in (MIRRORED, REVERSED))
    while True:
        order = rng.permutation(len(clips))
        for start in range(0, len(order) - batch_clips + 1, batch_clips):
            chosen = order[start:start + batch_clips]
            frames = np.empty((batch_clips, SPEC.clip_frames, IMAGE_SIZE,
                               IMAGE_SIZE, 3), np.float32)
            targets = labels[chosen]
            for row, index in enumerate(chosen):
                first = rng.integers(len(clips[index]) - SPEC.clip_frames + 1)
                clip = clips[index][first:first + SPEC.clip_frames]
                if rng.uniform() < 0.5:
                    clip = clip[:, :, ::-1]
                    targets[row] = mirrored[targets[row]]
                if rng.uniform() < 0.5:
                    clip = clip[::-1]
                    targets[row] = backwards[targets[row]]
                # Brightness and color of the whole clip.
                gain = rng.uniform(0.8, 1.2) * rng.uniform(0.9, 1.1, 3)
                frames[row] = np.clip(clip * gain.astype(np.float32), 0, 255)
            yield frames, targets


def cosine_filters():
    """Returns patch filters: the low frequencies of a JPEG block.

    From random filters a small transformer stays at chance for hundreds of
    steps: no channel tells where in a patch something is, or that it moves.
    An eighth of the filters sees color, the others brightness, each as the
    sum and as the difference over the frames of a tubelet.

    Returns:
      float32 [tubelet, patch, patch, 3, width], orthonormal.
    """
    def cosines(length):  # DCT-II, [frequency, position]
        position = (np.arange(length) + 0.5) / length
        basis = np.cos(np.pi * np.arange(length)[:, None] * position)
        return basis / np.linalg.norm(basis, axis=1, keepdims=True)

    in_time, in_space = cosines(SPEC.tubelet), cosines(SPEC.patch)
    colors = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], float)
    brightness, *opponents = colors / np.linalg.norm(
        colors, axis=1, keepdims=True)
    pairs = sorted(itertools.product(range(SPEC.patch), repeat=2),
                   key=lambda pair: (sum(pair), pair))
    planes = [np.outer(in_space[row], in_space[column])
              for row, column in pairs]
    colored = [(in_time[0], plane, color)
               for plane in planes[:SPEC.width // 16] for color in opponents]
    bright = [(moment, plane, brightness)
              for plane in planes for moment in in_time]
    chosen = [*bright[:SPEC.width - len(colored)], *colored]
    return np.stack([np.einsum("t,hw,c->thwc", *parts) for parts in chosen],
                    axis=-1).astype(np.float32)


def initial_parameters(template, clips, seed):
    """Returns parameters that a small transformer learns from at once.

    Args:
      template: of the `VideoMae`.
      clips: uint8 [n, frames, height, width, 3], to measure scales on.
      seed: of the random numbers.
    """
    flat = flatten(parameters(VideoMae(SPEC, rngs=nnx.Rngs(seed))))
    flat["patch_embed/kernel"] = jnp.asarray(cosine_filters())
    for name, gain in (("attn/qkv", 2 ** 0.5), ("attn/proj", 0.5),
                       ("mlp/fc1", 2 ** 0.5), ("mlp/fc2", 0.5)):
        flat[f"blocks/{name}/kernel"] *= gain
    # High frequencies are faint: each channel gets the same strength.
    # Positions are equal in all clips and do not count.
    @jax.jit
    def embed(params, clips):
        return template.bind(params).embed(clips)

    tokens = np.concatenate([embed(nest(flat), part)
                             for part in np.split(clips, 12)])
    flat["patch_embed/kernel"] *= 1.25 / tokens.std(axis=0).mean((0, 1, 2))
    # The mean token is nearly the same for all clips: the final norm makes
    # each channel of the classifier's input vary by one.
    @jax.jit
    def clip_features(params, clips):
        return template.bind(params).mean_features(clips)

    features = np.concatenate([clip_features(nest(flat), part)
                               for part in np.split(clips, 12)])
    deviation = features.std(axis=0)
    flat["fc_norm/scale"] = jnp.asarray(1 / deviation)
    flat["fc_norm/bias"] = jnp.asarray(-features.mean(axis=0) / deviation)
    return nest(flat)


def classify(model, clips):
    """Returns the logits of clips [n, classes]."""
    return model.classifier(model.mean_features(clips))


def test_accuracy(template, params, clips, labels):
    """Returns the share of clips whose middle 1.6 s are classified right."""
    best = jax.jit(lambda params, clips: classify(
        template.bind(params), clips).argmax(-1))
    middles = []
    for clip in clips:
        first = (len(clip) - SPEC.clip_frames) // 2
        middles.append(clip[first:first + SPEC.clip_frames])
    answers = [best(params, np.stack(middles[start:start + 50]))
               for start in range(0, len(middles), 50)]
    return float((np.concatenate(answers) == labels).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hard", action="store_true",
                        help="motions that are no part of any action")
    parser.add_argument("--output", type=Path, help="folder for the converted "
                        "backbone; default: runs/tiny_backbone, or "
                        "runs/hard_backbone")
    parser.add_argument("--data", type=Path, help="folder for the rendered "
                        "clips; default: that of the output and _data")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch_clips", type=int, default=32)
    parser.add_argument("--num_training", type=int, default=8000)
    parser.add_argument("--num_testing", type=int, default=1000)
    parser.add_argument("--learning_rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prefix = "hard" if options.hard else "tiny"
    names = OTHER_CLASSES if options.hard else MOTION_CLASSES
    options.output = options.output or Path(f"runs/{prefix}_backbone")
    options.data = options.data or options.output.with_name(
        f"{options.output.name}_data")

    render_trimmed_set(
        options.data, num_training=options.num_training,
        num_testing=options.num_testing, seed=DATA_SEED, size=IMAGE_SIZE,
        hard=options.hard)
    clips, labels = load_clips(options.data, "training", names)
    batches = training_batches(clips, labels, names, options.batch_clips,
                               options.seed)

    template = Template(lambda: VideoMae(SPEC, rngs=nnx.Rngs(0)))
    params = initial_parameters(template, np.stack(
        [clip[:SPEC.clip_frames] for clip in clips[:NUM_SCALE_CLIPS]]),
        options.seed)
    optimizer = make_optimizer(
        learning_rate_schedule(options.learning_rate, 100, options.steps,
                               1e-8),
        template.shapes, weight_decay=0.05, gradient_clip=1.0,
        rate_factors={}, second_moment_decay=0.99)

    def loss_function(params, frames, labels):
        logits = classify(template.bind(params), frames)
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, SPEC.num_classes), 0.1)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (logits.argmax(-1) == labels).mean()

    @jax.jit
    def train_step(params, moments, frames, labels):
        (_, accuracy), gradients = jax.value_and_grad(
            loss_function, has_aux=True)(params, frames, labels)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, accuracy

    moments, accuracies = optimizer.init(params), []
    start = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, batches)
        for step in range(1, options.steps + 1):
            frames, targets = pending.result()
            pending = pool.submit(next, batches)
            params, moments, accuracy = train_step(params, moments, frames,
                                                   targets)
            accuracies.append(float(accuracy))
            if step % 100 == 0:
                print(f"step {step} of {options.steps}: "
                      f"{100 * np.mean(accuracies[-100:]):.1f} % of the "
                      f"training clips, {time.monotonic() - start:.0f} s",
                      flush=True)
    minutes = (time.monotonic() - start) / 60
    accuracy = 100 * test_accuracy(template, params,
                                   *load_clips(options.data, "testing", names))
    print(f"accuracy on {options.num_testing} testing clips: {accuracy:.1f} %")

    source = options.data / "tiny_backbone.safetensors"
    flat = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    save_source(source, SPEC, flat)
    (options.output / "README.md").unlink(missing_ok=True)
    convert_backbone(source, options.output, dtype="float16")
    (options.output / "README.md").write_text(CARD.format(
        spec=SPEC, fps=SAMPLE_FPS, size=IMAGE_SIZE, data_seed=DATA_SEED,
        parameters=sum(leaf.size for leaf in flat.values()),
        device=jax.default_backend().upper(), minutes=minutes,
        accuracy=accuracy, chance=100 / SPEC.num_classes,
        recipe="configs/quick.py" + ":hard" * options.hard,
        motions="other motions" if options.hard else "motions",
        flags=" --hard" * options.hard,
        date=datetime.date.today().isoformat(), **vars(options)))
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
