"""NumPy arrays in shared memory: sent between processes without a copy, freed with their last user.

>>> import sharedmem
>>> a = sharedmem.zeros((1000, 1000))

`a` is an ndarray in every respect, and pickles as a handle of some hundred bytes: sent to another
process by multiprocessing, or as the bytes of a pickle, it arrives as the same memory.
"""

import sharedmem._startup  # isort: skip -- the first: it may refuse, and compiled modules are found through it

# Only compiled modules use these, whose imports PyInstaller does not see.
import sharedmem._handles
import sharedmem._ledger
import sharedmem._new_array
import sharedmem._transfers.blocks  # noqa: F401
from sharedmem._copying import array, asshared, copy
from sharedmem._creation import (
    empty,
    empty_like,
    full,
    full_like,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from sharedmem._integrations import install as _await_others
from sharedmem._startup import import_lock as _import_lock
from sharedmem._transfers.connections import install as _watch_connections
from sharedmem._transfers.pickling import install as _install_holding
from sharedmem._transfers.pickling import pickle_by_value
from sharedmem._transfers.saving import install as _install_saving
from sharedmem.arena import cleanup, collect, memory_limit, new_arena, revoke
from sharedmem.array import SharedArray, is_shared
from sharedmem.errors import StaleHandleError

_install_holding()
_install_saving()
_watch_connections()
_await_others()

# Names whose modules are imported at their first use.
_LATER = {
    "Array": "values",
    "BuildError": "_naming",
    "NameInfo": "_naming",
    "RawArray": "values",
    "RawValue": "values",
    "Value": "values",
    "allocator": "_data_memory",
    "as_ctypes": "views",
    "attach": "_names",
    "create": "_new_names",
    "get_or_create": "_names",
    "names": "_name_states",
    "unlink": "_new_names",
    "dumps": "objects",
    "shmem_as_ndarray": "views",
    "get_cython_include": "_paths",
    "get_include": "_paths",
    "get_library_dir": "_paths",
    "flush": "_mapped",
    "memmap": "_mapped",
    "open_memmap": "_mapped",
    "readonly": "_read_only",
    "loads": "objects",
    "share": "objects",
    "shared_empty": "_legacy",
    "shared_ones": "_legacy",
    "shared_zeros": "_legacy",
    "atomics": "atomics",
    "Lock": "lock",
    "RLock": "lock",
    "Condition": "_condition",
    "Event": "_event",
    "Latest": "_latest",
    "fromfile": "_files",
    "load": "_files",
    "participants": "_reports",
    "place": "_place",
    "stats": "_reports",
    "transport": "settings",
    "__version__": "version",
    "JoinableQueue": "_queue",
    "Queue": "_queue",
    "SimpleQueue": "_queue",
}

__all__ = [
    "SharedArray",
    "StaleHandleError",
    "array",
    "asshared",
    "cleanup",
    "collect",
    "copy",
    "empty",
    "empty_like",
    "full",
    "full_like",
    "is_shared",
    "memory_limit",
    "new_arena",
    "ones",
    "ones_like",
    "pickle_by_value",
    "revoke",
    "zeros",
    "zeros_like",
    *_LATER,
]


# Modules for other libraries. They are imported at their first use, and not by `import *`: that would give
# the name of the library a new meaning.
_FOR_LIBRARIES = ("dask", "mpi", "ray", "torch", "zarr")


def __getattr__(name):
    if name in _FOR_LIBRARIES:
        with _import_lock:
            return _import_for_library(name)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _import_lock:
        value = _import(name)
    globals()[name] = value
    return value


def _import(name):
    match _LATER[name]:  # with plain imports, so that PyInstaller and the like find the modules
        case "values":
            import sharedmem._ctypes.values as module
        case "views":
            import sharedmem._ctypes.views as module
        case "_names":
            import sharedmem._names as module
        case "_new_names":
            import sharedmem._new_names as module
        case "_name_states":
            import sharedmem._name_arrays
            import sharedmem._name_states as module
        case "_naming":
            import sharedmem._naming as module
        case "_data_memory":
            import sharedmem._data_memory as module
        case "_legacy":
            import sharedmem._legacy as module
        case "_files":
            import sharedmem._files as module
        case "_place":
            import sharedmem._place as module
        case "_reports":
            import sharedmem._reports as module
        case "settings":
            import sharedmem._transfers.settings as module
        case "_paths":
            import sharedmem._paths as module
        case "_mapped":
            import sharedmem._mapped as module
        case "_read_only":
            import sharedmem._read_only as module
        case "objects":
            import sharedmem.objects as module
        case "lock":
            import sharedmem._arguments  # only compiled modules use these two
            import sharedmem._lock_base
            import sharedmem.lock as module
        case "_latest":
            import sharedmem._latest as module
        case "_condition":
            import sharedmem._condition as module
        case "_event":
            import sharedmem._event as module
        case "_queue":
            import sharedmem._queue as module
            import sharedmem._queue_base  # only the compiled module before uses these two
            import sharedmem._queue_outgoing  # noqa: F401
        case "version":
            import sharedmem.version as module
        case "atomics":
            import sharedmem.atomics as module

            return module
    return getattr(module, name)


def _import_for_library(name):
    match name:
        case "dask":
            import sharedmem.dask as module
        case "mpi":
            import sharedmem.mpi as module
        case "ray":
            import sharedmem.ray as module
        case "torch":
            import sharedmem.torch as module
        case "zarr":
            import sharedmem.zarr as module
    return module


def __dir__():
    return sorted({*globals(), *_LATER})
