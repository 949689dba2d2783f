"""EPIC-SOUNDS (44 classes of sounds) from files of Auditory SlowFast features.

    python -m losa_jax.main --config=configs/epic_sounds_features.py \
        --workdir=runs/sounds --config.features.folder=FOLDER_OF_NPZ \
        --config.data.annotations=EPIC_Sounds_train.csv,\
EPIC_Sounds_validation.csv,EPIC_100_video_info.csv

Hardware: one GPU or TPU. Result NOT measured here: the features were not
available. None is published: the settings are those of CausalTAD, whose head
has other blocks (14.04 average mAP at tIoU 0.1 to 0.5), with ActionFormer's
blocks of the EPIC-KITCHENS recipes.
Recipe: github.com/sming256/OpenTAD, configs/causaltad. Preparation, protocol
and license: docs/large_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import epic_features


def get_config() -> ConfigDict:
    config = epic_features.get_config("verb_opentad")
    config.name = "epic_sounds"
    config.features.stride_frames = 6.0
    config.window.samples = config.window.tokens = 6144
    config.window.test_whole = False
    config.head.num_levels = 7
    config.head.absolute_positions = True
    config.head.input_dropout = 0.2
    config.loss.label_smoothing = 0.1
    config.loss.regression_weight = 0.5
    config.train.schedule_epochs = 30
    config.train.epochs = 25
    config.train.evaluate_from_epoch = 15
    config.evaluate.batch_windows = 2
    return config
