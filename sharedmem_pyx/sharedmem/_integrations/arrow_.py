"""pyarrow: its buffers, of which arrays, tables and the text columns of pandas are made."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from sharedmem._transfers.messages import add_kind
from sharedmem._transfers.reducing import Reducer


def load_buffer(load: Callable[..., Any], *args: Any) -> Any:
    """Return a buffer over the array that ``load(*args)`` returns; pickles of buffers call this function.

    Parameters
    ----------
    load : callable
        What loads the array.
    *args : object
        Its arguments, of which the first is the handle.

    Returns
    -------
    pyarrow.Buffer
        It is read-only.
    """
    array = load(*args)
    array.flags.writeable = False
    return importlib.import_module("pyarrow").py_buffer(array)


def load_mutable_buffer(load: Callable[..., Any], *args: Any) -> Any:
    """Return a mutable buffer that belongs to this process alone, as an unpickled one does.

    Parameters
    ----------
    load : callable
        What loads the array.
    *args : object
        Its arguments, of which the first is the handle.

    Returns
    -------
    pyarrow.Buffer
        Mutable.
    """
    return importlib.import_module("pyarrow").py_buffer(load(*args))


def _entry(reducer: Reducer) -> Callable[[Any], Any]:
    def reduce(buffer: Any) -> Any:
        if buffer.size > 0 and buffer.is_cpu:
            before = reducer.carried
            reduced = reducer.in_place_of_bytes(np.frombuffer(buffer, np.uint8))
            if reduced is not None:
                # A carried copy is the receiver's own.
                own = reducer.carried != before and buffer.is_mutable
                return load_mutable_buffer if own else load_buffer, (reduced[0], *reduced[1])
        return buffer.__reduce_ex__(reducer.protocol)

    return reduce


def add_buffers(module: ModuleType) -> None:
    """Have buffers of `pyarrow.lib` travel as arrays of bytes do."""
    for name in ("Buffer", "ResizableBuffer"):
        add_kind(getattr(module, name), _entry)
