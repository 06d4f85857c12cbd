"""How the documentation site is built: `make docs`."""

import os
import sys
from pathlib import Path

from lossgeom import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "lossgeom"
author = "The lossgeom developers"
release = version = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "gallery",
    "mathml",
    "public_names",
    "short_sidebar",
]
exclude_patterns = ["_*"]
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!lossgeom\.).*")]  # not on this site

html_theme = "furo"
html_title = "lossgeom"
html_static_path = ["_static"]
html_css_files = ["lossgeom.css"]
html_show_copyright = False
html_show_sphinx = False
html_math_renderer = "mathml"
highlight_language = "python"
copybutton_exclude = ".linenos, .gp, .go"

autosummary_generate = [str(page) for page in HERE.glob("reference/*.rst")]
autodoc_mock_imports = ["accelerate", "lightning", "transformers"]  # seconds each, for a docstring
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_enable_extensions = ["attrs_block"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # tables that benchmarks write have headings of their own level
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build/cache")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # notebooks run as they do in tests


def setup(app):
    """Links that are right on GitHub and leave this folder are to the site's own pages here."""
    app.connect("source-read", within_the_site)


def within_the_site(app, document, source):
    source[0] = source[0].replace("(../../CONTRIBUTING.md", "(../contributing.md")
