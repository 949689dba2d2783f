"""MultiTHUMOS (65 classes on THUMOS-14's videos) from video, AdaTAD's way.

    python -m losa_jax.main --config=configs/multithumos.py \
        --workdir=runs/multithumos --config.data.videos=VIDEOS \
        --config.data.annotations=multithumos.json,classes.txt \
        --config.backbone.checkpoint=CONVERTED

Variants: configs/multithumos.py:NAME with NAME one of
    g1536  ViT-g, 1536 frames at 224 px (the default)
    g768   ViT-g, 768 frames at 160 px
    s, b, l, h   768 frames at 160 px
    NAME_TYPE    another adapter type in place of LoSA: none, ladder, tia or
                 full. Only tia is published
Hardware: as configs/thumos.py. Time, memory in use and result were NOT measured
here. Published average mAP (tIoU 0.1 to 0.9) of AdaTAD, variants NAME_tia: s
40.77, b 42.76, l 45.15, h 46.02, g768 46.74, g1536 48.73.
Recipe: github.com/sming256/OpenTAD, configs/adatad/multi_thumos. Preparation,
protocols and licenses: docs/more_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import common, thumos

VARIANTS = ("g1536", "g768", "s", "b", "l", "h")


def use_multithumos(config: ConfigDict) -> None:
    """Sets what MultiTHUMOS' recipes have in common."""
    config.data.train_subset = "training"
    config.data.test_subset = "testing"
    # Actions of twelve videos end after their video.
    config.data.on_outside = "clip"
    config.head.num_embedding_convs = 3
    config.head.num_stem_blocks = 0
    config.evaluate.tiou_thresholds = tuple(
        round(0.1 * i, 1) for i in range(1, 10))
    config.evaluate.per_frame = "multithumos"
    config.evaluate.top_k = 8000
    config.evaluate.nms_sigma = 0.5
    config.evaluate.max_detections = 8000


def get_config(variant: str = "g1536") -> ConfigDict:
    name, _ = common.split_variant("configs/multithumos.py", variant, VARIANTS)
    config = thumos.get_config(variant)
    use_multithumos(config)
    config.name = "multithumos"
    config.adapter.learning_rate_factor = 4.0 if name in "sbl" else 1.0
    # AdaTAD stops before the end of the cosine.
    config.train.epochs = 80
    config.train.evaluate_from_epoch = 49
    config.evaluate.nms_min_score = 0.0
    return config
