"""THUMOS-14: its classes, and the sets of test videos that papers score."""

# In the order of `label_id` in ActionFormer's file
# (github.com/happyharrycn/actionformer_release).
CLASS_NAMES = (
    "BaseballPitch", "BasketballDunk", "Billiards", "CleanAndJerk",
    "CliffDiving", "CricketBowling", "CricketShot", "Diving", "FrisbeeCatch",
    "GolfSwing", "HammerThrow", "HighJump", "JavelinThrow", "LongJump",
    "PoleVault", "Shotput", "SoccerPenalty", "TennisSwing", "ThrowDiscus",
    "VolleyballSpiking")
# Number of each class among UCF101's 101, from 1.
UCF101_NUMBERS = dict(zip(CLASS_NAMES, (
    7, 9, 12, 21, 22, 23, 24, 26, 31, 33, 36, 40, 45, 51, 68, 79, 85, 92,
    93, 97), strict=True))

# Most videos have 30 frames a second. A public file assumes that rate for
# these videos too: {video: (frames a second, seconds)}.
USUAL_FPS = 30.0
SLOW_VIDEOS = {
    "video_validation_0000311": (25.0, 699.09),
    "video_validation_0000411": (24.0, 810.03),
    "video_validation_0000413": (25.0, 718.05),
    "video_validation_0000419": (25.0, 905.09),
    "video_validation_0000420": (25.0, 881.21),
    "video_validation_0000484": (25.0, 948.82),
    "video_validation_0000666": (25.0, 1409.43),
    "video_test_0000950": (25.0, 1315.39),
    "video_test_0001058": (25.0, 965.95),
    "video_test_0001195": (25.0, 899.6),
    "video_test_0001207": (24.0, 1103.7),
    "video_test_0001255": (25.0, 1263.1),
    "video_test_0001459": (25.0, 814.84),
}

_NO_ACTIONS = "has no action of the 20 classes but a part marked Ambiguous"
_PAST_THE_END = ("has 22 of its 29 actions after its end at 176 s: the "
                 "annotations are of another cut")
_LEFT_OUT = "is not in the list of 210 videos that some papers use"
# {protocol: {test video that it leaves out: reason}}.
EXCLUDED = {
    # ActionFormer, TriDet: 3,358 actions.
    "thumos_212": {"video_test_0001292": _NO_ACTIONS},
    # OpenTAD, AdaTAD: 3,329 actions (OpenTAD itself counts 3,325).
    "thumos_211": {"video_test_0001292": _NO_ACTIONS,
                   "video_test_0000270": _PAST_THE_END},
    "thumos_210": {"video_test_0001292": _NO_ACTIONS,
                   "video_test_0000270": _PAST_THE_END,
                   "video_test_0001496": _LEFT_OUT},
}
