"""FineAction (106 classes) from files of features: class-agnostic proposals.

    python -m losa_jax.main --config=configs/fineaction_features.py:videomaev2 \
        --workdir=runs/fineaction --config.features.folder=FOLDER_OF_NPY \
        --config.data.annotations=annotations_gt.json \
        --config.evaluate.video_scores=SCORES.json

Variants: configs/fineaction_features.py:NAME with NAME one of
    videomaev2   ActionFormer on VideoMAEv2 ViT-g features (1408 channels; the
                 default)
    videomae     on VideoMAE ViT-H's (1280)
Hardware: one GPU or TPU. Result NOT measured here: annotations and features
were not available. Published average mAP (tIoU 0.5 to 0.95) in OpenTAD with
the classes of new_swinB_1x1x256_views2x3_max_label_avg_prob.json: videomaev2
19.62, videomae 19.32.
Recipe: github.com/sming256/OpenTAD, configs/actionformer. Preparation and
protocol: docs/large_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import activitynet_features

VARIANTS = ("videomaev2", "videomae")


def get_config(variant: str = "videomaev2") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/fineaction_features.py:{variant}: the "
                         f"variants are {', '.join(VARIANTS)}")
    config = activitynet_features.get_config("tsp_opentad")
    config.name = f"fineaction_{variant}"
    config.features.prefix = ""
    config.features.fps = 0.0
    config.features.width = 1408 if variant == "videomaev2" else 1280
    config.head.input_dropout = 0.0
    config.train.schedule_epochs = 15 if variant == "videomaev2" else 20
    config.train.epochs = config.train.schedule_epochs
    return config
