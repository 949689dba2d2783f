"""ActivityNet-v1.3 from files of features: class-agnostic proposals.

    python -m losa_jax.main --config=configs/activitynet_features.py:tsp \
        --workdir=runs/anet_tsp --config.data.annotations=anet1.3.json \
        --config.features.folder=FOLDER_OF_NPY \
        --config.evaluate.video_scores=cuhk_val_simp_share.json

Variants: configs/activitynet_features.py:NAME with NAME one of
    tsp          ActionFormer on TSP features (512 channels; the default)
    tsp_opentad  ActionFormer on them as OpenTAD trains it
    tsp_tridet   TriDet on them
Hardware: one GPU or TPU. Result NOT measured here: the features were not
available. Published average mAP (tIoU 0.5 to 0.95) with CUHK's video-level
classes: ActionFormer 36.6, in OpenTAD 37.1, TriDet 36.8.
The recipe detects actions of any class; their classes come from the scores of
an external classifier, on which the mAP depends as well. Recipes:
github.com/happyharrycn/actionformer_release, github.com/dingfengshi/TriDet,
github.com/sming256/OpenTAD.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("tsp", "tsp_opentad", "tsp_tridet")


def get_config(variant: str = "tsp") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/activitynet_features.py:{variant}: the "
                         f"variants are {', '.join(VARIANTS)}")
    config = common.get_config()
    config.name = f"anet_{variant}"
    config.data.train_subset = "training"
    config.data.test_subset = "validation"
    config.data.class_agnostic = True
    config.data.on_outside = "clip"
    config.data.frame_cache_gib = 8.0
    config.features.prefix = "v_"
    config.features.stride_frames = 16.0
    config.features.clip_frames = 16.0
    config.features.width = 512
    config.features.fps = 15.0
    config.adapter.kind = "none"
    config.adapter.standardize_last = False
    # Every video becomes 192 tokens.
    config.window.sampling = "resize"
    config.window.samples = config.window.tokens = 192
    config.window.clip_samples = 1
    config.window.min_action_kept = 0.5
    config.head.width = 256
    config.head.attention_window = (7, 7, 7, 7, 7, -1)
    config.head.absolute_positions = True
    config.loss.initial_normalizer = 200.0
    config.loss.regression_weight = 2.0
    config.loss.label_smoothing = 0.1
    config.train.batch_windows = 16
    config.train.learning_rate = 1e-3
    config.train.epochs = config.train.schedule_epochs = 15
    config.train.evaluate_from_epoch = 8
    config.evaluate.tiou_thresholds = tuple(
        round(0.5 + 0.05 * i, 2) for i in range(10))
    config.evaluate.batch_windows = 16
    config.evaluate.top_k_per_level = True
    config.evaluate.min_length_tokens = 0.001
    config.evaluate.nms_sigma = 0.75
    config.evaluate.nms_per_class = False
    config.evaluate.voting_threshold = 0.9
    config.evaluate.max_detections = 100
    if variant == "tsp_opentad":
        config.data.min_action_share = 0.01
        config.features.resize = "average"
        config.head.opentad = True
        config.head.input_dropout = 0.2
        # OpenTAD keeps every proposal of one class until NMS.
        config.evaluate.score_threshold = 0.0
        config.evaluate.min_length_tokens = 0.0
        config.evaluate.voting = "tridet"
    if variant == "tsp_tridet":
        config.head.kind = "tridet"
        # Features are padded, not resized.
        config.window.sampling = "stride"
        config.window.samples = config.window.tokens = 768
        config.window.test_whole = True
        config.head.head_width = 512
        config.head.sgp_window = (15,)
        config.head.sgp_k = 1.3
        config.head.sgp_mlp_width = 2048
        config.head.num_bins = 12
        config.head.input_noise = 0.5
        config.loss.initial_normalizer = 400.0
        config.loss.regression_weight = 1.0
        config.loss.iou_power = 1.0
        config.train.warmup_epochs = 10.0
        config.train.final_learning_rate = 5e-5
        config.train.weight_decay = 0.04
        config.train.gradient_clip = 0.4
        config.evaluate.batch_windows = 1
        config.evaluate.min_length_tokens = 0.1
        config.evaluate.nms_sigma = 0.7
        config.evaluate.voting_threshold = 0.95
        config.evaluate.voting = "tridet"
        config.evaluate.max_detections = 200
    return config
