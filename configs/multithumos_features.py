"""MultiTHUMOS (65 classes) from THUMOS-14's files of I3D features.

    python -m losa_jax.main --config=configs/multithumos_features.py:i3d \
        --workdir=runs/multithumos_i3d --config.features.folder=FOLDER_OF_NPY \
        --config.data.annotations=multithumos.json,classes.txt

Variants: configs/multithumos_features.py:NAME with NAME one of
    i3d      ActionFormer on RGB and flow (2048 channels; the default)
    i3d_rgb  on RGB, the first 1024 channels of the same files
Hardware: one GPU or TPU. Result NOT measured here: the features were not
available. Published average mAP (tIoU 0.1 to 0.9) in OpenTAD: i3d 39.19,
i3d_rgb 34.02.
Recipe: github.com/sming256/OpenTAD, configs/actionformer. Preparation,
protocols and licenses: docs/more_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import multithumos, thumos_features

VARIANTS = ("i3d", "i3d_rgb")


def get_config(variant: str = "i3d") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/multithumos_features.py:{variant}: the "
                         f"variants are {', '.join(VARIANTS)}")
    config = thumos_features.get_config("i3d_opentad")
    multithumos.use_multithumos(config)
    config.name = f"multithumos_{variant}"
    # Of the videos that have 24 or 25 it is known.
    config.features.fps = 30.0
    if variant == "i3d_rgb":
        config.features.channels = (0, 1024)
        config.features.width = 1024
    config.head.input_dropout = 0.0
    config.train.schedule_epochs = 65
    config.train.epochs = 45
    config.train.evaluate_from_epoch = 35
    return config
