"""The heap module of the numpy-sharedmem package of 2009: bytes without a type."""

from __future__ import annotations

import operator

from sharedmem._creation import empty
from sharedmem.arena import cleanup

__all__ = ["BufferWrapper", "cleanup"]


class BufferWrapper:
    """A piece of shared memory of a given size; it pickles as a handle.

    Parameters
    ----------
    size : int
        Bytes.
    """

    def __init__(self, size: int) -> None:
        self._bytes = empty(operator.index(size), "u1")

    def get_address(self) -> int:
        """Where the first byte lies in this process.

        Returns
        -------
        int
            The address.
        """
        return self._bytes.ctypes.data

    def get_size(self) -> int:
        """How many bytes there are.

        Returns
        -------
        int
            The size that was asked for.
        """
        return self._bytes.nbytes
