"""What a batch holds: names, shapes and dtypes of its arrays.

Sizes: b windows of f samples (frames as the backbone sees them) of S x S
pixels; n clips of u temporal tokens; k tapped blocks with h x w cells of the
tap grid; c channels; a actions, the most that a training video has; t rows of
a feature file.

Inputs of the model, from one of three sources:

    frames          uint8 [b, f, S, S, 3]     RGB, 0..255; from videos
    last            float32 [b, n, u, c]      from the cache; with
                                              window.clip_overlap the n clips
                                              are those that overlap
    taps            [b, k, n, u, h, w, c]     of config.data.cache_dtype;
                                              `raw_taps` in place of `taps`
                                              where the cells are the patches
    last            float32 [b, t, 1, c]      from feature files

and always

    valid_samples   int32 [b]                 real samples, the first ones; 0
                                              in a row that fills up a batch

A training batch also has

    segments        float32 [b, a, 2]         start and end of the actions, in
                                              tokens of the head
    labels          int32 [b, a]
    action_valid    bool [b, a]
    loss_weights    float32 [b, tokens, classes]
                                              of the head's tokens; see the
                                              module `loss_weights`; only if a
                                              training video is reviewed in
                                              part or has hard negatives
    readable        bool [b]                  whether all was read; without
                                              that, a window counts as padding
    video_number    int32 [b]                 index in the training set
    decoded_frames  int32 [b]                 0 where nothing is decoded
    fault           str [b]                   see `skipped_videos`

of which the last three stay on the host. Models have the taps' axis first, as
[k, b, n, u, h, w, c].
"""

from collections.abc import Mapping

import numpy as np

Batch = dict[str, np.ndarray]
Inputs = dict[str, np.ndarray]  # for the model, with `valid_samples`
# One window of a training batch, without the first axis.
Example = Mapping[str, np.ndarray | np.generic]

INPUT_KEYS = ("frames", "last", "taps", "raw_taps")
# What no device needs; `skipped_videos` takes `fault` out of a batch.
HOST_KEYS = ("video_number", "decoded_frames")
