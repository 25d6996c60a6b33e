"""Sphinx's settings: `sphinx-build -W -b html docs build/docs` makes the site, offline."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the extension beside this file

from metaloss import __version__

# Thousands of lines as the figures' PDFs are written.
logging.getLogger("fontTools").setLevel(logging.WARNING)

project = "metaloss"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "generated",
]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
smartquotes = False  # `--flags` keep their two dashes
default_role = "code"  # the docstrings' single backticks
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # shapes and bounds stand in the code; the text says what is meant

html_theme = "furo"
html_show_copyright = False
html_title = f"metaloss {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
