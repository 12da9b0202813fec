from sharedmem import atomics as atomics
from sharedmem import dask as dask
from sharedmem import mpi as mpi
from sharedmem import ray as ray
from sharedmem import torch as torch
from sharedmem import zarr as zarr
from sharedmem._condition import Condition
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
from sharedmem._data_memory import allocator
from sharedmem._event import Event
from sharedmem._files import fromfile, load
from sharedmem._latest import Latest
from sharedmem._legacy import shared_empty, shared_ones, shared_zeros
from sharedmem._mapped import flush, memmap, open_memmap
from sharedmem._name_states import names
from sharedmem._names import attach, get_or_create
from sharedmem._naming import BuildError, NameInfo
from sharedmem._new_names import create, unlink
from sharedmem._paths import get_cython_include, get_include, get_library_dir
from sharedmem._place import place
from sharedmem._queue import JoinableQueue, Queue, SimpleQueue
from sharedmem._read_only import readonly
from sharedmem._reports import participants, stats
from sharedmem._transfers.pickling import pickle_by_value
from sharedmem._transfers.settings import transport
from sharedmem.arena import cleanup, collect, memory_limit, new_arena, revoke
from sharedmem.array import SharedArray, is_shared
from sharedmem.errors import StaleHandleError
from sharedmem.lock import Lock, RLock
from sharedmem.objects import dumps, loads, share
from sharedmem.version import __version__

__all__ = [
    "Array",
    "BuildError",
    "Condition",
    "Event",
    "JoinableQueue",
    "Latest",
    "Lock",
    "NameInfo",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "SharedArray",
    "SimpleQueue",
    "StaleHandleError",
    "Value",
    "__version__",
    "allocator",
    "array",
    "as_ctypes",
    "asshared",
    "atomics",
    "attach",
    "cleanup",
    "collect",
    "copy",
    "create",
    "dumps",
    "empty",
    "empty_like",
    "flush",
    "fromfile",
    "full",
    "full_like",
    "get_cython_include",
    "get_include",
    "get_library_dir",
    "get_or_create",
    "is_shared",
    "load",
    "loads",
    "memmap",
    "memory_limit",
    "names",
    "new_arena",
    "ones",
    "ones_like",
    "open_memmap",
    "participants",
    "pickle_by_value",
    "place",
    "readonly",
    "revoke",
    "share",
    "shared_empty",
    "shared_ones",
    "shared_zeros",
    "shmem_as_ndarray",
    "stats",
    "transport",
    "unlink",
    "zeros",
    "zeros_like",
]
