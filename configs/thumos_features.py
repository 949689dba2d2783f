"""THUMOS-14 from files of features: the head alone, ActionFormer's way.

    python -m losa_jax.main --config=configs/thumos_features.py:i3d \
        --workdir=runs/thumos_i3d --config.data.annotations=thumos14.json \
        --config.features.folder=FOLDER_OF_NPY

Variants: configs/thumos_features.py:NAME with NAME one of
    i3d          ActionFormer on I3D features (2048 channels; the default)
    i3d_opentad  ActionFormer on them as OpenTAD trains it
    i3d_tridet   TriDet on them
    videomaev2   ActionFormer on VideoMAEv2 or InternVideo ones (1408)
    videomaev2_tridet   TriDet on them
Hardware: one GPU or TPU; on CPU a step takes 0.99 to 1.07 times as long as
in torch (benchmarks/head_speed.py). Result NOT measured here: the features
were not available.
Published average mAP (tIoU 0.3 to 0.7): ActionFormer 66.8, in OpenTAD 68.4, and
TriDet 69.3 with I3D, ActionFormer 69.6 with VideoMAEv2 ViT-g.
Recipes: github.com/happyharrycn/actionformer_release,
github.com/dingfengshi/TriDet, github.com/sming256/OpenTAD. Differences from the
public code: padding does not change outputs at real tokens
(head.reference_masking=True lets it), and kernels of TriDet's blocks do not
start at zero, where they would stay (head.sgp_init_deviation=0.0 is the
published recipe).
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("i3d", "i3d_opentad", "i3d_tridet", "videomaev2",
            "videomaev2_tridet")


def get_config(variant: str = "i3d") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/thumos_features.py:{variant}: the "
                         f"variants are {', '.join(VARIANTS)}")
    features, _, kind = variant.partition("_")
    config = common.get_config()
    config.name = f"thumos_{variant}"
    config.data.train_subset = "validation"
    config.data.test_subset = "test"
    # Actions of five videos end after their video.
    config.data.on_outside = "clip"
    config.data.frame_cache_gib = 8.0
    config.features.stride_frames = 4.0
    config.features.clip_frames = 16.0
    config.features.width = 2048 if features == "i3d" else 1408
    config.adapter.kind = "none"
    config.adapter.standardize_last = False
    config.window.samples = config.window.tokens = 2304
    config.window.clip_samples = 1
    config.window.test_whole = True
    config.window.min_action_kept = 0.5
    config.head.attention_window = (19,)
    config.loss.initial_normalizer = 100.0
    config.train.epochs = config.train.schedule_epochs = 35
    if features == "videomaev2":
        config.train.epochs = config.train.schedule_epochs = 50
    config.train.evaluate_from_epoch = 25
    config.evaluate.batch_windows = 1
    config.evaluate.top_k_per_level = True
    config.evaluate.nms_sigma = 0.5
    config.evaluate.max_detections = 200
    if kind == "opentad":
        config.head.opentad = True
        config.head.input_dropout = 0.2
        config.evaluate.top_k_per_level = False
        config.evaluate.min_length_tokens = 0.0
        config.evaluate.max_detections = 2000
    if kind == "tridet":
        config.head.kind = "tridet"
        config.head.input_noise = 0.0005
        config.train.epochs = config.train.schedule_epochs = 40
        config.train.warmup_epochs = 20.0
        config.train.weight_decay = 0.025
        config.evaluate.max_detections = 2000
    return config
