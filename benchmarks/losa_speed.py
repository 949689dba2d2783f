"""Train step and inference of LoSA ViT-S against torch, one short window.

    python -m benchmarks.losa_speed [--clips=4] [--rounds=7]

Needs the extras `torch` and `bench`. One window of 4 clips of 16 x 160 x
160, the sizes of configs/thumos.py:s, float32, 2 threads. Ours are the very
functions of a run; torch's model is `common.losa_torch`, with the same
weights: predictions and first losses must agree. Ours also assigns the
targets and takes gradient norms; torch is given the targets. Both keep the
moving average of the trained parameters; torch's AdamW is its fused one.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.common.figures import interleaved, times_table, use_cores
from benchmarks.common.losa_torch import TorchLosa, load
from benchmarks.common.made_up import make_backbone, make_step
from benchmarks.head_speed import torch_loss
from configs import thumos
from losa_jax.detection.targets import assign_targets, level_points
from losa_jax.distributed import sharding
from losa_jax.models.backbones import backbone_size
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.models.ops.params import flatten, nest
from losa_jax.training import build, specs
from losa_jax.utils.malloc import keep_freed_memory
from losa_jax.weights.head_names import from_public
from losa_jax.weights.name_table import source_tensors

CLASSES = 20


def use_threads(count: int) -> None:
    """The same cores, memory and seed for both; before any program runs."""
    use_cores(count)
    keep_freed_memory()  # as `main` does; torch has it too
    torch.set_num_threads(count)
    torch.manual_seed(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_s")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    config = make_config(arguments.backbone, arguments.clips)
    pair = Pair(config)
    one, two = pair.our_step(), pair.torch_step()
    print(f"first loss: ours {one:.6f}, torch {two:.6f}; "
          f"predictions: {pair.difference}")
    assert abs(one - two) < 1e-4 * two
    # The first round does not count.
    seconds = {name: times[1:] for name, times in interleaved({
        "train step, ours": pair.our_step,
        "train step, torch": pair.torch_step,
        "inference, ours": pair.our_inference,
        "inference, torch": pair.torch_inference},
        arguments.rounds + 1).items()}
    size = config.augment.size
    print(f"{arguments.backbone}, {arguments.clips} clips of 16 x {size} x "
          f"{size}, float32, {arguments.threads} threads, jax "
          f"{jax.__version__}, torch {torch.__version__}\n")
    for what in ("train step", "inference"):
        print(times_table({name.split(", ")[1]: times for name, times
                           in seconds.items() if name.startswith(what)},
                          against="torch", what=what) + "\n")


def make_config(backbone: str, clips: int):
    """configs/thumos.py:s with a short window, in float32."""
    config = thumos.get_config("s")
    config.backbone.name, config.backbone.dtype = backbone, "float32"
    config.window.samples = config.window.tokens = 16 * clips
    config.train.batch_windows = config.evaluate.batch_windows = 1
    # The head's learned scales are there, but no branch is dropped.
    config.head.drop_path = 1e-9
    # From the first step on something must move.
    config.train.warmup_epochs = 0.0
    return config


class Pair:
    """The same model twice, its steps and its predictions."""

    def __init__(self, config):
        rng = np.random.default_rng(0)
        self.config = config
        size = config.augment.size
        spec = VideoMaeSpec(**backbone_size(config.backbone.name),
                            image_size=(size, size), final_norm="none")
        with tempfile.TemporaryDirectory() as folder:
            config.backbone.checkpoint = f"{folder}/backbone"
            params = make_backbone(Path(folder) / "backbone", spec)
            made = make_step(config, CLASSES)
            model = self.model = made.model
            adapter = specs.make_adapter_spec(
                config, spec, model.tap_layers)
            self.torch_model = TorchLosa(spec, adapter, model.tap_layers,
                                         config.window.tokens)
            # The up-projections start at zero: then adapters do nothing.
            fresh = {name: np.array(leaf) if np.any(leaf) else rng.normal(
                scale=0.02, size=leaf.shape).astype(np.float32)
                for name, leaf in flatten(model.trained["adapter"]).items()}
            load(self.torch_model, source_tensors(spec, params), fresh)
            head = from_public({
                name: tensor.detach().numpy() for name, tensor
                in self.torch_model.head.state_dict().items()})
            trained = {"adapter": nest(fresh), "head": nest(head)}
            # Copies, which the step may give away, and placed as it gives
            # them back: else it is compiled twice.
            self.state = sharding.put(
                made.state.replace(trained=jax.tree.map(jnp.array, trained),
                                   ema=jax.tree.map(jnp.array, trained)),
                sharding.of_leaves(made.state))
            # Not the file's pages, which go with it.
            self.frozen = jax.block_until_ready(
                jax.tree.map(jnp.copy, model.frozen))
        self.step, self.batch, self.key = made.run, made.batch, made.key
        self.predict = build.jit_predict_step(config, model, made.mesh)
        # What inference reads: the train step gives its own state away.
        self.fixed = jax.tree.map(jnp.copy, (self.state.ema,
                                             self.state.statistics))
        self._prepare_torch(model)
        self.difference = self._compare()

    def our_step(self) -> float:
        self.state, metrics = self.step(self.state, self.frozen, self.batch,
                                        self.key)
        return float(metrics["loss"])

    def our_inference(self):
        return jax.block_until_ready(self.predict(
            *self.fixed, self.frozen, {
                name: self.batch[name] for name in ("frames",
                                                    "valid_samples")}))

    def _prepare_torch(self, model) -> None:
        config, train = self.config, self.config.train
        spec = model.detector.bind(self.state.trained).head.spec
        points = level_points(config.window.tokens, spec.strides,
                              spec.regression_ranges)
        self.time = torch.from_numpy(points.time)
        self.stride = torch.from_numpy(points.stride)
        self.frames = torch.from_numpy(np.array(self.batch["frames"][0]))
        self.targets = [torch.from_numpy(np.array(part))[None]
                        for part in assign_targets(
            points, *(self.batch[name][0] for name in (
                "segments", "labels", "action_valid")),
            num_classes=CLASSES, center_radius=config.loss.center_radius)]
        self.normalizer = config.loss.initial_normalizer
        decays, rest = [], []
        for parameter in self.torch_model.trained():
            (decays if parameter.ndim > 1 else rest).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": decays, "weight_decay": train.weight_decay},
             {"params": rest, "weight_decay": 0.0}],
            lr=train.learning_rate, fused=True)
        self.ema = [parameter.detach().clone()
                    for parameter in self.torch_model.trained()]

    def torch_step(self) -> float:
        self.optimizer.zero_grad()
        positive = self.targets[2]
        momentum = self.config.loss.normalizer_momentum
        self.normalizer = (momentum * self.normalizer + (1 - momentum)
                           * max(int(positive.sum()), 1))
        loss = torch_loss(*self.torch_model(self.frames), *self.targets,
                          self.normalizer)
        loss.backward()
        parameters = self.torch_model.trained()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, parameters,
                                 1 - self.config.train.ema_decay)
        return float(loss.detach())

    @torch.inference_mode()
    def torch_inference(self):
        """The best (point, class) pairs as segments."""
        settings = self.config.evaluate
        logits, offsets = self.torch_model(self.frames)
        scores = torch.sigmoid(logits[0])
        scores = torch.where(scores > settings.score_threshold, scores,
                             0).flatten()
        best, pair = scores.topk(min(settings.top_k, len(scores)))
        point = pair // CLASSES
        reach = offsets[0][point] * self.stride[point, None]
        time = self.time[point]
        is_long = reach.sum(-1) > settings.min_length_tokens
        return (torch.stack([time - reach[:, 0], time + reach[:, 1]], -1),
                torch.where(is_long, best, 0), pair % CLASSES)

    def _compare(self) -> str:
        """Both sides find the same, before any step."""
        ours = self.our_inference()[0]
        segments, scores, _ = self.torch_inference()
        gaps = {}
        for name, mine, other in (
                ("scores", ours.scores[0], scores),
                ("segments", ours.segments[0], segments)):
            mine, other = np.asarray(mine), other.numpy()
            # Equal scores may come in another order, and one of them may be
            # of a segment that is too short: then it is zero.
            if name == "segments":
                mine, other = mine[:20], other[:20]
            else:
                mine, other = np.sort(mine), np.sort(other)
            gap = np.abs(mine - other).max()
            assert gap < 1e-3 * np.abs(other).max(), (name, gap)
            gaps[name] = gap
        return ", ".join(f"largest difference of {name} {gap:.1g}"
                         for name, gap in gaps.items())


if __name__ == "__main__":
    main()
