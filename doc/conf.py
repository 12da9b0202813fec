"""Sphinx configuration: ``sphinx-build -W doc doc/_build``."""

import shutil
import subprocess
from pathlib import Path

import sharedmem

HERE = Path(__file__).parent

project = "numpy-sharedmem"
copyright = "The sharedmem developers"
version = release = sharedmem.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.graphviz",
    "numpydoc",
]
exclude_patterns = ["_build", "doxygen", "examples"]
html_theme = "pydata_sphinx_theme"
html_title = "sharedmem"
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False}
graphviz_output_format = "svg"
numpydoc_show_class_members = False
autodoc_typehints = "none"
nitpicky = False

# The C++ pages need doxygen; without it they say so instead.
if shutil.which("doxygen"):
    extensions.append("breathe")
    subprocess.run(["doxygen", "Doxyfile"], cwd=HERE, check=True)
    breathe_projects = {"sharedmem": str(HERE / "_build" / "doxygen" / "xml")}
    breathe_default_project = "sharedmem"
    tags.add("doxygen")  # noqa: F821 - Sphinx defines it
