"""ActivityNet-v1.3 with VideoMAEv2, LoSA adapters and ActionFormer.

    python -m losa_jax.main --config=configs/activitynet.py \
        --workdir=runs/activitynet --config.data.videos=VIDEOS \
        --config.data.annotations=anet_anno_action.json,video_info_new.csv \
        --config.data.block_list=MISSING.txt \
        --config.backbone.checkpoint=CONVERTED

Variants: configs/activitynet.py:NAME with NAME one of
    g768   ViT-g, 768 frames at 160 px (the default)
    g1536  ViT-g, 1536 frames at 224 px (the paper's backbone)
    s, b, l, h   768 frames at 160 px; l, as published, at 224 px
    vjepa2_l, vjepa2_g, vjepa21_b, vjepa21_l, vjepa21_g, videoprism_b,
    videoprism_l   V-JEPA 2, 2.1 and VideoPrism, at no more than the cost of
           VideoMAE's size (docs/vjepa2.md)
Each classifies the 200 classes itself. NAME_proposals detects actions of any
class, as is usual on ActivityNet (l at 160 px); their classes come from a
video-level classifier, --config.evaluate.video_scores=FILE, on which the mAP
depends as well. NAME_TYPE and NAME_proposals_TYPE are AdaTAD's recipes of other
adapter types: none (frozen backbone, head only), ladder, tia or full;
--config.adapter.kind=TYPE changes the type alone.
Each video is one window of 192 tokens, whatever its length.
Hardware: GiB a chip of v5e:4x4 by --mode=plan: g768 3.91, g1536 5.39, l 2.7;
others were not compiled. Time, memory in use and result were NOT measured here.
Published (avg mAP, tIoU 0.5 to 0.95): LoSA with ViT-g and an external
classifier 38.6.
Recipes: AdaTAD's (github.com/sming256/OpenTAD); docs/method.md lists what
differs.
"""

from ml_collections import ConfigDict

from configs import common
from losa_jax.data.annotations.activitynet_facts import TIOU_THRESHOLDS

SIZES = ("g768", "g1536", "s", "b", "l", "h", *common.OTHER_FAMILIES)
PROPOSALS = "_proposals"
VARIANTS = SIZES + tuple(size + PROPOSALS for size in SIZES)


def get_config(variant: str = "g768") -> ConfigDict:
    name, adapter_type = common.split_variant("configs/activitynet.py",
                                              variant, VARIANTS)
    backbone = name.removesuffix(PROPOSALS)
    other = common.OTHER_FAMILIES.get(backbone)
    size = other.size if other else backbone
    config = common.get_config()
    config.name = "activitynet"
    common.use_adatad(config, size, adapter_type)
    config.data.train_subset = "training"
    config.data.test_subset = "validation"
    # A few segments are empty, or end after their video.
    config.data.on_outside = "clip"
    config.data.min_action_share = 0.01
    config.window.sampling = "resize"
    config.window.samples = 1536 if size == "g1536" else 768
    config.window.tokens = 192
    config.window.short_crop_ratio = ()
    config.window.min_action_kept = 0.5
    config.augment.size = 224 if name in ("g1536", "g1536_proposals", "l"
                                          ) else 160
    # A checkpoint of another size is refused.
    config.backbone.name = f"vit_{size[0]}"
    config.backbone.dtype = "bfloat16"
    config.adapter.learning_rate_factor = 0.08
    config.adapter.backbone_learning_rate_factor = 0.01
    config.head.width = 512
    config.head.absolute_positions = True
    if adapter_type == "full":
        config.head.input_dropout = 0.2
    config.loss.label_smoothing = 0.1
    config.loss.initial_normalizer = 200.0
    config.train.batch_windows = 16
    config.train.learning_rate = 1e-3
    config.train.epochs = 15
    config.train.schedule_epochs = 20
    config.train.evaluate_from_epoch = 5
    config.train.evaluate_every_epochs = 1
    config.evaluate.tiou_thresholds = TIOU_THRESHOLDS
    config.evaluate.nms_sigma = 0.75
    config.evaluate.max_detections = 100
    if name.endswith(PROPOSALS):
        config.name = "activitynet_proposals"
        config.data.class_agnostic = True
        config.adapter.learning_rate_factor = 0.1
        config.head.width = 256
        config.loss.regression_weight = 2.0
        config.train.schedule_epochs = 15
        config.evaluate.nms_sigma = 0.7
        config.evaluate.nms_per_class = False
        config.evaluate.voting_threshold = 0.9
        config.evaluate.voting = "tridet"
        # OpenTAD keeps every proposal of one class until NMS.
        config.evaluate.score_threshold = 0.0
    if other:
        common.use_other_family(config, backbone)
    return config
