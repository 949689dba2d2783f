"""Charades (157 classes of activities at home) from video, AdaTAD's way.

    python -m losa_jax.main --config=configs/charades.py:s_tia \
        --workdir=runs/charades --config.data.videos=VIDEOS \
        --config.data.annotations=Charades_v1_train.csv,Charades_v1_test.csv,\
Charades_v1_classes.txt \
        --config.backbone.checkpoint=CONVERTED

Variants: configs/charades.py:NAME with NAME one of
    s, b, l, h, g   ViT sizes, 512 frames at 160 px (s is the default)
    NAME_TYPE       another adapter type in place of LoSA: none, ladder, tia or
                    full. Only tia is published
Hardware: as configs/thumos.py for two thirds of its frames and eight times its
windows. Time, memory in use and result were NOT measured here. Published
average mAP (tIoU 0.1 to 0.9) of AdaTAD, variants NAME_tia: s 24.14, b 27.99,
l 32.31, h 33.94, g 37.56.
Recipe: github.com/sming256/OpenTAD, configs/adatad/charades; 7.5 frames a
second are sampled of any video, OpenTAD first converts them to 30 a second and
takes every fourth. Preparation, protocols and licenses: docs/more_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("s", "b", "l", "h", "g")
# The adapters' rate, as a factor on the head's.
RATES = {"s": 4.0, "b": 4.0, "l": 2.0, "h": 1.0, "g": 0.8}


def use_charades(config: ConfigDict) -> None:
    """Sets what Charades' recipes have in common."""
    config.data.train_subset = "training"
    config.data.test_subset = "testing"
    # Nearly a third of the actions end behind their video.
    config.data.on_outside = "clip"
    config.window.samples = config.window.tokens = 512
    config.window.min_action_kept = 0.5
    config.head.num_levels = 8
    config.head.absolute_positions = True
    config.head.input_dropout = 0.3
    config.head.opentad = True
    config.train.batch_windows = 16
    config.train.epochs = config.train.schedule_epochs = 20
    config.train.evaluate_from_epoch = 8
    config.train.evaluate_every_epochs = 1
    config.evaluate.tiou_thresholds = tuple(
        round(0.1 * i, 1) for i in range(1, 10))
    config.evaluate.per_frame = "charades"
    config.evaluate.batch_windows = 16
    config.evaluate.min_length_tokens = 0.0
    config.evaluate.nms_sigma = 0.3
    config.evaluate.max_detections = 1000


def get_config(variant: str = "s") -> ConfigDict:
    size, adapter_type = common.split_variant("configs/charades.py", variant,
                                              VARIANTS)
    config = common.get_config()
    config.name = "charades"
    common.use_adatad(config, size, adapter_type)
    use_charades(config)
    config.backbone.name = f"vit_{size}"
    config.backbone.dtype = "bfloat16"
    config.window.sampling = "fps"
    config.window.sample_fps = 7.5
    config.adapter.learning_rate_factor = RATES[size]
    config.evaluate.nms_min_score = 0.0
    return config
