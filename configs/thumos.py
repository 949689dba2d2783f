"""THUMOS-14 with VideoMAEv2, LoSA adapters and ActionFormer.

    python -m losa_jax.main --config=configs/thumos.py --workdir=runs/thumos \
        --config.data.annotations=thumos14.json --config.data.videos=VIDEOS \
        --config.backbone.checkpoint=CONVERTED

Variants: configs/thumos.py:NAME with NAME one of
    g1536  ViT-g, 1536 frames at 224 px (the default; the paper's backbone)
    g768   ViT-g, 768 frames at 160 px
    s, b, l, h   768 frames at 160 px
    vjepa2_l, vjepa2_g, vjepa21_b, vjepa21_l, vjepa21_g, videoprism_b,
    videoprism_l   V-JEPA 2, 2.1 and VideoPrism: windows of the same time, at no
                 more than the cost of VideoMAE's size (docs/vjepa2.md)
    NAME_TYPE    AdaTAD's recipe of another adapter type: none (frozen backbone,
                 head only), ladder, tia or full; --config.adapter.kind=TYPE
                 changes the type alone
Hardware: GiB a chip of v5e:4x4 by --mode=plan: g1536 1.95, g768 0.61, s 0.61,
vjepa2_g 1.11, vjepa21_g 1.11, videoprism_l 0.37; others were not compiled;
g1536 needs at most 11 GiB on one H100. Time, memory in use and result were NOT
measured here. Published (avg mAP, tIoU 0.3 to 0.7): LoSA with ViT-g 71.0; head
only on the same features 69.6; AdaTAD's side ladder 74.65.
Recipes: AdaTAD's end-to-end ones (github.com/sming256/OpenTAD); docs/method.md
lists what differs.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("g1536", "g768", "s", "b", "l", "h", *common.OTHER_FAMILIES)


def get_config(variant: str = "g1536") -> ConfigDict:
    name, adapter_type = common.split_variant("configs/thumos.py", variant,
                                              VARIANTS)
    other = common.OTHER_FAMILIES.get(name)
    size = other.size if other else name
    config = common.get_config()
    config.name = "thumos"
    common.use_adatad(config, size, adapter_type)
    # In ActionFormer's thumos14.json the training videos are `Validation`.
    config.data.train_subset = "validation"
    config.data.test_subset = "test"
    # Actions of five videos end after their video.
    config.data.on_outside = "clip"
    # A checkpoint of another size is refused.
    config.backbone.name = f"vit_{size[0]}"
    config.backbone.dtype = "bfloat16"
    if size == "g1536":
        # 3072 source frames, about 102 s, at every second frame.
        config.window.samples = 1536
        config.window.frame_stride = 2
        config.augment.size = 224
        # On v5e:4x4 and larger, a chip encodes all of its clips (12 or fewer)
        # at once, so that its memory falls with more chips (docs/planning.md).
        config.backbone.chunk_clips = 16
    # AdaTAD's learning rates: for S and g1536, adapters twice the head's.
    if size in ("s", "g1536"):
        config.adapter.learning_rate_factor = 2.0
    else:
        config.adapter.learning_rate_factor = 1.0
    if size == "g1536":
        config.train.epochs = 50
    config.evaluate.nms_min_score = 0.0
    if adapter_type == "none":
        config.evaluate.nms_sigma = 0.5
        config.evaluate.nms_min_score = 0.001
    if other:
        common.use_other_family(config, name)
    return config
