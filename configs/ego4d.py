"""Ego4D Moment Queries (110 classes) from video, AdaTAD's way.

    python -m losa_jax.main --config=configs/ego4d.py:l_tia \
        --workdir=runs/ego4d --config.data.videos=CLIPS \
        --config.data.annotations=moments_train.json,moments_val.json \
        --config.backbone.checkpoint=CONVERTED

CLIPS holds a video for each clip, named by its clip_uid.
Variants: configs/ego4d.py:NAME with NAME one of
    l         ViT-L, clips of eight minutes at 192 px (the default)
    l_TYPE    another adapter type in place of LoSA: none, ladder, tia or full.
              Only tia is published
Hardware: one chip with the memory for 8,192 frames at 192 pixels a window, see
--mode=plan. Result NOT measured here: annotations and videos were not
available. Published average mAP (tIoU 0.1 to 0.5) of AdaTAD, l_tia, with
InternVideo1-MQ (VideoMAE-L): 28.41.
Recipe: github.com/sming256/OpenTAD, configs/adatad/ego4d; it pads the 1,800
tokens of a clip to 2,048, here the window is that long. Preparation, protocols
and license: docs/large_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("l",)


def use_ego4d(config: ConfigDict) -> None:
    """Sets what Ego4D's recipes have in common."""
    config.data.train_subset = "training"
    config.data.test_subset = "validation"
    config.data.on_outside = "clip"
    config.window.min_action_kept = 0.3
    config.head.absolute_positions = True
    config.head.dropout = 0.1
    config.head.regression_overlap = 2.0
    config.loss.initial_normalizer = 100.0
    config.evaluate.tiou_thresholds = (0.1, 0.2, 0.3, 0.4, 0.5)
    config.evaluate.ego4d_recall = True
    config.evaluate.top_k = 5000
    config.evaluate.max_detections = 2000


def use_opentad(config: ConfigDict, num_levels: int, window: int) -> None:
    """Sets what OpenTAD's recipes have in common, but for levels and the
    window of attention, which is global on the last three levels."""
    config.window.overlap = 0.0
    config.head.opentad = True
    config.head.num_levels = num_levels
    config.head.attention_window = (window,) * (num_levels - 3) + (-1,) * 3
    config.head.input_dropout = 0.2
    config.loss.every_class = True
    config.train.schedule_epochs = 25
    config.train.epochs = 20
    config.train.evaluate_from_epoch = 12
    config.train.evaluate_every_epochs = 1
    config.evaluate.min_length_tokens = 0.0
    config.evaluate.nms_sigma = 2.0


def get_config(variant: str = "l") -> ConfigDict:
    size, adapter_type = common.split_variant("configs/ego4d.py", variant,
                                              VARIANTS)
    config = common.get_config()
    config.name = "ego4d"
    common.use_adatad(config, size, adapter_type)
    use_ego4d(config)
    use_opentad(config, num_levels=10, window=17)
    config.backbone.name = "vit_l"
    config.backbone.dtype = "bfloat16"
    # Every second frame of 30 a second.
    config.window.sampling = "fps"
    config.window.sample_fps = 15.0
    config.window.samples = 8192
    config.window.tokens = 2048
    config.augment.size = 192
    config.adapter.learning_rate_factor = 4.0
    if adapter_type == "tia":
        config.adapter.top_blocks = 12
    return config
