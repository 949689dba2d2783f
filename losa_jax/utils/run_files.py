"""Names of the files in a work directory."""

CONFIG_FILE = "config.json"
LOG_FILE = "log.txt"
METRICS_FILE = "metrics.jsonl"
PREDICTIONS_FILE = "predictions.json"
MAP_FILE = "map.json"
# Each class's score of the best F1 on the evaluated data.
THRESHOLDS_FILE = "thresholds.json"
COST_FILE = "cost.json"
PROBED_FILE = "probed_videos.json"
# A copy of the backbone, with config.backbone.keep_copy.
BACKBONE_FOLDER = "backbone"
BROKEN_FILE = "broken_videos.json"
# Marks the annotations that losa_jax.review writes.
REVIEWS_VERSION = "losa_jax reviews"
REPORT_FOLDER = "report"
TENSORBOARD_FOLDER = "tensorboard"
# What changed from the round before, and both mAPs.
AGAIN_FILE = "again.json"
# Finished runs whose weights the next one started from: rounds/1, ...
ROUNDS_FOLDER = "rounds"
