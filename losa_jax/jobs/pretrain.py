"""--mode=pretrain: a small transformer learns to classify trimmed clips.

What K710 fine-tuning is to VideoMAEv2, in minutes: the result is saved in
VideoMAEv2's layout and goes through `convert` like any public checkpoint.
"""

import functools
import logging
import math
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.synthetic import data_set
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows.examples import TrainWindows, train_dataset
from losa_jax.data.windows.readers import FrameReader
from losa_jax.data.windows.stream import VideoEnd
from losa_jax.distributed import processes, sharding
from losa_jax.distributed.stop_signal import Interrupted, StopSignal
from losa_jax.errors import InputError
from losa_jax.inference.run_windows import run_windows
from losa_jax.inference.spread_windows import SpreadWindows
from losa_jax.jobs.setup import DataSet, load_data, start_log, store_config
from losa_jax.models.backbones.sizes import backbone_size, requested_family
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import Template, flatten, parameters
from losa_jax.training.calibrate import calibrate
from losa_jax.training.checkpoint import (
    LAST,
    Checkpoints,
    same_facts,
)
from losa_jax.training.metric_writer import MetricWriter
from losa_jax.training.optimizer import learning_rate_schedule, make_optimizer
from losa_jax.training.restore import plain
from losa_jax.training.specs import backbone_keys, backbone_request
from losa_jax.weights.backbone_folder import convert_backbone, save_source

logger = logging.getLogger(__name__)

# Adam's b2 for a run of about a thousand steps from scratch.
SECOND_MOMENT_DECAY = 0.99
# Batches of clips that the start is measured on.
CALIBRATION_BATCHES = 24


def ensure_backbone(config: Any) -> None:
    """Renders the embedded data and trains its backbone where missing.

    Raises:
      InputError: the config names a backbone that does not exist and has no
        recipe to make one.
    """
    with processes.first_goes_first("backbone"):
        _ensure_backbone(config)


def _ensure_backbone(config: Any) -> None:
    if config.synthetic.folder:
        render(config, "untrimmed")
    checkpoint = config.backbone.checkpoint
    if checkpoint and Path(checkpoint).is_dir():
        return
    if config.pretrain.steps:
        pretrain(config)
        return
    if not checkpoint:
        raise InputError(
            "config.backbone.checkpoint is empty: convert one with `python "
            "-m losa_jax.convert CHECKPOINT --output=DIR` and set "
            "--config.backbone.checkpoint=DIR")
    raise InputError(
        f"config.backbone.checkpoint={checkpoint} is no folder: make it with "
        f"`python -m losa_jax.convert CHECKPOINT --output={checkpoint}`")


def render(config: Any, kind: str) -> Path:
    """The embedded data, rendered once: "untrimmed" or "trimmed" videos."""
    settings = config.synthetic
    folder = Path(settings.folder) / kind
    if kind == "untrimmed":
        data_set.render_untrimmed_set(
            folder, num_training=settings.num_training,
            num_testing=settings.num_testing,
            num_validation=settings.num_validation, seed=settings.seed,
            size=settings.size)
    else:
        data_set.render_trimmed_set(
            folder, num_training=settings.num_trimmed_training,
            num_testing=settings.num_trimmed_testing, seed=settings.seed,
            size=settings.size)
    return folder


