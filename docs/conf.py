"""The documentation's site: `python -m sphinx docs site`, after `pip install .[docs]`."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "chipmesh"
version = release = version_of("chipmesh")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"chipmesh {version}"
myst_heading_anchors = 3
# Docstrings are plain text: a word between backticks is code, a list is a list.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
# The page of the catalogue is long; its headings need no page of their own in the search's index.
html_copy_source = False
