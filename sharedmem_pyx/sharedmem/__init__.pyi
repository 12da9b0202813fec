from sharedmem import atomics as atomics
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
from sharedmem._ctypes.values import Array, RawArray, RawValue, Value
from sharedmem._ctypes.views import as_ctypes, shmem_as_ndarray
from sharedmem._files import fromfile, load
from sharedmem._legacy import shared_empty, shared_ones, shared_zeros
from sharedmem._paths import get_cython_include, get_include, get_library_dir
from sharedmem._queue import JoinableQueue, Queue, SimpleQueue
from sharedmem._reports import participants, stats
from sharedmem._transfers.pickling import pickle_by_value
from sharedmem.arena import cleanup, collect, memory_limit, new_arena, revoke
from sharedmem.array import SharedArray, is_shared
from sharedmem.errors import StaleHandleError
from sharedmem.version import __version__

__all__ = [
    "Array",
    "JoinableQueue",
    "Queue",
    "RawArray",
    "RawValue",
    "SharedArray",
    "SimpleQueue",
    "StaleHandleError",
    "Value",
    "__version__",
    "array",
    "as_ctypes",
    "asshared",
    "atomics",
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
