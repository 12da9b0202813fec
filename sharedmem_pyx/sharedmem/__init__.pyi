from sharedmem.arena import cleanup, collect, memory_limit, new_arena, revoke
from sharedmem.array import SharedArray, is_shared
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
from sharedmem.ctypes_ import Array, RawArray, RawValue, Value
from sharedmem.ctypes_views import as_ctypes, shmem_as_ndarray
from sharedmem.errors import StaleHandleError
from sharedmem.files import fromfile, load
from sharedmem.legacy import shared_empty, shared_ones, shared_zeros
from sharedmem.paths import get_cython_include, get_include, get_library_dir
from sharedmem.pickling import pickle_by_value
from sharedmem.reports import participants, stats
from sharedmem.version import __version__

__all__ = [
    "Array",
    "RawArray",
    "RawValue",
    "SharedArray",
    "StaleHandleError",
    "Value",
    "__version__",
    "array",
    "as_ctypes",
    "asshared",
    "cleanup",
    "collect",
    "copy",
    "empty",
    "empty_like",
    "fromfile",
    "full",
    "full_like",
    "get_cython_include",
    "get_include",
    "get_library_dir",
    "is_shared",
    "load",
    "memory_limit",
    "new_arena",
    "ones",
    "ones_like",
    "participants",
    "pickle_by_value",
    "revoke",
    "shared_empty",
    "shared_ones",
    "shared_zeros",
    "shmem_as_ndarray",
    "stats",
    "zeros",
    "zeros_like",
]
