"""Defaults that every recipe starts from. Not a recipe itself.

Every key can be set on the command line: --config.section.key=value; tuples
as --config.adapter.tap_layers='(8,10,12)'. Where a comment says "0: fitted", a
value of 0 is replaced by one that fits the lengths of the actions and the
videos (losa_jax/training/fitted_sizes.py); configs/custom.py uses this.
"""

from typing import NamedTuple

from ml_collections import ConfigDict


class Frames(NamedTuple):
    """How a window is cut for a backbone of another family than VideoMAE's.

    A window covers the time, and has the tokens, of the recipe for `size`,
    and encoding it takes at most as many operations.
    """

    size: str  # of VideoMAE's family
    stride_factor: int  # source frames for each of its samples
    clip_samples: int
    pixels: int  # side of the square that the backbone sees


# V-JEPA 2 has VideoMAE's tubelets of two frames, and clips of 16 frames at
# VideoMAE's number of patches: ViT-g has 11 x 11 for either patch, 14 or 16.
# VideoPrism has tokens for each frame, so half the frames give the same times;
# its clips are as long as its table of positions. It has four blocks more, but
# cheaper attention: 9 x 9 patches.
OTHER_FAMILIES = {
    "vjepa2_l": Frames("l", 1, 16, 160),
    "vjepa2_g": Frames("g768", 1, 16, 176),
    "vjepa21_b": Frames("b", 1, 16, 160),
    "vjepa21_l": Frames("l", 1, 16, 160),
    "vjepa21_g": Frames("g768", 1, 16, 176),
    "videoprism_b": Frames("b", 2, 16, 162),
    "videoprism_l": Frames("l", 2, 8, 162),
}

# The adapter types of AdaTAD's recipes, as endings of a variant: s_tia.
ADATAD_TYPES = ("none", "ladder", "tia", "full")


def split_variant(recipe: str, variant: str, names: tuple[str, ...]
                  ) -> tuple[str, str]:
    """Returns the name and the adapter type of a variant, one of `names` with
    or without such an ending: s_tia is (s, tia), and s is (s, losa)."""
    name, _, adapter_type = variant.rpartition("_")
    if adapter_type not in ADATAD_TYPES:
        name, adapter_type = variant, "losa"
    if name not in names:
        raise ValueError(
            f"{recipe}:{variant}: the variants are {', '.join(names)}, each "
            f"also with _{', _'.join(ADATAD_TYPES)}")
    return name, adapter_type


def use_adatad(config: ConfigDict, size: str, adapter_type: str) -> None:
    """Sets what AdaTAD's recipes with frames have in common, and what they
    have for one of their adapter types; LoSA takes the former."""
    config.augment.random_operations = 2
    # 25 of the 180 hues of OpenCV.
    config.augment.hue_jitter = 0.139
    config.head.opentad = True
    # OpenTAD has no shortest segment.
    config.evaluate.min_length_tokens = 0.0
    config.adapter.kind = adapter_type
    if adapter_type == "none":
        # The same view of a video in every epoch: the center.
        config.augment.random_crop = False
        config.augment.flip_probability = 0.0
        config.augment.color_jitter = 0.0
        config.augment.hue_jitter = 0.0
        config.augment.random_operations = 0
        config.head.input_dropout = 0.2
    elif adapter_type == "ladder":
        config.head.input_dropout = 0.1
        if size == "g1536":  # an eighth of the backbone's width
            config.adapter.width = 176
    elif adapter_type == "tia" and size == "g1536":
        config.adapter.top_blocks = 20


