"""HACS Segments v1.1.1 (200 classes) from files of features: the head alone.

    python -m losa_jax.main --config=configs/hacs_features.py:slowfast_tridet \
        --workdir=runs/hacs --config.features.folder=FOLDER_OF_NPY \
        --config.data.annotations=HACS_segments_v1.1.1.json

Variants: configs/hacs_features.py:NAME with NAME one of
    slowfast_tridet      TriDet on SlowFast features (2304 channels; the
                         default)
    i3d_tridet           TriDet on I3D features of 2 frames a second (2048)
    slowfast_proposals   ActionFormer as OpenTAD trains it: actions of any
                         class, which --config.evaluate.video_scores=FILE
                         classifies (TCANet's validation94.32.json)
Hardware: one GPU or TPU. Result NOT measured here: the features were not
available. Published average mAP (tIoU 0.5 to 0.95): slowfast_tridet 38.69,
i3d_tridet 36.8, slowfast_proposals 37.71 (with TCANet's classes).
Recipes: github.com/dingfengshi/TriDet, github.com/sming256/OpenTAD.
Preparation, protocol and licenses: docs/large_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("slowfast_tridet", "i3d_tridet", "slowfast_proposals")


def get_config(variant: str = "slowfast_tridet") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/hacs_features.py:{variant}: the variants "
                         f"are {', '.join(VARIANTS)}")
    features, _, kind = variant.partition("_")
    config = common.get_config()
    config.name = f"hacs_{variant}"
    config.data.train_subset = "training"
    config.data.test_subset = "validation"
    # Some actions are empty.
    config.data.on_outside = "clip"
    config.data.frame_cache_gib = 8.0
    config.adapter.kind = "none"
    config.adapter.standardize_last = False
    config.window.clip_samples = 1
    config.window.test_whole = True
    config.window.min_action_kept = 0.5
    config.features.stride_frames = 8.0
    config.features.clip_frames = 32.0
    config.features.fps = 15.0
    config.features.width = 2304
    config.window.samples = config.window.tokens = 960
    if features == "i3d":
        config.features.stride_frames = config.features.clip_frames = 1.0
        config.features.fps = 2.0
        config.features.width = 2048
        config.window.samples = config.window.tokens = 512
    config.head.absolute_positions = True
    config.loss.initial_normalizer = 400.0
    config.loss.label_smoothing = 0.1
    config.train.batch_windows = 16
    config.train.learning_rate = 1e-3
    config.train.weight_decay = 0.03
    config.evaluate.tiou_thresholds = tuple(
        round(0.5 + 0.05 * i, 2) for i in range(10))
    config.evaluate.batch_windows = 1
    config.evaluate.nms_sigma = 0.75
    if kind == "proposals":
        config.data.class_agnostic = True
        config.data.min_action_share = 0.01
        config.head.width = 256
        config.head.attention_window = (13, 13, 13, 13, 13, -1)
        config.head.input_dropout = 0.1
        config.head.opentad = True
        config.train.epochs = config.train.schedule_epochs = 15
        config.train.evaluate_from_epoch = 8
        # OpenTAD keeps every proposal of one class until NMS.
        config.evaluate.score_threshold = 0.0
        config.evaluate.min_length_tokens = 0.0
        config.evaluate.max_detections = 100
        config.evaluate.video_scores_top = 3
        config.evaluate.video_scores_fusion = "product"
        return config
    config.head.kind = "tridet"
    config.head.width = 1024
    config.head.head_kernel = 5
    config.head.boundary_kernel = 1
    config.head.sgp_mlp_width = 1024
    config.head.sgp_k = 1.2
    config.head.sgp_init_deviation = 0.1
    config.loss.iou_power = 1.0
    config.evaluate.top_k_per_level = True
    config.evaluate.max_detections = 250
    if features == "slowfast":
        config.head.sgp_window = (3,)
        config.head.num_bins = 14
        config.head.input_noise = 0.2
        config.train.epochs = config.train.schedule_epochs = 11
        config.train.warmup_epochs = 7.0
        config.train.final_learning_rate = 5e-4
        config.train.gradient_clip = 0.5
    else:
        config.head.num_levels = 7
        config.head.sgp_window = (15,)
        config.head.num_bins = 12
        config.train.epochs = config.train.schedule_epochs = 13
        config.train.warmup_epochs = 10.0
        config.train.final_learning_rate = 2e-4
    config.train.evaluate_from_epoch = int(config.train.warmup_epochs)
    return config
