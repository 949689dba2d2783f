"""EPIC-KITCHENS-100 action detection from video, AdaTAD's way.

    python -m losa_jax.main --config=configs/epic.py:verb_tia \
        --workdir=runs/epic_verb --config.data.videos=VIDEOS \
        --config.data.annotations=EPIC_100_train.csv,EPIC_100_validation.csv,\
EPIC_100_video_info.csv,EPIC_100_verb_classes.csv \
        --config.backbone.checkpoint=CONVERTED

Variants: configs/epic.py:NAME with NAME one of
    verb   97 classes (the default)
    noun   300 classes (293 occur); give EPIC_100_noun_classes.csv
    NAME_TYPE   another adapter type in place of LoSA: none, ladder, tia or
                full. Only tia is published
The pair of a trained verb and a trained noun run detects actions: --mode=eval
--pair_with=RUN (docs/more_data_sets.md, also for preparation and license).
Hardware: one chip with the memory for 6,144 frames at 160 pixels a window,
see --mode=plan. Result NOT measured here. Published average mAP (tIoU 0.1 to
0.5) of AdaTAD with VideoMAE-L fine-tuned on the set: verb 29.69, noun 29.44.
Recipe: github.com/sming256/OpenTAD, configs/adatad/epic.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("verb", "noun")


def use_epic(config: ConfigDict, target: str) -> None:
    """Sets what all recipes of verbs, or of nouns, have in common."""
    config.data.train_subset = "training"
    config.data.test_subset = "validation"
    # One action of the validation set ends a hundredth of a second late.
    config.data.on_outside = "clip"
    config.window.min_action_kept = 0.3
    config.head.attention_window = (9,)
    config.head.regression_overlap = 2.0
    config.loss.initial_normalizer = 250.0
    config.loss.label_smoothing = 0.1 if target == "noun" else 0.0
    config.evaluate.tiou_thresholds = (0.1, 0.2, 0.3, 0.4, 0.5)
    config.evaluate.top_k = 5000
    config.evaluate.nms_sigma = 0.4
    config.evaluate.max_detections = 2000


def get_config(variant: str = "verb") -> ConfigDict:
    target, adapter_type = common.split_variant("configs/epic.py", variant,
                                                VARIANTS)
    config = common.get_config()
    config.name = f"epic_{target}"
    common.use_adatad(config, "l", adapter_type)
    use_epic(config, target)
    config.backbone.name = "vit_l"
    config.backbone.dtype = "bfloat16"
    # Every second frame of 30 a second; the files have 50, 59.94 and others.
    config.window.sampling = "fps"
    config.window.sample_fps = 15.0
    config.window.samples = 6144
    config.adapter.learning_rate_factor = 0.8
    config.head.input_dropout = 0.2
    config.loss.regression_weight = 0.5
    config.train.schedule_epochs = 250
    config.train.epochs = 35
    config.train.evaluate_from_epoch = 19
    return config
