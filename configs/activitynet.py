"""ActivityNet-v1.3, 200 classes, with VideoMAEv2, LoSA and ActionFormer.

    python -m losa_jax.main --config=configs/activitynet.py \
        --workdir=runs/activitynet \
        --config.data.annotations=activity_net.v1-3.min.json \
        --config.data.videos=VIDEOS --config.backbone.checkpoint=CONVERTED

Each video is one window of 768 frames, 192 tokens. The head tells the 200
classes apart itself; proposals with an external classifier are not built
yet. Hardware: a TPU or GPU with 16 GB or more. Time, memory and result were
NOT measured here. Published (avg mAP, tIoU 0.5 to 0.95): LoSA with ViT-g and
an external classifier 38.6.
Recipe: AdaTAD's 200-way one (shared/reference/heads_and_recipes.md, D4).
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.name = "activitynet"
    config.data.train_subset = "training"
    config.data.test_subset = "validation"
    config.data.on_outside = "clip"
    config.window.sampling = "resize"
    config.window.frames = 768
    config.window.tokens = 192
    config.window.short_crop_ratio = ()
    config.window.min_action_kept = 0.5
    config.backbone.dtype = "bfloat16"
    config.adapter.learning_rate_factor = 0.08
    config.head.width = 512
    config.head.absolute_positions = True
    config.loss.label_smoothing = 0.1
    config.loss.initial_normalizer = 200.0
    config.train.batch_windows = 16
    config.train.learning_rate = 1e-3
    config.train.epochs = 15
    config.train.schedule_epochs = 20
    config.train.evaluate_from_epoch = 5
    config.train.evaluate_every_epochs = 1
    config.evaluate.tiou_thresholds = (
        0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    config.evaluate.nms_sigma = 0.75
    config.evaluate.max_detections = 100
    return config
