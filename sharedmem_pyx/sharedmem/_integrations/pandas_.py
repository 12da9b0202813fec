"""pandas: its columns of Arrow data, text above all.

Before it pickles a column, pandas combines its chunks into one. That copies the data even of a single chunk,
so the data would not stay in shared memory. Here a single chunk is used as it is. pandas copies because the
pickle of a slice would contain the data of the whole array; slices in private memory are left to pandas.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from sharedmem._transfers.messages import add_kind
from sharedmem._transfers.reducing import Reducer
from sharedmem.array import is_shared

#: Modules that have them, and the classes of columns; the last one is of pandas 2.
MODULES = ("pandas.core.arrays.arrow.array", "pandas.core.arrays.string_arrow")
_KINDS = ("ArrowExtensionArray", "ArrowStringArray", "ArrowStringArrayNumpySemantics")


def _lies_in_shared_memory(chunk: Any) -> bool:
    buffers = [each for each in chunk.buffers() if each is not None and each.size > 0]
    return bool(buffers) and all(is_shared(np.frombuffer(each, np.uint8)) for each in buffers)


def reduce_column(column: Any, protocol: int, only_shared: bool) -> Any:
    """How a column is pickled.

    Parameters
    ----------
    column : pandas.arrays.ArrowExtensionArray
        Or the class of pandas for text.
    protocol : int
        The pickler's.
    only_shared : bool
        Whether data in private memory is left to pandas.

    Returns
    -------
    tuple
        As `object.__reduce_ex__` returns.
    """
    chunks: Any = getattr(column, "_pa_array", None)
    if getattr(chunks, "num_chunks", 0) == 1:
        chunk = chunks.chunk(0)
        whole = not only_shared and chunk.get_total_buffer_size() <= 2 * chunk.nbytes
        if whole or _lies_in_shared_memory(chunk):
            state = {**vars(column), "_pa_array": chunk}
            if "_cache" in state:
                state["_cache"] = {}  # what pandas has computed from the data
            return copyreg.__newobj__, (type(column),), state  # type: ignore[attr-defined]
    return column.__reduce_ex__(protocol)


def kinds(module: ModuleType) -> list[type]:
    """The classes of columns of a module of pandas.

    Parameters
    ----------
    module : module
        That of Arrow's arrays in pandas, or of its arrays of text.

    Returns
    -------
    list of type
        Those that it has.
    """
    return [vars(module)[name] for name in _KINDS if name in vars(module)]


def _entry(reducer: Reducer) -> Callable[[Any], Any]:
    return lambda column: reduce_column(column, reducer.protocol, True)


def add_columns(module: ModuleType) -> None:
    """Have columns over shared memory, of classes of a module of pandas, travel without a copy."""
    for kind in kinds(module):
        add_kind(kind, _entry)
