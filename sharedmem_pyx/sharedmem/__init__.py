"""NumPy arrays in shared memory: sent between processes without a copy, freed with their last user.

>>> import sharedmem
>>> a = sharedmem.zeros((1000, 1000))

`a` is an ndarray in every respect, and pickles as a handle of some hundred bytes: sent to another
process by multiprocessing, or as the bytes of a pickle, it arrives as the same memory.
"""

import sharedmem.interpreter  # noqa: F401 -- the first: it may refuse
from sharedmem.arena import cleanup, collect, memory_limit, new_arena, revoke
from sharedmem.array import SharedArray, is_shared
from sharedmem.connections import install as _watch_connections
from sharedmem.copying import array, asshared, copy
from sharedmem.creation import (
    empty,
    empty_like,
    full,
    full_like,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from sharedmem.errors import StaleHandleError
from sharedmem.files import fromfile, load
from sharedmem.pickling import install as _install
from sharedmem.pickling import pickle_by_value
from sharedmem.reports import participants, stats
from sharedmem.version import __version__

_install()
_watch_connections()

# Names whose modules are imported when they are first asked for.
_LATER = {
    "Array": "ctypes_",
    "RawArray": "ctypes_",
    "RawValue": "ctypes_",
    "Value": "ctypes_",
    "as_ctypes": "ctypes_views",
    "shmem_as_ndarray": "ctypes_views",
    "get_cython_include": "paths",
    "get_include": "paths",
    "get_library_dir": "paths",
    "shared_empty": "legacy",
    "shared_ones": "legacy",
    "shared_zeros": "legacy",
}

__all__ = [
    "SharedArray",
    "StaleHandleError",
    "__version__",
    "array",
    "asshared",
    "cleanup",
    "collect",
    "copy",
    "empty",
    "empty_like",
    "fromfile",
    "full",
    "full_like",
    "is_shared",
    "load",
    "memory_limit",
    "new_arena",
    "ones",
    "ones_like",
    "participants",
    "pickle_by_value",
    "revoke",
    "stats",
    "zeros",
    "zeros_like",
    *_LATER,
]


def __getattr__(name):
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_LATER})
