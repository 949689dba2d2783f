"""EPIC-KITCHENS-100 action detection from files of SlowFast features.

    python -m losa_jax.main --config=configs/epic_features.py:verb \
        --workdir=runs/epic_verb --config.features.folder=FOLDER_OF_NPZ \
        --config.data.annotations=EPIC_100_train.csv,EPIC_100_validation.csv,\
EPIC_100_video_info.csv,EPIC_100_verb_classes.csv

Variants: configs/epic_features.py:NAME with NAME one of
    verb, noun       ActionFormer (verb is the default); of nouns give
                     EPIC_100_noun_classes.csv
    verb_opentad, noun_opentad   ActionFormer as OpenTAD trains it
    verb_tridet, noun_tridet     TriDet
The pair of a trained verb and a trained noun run, of ActionFormer, detects
actions: --mode=eval --pair_with=RUN (docs/more_data_sets.md, also for
preparation and license).
Hardware: one GPU or TPU. Result NOT measured here: the features were not
available. Published average mAP (tIoU 0.1 to 0.5), verb and noun: ActionFormer
23.51 and 21.88, in OpenTAD 24.93 and 22.33, TriDet 25.51 and 23.76.
Recipes: github.com/happyharrycn/actionformer_release,
github.com/dingfengshi/TriDet, github.com/sming256/OpenTAD. Differences: those
of configs/thumos_features.py, and only nouns that occur are classes.
"""

from ml_collections import ConfigDict

from configs import common, epic

VARIANTS = ("verb", "noun", "verb_opentad", "noun_opentad", "verb_tridet",
            "noun_tridet")


def get_config(variant: str = "verb") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/epic_features.py:{variant}: the variants "
                         f"are {', '.join(VARIANTS)}")
    target, _, code = variant.partition("_")
    config = common.get_config()
    config.name = f"epic_{variant}"
    epic.use_epic(config, target)
    config.data.frame_cache_gib = 8.0
    config.features.stride_frames = 16.0
    config.features.clip_frames = 32.0
    config.features.width = 2304
    # The features are of copies of the videos with this rate.
    config.features.fps = 30.0
    config.adapter.kind = "none"
    config.adapter.standardize_last = False
    config.window.samples = config.window.tokens = 2304
    config.window.clip_samples = 1
    config.window.test_whole = True
    config.train.epochs = config.train.schedule_epochs = 21
    config.train.evaluate_from_epoch = 15
    config.evaluate.batch_windows = 1
    config.evaluate.top_k_per_level = True
    if code == "opentad":
        config.head.opentad = True
        config.train.epochs = config.train.schedule_epochs = 20
        config.evaluate.top_k_per_level = False
        config.evaluate.min_length_tokens = 0.0
    if code == "tridet":
        config.head.kind = "tridet"
        config.head.sgp_window = (5,) if target == "verb" else (1,)
        config.head.sgp_k = 2.0 if target == "verb" else 4.0
        config.head.sgp_mlp_width = 1024
        config.loss.iou_power = 0.25
        config.train.epochs = config.train.schedule_epochs = (
            27 if target == "verb" else 19)
        if target == "verb":
            config.train.final_learning_rate = 5e-5
    return config