def use_other_family(config: ConfigDict, name: str) -> None:
    """Changes a recipe for VideoMAE to that of a name in OTHER_FAMILIES."""
    frames = OTHER_FAMILIES[name]
    config.backbone.name = name
    config.window.samples //= frames.stride_factor
    config.window.frame_stride *= frames.stride_factor
    config.window.clip_samples = frames.clip_samples
    config.augment.size = frames.pixels


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "common"
    config.seed = 0

    config.data = ConfigDict(dict(
        # ActivityNet-style JSON and the folder of its videos (<id>.mp4 ...).
        annotations="",
        videos="",
        # The --output of `python -m losa_jax.data.build`, in place of both;
        # `annotations` beside it replace the data set's own.
        tfds="",
        # File of class names in label order; "": by label_id, or sorted names.
        class_names="",
        # The head detects actions of all classes as one class; the classes
        # come from evaluate.video_scores (as usual on ActivityNet).
        class_agnostic=False,
        train_subset="training",
        test_subset="testing",
        # Folder that `predict` wrote and `losa_jax.review` corrected: what
        # was decided there trains too; several with commas. A folder without
        # reviews changes nothing.
        reviews="",
        # A missing video, or one that cannot be read: "stop" the run, or
        # "skip" it: training leaves out its windows, evaluation the video,
        # and broken_videos.json lists it.
        on_broken_video="stop",
        # Resume a run although videos, their lengths or actions have changed;
        # otherwise only a finished run accepts this, and starts a new round.
        accept_changes=False,
        # Videos to leave out: a file of ids, one a line (--mode=check_data
        # writes one), or "thumos_212", "thumos_211", "thumos_210".
        block_list="",
        # Decoded of each video before a run, to check it: none, ends, full.
        check="ends",
        # Segments that reach outside their video or are empty: "error" lists
        # them and stops, "clip" cuts or drops them, "keep" leaves them.
        on_outside="error",
        # Training leaves out actions of at most this share of their video's
        # length and exact duplicates, and videos left without an action; 0
        # keeps everything.
        min_action_share=0.0,
        num_threads=0,  # that decode; 0: as many as this process has cores
        # Memory for decoded frames: if all sampled frames of the training set
        # fit, they are decoded once; so is then the testing set. 0: no cache.
        frame_cache_gib=2.0,
        # Folder of cached features of the frozen backbone, read in place of
        # videos; what it lacks is added from data.videos. See --mode=cache.
        cache="",
        # Subsets of --mode=cache; () is train_subset and test_subset.
        cache_subsets=(),
        # Dtype of the taps in the cache; "" is backbone.dtype.
        cache_dtype="",
        # Augmented views of each video to cache in addition to the plain one;
        # a training window is drawn from one of them.
        cache_copies=0,
    ))
    # To train the head alone on feature files: one .npy or .npz per video,
    # <prefix><video id><suffix>.npy, [time, width]; the channels of several
    # folders, separated by commas, are joined. A sample is then one
    # feature (window.clip_samples=1, window.samples=window.tokens).
    config.features = ConfigDict(dict(
        folder="",
        prefix="",
        suffix="",
        # Of the arrays in a .npz file; "" is the only one, or `feats`.
        array="",
        # First and last channel + 1 of those in the files, (0, 1024) is RGB of
        # I3D's; () takes all.
        channels=(),
        stride_frames=0.0,
        clip_frames=0.0,
        width=0,
        fps=0.0,  # of all videos, if the annotations have no fps
        channels_first=False,
        # window.sampling="resize": linear, or average (OpenTAD): means of
        # equal parts of a video that has more features than a window.
        resize="linear",
    ))
    config.synthetic = ConfigDict(dict(
        folder="",  # for rendered videos; "" renders none
        num_training=0,
        num_testing=0,
        num_validation=0,
        seed=0,
        size=64,
        # Subsets of other shapes, textures, cameras and speeds each, several
        # actors, distractors, occlusion and cuts.
        hard=False,
    ))
    config.window = ConfigDict(dict(
        # Samples (frames that the backbone sees) in a window (0: fitted) and
        # in a clip.
        samples=768,
        clip_samples=16,
        # Samples that neighboring clips share; a token's features are the
        # mean over the clips that see it. 8 of 16 doubles the backbone's
        # work. clip_samples must be a multiple of what is not shared.
        clip_overlap=0,
        # Tokens of the head's finest level in a window; 0: fitted.
        tokens=768,
        # "stride": every frame_stride-th frame; "fps": sample_fps samples a
        # second (0: fitted), for sets of mixed rates; "resize": the whole
        # video as one window.
        sampling="stride",
        frame_stride=4,
        sample_fps=0.0,
        # Share of a test window that overlaps with the next one.
        overlap=0.5,
        # A training video shorter than a window is cropped to a random share
        # in this range; () does not crop it.
        short_crop_ratio=(0.9, 1.0),
        # An action stays in a training window if this share of it is inside.
        min_action_kept=0.75,
        # Windows start at multiples of a clip, so that a clip's features do
        # not depend on the window. data.cache needs it.
        align_to_clips=False,
        # Each test video as one window, padded to a multiple of a quarter
        # of window.samples, however long it is (features only).
        test_whole=False,
        # Windows drawn from each training video in an epoch; 0: fitted.
        per_video=1,
    ))
    config.augment = ConfigDict(dict(
        # Side of the square that the backbone sees, pixels; 0: fitted.
        size=160,
        # Testing: "short_crop" (short side, center) or "squash".
        test_resize="short_crop",
        random_crop=True,
        crop_area=(0.08, 1.0),
        crop_ratio=(0.75, 1.3333),
        flip_probability=0.5,  # 0 where left and right distinguish classes
        color_jitter=0.5,  # brightness, contrast, saturation within 1 +- this
        hue_jitter=0.0,  # turns by up to this share of a circle
        # RandAugment: so many of the fifteen operations in
        # data/windows/random_operations.py.
        random_operations=0,
        per="window",  # random values are drawn per window, per clip
    ))
    config.backbone = ConfigDict(dict(
        # Folder written by `python -m losa_jax.convert`, or OWNER/NAME of the
        # Hugging Face hub, which is downloaded and converted once, into
        # ~/.cache/losa_jax/backbones.
        checkpoint="",
        # Training also copies it into the work directory, for `predict`.
        keep_copy=False,
        # The size that the checkpoint must have: "vit_s", "vit_b", "vit_l",
        # "vit_h", "vit_g", "vjepa2_l", "videoprism_b" or another of
        # docs/weights.md, or the numbers below; "" and 0 accept any.
        name="",
        width=0,
        depth=0,
        heads=0,
        mlp_width=0,
        patch=0,
        # Clips that a device encodes at once; limits the backbone's memory.
        chunk_clips=8,
        dtype="float32",
    ))
    config.adapter = ConfigDict(dict(
        # "none" (head only), "losa", "ladder" (AdaTAD's side network); with
        # gradients through the backbone: "tia" (AdaTAD's adapters in its
        # blocks), "full" (the blocks themselves).
        kind="losa",
        # Blocks to tap, counted from 0, or from the end as -1; one may be
        # tapped several times. () takes num_taps evenly spaced blocks of the
        # last half (0: all of the last half).
        tap_layers=(),
        num_taps=0,
        # Taps are average-pooled to this grid of rows and columns; () keeps
        # every patch.
        tap_grid=(4, 4),
        # ladder: every patch as the block returns it; False standardizes and
        # pools the taps as those of losa.
        raw_taps=True,
        # 0: losa takes a sixth of the backbone's width in multiples of 32 (of
        # 8, if that width is below 384); ladder and tia take a quarter.
        width=0,
        # losa reads the cells of a tap: "grid", or pool_queries learned
        # weighted means of them: "attention".
        tap_pool="grid",
        pool_queries=4,
        # Of tap_pool="grid"; 1: no convolution over cells.
        short_kernel=3,
        short_grid=2,  # of tap_pool="grid"
        long_grid=0,  # 0: every cell
        ranges="both",  # short, long, both
        gates="none",  # none, tanh, sigmoid
        long_kernel=3,  # tokens, odd
        long_mixer="conv",  # conv, attention
        # attention: neighboring tokens averaged into one key.
        long_key_pool=1,
        attention_heads=4,
        mlp_ratio=2.0,
        # losa, short range: add the tap's own token to the cross-attention's
        # output; or use that token alone.
        tap_residual=True,
        cross_attention=True,
        standardize_last=True,  # the backbone's output, over the training set
        # Learning rate of adapters and of gates, as a factor on the head's.
        learning_rate_factor=1.0,
        gate_learning_rate_factor=1.0,
        # Weight decay of the adapters' kernels, as a factor on the head's.
        weight_decay_factor=1.0,
        # tia and full: number of blocks trained, from the last; 0: all.
        top_blocks=0,
        backbone_learning_rate_factor=0.1,  # full
        # tia, full: of the last block; lower blocks have less.
        drop_path=0.1,
        # tia, full: rematerialize blocks in the backward pass.
        remat_blocks=True,
    ))
    config.head = ConfigDict(dict(
        kind="actionformer",  # actionformer, tridet
        # Folder of a head converted from a public checkpoint, to start from;
        # --mode=eval can score it without a run.
        checkpoint="",
        width=512,
        # Channels of joined features, and of the projection of each (Ego4D).
        input_widths=(),
        input_projections=(),
        num_levels=6,  # 0: fitted
        num_embedding_convs=2,
        embedding_kernel=3,
        embedding_norm=True,
        num_stem_blocks=2,
        attention_heads=4,
        # Tokens, odd; one number for all levels, or one per level; -1 is
        # global attention.
        attention_window=(-1,),
        relative_positions=False,
        absolute_positions=False,
        neck="identity",  # identity, fpn
        neck_width=0,  # of fpn; 0: width
        neck_norm=True,
        head_layers=3,
        head_kernel=3,
        head_width=0,  # 0: width
        head_norm=True,
        # Follow OpenTAD where its heads differ from the originals (epsilon
        # 1e-6, masks, initialization of the boundary heads).
        opentad=False,
        prior_probability=0.01,
        drop_path=0.1,
        dropout=0.0,
        # On the head's input during training: share of channels dropped
        # (OpenTAD), standard deviation of noise (TriDet).
        input_dropout=0.0,
        input_noise=0.0,
        # Padding affects the last real tokens, as in the public code; needed
        # for imported checkpoints.
        reference_masking=False,
        # tridet: its blocks have kernels of w and about (w + 1) k tokens, one
        # w for all levels or one per level. With deviation 0, the published
        # THUMOS recipe, these kernels stay zero, because their gradients are
        # zero.
        sgp_window=(1,),
        sgp_k=5.0,
        sgp_mlp_width=768,
        sgp_init_deviation=0.2,
        downsample="max",  # max, avg
        # Boundaries as distributions over num_bins steps.
        trident=True,
        num_bins=16,
        boundary_kernel=3,
        # Upper ends of the levels' regression ranges in tokens, without that
        # of the last level, which is open; () doubles from 4.
        regression_edges=(),
        # A level's range starts at the end of the one before divided by this;
        # 2 is (0, 4), (2, 8), (4, 16) ...
        regression_overlap=1.0,
    ))
    config.loss = ConfigDict(dict(
        center_radius=1.5,
        # Points learn the classes of all actions that they may learn, not
        # only of the shortest (OpenTAD's filter_similar_gt=False).
        every_class=False,
        label_smoothing=0.0,
        regression_weight=1.0,
        initial_normalizer=100.0,
        normalizer_momentum=0.9,
        # losa, ladder: weight of the mean loss of the head on the features
        # after each tap but the last.
        deep_supervision=0.0,
        # tridet: power of IoU on the class loss of positives.
        iou_power=0.2,
        # Of the class loss where a reviewer has rejected a detection of the
        # class (data.reviews); other background has 1.
        hard_negative_weight=3.0,
    ))
    config.train = ConfigDict(dict(
        batch_windows=2,
        epochs=60,  # 0: fitted
        # Epochs of the cosine schedule; AdaTAD stops long before its end. 0:
        # as many as `epochs`.
        schedule_epochs=100,
        warmup_epochs=5.0,
        learning_rate=1e-4,
        # At the end of the cosine; ActionFormer's.
        final_learning_rate=1e-8,
        weight_decay=0.05,
        gradient_clip=1.0,
        ema_decay=0.999,
        # Start with a lower decay; for runs of a few hundred steps.
        ema_warmup=False,
        log_every_steps=10,
        evaluate_every_epochs=2,  # 0: a sixth of `epochs`
        evaluate_from_epoch=40,
        checkpoint_every_epochs=1,  # 0: a sixth of `epochs`
        # Folder of a run whose best weights a new run starts from; classes
        # are matched by name. A finished run whose data changed starts from
        # its own weights without this.
        start_from="",
    ))
    config.evaluate = ConfigDict(dict(
        tiou_thresholds=(0.3, 0.4, 0.5, 0.6, 0.7),
        # Also the mAP of moments: "charades" (25 a video) or "multithumos"
        # (every sample), see losa_jax/detection/per_frame.py.
        per_frame="",
        # Also recall@kx, as ActionFormer and as Ego4D's own kit read it.
        ego4d_recall=False,
        batch_windows=2,
        score_threshold=0.001,
        # Candidates per window, over all levels together.
        top_k=2000,
        # Keep top_k candidates of every level instead, as ActionFormer.
        top_k_per_level=False,
        min_length_tokens=0.05,
        nms="soft",  # soft, hard, none
        nms_sigma=0.7,
        nms_iou_threshold=0.1,
        nms_min_score=0.001,
        nms_per_class=True,
        max_detections=2000,  # per video
        # Above 0, without nms_per_class: a kept segment becomes the mean of
        # all segments with at least this tIoU, weighted by score x tIoU
        # ("actionformer") or by score ("tridet").
        voting_threshold=0.0,
        voting="actionformer",
        # predictions.json holds the scores of all classes of a segment.
        keep_all_scores=False,
        # File of video-level scores of a classifier
        # (losa_jax/data/annotations/video_scores.py): a class-agnostic
        # proposal gets the best video_scores_top classes; other detections
        # are weighted by the score of their class.
        video_scores="",
        video_scores_top=2,
        video_scores_fusion="sqrt",  # sqrt, product
    ))
    config.mesh = ConfigDict(dict(
        # Devices along each axis; 0 chooses: windows over `data`, their clips
        # and the parameters over `fsdp`.
        data=0,
        clip=0,
        fsdp=0,
    ))
    return config
