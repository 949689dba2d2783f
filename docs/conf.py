"""Configuration of the documentation site: `sphinx-build -W docs site`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import losa_jax  # noqa: E402  of this checkout

project = "losa_jax"
author = "The losa_jax authors"
release = losa_jax.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = [".md"]
html_theme = "sphinx_book_theme"
html_title = "losa_jax"
html_theme_options = {"show_toc_level": 2}
# Links to headings, as GitHub makes them.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Shapes such as "b t c" stay as they are written.
python_use_unqualified_type_names = True
