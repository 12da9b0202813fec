"""Runs NumPy's own test suite with NumPy's arrays in shared memory: ``python tests/numpy_suite.py``.

    python tests/numpy_suite.py                     all of it, within sharedmem.allocator()
    python tests/numpy_suite.py --default           all of it, with NumPy's own allocator, to compare with
    python tests/numpy_suite.py --zeros linalg fft  parts of it, zeroed memory in shared memory, too
    python tests/numpy_suite.py --list              the names of the parts

The last line is pytest's. Before it stands how many tests began with which allocator; a test that finds
another one is an error. NumPy's tests come with its wheels; they need pytest and hypothesis. Tests that NumPy
marks as slow are left out, as by ``numpy.test()``.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import sys

import numpy as np
import pytest

import sharedmem

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # NumPy 1
    from numpy.core.multiarray import get_handler_name

ROOT = pathlib.Path(np.__file__).parent


def parts():
    """Test folders of NumPy by the name of what they test."""
    found = (p for p in ROOT.rglob("tests") if p.is_dir() and any(p.glob("test_*.py")))
    return {str(p.parent.relative_to(ROOT)): p for p in sorted(found)}


class WithAllocator:
    """A pytest plugin: runs the session within `allocator`, and checks at each test that it still holds."""

    def __init__(self, allocator):
        with allocator:
            self.expected = get_handler_name()
        self.counts = collections.Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        name = get_handler_name()
        self.counts[name] += 1
        assert name == self.expected, f"before {item.nodeid}: the allocator is {name}"

    def pytest_terminal_summary(self, terminalreporter):
        for name, count in self.counts.items():
            terminalreporter.write_line(f"{count} tests began with NumPy's data memory from {name}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--default", action="store_true", help="with NumPy's own allocator")
    how.add_argument("--zeros", action="store_true", help="within sharedmem.allocator(zeros=True)")
    parser.add_argument("--list", action="store_true", help="list the parts and end")
    parser.add_argument("-k", help="as pytest's -k: only tests whose names match")
    parser.add_argument("part", nargs="*", help="a part, or a file in one, as _core/test_indexing.py")
    options = parser.parse_args(arguments)
    known = parts()
    if options.list:
        print("\n".join(known))
        return 0
    paths = []
    for name in options.part or known:
        folder, _, file = name.rpartition("/") if name.endswith(".py") else (name, "", "")
        if folder not in known or not (known[folder] / file).exists():
            parser.error(f"NumPy {np.__version__} has no tests of the name {name}; --list has the parts")
        paths.append(str(known[folder] / file))
    allocator = contextlib.nullcontext() if options.default else sharedmem.allocator(zeros=options.zeros)
    with allocator:
        options = [
            *("-q", "-m", "not slow", "--disable-warnings", "-p", "no:cacheprovider", "-p", "no:randomly"),
            *("--rootdir", str(ROOT), "-c", os.devnull),
            *(["-k", options.k] if options.k else []),
        ]
        return pytest.main([*options, *paths], plugins=[WithAllocator(allocator)])


if __name__ == "__main__":
    sys.exit(main())
