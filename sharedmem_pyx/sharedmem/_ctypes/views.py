"""Arrays as ctypes objects, and ctypes objects as arrays: two views of the same memory."""

import ctypes

import numpy as np

from sharedmem._copying import asshared
from sharedmem._creation import empty
from sharedmem._ctypes.dtypes import DATA, dtype_of, shape_for, split, type_of
from sharedmem._ctypes.handles import attach
from sharedmem.array import SharedArray, is_shared

__all__ = ["as_ctypes", "shmem_as_ndarray"]


def as_ctypes(a):
    """Return a ctypes object over the memory of a shared array.

    Parameters
    ----------
    a : numpy.ndarray
        C-contiguous, writeable, its data in shared memory.

    Returns
    -------
    ctypes object
        A nested ctypes array with the lengths ``a.shape``, or a simple object if ``a`` has no axes.
        It keeps the memory alive, and travels by handle.

    Raises
    ------
    TypeError
        There is no ctypes type for the elements.
    ValueError
        The array is not shared, is not contiguous, or is read-only.

    See Also
    --------
    shmem_as_ndarray : Does the reverse.
    numpy.ctypeslib.as_ctypes : Does the same for private memory.

    Examples
    --------
    >>> import sharedmem
    >>> a = sharedmem.zeros((2, 3))
    >>> b = sharedmem.as_ctypes(a)
    >>> b[1][2] = 5
    >>> a[1, 2].item()
    5.0
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"as_ctypes needs an array, not {type(a).__name__}")
    type_of(a.dtype)
    if not a.flags.c_contiguous:
        raise ValueError(
            f"an array with strides {a.strides} is not C-contiguous: "
            "sharedmem.array(a, order='C') returns a copy that is"
        )
    if not a.flags.writeable:
        raise ValueError("ctypes objects can be written to, but the array is read-only")
    if a.nbytes and not is_shared(a):
        raise ValueError("the array is not in shared memory: sharedmem.asshared(a) returns a copy that is")
    return attach(a.dtype, a.shape, asshared(a).reshape(-1).view(np.uint8))


def shmem_as_ndarray(raw_array, shape=None):
    """Return an array over the memory of a ctypes object.

    Parameters
    ----------
    raw_array : ctypes object
        What `Array`, `RawArray`, `Value` or `RawValue` returned, of this package or of
        `multiprocessing`. The lock is not acquired: the caller decides whether that is needed.
    shape : int or tuple of int, optional
        Lengths of the axes; they must fit the number of elements, and one of them may be -1. By default
        those of the ctypes array, or ``()`` for a value.

    Returns
    -------
    numpy.ndarray
        It keeps the memory alive. Over memory of this package it is a `SharedArray`, so that it
        travels by handle. Bytes (`c_char`) are of dtype uint8. Wide characters are of dtype U1, or of
        uint16 on Windows, where they have two bytes. A structure's fields are fields of the dtype.

    Raises
    ------
    TypeError
        It is not a ctypes object, or its elements (pointers, bit fields) have no dtype.
    ValueError
        The shape does not fit the number of elements.

    Examples
    --------
    >>> import multiprocessing
    >>> import sharedmem
    >>> raw = multiprocessing.RawArray("i", 6)
    >>> sharedmem.shmem_as_ndarray(raw, (2, 3))[1, 0] = 4
    >>> raw[:]
    [0, 0, 0, 4, 0, 0]
    """
    get_obj = getattr(raw_array, "get_obj", None)
    obj = raw_array if get_obj is None else get_obj()
    if not isinstance(obj, DATA):
        raise TypeError(
            "a ctypes object is needed, such as multiprocessing.Array, RawArray, Value and "
            f"RawValue make, not {type(raw_array).__name__}"
        )
    memory, element, lengths = getattr(obj, "_sharedmem", None) or (obj, *split(type(obj)))
    if element is ctypes.c_char:
        dtype = np.dtype(np.uint8)
    else:
        dtype = element if isinstance(element, np.dtype) else dtype_of(element)
    shape = shape_for(shape, lengths)
    if ctypes.sizeof(obj) == 0:
        return empty(shape, dtype)
    if isinstance(memory, SharedArray):
        return memory.view(dtype).reshape(shape)
    return np.ndarray(shape, dtype, buffer=obj)
