"""Arrays in shared memory, in the manner of the shmarray module of 2009.

A thin layer over `sharedmem`, for programs that were written for that module. New programs should use
`sharedmem` itself, whose arrays are simpler and created faster.

A `shmarray` pickles as its memory does. Those that `create`, `zeros`, `ones` and `create_copy` make
lie in the memory of `sharedmem` and go by handle, at any time, to any process of this user on this
machine. One that was constructed over a `multiprocessing.RawArray` goes where that goes: to a child
process, as it starts.
"""

import mmap
import operator
from multiprocessing.context import get_spawning_popen

import sharedmem  # before NumPy, which subinterpreters must not import, either

import numpy as np  # isort: skip

__all__ = ["create", "create_copy", "ones", "shmarray", "zeros"]

_MOST_ALIGNED = 2 * 1024 * 1024  # arenas are mapped at multiples of it in every process


class shmarray(np.ndarray):
    """An array over a ctypes array, or any other buffer, that pickles with it.

    Parameters
    ----------
    ctypesArray : multiprocessing.RawArray, sharedmem.RawArray or buffer
        The memory.
    shape : int or tuple of int
        Elements along each axis.
    dtype : dtype_like, optional
        Type of the elements, without Python objects.
    strides : tuple of int, optional
        Bytes from one element to the next along each axis.
    offset : int, optional
        Bytes from the memory's start to the first element.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous, if `strides` does not tell.

    Attributes
    ----------
    ctypesArray : ctypes array, buffer or None
        What the array was constructed over; a ctypes array of bytes for those that `create` made;
        None for a copy, whose memory is private.

    Raises
    ------
    TypeError
        The memory is too small or no buffer.
    ValueError
        Elements lie outside of the memory, or a length is negative.
    """

    def __new__(cls, ctypesArray, shape, dtype=float, strides=None, offset=0, order=None):
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise TypeError(f"dtype {dtype} contains Python objects, which are valid in one process only")
        if ctypesArray is None:
            raise TypeError("a shmarray needs memory: create(shape, dtype) allocates it")
        if hasattr(ctypesArray, "get_obj"):
            raise TypeError("a shmarray has no lock: pass ctypesArray.get_obj()")
        if operator.index(offset) < 0 or np.min(shape, initial=0) < 0:  # NumPy does not look
            raise ValueError(f"neither offset {offset} nor shape {shape} may be negative")
        return np.ndarray.__new__(cls, shape, dtype, ctypesArray, offset, strides, order)

    def __array_wrap__(self, array, context=None, return_scalar=True):
        """Results of arithmetic are ordinary arrays, since their memory is private."""
        if array is self:
            return array
        # NumPy 1 does not say whether it wants a scalar: it does.
        return array[()] if return_scalar and array.ndim == 0 else array.view(np.ndarray)

    @property
    def ctypesArray(self):
        owner = _owner(self)
        if not isinstance(owner, np.ndarray):
            return owner
        if not sharedmem.is_shared(self):
            return None
        return sharedmem.as_ctypes(owner.reshape(-1).view(np.int8))

    def __reduce_ex__(self, protocol):
        if sharedmem.is_shared(self):
            return _view, (sharedmem.asshared(self.view(np.ndarray)),)
        owner = _owner(self)
        if isinstance(owner, np.ndarray) or self.nbytes == 0:
            return super().__reduce_ex__(protocol)
        _check_sendable(owner)
        offset = _address(self) - _address(np.frombuffer(owner, np.uint8))
        return _rebuild, (owner, self.shape, self.dtype, self.strides, offset, self.flags.writeable)


def _address(a):
    return a.__array_interface__["data"][0]


def _owner(a):
    """What holds the memory of an array: an array with data of its own, or another object."""
    while isinstance(a, np.ndarray) and a.base is not None:
        a = a.base
    return a


def _check_sendable(owner):
    """Raises an error if this memory would arrive as a copy, or not at all."""
    advice = "; shmarray.create_copy(a) and the arrays of sharedmem can be sent at any time"
    if isinstance(owner, (memoryview, mmap.mmap)):
        raise TypeError(f"an array over a {type(owner).__name__} can't be pickled{advice}")
    if hasattr(owner, "_wrapper") and get_spawning_popen() is None:
        raise RuntimeError(
            "an array over a multiprocessing.RawArray can be given to a child process "
            f"only as it starts{advice}"
        )


def _view(a):
    return a.view(shmarray)


def _rebuild(owner, shape, dtype, strides, offset, writeable):
    found = shmarray(owner, shape, dtype, strides, offset)
    if not writeable:
        found.flags.writeable = False
    return found


def create(shape, dtype="d", alignment=32):
    """New array in shared memory, its elements not set.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis.
    dtype : dtype_like, optional
        Type of the elements, without Python objects.
    alignment : int, optional
        The first element's address is a multiple of this many bytes, in every process: a power of
        two up to 2 MiB.

    Returns
    -------
    shmarray
        In C order.

    Raises
    ------
    MemoryError
        No room.
    TypeError
        `dtype` holds Python objects.
    ValueError
        `alignment` is something else, or the shape is negative or too large.
    """
    alignment = operator.index(alignment)
    if not 1 <= alignment <= _MOST_ALIGNED or alignment & (alignment - 1):
        raise ValueError(f"alignment is a power of two up to {_MOST_ALIGNED}, not {alignment}")
    plain = sharedmem.empty(shape, dtype)
    if _address(plain) % alignment == 0:
        return plain.view(shmarray)
    wider = sharedmem.empty(plain.nbytes + alignment, np.uint8)
    start = -_address(wider) % alignment
    exact = wider[start : start + plain.nbytes]
    return exact.view(plain.dtype).reshape(plain.shape).view(shmarray)


def zeros(shape, dtype="d"):
    """New array in shared memory, its elements zero.

    Parameters
    ----------
    shape : int or tuple of int
        As for `create`.
    dtype : dtype_like, optional
        As for `create`.

    Returns
    -------
    shmarray
        In C order.

    Raises
    ------
    MemoryError, TypeError, ValueError
        As `create`.
    """
    return sharedmem.zeros(shape, dtype).view(shmarray)


def ones(shape, dtype="d"):
    """New array in shared memory, its elements one.

    Parameters
    ----------
    shape : int or tuple of int
        As for `create`.
    dtype : dtype_like, optional
        As for `create`.

    Returns
    -------
    shmarray
        In C order.

    Raises
    ------
    MemoryError, TypeError, ValueError
        As `create`.
    """
    return sharedmem.ones(shape, dtype).view(shmarray)


def create_copy(a):
    """Copy of an array in shared memory.

    Parameters
    ----------
    a : array_like
        Any array without Python objects.

    Returns
    -------
    shmarray
        Of the same shape, dtype and elements, in C order.

    Raises
    ------
    MemoryError, TypeError
        As `create`.
    """
    return sharedmem.array(a, order="C").view(shmarray)
