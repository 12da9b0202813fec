"""zarr (version 3): reading its arrays into shared memory.

>>> import zarr
>>> zarr.config.set({"ndbuffer": "sharedmem.zarr.NDBuffer"})

From then on ``array[...]`` returns a `SharedArray`, which other processes get without a copy. Tested with
zarr 3.1.6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

try:
    from zarr.core.buffer import cpu  # type: ignore[import-not-found,unused-ignore]
except ImportError as missing:
    raise ImportError(
        "sharedmem.zarr needs zarr, version 3, which is not installed: pip install 'numpy-sharedmem[zarr]'",
        name="zarr",
    ) from missing

from sharedmem._creation import empty as new_array
from sharedmem._creation import full, zeros

__all__ = ["NDBuffer"]


class NDBuffer(cpu.NDBuffer):  # type: ignore[misc,unused-ignore]
    """zarr's buffer of arrays, which allocates in shared memory.

    Arrays of dtypes that cannot lie there (variable-length text, objects) are private, as zarr makes them.
    If there is not enough shared memory, reading raises MemoryError, since the program has requested
    shared arrays and must not get others.
    """

    @classmethod
    def create(
        cls,
        *,
        shape: Iterable[int],
        dtype: DTypeLike,
        order: Literal["C", "F"] = "C",
        fill_value: Any | None = None,
    ) -> NDBuffer:
        """Make a buffer and fill it.

        Parameters
        ----------
        shape : iterable of int
            Elements along each axis.
        dtype : dtype_like
            Of its elements.
        order : {"C", "F"}, optional
            Whether the last or the first axis is contiguous.
        fill_value : object, optional
        Initial value of the elements; by default zeros.

        Returns
        -------
        NDBuffer
            New.

        Raises
        ------
        MemoryError
        Not enough shared memory.
        """
        sizes = tuple(shape)
        if not _can_be_shared(dtype):
            made: NDBuffer = super().create(shape=sizes, dtype=dtype, order=order, fill_value=fill_value)
            return made
        # Zeros of text are empty text, and not "0": as `full` would have it.
        if fill_value is None or (isinstance(fill_value, int) and fill_value == 0):
            return cls(zeros(sizes, dtype, order))
        return cls(full(sizes, fill_value, dtype, order))

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: DTypeLike, order: Literal["C", "F"] = "C") -> NDBuffer:
        """Make a buffer without setting its elements.

        Parameters
        ----------
        shape : tuple of int
            Elements along each axis.
        dtype : dtype_like
            Of its elements.
        order : {"C", "F"}, optional
            Whether the last or the first axis is contiguous.

        Returns
        -------
        NDBuffer
            New.

        Raises
        ------
        MemoryError
        Not enough shared memory.
        """
        if not _can_be_shared(dtype):
            made: NDBuffer = super().empty(shape, dtype, order)
            return made
        return cls(new_array(shape, dtype, order))


def _can_be_shared(dtype: DTypeLike) -> bool:
    read = np.dtype(dtype)
    return not read.hasobject and read.kind != "T"