def pretrain(config: Any, workdir: Path | None = None) -> float:
    """The job; returns the accuracy on the testing clips.

    Writes `backbone.checkpoint` (converted) and, beside it, the weights in
    VideoMAEv2's layout as .safetensors. Resumes where it was stopped: its
    checkpoints and metrics stand in `synthetic.folder`/pretrain, so that
    every run that needs the backbone finds them; `workdir` is not used.
    """
    if not config.synthetic.folder or not config.pretrain.steps:
        raise InputError("--mode=pretrain needs config.synthetic.folder and "
                         "config.pretrain.steps: use configs/quick.py")
    settings, asked = config.pretrain, config
    workdir = Path(config.synthetic.folder) / "pretrain"
    start_log(workdir)
    print(f"pre-training in {workdir}")
    folder = render(config, "trimmed")
    config = _clip_config(config, folder)
    data = load_data(config, workdir)
    cache = FrameCache(config.data.frame_cache_gib)
    cache.admit(data.train, "training clips")
    reader = FrameReader(config, cache)
    # One process does it, others of the run wait: see ensure_backbone.
    devices = math.gcd(jax.local_device_count(), settings.batch_clips)
    mesh = sharding.make_mesh((devices, 1, 1), jax.local_devices()[:devices])
    size = config.augment.size
    if requested_family(config.backbone.name) != "videomae":
        raise InputError(f"config.backbone.name={config.backbone.name}: "
                         "--mode=pretrain makes a VideoMAE")
    with backbone_keys(config):
        spec = VideoMaeSpec(
            **backbone_size(**backbone_request(config.backbone)),
            clip_frames=config.window.clip_samples, image_size=(size, size),
            num_classes=len(data.class_names))
    template = Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
    schedule = learning_rate_schedule(
        settings.learning_rate, settings.warmup_steps, settings.steps)
    optimizer = make_optimizer(
        schedule, template.shapes, weight_decay=settings.weight_decay,
        gradient_clip=1.0, rate_factors={},
        second_moment_decay=SECOND_MOMENT_DECAY)

    # --- The last checkpoint, or a measured start --------------------------
    batches = iter(_clips(config, data, reader))
    checkpoints = Checkpoints(workdir, alone=processes.count() > 1,
                              only_writer=True)
    params = jax.jit(lambda: parameters(
        VideoMae(spec, rngs=nnx.Rngs(config.seed))))()
    facts = _facts(config, data)
    start = 0
    if checkpoints.latest_step() is None:
        # An iterator of its own: training's begins with its first batch.
        few = iter(_clips(config, data, reader))
        params = calibrate(template, params, [
            next(few)["frames"] for _ in range(CALIBRATION_BATCHES)])
    state = jax.device_put((params, optimizer.init(params)),
                           sharding.replicated(mesh))
    if checkpoints.latest_step() is not None:
        state, saved = checkpoints.restore(LAST, state, batches)
        same_facts(saved, facts, tuple(facts), workdir,
                   f"delete {workdir}")
        start = checkpoints.latest_step() or 0
        print(f"resumed pre-training in {workdir} at step {start} of "
              f"{settings.steps}")
    store_config(asked, workdir)

    def loss_function(params, frames, labels):
        logits = template.bind(params).classify(frames)
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, spec.num_classes),
            settings.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (logits.argmax(-1) == labels).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, frames, labels):
        params, moments = state
        (loss, accuracy), gradients = jax.value_and_grad(
            loss_function, has_aux=True)(params, frames, labels)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), loss, accuracy

    # --- The loop -----------------------------------------------------------
    with (MetricWriter(workdir, start) as writer, StopSignal() as stop,
          checkpoints.awaited()):
        bar = tqdm(range(start + 1, settings.steps + 1), desc="pre-training",
                   unit="step", initial=start, total=settings.steps)
        for step in bar:
            checkpoints.check()
            batch = next(batches)
            inputs = {"frames": batch["frames"],
                      "labels": batch["labels"][:, 0]}
            inputs = sharding.put(inputs,
                                  sharding.batch_shardings(inputs, mesh))
            state, loss, accuracy = train_step(
                state, inputs["frames"], inputs["labels"])
            came = stop.came
            saves = step % settings.checkpoint_every == 0 or came
            if saves or step % settings.log_every == 0 or (
                    step == settings.steps):
                values = {"pretrain_loss": float(loss),
                          "pretrain_accuracy": float(accuracy)}
                if not math.isfinite(values["pretrain_loss"]):
                    raise InputError(
                        f"pre-training step {step}: the loss is not finite; "
                        "lower config.pretrain.learning_rate, delete "
                        f"{workdir} and start again")
                writer.write(step, values)
                bar.set_postfix(loss=f"{values['pretrain_loss']:.3f}",
                                accuracy=f"{values['pretrain_accuracy']:.2f}")
            if saves:
                checkpoints.save(step, state, facts, batches)
            if came:
                bar.close()
                raise Interrupted(
                    f"stopped by {came} at pre-training step {step} of "
                    f"{settings.steps}, everything is saved: start the same "
                    "command again to go on")
    checkpoints.close()
    params = state[0]
    accuracy = _test_accuracy(config, data, template, params, mesh)
    print(f"clip classification: accuracy {100 * accuracy:.1f} % on "
          f"{len(data.test)} testing clips of {spec.num_classes} classes")
    _save(spec, params, Path(config.backbone.checkpoint))
    return accuracy


