"""The deliberate faults of benchmarks/mutation_check.py.

Slips that a tired engineer makes: they run, most train, and the numbers come
out a little worse. Chosen over the whole core from the code, not from the
tests.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """One slip.

    Attributes:
      what: it is, in a few words.
      path: of the file in the repository.
      text: stands there exactly once.
      slip: stands in its place.
      tests: files, or tests of files, that should see it.
    """

    what: str
    path: str
    text: str
    slip: str
    tests: tuple[str, ...]


TIMELINE, WINDOWS = "losa_jax/timeline.py", "losa_jax/data/windows/sampling.py"
TARGETS = "losa_jax/detection/targets.py"
LOSSES = "losa_jax/detection/losses.py"
NMS = "losa_jax/detection/nms.py"
METRICS = "losa_jax/detection/metrics.py"
LOSA = "losa_jax/models/adapters/losa.py"
CONV = "losa_jax/models/ops/conv.py"
BACKBONE = "losa_jax/models/backbones/blocks.py"
DETECTOR = "losa_jax/models/detector.py"
STEP, TRAIN = "losa_jax/training/step.py", "losa_jax/jobs/train.py"
EXAMPLES = "losa_jax/data/windows/examples.py"
READERS = "losa_jax/data/windows/readers.py"
OPTIMIZER = "losa_jax/training/optimizer.py"

TEST_BACKBONE = ("tests/models/backbones/test_videomae.py",)
TEST_WINDOWS = ("tests/data/windows/test_sampling.py",)
TEST_TARGETS = ("tests/detection/test_targets.py",)
TEST_LOSSES = ("tests/detection/test_losses.py",)
TEST_NMS = ("tests/detection/test_nms.py",)
TEST_METRICS = ("tests/detection/test_metrics.py",)
TEST_LOSA = ("tests/models/adapters/test_losa.py",)
TEST_STEP = ("tests/training/test_step.py",)
TEST_OPTIMIZER = ("tests/training/test_optimizer.py",)
TEST_EXAMPLES = ("tests/data/windows/test_examples.py",)
GOES_ON = ("tests/jobs/test_run.py::"
           "test_a_resumed_run_equals_an_uninterrupted_run",)

FAULTS = (
    # --- Clocks and windows -----------------------------------------------
    Fault("tokens stand half a token late", TIMELINE,
          "return samples / samples_per_token - 0.5",
          "return samples / samples_per_token",
          ("tests/test_timeline.py", "tests/data/windows/test_sampling.py")),
    Fault("a sample shows its first frame, not its middle", TIMELINE,
          "middle = (sample_index + 0.5)", "middle = sample_index",
          ("tests/test_timeline.py",)),
    Fault("features stand half a stride late", TIMELINE,
          "offset_frames=(clip_frames - stride_frames) / 2",
          "offset_frames=clip_frames / 2",
          ("tests/test_timeline.py", "tests/data/features/test_files.py")),
    Fault("the tail of a video is in no test window", WINDOWS,
          "[*range(0, last, step), last]", "[*range(0, last + 1, step)]",
          TEST_WINDOWS),
    Fault("a crop must keep every action, not one", WINDOWS,
          "or max(kept) >= min_action_kept",
          "or min(kept) >= min_action_kept", TEST_WINDOWS),
    Fault("labels count from 1", WINDOWS,
          "class_names.index(action.label)",
          "class_names.index(action.label) + 1",
          TEST_WINDOWS),
    # --- Pictures and batches ---------------------------------------------
    Fault("blue and red change places", "losa_jax/data/video/frame.py",
          'height=height, format="rgb24"', 'height=height, format="bgr24"',
          ("tests/data/video/test_decode.py",)),
    Fault("a random crop's height forgets the aspect",
          "losa_jax/data/windows/augment.py",
          "box_height = round(math.sqrt(target / aspect))",
          "box_height = round(math.sqrt(target))",
          ("tests/data/windows/test_augment.py",)),
    Fault("every epoch has the first one's order", EXAMPLES,
          ".shuffle().repeat()",
          ".shuffle().repeat(reseed_each_epoch=False)", TEST_EXAMPLES),
    Fault("processes read rows of each other's batches", EXAMPLES,
          "places = [(row, piece) for row in rows",
          "places = [(row - rows[0], piece) for row in rows",
          TEST_EXAMPLES),
    Fault("a process reads other samples than its own", READERS,
          "samples.start:samples.stop]",
          "0:len(samples)]", TEST_EXAMPLES),
    # --- Targets and losses -----------------------------------------------
    Fault("the center radius counts tokens, not strides", TARGETS,
          "reach = center_radius * stride", "reach = center_radius",
          TEST_TARGETS),
    Fault("a level's range ends before its end", TARGETS,
          "(farther <= range_max)", "(farther < range_max)", TEST_TARGETS),
    Fault("distance-IoU adds the centers it should subtract", LOSSES,
          "- (target_right - target_left))",
          "+ (target_right - target_left))", TEST_LOSSES),
    Fault("the focal loss's alpha weighs the other side", LOSSES,
          "side = alpha * targets + (1 - alpha) * (1 - targets)",
          "side = (1 - alpha) * targets + alpha * (1 - targets)",
          TEST_LOSSES),
    Fault("padding counts in the regression loss", LOSSES,
          "positive = targets.positive & valid\n    offsets",
          "positive = targets.positive\n    offsets", TEST_LOSSES),
    Fault("losses are divided by the batch's own positives", LOSSES,
          "normalizer = (momentum * normalizer\n"
          "                  + (1 - momentum) * jnp.maximum(num_positive, "
          "1.0))", "normalizer = jnp.maximum(num_positive, 1.0)",
          TEST_LOSSES),
    Fault("a gradient goes through the automatic weight", LOSSES,
          "weight = jax.lax.stop_gradient(\n            classification",
          "weight = (\n            classification", TEST_LOSSES),
    # --- Backbone and adapters --------------------------------------------
    Fault("pixels of a tubelet are read columns first", BACKBONE,
          '"n (t u) (h p) (w q) rgb -> (n t h w) (u p q rgb)"',
          '"n (t u) (h p) (w q) rgb -> (n t h w) (u q p rgb)"',
          TEST_BACKBONE),
    Fault("resized positions have rows and columns swapped",
          "losa_jax/models/ops/positions.py",
          '"uhwc,gh,fw->ugfc"', '"uhwc,fh,gw->ugfc"',
          ("tests/models/ops/test_positions.py", *TEST_BACKBONE)),
    Fault("taps are kept one slot late",
          "losa_jax/models/backbones/scan_blocks.py",
          "np.searchsorted(tap_layers, numbers)",
          'np.searchsorted(tap_layers, numbers, side="right")',
          TEST_BACKBONE),
    Fault("the stored scales of VideoPrism's norms are not offsets",
          "losa_jax/models/backbones/videoprism.py",
          "(1 + self.scale[...])", "self.scale[...]",
          ("tests/models/backbones/test_videoprism.py",)),
    Fault("VideoPrism's temporal blocks attend among patches",
          "losa_jax/models/backbones/videoprism.py",
          '"(n h w) u"', '"(n u) (h w)"',
          ("tests/models/backbones/test_videoprism.py",)),
    Fault("a soft cap does not change the scores",
          "losa_jax/models/ops/attention.py",
          "soft_cap * jnp.tanh(scores / soft_cap)", "scores",
          ("tests/models/ops/test_attention.py",)),
    Fault("the chosen taps stop before the last block",
          "losa_jax/training/specs.py",
          "tuple(depth - 1 - round((count - 1 - i) * half / count)",
          "tuple(depth - 1 - round((count - i) * half / count)",
          ("tests/training/test_build.py",)),
    Fault("padding enters the long-range convolution", LOSA,
          "x = layers.gelu(self.down(x)) * keep",
          "x = layers.gelu(self.down(x))",
          TEST_LOSA),
    Fault("short-range attention looks at padding", LOSA,
          "mask=mask[:, None, None, :])", "mask=None)", TEST_LOSA),
    Fault("what adapters add is not zero at step 0", LOSA,
          'start = layers.Linear if spec.gates == "tanh" else '
          "layers.zero_linear", "start = layers.Linear", TEST_LOSA),
    Fault("pooled keys stand at their first token",
          "losa_jax/models/ops/time_attention.py",
          "(np.arange(key.shape[1]) + 0.5) * self.key_pool - 0.5",
          "np.arange(key.shape[1]) * self.key_pool",
          ("tests/models/ops/test_time_attention.py",)),
    # --- Heads ------------------------------------------------------------
    Fault("a token after the last real sample is real", DETECTOR,
          "first_sample[None, :] < valid_samples[:, None]",
          "first_sample[None, :] <= valid_samples[:, None]",
          ("tests/models/test_detector.py",)),
    Fault("resampling in time aligns the corners",
          "losa_jax/models/ops/resample.py",
          "center = (np.arange(length) + 0.5) * old / length - 0.5",
          "center = np.arange(length) * (old - 1) / max(length - 1, 1)",
          ("tests/models/ops/test_resample.py",)),
    Fault("max-pooling pads with zeros", CONV,
          "neighbors(x, 3, 2, padding=-jnp.inf)", "neighbors(x, 3, 2)",
          ("tests/models/ops/test_conv.py",)),
    Fault("the head's attention looks at padding",
          "losa_jax/models/ops/band_attention.py",
          "mask = seen[:, :, None, None, :] & (np.abs(distance) <= reach)",
          "mask = (np.abs(distance) <= reach)[None, None, None]",
          ("tests/models/ops/test_band_attention.py",)),
    Fault("boundary heads train the pyramid", "losa_jax/models/heads/tridet.py",
          "fixed = [(jax.lax.stop_gradient(tokens), level_valid)",
          "fixed = [(tokens, level_valid)",
          ("tests/models/heads/test_tridet.py",)),
    # --- The update -------------------------------------------------------
    Fault("the moving average follows a step late", STEP,
          "ema=_moving_average(state.ema, trained,",
          "ema=_moving_average(state.ema, state.trained,",
          TEST_STEP),
    Fault("every step draws the same dropout", STEP,
          "step_key = jax.random.fold_in(key, state.step)", "step_key = key",
          TEST_STEP),
    Fault("padding counts in the feature statistics", STEP,
          "x = last.reshape(b, n * u, c) * valid[..., None]",
          "x = last.reshape(b, n * u, c)", TEST_STEP),
    Fault("features are divided by the variance", TRAIN,
          "deviation = np.sqrt(np.maximum(squares / count - mean ** 2, "
          "1e-12))",
          "deviation = np.maximum(squares / count - mean ** 2, 1e-12)",
          ("tests/jobs/test_train.py",)),
    Fault("weight decay pulls norms and gates too", OPTIMIZER,
          'path.rsplit("/", 1)[-1] == "kernel"',
          'path.rsplit("/", 1)[-1] != "bias"', TEST_OPTIMIZER),
    Fault("the warm-up is a step too long", OPTIMIZER,
          "max(warmup_steps - 1, 1)", "max(warmup_steps, 1)",
          TEST_OPTIMIZER),
    Fault("a resumed run starts with a fresh optimizer", TRAIN,
          "        state, _ = checkpoints.restore(LAST, state, batches)\n",
          "        fresh = state.optimizer\n"
          "        state, _ = checkpoints.restore(LAST, state, batches)\n"
          "        state = state.replace(optimizer=fresh)\n", GOES_ON),
    Fault("a checkpoint counts the batch that was read ahead",
          "losa_jax/training/device_prefetch.py",
          'return {"next_index": self._given}',
          'return {"next_index": self._given + (self._held is not None)}',
          ("tests/training/test_device_prefetch.py",)),
    # --- From logits to detections ----------------------------------------
    Fault("start and end distances change places",
          "losa_jax/detection/decode.py",
          "segments = jnp.stack([time - distance[:, 0], "
          "time + distance[:, 1]], -1)",
          "segments = jnp.stack([time - distance[:, 1], "
          "time + distance[:, 0]], -1)", TEST_NMS),
    Fault("soft-NMS decays by the overlap, not its square", NMS,
          "jnp.exp(-iou * iou / sigma)", "jnp.exp(-iou / sigma)", TEST_NMS),
    Fault("ActionFormer's votes do not weigh by overlap", NMS,
          "weight = weight * iou", "weight = weight * 1", TEST_NMS),
    Fault("windows are merged as if they began with the video",
          "losa_jax/inference/run_windows.py",
          "row.window.first_sample, self._samples_per_token)",
          "0, self._samples_per_token)", ("tests/jobs/test_evaluate.py",)),
    Fault("a video ends before its last window is run",
          "losa_jax/data/windows/stream.py",
          "ended.append(item)\n                    continue",
          "yield WindowBatch({}, (), (item,))\n                    continue",
          ("tests/data/windows/test_stream.py",)),
    Fault("evaluation on the way uses the raw parameters", TRAIN,
          "evaluator.run(state.ema,", "evaluator.run(state.trained,",
          GOES_ON),
    # --- Scores -----------------------------------------------------------
    Fault("an IoU equal to the threshold is not enough", METRICS,
          "part[pairs.iou >= threshold]", "part[pairs.iou > threshold]",
          TEST_METRICS),
    Fault("an action can be found twice", METRICS,
          "                free.discard(best)\n", "", TEST_METRICS),
    Fault("precision is not interpolated", METRICS,
          "(best * gained).sum(axis=1)", "(precision * gained).sum(axis=1)",
          TEST_METRICS),
    Fault("videos without predictions do not count", METRICS,
          "    actions = _ground_truth_rows(ground_truth, class_names, "
          "rules)\n"
          "    predicted = _prediction_rows(ground_truth, predictions, "
          "class_names, rules)\n",
          "    ground_truth = {video: actions for video, actions in "
          "ground_truth.items() if predictions.get(video)}\n"
          "    actions = _ground_truth_rows(ground_truth, class_names, "
          "rules)\n"
          "    predicted = _prediction_rows(ground_truth, predictions, "
          "class_names, rules)\n", TEST_METRICS),
    Fault("what touches an ambiguous segment is false",
          "losa_jax/detection/thumos_protocol.py",
          "hits | ~near))", "hits | True))",
          ("tests/test_score.py",)),
    Fault("the ends of an action are not in it at a moment",
          "losa_jax/detection/per_frame.py", "    if inclusive:\n",
          "    if not inclusive:\n", ("tests/detection/test_per_frame.py",)),
    Fault("a pair has the product of two scores, not its root",
          "losa_jax/detection/decode.py",
          "jnp.sqrt(scores[0][:, :, None] * scores[1][:, None, :])",
          "(scores[0][:, :, None] * scores[1][:, None, :])",
          ("tests/detection/test_pairs.py",)),
    Fault("levels' ranges do not overlap",
          "losa_jax/models/heads/pyramid_spec.py",
          "float(edge) / self.regression_overlap", "float(edge)",
          ("tests/test_more_recipes.py",)),
    # --- Written since ----------------------------------------------------
    Fault("levels of the pyramid run into each other",
          "losa_jax/models/heads/layers.py", "self.gap = kernel_size // 2",
          "self.gap = 0", ("tests/models/heads/test_layers.py",)),
    Fault("a filter's gradient is laid upside down",
          "losa_jax/models/ops/conv.py",
          "steps = steps.reshape(9, -1, x.shape[-1])[::-1]",
          "steps = steps.reshape(9, -1, x.shape[-1])",
          ("tests/models/ops/test_grid_filter.py",)),
    Fault("a convolution's gradient looks the wrong way", CONV,
          "return neighbors(y, k, before=(k - 1) // 2)[::-1]",
          "return neighbors(y, k)", ("tests/models/ops/test_conv.py",)),
)
