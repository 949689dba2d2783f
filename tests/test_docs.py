"""README and docs cannot rot: what they name is there.

Links, files, modules, recipes, modes, flags and config keys are read out of
the text and looked up in the code.
"""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import common
from losa_jax import main
from losa_jax.models.backbones import SIZES
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.training.specs import (
    choose_tap_layers,
    make_adapter_spec,
    make_head_spec,
)
from tests.custom_recipe import custom_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
RECIPES = sorted((ROOT / "configs").glob("*.py"))
MAX_LINES = 250
CONFIG = common.get_config()
# Files that contributing.md tells to make.
TO_BE_MADE = ("plain", "linear", "toy", "toyset")
# What looks like a key of a section.
NO_KEYS = ("data.build", "features.json", "data.md", "features.md",
           "backbone.safetensors", "backbone.json", "head.json")
# Ablations of how it is trained, not of the model.
OF_TRAINING = ("standardize_last", "learning_rate_factor",
               "gate_learning_rate_factor", "weight_decay_factor")
# Flags that absl brings to the main command, and those of config_flags.
GIVEN = {"help", "config"}


def _text(path):
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    return text


def _names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def _keys(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


KEYS = set(_keys(CONFIG))


def _flags_of(module):
    """Names of a module's flags, by its source: nothing of it is run."""
    path = ROOT / module.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert path.is_file(), f"python -m {module}: no such module"
    source = path.read_text()
    matches = set(re.findall(r'add_argument\(\s*"--(\w+)"', source))
    matches |= set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
    if module == "losa_jax.main":
        matches |= {"mode"}
    return matches | GIVEN


def _commands(text):
    """(module, what follows it) of every `python -m` in a text."""
    text = re.sub(r"\\\n\s*", " ", text)
    # Inline code may break over lines; a block's lines end its commands.
    text = re.sub(r"(?<!`)`([^`\n]+)\n([^`\n]+)`", r"`\1 \2`", text)
    for match in re.finditer(r"python -m ([\w.]+)([^`\n|]*)", text):
        yield match[1].rstrip("."), match[2]


@pytest.mark.parametrize("page", _names(PAGES + NOTEBOOKS))
def test_links_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)\s]+)\)", _text(path))
    local = [link.partition("#")[0] for link in links
             if not re.match(r"\w+:", link)]
    gone = [link for link in local
            if link and not (path.parent / link).exists()]
    assert gone == []


@pytest.mark.parametrize("page", _names(PAGES + NOTEBOOKS + RECIPES))
def test_commands_can_be_typed(page):
    for module, rest in _commands(_text(ROOT / page)):
        if module.split(".")[0] not in ("losa_jax", "benchmarks", "tests"):
            continue
        known = _flags_of(module)
        for flag in re.findall(r"--(\w+)", rest):
            assert flag in known, f"{page}: python -m {module} --{flag}"


@pytest.mark.parametrize("page", _names(PAGES + NOTEBOOKS + RECIPES))
def test_modes_and_recipes_are_there(page):
    text = _text(ROOT / page)
    for mode in re.findall(r"--mode=(\w+)", text):
        assert mode in main.MODES, f"{page}: --mode={mode}"
    for name, variant in re.findall(
            r"configs/(\w+)\.py(?::(\w+(?:\|\w+)*))?", text):
        if name in TO_BE_MADE or variant == "NAME":
            continue
        recipe = importlib.import_module(f"configs.{name}")
        recipe.get_config(*([variant] if variant else []))


@pytest.mark.parametrize("page", _names(PAGES + NOTEBOOKS + RECIPES))
def test_config_keys_are_there_and_take_the_value(page):
    text = _text(ROOT / page)
    for key, value in re.findall(
            r"--config\.([a-z][\w.]*\w)(?:=('[^']*'|[^\s`|,)\]]*))?", text):
        if key == "section.key":  # as a form
            continue
        assert key in KEYS, f"{page}: --config.{key}"
        section, _, name = key.rpartition(".")
        default = CONFIG[section][name] if section else CONFIG[name]
        if not value or isinstance(default, str) or value.isupper():
            continue
        given = ast.literal_eval(value.strip("'"))
        types = (int, float) if type(default) is float else type(default)
        assert isinstance(given, types), (
            f"{page}: --config.{key}={value}, the default is {default!r}")
    # Keys in passing: `data.cache_copies=2`.
    sections = "|".join(name for name, value in CONFIG.items()
                        if isinstance(value, ConfigDict))
    for key in re.findall(rf"`((?:{sections})\.\w+)(?:=[^`]*)?`", text):
        assert key in KEYS or key in NO_KEYS, f"{page}: `{key}`"


@pytest.mark.parametrize("page", _names(PAGES))
def test_files_of_ours_that_are_named_exist(page):
    named = re.findall(
        r"(?<![\w/.])((?:losa_jax|tests|configs|launch|docs|benchmarks)/"
        r"[\w/]+\.\w+)", _text(ROOT / page))
    gone = [name for name in named if not (ROOT / name).exists()
            and Path(name).stem.removeprefix("test_") not in TO_BE_MADE]
    assert gone == []


@pytest.mark.parametrize("page", _names(PAGES))
def test_pages_stay_short(page):
    assert len((ROOT / page).read_text().splitlines()) <= MAX_LINES


def _ablations():
    text = _text(ROOT / "docs/method.md").partition("## Ablations")[2]
    pattern = r"--config\.(adapter|head)\.(\w+)=('[^']*'|[^\s`]+)`"
    matches = re.findall(pattern, text)
    # `--config.adapter.gates=tanh`, `sigmoid`: more values of one key.
    for section, key, first, others in re.findall(
            r"`--config\.(adapter|head)\.(\w+)=([^`]+)`((?:, `[^`-][^`]*`)+)",
            text):
        assert (section, key, first) in matches
        matches += [(section, key, value)
                  for value in re.findall(r"`([^`]+)`", others)]
    return matches


def test_the_method_page_lists_ablations():
    assert len(_ablations()) > 20


@pytest.mark.parametrize("section, key, value", _ablations())
def test_every_ablation_makes_another_model(section, key, value):
    config = custom_config()
    spec = VideoMaeSpec(**SIZES["vit_s"])

    def built():
        taps = choose_tap_layers(config.adapter, spec.depth)
        return (taps, make_adapter_spec(config, spec, taps),
                make_head_spec(config, in_width=spec.width, num_classes=3))

    usual, old = built(), config[section][key]
    config[section][key] = (value if isinstance(old, str)
                            else ast.literal_eval(value.strip("'")))
    assert config[section][key] != old
    assert (built() != usual) == (key not in OF_TRAINING)
