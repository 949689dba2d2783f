"""Charades (157 classes) from files of features: the head alone.

    python -m losa_jax.main --config=configs/charades_features.py:i3d \
        --workdir=runs/charades_i3d --config.features.folder=FOLDER_OF_NPY \
        --config.data.annotations=Charades_v1_train.csv,Charades_v1_test.csv,\
Charades_v1_classes.txt

Variants: configs/charades_features.py:NAME with NAME one of
    i3d        ActionFormer on RGB I3D features fine-tuned on Charades, of
               every 8 of 24 frames a second (1024 channels; the default)
    videomae   on VideoMAE-L's, of every 4 of 30 frames a second (1024)
Hardware: one GPU or TPU. Result NOT measured here: the features were not
available. Published average mAP (tIoU 0.1 to 0.9) in OpenTAD: i3d 20.60,
videomae 26.04.
Recipe: github.com/sming256/OpenTAD, configs/actionformer; it puts feature i of
I3D at frame 8 i, here it is at the middle of its frames, 8 i + 4. Preparation,
protocols and licenses: docs/more_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import charades, common

VARIANTS = ("i3d", "videomae")


def get_config(variant: str = "i3d") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/charades_features.py:{variant}: the "
                         f"variants are {', '.join(VARIANTS)}")
    config = common.get_config()
    config.name = f"charades_{variant}"
    charades.use_charades(config)
    config.data.frame_cache_gib = 8.0
    config.features.width = 1024
    # Features stand for the middle of so many frames.
    config.features.stride_frames = 4.0
    config.features.clip_frames = 4.0
    config.features.fps = 30.0
    config.adapter.kind = "none"
    config.adapter.standardize_last = False
    config.window.clip_samples = 1
    if variant == "i3d":
        config.features.stride_frames = config.features.clip_frames = 8.0
        config.features.fps = 24.0
        # The longest video is shorter.
        config.window.samples = config.window.tokens = 768
        config.window.test_whole = True
        config.head.num_levels = 7
        config.train.epochs = 15
    return config
