"""Where the installed headers, library and declarations lie, for those who build on them."""

from __future__ import annotations

import importlib.resources
from pathlib import Path


def get_include() -> list[str]:
    """Folders to search for C++ headers.

    Returns
    -------
    list of str
        The folders that ``#include <sharedmem/arena.hpp>`` and
        ``#include <sharedmem_pyx/translate.hpp>`` are relative to. Two of them where the
        package is installed in editable mode, else one.
    """
    headers = ("sharedmem/arena.hpp", "sharedmem_pyx/translate.hpp")
    folders = [str(_file(f"include/{header}").parents[1]) for header in headers]
    return list(dict.fromkeys(folders))


def get_library_dir() -> str:
    """Folder of ``libsharedmem.so``.

    Returns
    -------
    str
        What a build needs as ``library_dirs`` and, for a library that is found without
        ``import sharedmem`` before it, as ``runtime_library_dirs``.
    """
    return str(_file("libsharedmem.so").parent)


def get_cython_include() -> str:
    """Folder to search for ``cimport sharedmem``.

    Returns
    -------
    str
        What ``cythonize(..., include_path=[...])`` needs where the package is installed in
        editable mode; elsewhere Cython finds it by itself.
    """
    return str(_file("__init__.pxd").parents[1])


def _file(name: str) -> Path:
    """Path of an installed file; `name` is relative to the package."""
    found = importlib.resources.files("sharedmem")
    for part in name.split("/"):  # one at a time: an editable install has no whole folder
        found = found / part
    return Path(str(found))
