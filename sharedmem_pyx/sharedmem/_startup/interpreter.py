"""Refuses subinterpreters before an extension module is loaded.

A process loads ours, and NumPy's, into one interpreter only: whichever comes first. If that were a
subinterpreter, the main one could no longer import them.
"""

from __future__ import annotations

import contextlib
import importlib


def _is_main() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # the latter before Python 3.13
        with contextlib.suppress(ImportError):
            interpreters = importlib.import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True  # this Python has no way to start another


if not _is_main():
    raise ImportError("sharedmem works in the main interpreter of a process, not in a subinterpreter")
