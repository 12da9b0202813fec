"""Sphinx configuration: ``sphinx-build -W doc doc/_build``."""

import shutil
import subprocess
from pathlib import Path

from sphinx.errors import ConfigError
from sphinx.ext.autosummary import autosummary_table

import sharedmem

HERE = Path(__file__).parent
DOXYGEN = HERE / "_build" / "doxygen"  # as the Doxyfile says

project = "numpy-sharedmem"
copyright = "The sharedmem developers"
version = release = sharedmem.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.graphviz",
    "breathe",
    "myst_parser",
    "numpydoc",
    "sphinx_design",
]
exclude_patterns = ["_build", "examples"]
templates_path = ["_templates"]
# Benchmarks write doc/performance/benchmarks.md; without them that folder is empty.
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
# The part of the C++ page on each header declares the namespace again.
suppress_warnings = ["duplicate_declaration.cpp"]

html_theme = "pydata_sphinx_theme"
html_title = "sharedmem"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
# None for pages without neighbours below them, and for one with wide tables.
html_sidebars = {"*": [], "model/*": [], "performance/benchmarks": [], "performance/sixteen_cores/*": []}
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 4,  # more would put the search into a line of its own
    "secondary_sidebar_items": ["page-toc"],
}
graphviz_output_format = "svg"

autodoc_typehints = "none"
numpydoc_show_class_members = False

missing = [program for program in ("doxygen", "dot") if shutil.which(program) is None]
if missing:
    raise ConfigError(f"missing: {', '.join(missing)}; apt-get install doxygen graphviz has them")
DOXYGEN.mkdir(parents=True, exist_ok=True)
subprocess.run(["doxygen", "Doxyfile"], cwd=HERE, check=True)
breathe_projects = {"sharedmem": str(DOXYGEN / "xml")}
breathe_default_project = "sharedmem"


def signature_of_what_is_not_called(app, what, name, thing, options, signature, returned):
    """SharedArray inherits ndarray's signature, but is not made by calling it."""
    return ("", None) if name == "sharedmem.SharedArray" else None


def as_it_is(translator, node):
    """autosummary makes the spaces of signatures unbreakable; on a narrow page words would be cut instead."""


def setup(app):
    app.add_node(autosummary_table, override=True, html=(as_it_is, as_it_is))
    app.connect("autodoc-process-signature", signature_of_what_is_not_called)
