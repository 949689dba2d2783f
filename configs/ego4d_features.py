"""Ego4D Moment Queries (110 classes) from files of features: the head alone.

    python -m losa_jax.main --config=configs/ego4d_features.py:slowfast \
        --workdir=runs/ego4d --config.features.folder=FOLDER_OF_NPY \
        --config.data.annotations=moments_train.json,moments_val.json

Variants: configs/ego4d_features.py:NAME with NAME one of
    slowfast, omnivore, egovlp          ActionFormer (slowfast is the default)
    slowfast_egovlp, omnivore_egovlp    on two features joined; give
                                        --config.features.folder=FIRST,SECOND
    slowfast_omnivore_egovlp            on three, each with a projection
    slowfast_opentad, egovlp_opentad, internvideo_opentad   as OpenTAD trains
Hardware: one GPU or TPU. Result NOT measured here: annotations and features
were not available. Published average mAP (tIoU 0.1 to 0.5) and recall@1x at
0.5: slowfast 14.89 (31.33), omnivore 18.20 (33.57), egovlp 20.60 (37.12),
slowfast_egovlp 21.56 (38.96), omnivore_egovlp 21.98 (39.88), all three 22.09
(39.87); mAP in OpenTAD: slowfast 16.26, egovlp 22.13, internvideo 27.52.
Recipes: github.com/happyharrycn/actionformer_release,
github.com/sming256/OpenTAD. Preparation, protocols and license:
docs/large_data_sets.md.
"""

from ml_collections import ConfigDict

from configs import common, ego4d

# Channels, frames of a clip, width of the head.
FEATURES = {"slowfast": (2304, 32, 512), "omnivore": (1536, 32, 512),
            "egovlp": (256, 16, 384), "slowfast_egovlp": (2560, 32, 768),
            "omnivore_egovlp": (1792, 32, 768),
            "slowfast_omnivore_egovlp": (4096, 32, 1024),
            "internvideo": (1024, 8, 512)}
OPENTAD = ("slowfast", "egovlp", "internvideo")
VARIANTS = (*(name for name in FEATURES if name != "internvideo"),
            *(f"{name}_opentad" for name in OPENTAD))


def get_config(variant: str = "slowfast") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/ego4d_features.py:{variant}: the variants "
                         f"are {', '.join(VARIANTS)}")
    name = variant.removesuffix("_opentad")
    channels, clip_frames, width = FEATURES[name]
    config = common.get_config()
    config.name = f"ego4d_{variant}"
    ego4d.use_ego4d(config)
    config.data.frame_cache_gib = 8.0
    config.features.width = channels
    config.features.stride_frames = 16.0
    config.features.clip_frames = float(clip_frames)
    config.features.fps = 30.0
    config.adapter.kind = "none"
    config.adapter.standardize_last = False
    config.window.samples = config.window.tokens = 1024
    config.window.clip_samples = 1
    config.head.width = width
    config.head.attention_heads = {768: 12, 1024: 16}.get(width, 4)
    if width == 1024:
        config.head.input_widths = (2304, 1536, 256)
        config.head.input_projections = (256, 384, 384)
    if name == variant:
        config.window.test_whole = True
        config.head.num_levels = 7 if name == "slowfast" else 8
        config.head.attention_window = (9,)
        config.train.epochs = config.train.schedule_epochs = 15
        config.train.evaluate_from_epoch = 8
        config.evaluate.batch_windows = 1
        config.evaluate.top_k_per_level = True
        config.evaluate.nms_sigma = 0.9
    elif name == "internvideo":
        ego4d.use_opentad(config, num_levels=10, window=17)
        # Of 16 frames; OpenTAD puts them at the fourth.
        config.features.stride_frames = 8.0
        config.window.samples = config.window.tokens = 2048
    else:
        ego4d.use_opentad(config, num_levels=9, window=9)
    return config
