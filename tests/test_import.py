"""What `import sharedmem` loads: one shared object with all compiled modules, and few Python files."""

import importlib
import pathlib

from support import check_python

import sharedmem
from sharedmem import _core

PACKAGE = pathlib.Path(sharedmem.__file__).parent

LOADED = """
import multiprocessing.connection, sys
import numpy
before = set(sys.modules)
import sharedmem
print(*set(sys.modules) - before)
"""


def loaded():
    return set(check_python(LOADED, related=False).split())


def test_nothing_of_other_packages_is_imported():
    """NumPy and multiprocessing.connection bring all that is needed."""
    known = {
        "sharedmem",
        "importlib",
    }  # the interpreter itself has the latter
    others = {name for name in loaded() if name.partition(".")[0] not in known}
    assert {name for name in others if "cython" not in name} == set()  # Cython adds a module without a file


def test_few_files_are_read():
    """Each file of Python code takes a tenth of a millisecond and more; seldom needed ones come later."""
    found = {name for name in loaded() if name.partition(".")[0] == "sharedmem"}
    files = found - set(_core.modules)
    assert files == {
        "sharedmem",
        "sharedmem._core",
        "sharedmem._integrations",
        "sharedmem._startup",
        "sharedmem._transfers",
        "sharedmem._transfers.connections",
        "sharedmem._transfers.pickling",
        "sharedmem._transfers.saving",
        "sharedmem.errors",
    }


def test_all_compiled_modules_are_found_in_one_shared_object():
    for name in _core.modules:
        module = importlib.import_module(name)
        assert module.__name__ == module.__spec__.name == name
        assert module.__file__ == _core.__file__


def test_they_are_entered_by_the_last_part_of_their_names():
    assert len({name.rpartition(".")[2] for name in _core.modules}) == len(_core.modules)


def test_no_other_shared_objects_are_installed():
    core = pathlib.Path(_core.__file__)
    assert {path.name for path in core.parent.rglob("*.so")} - {"libsharedmem.so"} == {core.name}


def test_each_has_a_stub():
    for name in _core.modules:
        assert PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".pyi").exists(), name
