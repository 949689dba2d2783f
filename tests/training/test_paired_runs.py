"""Which runs are paired."""

import json

import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import common
from losa_jax.errors import InputError
from losa_jax.training.paired_runs import open_pair
from losa_jax.utils import recipes


def test_settings_that_an_older_run_lacks_are_not_those_of_the_other(tmp_path):
    config = common.get_config()
    old = {key: value for key, value in flatten_dict(
        config.to_dict(), sep=".").items() if key not in recipes.LATER_KEYS}
    (tmp_path / "config.json").write_text(json.dumps(
        unflatten_dict(old, sep=".")))
    config.features.resize = "average"
    with pytest.raises(InputError, match="sees other windows than .*: config."
                       "features.resize=linear .here average.$"):
        open_pair(config, tmp_path / "verb", tmp_path, "best", None)


def test_a_pair_without_settings_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no run"):
        open_pair(common.get_config(), tmp_path, tmp_path, "best", None)
