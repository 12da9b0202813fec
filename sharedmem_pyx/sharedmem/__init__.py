"""NumPy arrays in shared memory: sent between processes without a copy, freed with their last user.

>>> import sharedmem
>>> a = sharedmem.zeros((1000, 1000))

`a` is an ndarray in every respect, and pickles as a handle of some hundred bytes: sent to another
process by multiprocessing, or as the bytes of a pickle, it arrives as the same memory.
"""

import sharedmem.interpreter  # the first: it may refuse
import sharedmem.making  # noqa: F401 -- only compiled modules use it, whose imports PyInstaller does not see
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
from sharedmem.pickling import install as _install_holding
from sharedmem.pickling import pickle_by_value
from sharedmem.reports import participants, stats
from sharedmem.saving import install as _install_saving
from sharedmem.version import __version__

_install_holding()
_install_saving()
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
    match _LATER.get(name):  # with plain imports, so that PyInstaller and the like find the modules
        case "ctypes_":
            import sharedmem.ctypes_ as module
        case "ctypes_views":
            import sharedmem.ctypes_views as module
        case "legacy":
            import sharedmem.legacy as module
        case "paths":
            import sharedmem.paths as module
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_LATER})