def _facts(config: Any, data: DataSet) -> dict[str, Any]:
    """What must be equal for a resumed pre-training to be the same one."""
    settings = config.pretrain.to_dict()
    for name in ("log_every", "checkpoint_every"):
        del settings[name]
    rendered = {name: config.synthetic[name] for name in (
        "num_trimmed_training", "seed", "size")}
    return plain({
        "pretrain": settings,
        "backbone": backbone_request(config.backbone),
        "seed": config.seed, "synthetic": rendered,
        "window": config.window.to_dict(),
        "augment": config.augment.to_dict(),
        "class_names": list(data.class_names)})


def _clips(config: Any, data: DataSet, reader: FrameReader
           ) -> grain.IterDataset:
    transform = TrainWindows(data.train, data.class_names, config,
                             reader=reader)
    return train_dataset(
        transform, len(data.train), seed=config.seed,
        batch_windows=config.pretrain.batch_clips,
        num_threads=config.data.num_threads)


def _clip_config(config: Any, folder: Path) -> Any:
    """The same pixels and rate as the TAL stage, one clip a window."""
    config = config.copy_and_resolve_references()
    config.data.annotations = str(folder / "annotations.json")
    config.data.videos = str(folder / "videos")
    # Hundreds of files that this program has just written itself.
    config.data.check = "none"
    config.data.train_subset, config.data.test_subset = "training", "testing"
    config.window.align_to_clips = False
    config.window.samples = config.window.clip_samples
    config.window.tokens = config.window.clip_samples
    config.window.short_crop_ratio = ()
    config.window.min_action_kept = 0.0
    return config


def _test_accuracy(config: Any, data: DataSet, template: Template,
                   params: Any, mesh: Mesh) -> float:
    classify = jax.jit(lambda params, frames: template.bind(params).classify(
        frames).argmax(-1))
    windows = SpreadWindows(data.test, FrameReader(config), config, mesh,
                            config.pretrain.batch_clips)

    def step(inputs):
        frames = {"frames": inputs["frames"]}
        return classify(params, sharding.put(
            frames, sharding.batch_shardings({"frames": None}, mesh)
        )["frames"])

    right = []
    for item in run_windows(step, windows):
        if not isinstance(item, VideoEnd):
            row, label = item
            action, = data.test[row.video_number].actions
            right.append(data.class_names[int(label)] == action.label)
        elif item.error is not None:
            raise item.error
    return float(np.mean(right))


def _save(spec: VideoMaeSpec, params: Any, output: Path) -> None:
    """VideoMAEv2's layout first, then through the converter like any other."""
    flat = {name: np.asarray(leaf, jnp.float32)
            for name, leaf in flatten(jax.device_get(params)).items()}
    source = output.with_name(output.name + ".safetensors")
    source.parent.mkdir(parents=True, exist_ok=True)
    save_source(source, spec, flat)
    convert_backbone(source, output)
    logger.info("wrote %s and %s", source, output)
