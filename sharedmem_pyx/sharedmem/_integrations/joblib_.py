"""joblib: its reducers of arrays, the pickler of its multiprocessing backend, and a backend of this library.

Joblib writes large arguments to files that its workers map, so that an array for many tasks is written once.
That is left as it is. What joblib would pickle (smaller arguments and all results), and everything that lies
in shared memory, is reduced as in the other transfers of this library.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from sharedmem._messages import holding
from sharedmem._startup import import_lock
from sharedmem._transfers.messages import add_wrapper, hook, number_of
from sharedmem._transfers.reducing import Reducer, count, reducer_by_settings
from sharedmem.array import is_shared

_Entry = Callable[[Any], Any]


def wrap_reducers(module: ModuleType) -> None:
    """Reduce shared arrays, and arrays that `joblib._memmapping_reducer` would pickle, by this library."""
    owner: Any = module

    def is_file(array: Any) -> bool:
        return isinstance(owner._get_backing_memmap(array), np.memmap)

    def forward(reducer: Reducer, theirs: Any) -> _Entry:
        def reduce(array: Any) -> Any:
            most = theirs._max_nbytes
            if is_shared(array) or not (is_file(array) or (most is not None and array.nbytes > most)):
                reduced = reducer.in_place_of_bytes(array)
                if reduced is not None:
                    return reduced
            return theirs(array)

        return reduce

    def backward(reducer: Reducer, theirs: Any) -> _Entry:
        def reduce(array: Any) -> Any:
            file = owner._get_backing_memmap(array)
            if not isinstance(file, np.memmap) or file.filename in owner.JOBLIB_MMAPS:
                reduced = reducer.in_place_of_bytes(array)
                if reduced is not None:
                    return reduced
            return theirs(array)

        return reduce

    add_wrapper(owner.ArrayMemmapForwardReducer, forward)
    add_wrapper(owner.reduce_array_memmap_backward, backward)


def hook_pickler(module: ModuleType) -> None:
    """Make messages of `joblib.pool` keep the arrays in them alive."""
    cls: Any = module.CustomizablePickler
    plain = cls.dump

    def dump(self: Any, obj: Any) -> None:
        reducer = reducer_by_settings(number_of(-1))  # its pickler is always made with the highest protocol
        hook(self, reducer)
        plain(self, obj)
        count(reducer)

    cls.dump = holding(dump)


# -- the backend "sharedmem"

_said = False


def warn_once(error: BaseException) -> None:
    """Warn, once in a process, that the backend sends arrays as joblib's loky does.

    Parameters
    ----------
    error : BaseException
        What is missing in this version of joblib.
    """
    global _said
    if not _said:
        _said = True
        warnings.warn(
            "sharedmem does not know this version of joblib, whose backend 'sharedmem' sends arrays as its "
            f"backend 'loky' does: {error!r}",
            RuntimeWarning,
            stacklevel=2,
        )


def make_backend(**options: Any) -> Any:
    """Make a backend; joblib calls this for the name ``sharedmem``.

    Parameters
    ----------
    **options : object
        As for its backend ``loky``.

    Returns
    -------
    joblib.parallel.ParallelBackendBase
        Loky's own, after a RuntimeWarning, in a version of joblib that this library does not know.
    """
    try:
        with import_lock:
            from sharedmem._integrations.joblib_backend import Backend
    except (AttributeError, ImportError, KeyError) as error:
        warn_once(error)
        return importlib.import_module("joblib._parallel_backends").LokyBackend(**options)
    return Backend(**options)


def add_backend(module: ModuleType) -> None:
    """Register the backend in `joblib.parallel`. Its module is imported when it is first requested."""
    module.register_parallel_backend("sharedmem", make_backend)
