"""ctypes objects in shared memory: multiprocessing's Array and Value, sent by handle."""

import contextlib
import ctypes
import multiprocessing
import operator
import types
from multiprocessing import sharedctypes

import numpy as np

from sharedmem._creation import zeros
from sharedmem._ctypes.dtypes import element_type, importable, split
from sharedmem._ctypes.handles import attach
from sharedmem._ctypes.views import shmem_as_ndarray
from sharedmem.lock import RLock

__all__ = ["Array", "RawArray", "RawValue", "Value"]


def _new(type_, length=None):
    """A new object of the type, or an array of `length` of them, all bytes zero."""
    nbytes = ctypes.sizeof(type_) * (1 if length is None else length)
    element, lengths = split(type_)
    if length is not None:
        lengths = (length, *lengths)
    return attach(importable(element), lengths, zeros(nbytes, np.uint8))


def RawArray(typecode_or_type, size_or_initializer):
    """Array of ctypes elements in shared memory, without a lock.

    Like `multiprocessing.RawArray`, but it can be sent in any pickle at any time, also through
    a queue to a process that already runs.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        Type of the elements: a letter of the `array` module, "c", or a ctypes type without
        pointers.
    size_or_initializer : int or sequence
        The length, for elements that are zero; or the elements.

    Returns
    -------
    ctypes array
        An instance of ``type * length``. `pickle` writes a handle; `copy.copy` copies into private
        memory.

    Raises
    ------
    MemoryError
        Not enough memory.
    TypeError
        The type is unknown or contains pointers, or the initializer is neither of the two.
    ValueError
        The length is negative.

    See Also
    --------
    shmem_as_ndarray : Returns it as an array of NumPy.

    Examples
    --------
    >>> import sharedmem
    >>> a = sharedmem.RawArray("d", [1, 2, 3])
    >>> a[1:]
    [2.0, 3.0]
    """
    type_ = element_type(typecode_or_type)
    with contextlib.suppress(TypeError):
        length = operator.index(size_or_initializer)
        if length < 0:
            raise ValueError(f"an array can't have {length} elements")
        return _new(type_, length)
    if not hasattr(size_or_initializer, "__len__"):
        raise TypeError(
            "an array is made from its length or from a sequence of its elements, "
            f"not from {type(size_or_initializer).__name__}"
        )
    array = _new(type_, len(size_or_initializer))
    if isinstance(size_or_initializer, np.ndarray):
        np.copyto(shmem_as_ndarray(array), size_or_initializer, casting="same_kind")
    else:
        array.__init__(*size_or_initializer)
    return array


def RawValue(typecode_or_type, *args):
    """Value of a ctypes type in shared memory, without a lock.

    Like `multiprocessing.RawValue`, but it can be sent in any pickle at any time.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        As for `RawArray`.
    *args : object
        Arguments of the type; without any, its bytes are zero.

    Returns
    -------
    ctypes object
        An instance of the type.

    Raises
    ------
    MemoryError, TypeError
        As `RawArray`, and what the type's constructor raises.

    Examples
    --------
    >>> import sharedmem
    >>> sharedmem.RawValue("i", 7).value
    7
    """
    value = _new(element_type(typecode_or_type))
    value.__init__(*args)
    return value


def Array(typecode_or_type, size_or_initializer, *, lock=True):
    """Array of ctypes elements in shared memory, with a lock.

    Like `multiprocessing.Array`, but with its own lock it can be sent in any pickle at any time,
    also through a queue to a process that already runs.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        As for `RawArray`.
    size_or_initializer : int or sequence
        As for `RawArray`.
    lock : bool or lock, optional
        True: a new recursive lock, which also lies in shared memory and survives its owner.
        False: no lock; the result is a `RawArray`. A lock of `multiprocessing` is used as it is; the
        array can then be passed to a process only when that starts.

    Returns
    -------
    multiprocessing.sharedctypes.SynchronizedArray
        With `get_obj`, `get_lock` and the context manager that holds the lock.

    Raises
    ------
    AttributeError
        `lock` has no method `acquire`.
    MemoryError, TypeError, ValueError
        As `RawArray`.

    Warns
    -----
    RuntimeWarning
        When the lock is acquired after its owner ended without releasing it: the data that it
        guards may be half-written.

    Notes
    -----
    The lock is a robust mutex: the kernel passes it on when the thread that holds it ends, even by
    `SIGKILL` [1]_. It works among threads and processes of one pid namespace.

    References
    ----------
    .. [1] Linux man-pages, pthread_mutexattr_setrobust(3).

    Examples
    --------
    >>> import sharedmem
    >>> a = sharedmem.Array("i", range(5))
    >>> with a:
    ...     a[0] += 1
    >>> a[:]
    [1, 1, 2, 3, 4]
    """
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock)


def Value(typecode_or_type, *args, lock=True):
    """Value of a ctypes type in shared memory, with a lock.

    Like `multiprocessing.Value`, but with its own lock it can be sent in any pickle at any time.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        As for `RawArray`.
    *args : object
        Arguments of the type.
    lock : bool or lock, optional
        As for `Array`.

    Returns
    -------
    multiprocessing.sharedctypes.Synchronized
        Its attributes are those of the object, read and written under the lock.

    Raises
    ------
    AttributeError, MemoryError, TypeError
        As `Array`.

    Warns
    -----
    RuntimeWarning
        As `Array`.

    Examples
    --------
    >>> import sharedmem
    >>> counter = sharedmem.Value("L", 0)
    >>> with counter.get_lock():
    ...     counter.value += 1
    >>> counter.value
    1
    """
    return _with_lock(RawValue(typecode_or_type, *args), lock)


def _with_lock(obj, lock):
    if lock is False:
        return obj
    if lock in (True, None):
        lock = RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return _synchronized(obj, lock)


class _SentWithLock:
    """Pickles object and lock, if both can be pickled."""

    def __reduce__(self):
        return _synchronized, (self._obj, self._lock)


def _synchronized(obj, lock):
    """multiprocessing's wrapper for the object, with its class changed to one that can be sent."""
    # A context is named here, since requesting the default one would fix it for the whole program.
    context = multiprocessing.get_context("spawn")
    wrapper = sharedctypes.synchronized(obj, lock, context)
    kind = type(wrapper)
    wrapper.__class__ = types.new_class(kind.__name__, (_SentWithLock, kind))
    return wrapper
