"""ctypes objects in shared memory: multiprocessing's Array and Value, sent by handle."""

import contextlib
import ctypes
import multiprocessing
import operator
import types
import weakref
from multiprocessing import sharedctypes
from multiprocessing.reduction import ForkingPickler

import numpy as np

from .array import SharedArray, is_shared
from .copying import asshared
from .creation import empty, zeros
from .ctypes_types import DATA, dtype_of, element_type, importable, nest, shape_for, split, type_of
from .lock import RLock

__all__ = ["Array", "RawArray", "RawValue", "Value", "as_ctypes", "shmem_as_ndarray"]


class _ByHandle:
    """What makes a ctypes type's objects travel by handle."""

    __slots__ = ()

    @classmethod
    def from_buffer(cls, *args):
        # multiprocessing.sharedctypes.copy() has just registered its own function for this type.
        ForkingPickler.register(cls, cls.__reduce__)
        return type(cls).from_buffer(cls, *args)

    def __reduce__(self):
        if hasattr(self, "_sharedmem"):
            memory, element, lengths = self._sharedmem
            return _attach, (element, lengths, memory)
        if hasattr(self, "_wrapper"):  # made by multiprocessing.sharedctypes.copy()
            return sharedctypes.reduce_ctype(self)
        return self.__copy__().__reduce__()  # made by calling the class: in private memory

    def __copy__(self):
        """A copy in private memory, as multiprocessing's objects give."""
        return self._private_type.from_buffer_copy(self)

    def __deepcopy__(self, memo):
        return self.__copy__()


# ctypes type -> its subclass that travels by handle. A subclass, because pickling functions are
# registered for exact types, and multiprocessing registers its own for those that it shares.
_sendable_types = weakref.WeakKeyDictionary()


def _sendable(type_):
    try:
        return _sendable_types[type_]
    except KeyError:
        if issubclass(type_, ctypes._SimpleCData) and importable(type_) is not type_:
            raise TypeError(
                "a single number of the other byte order can't be sent; an array of one element can"
            ) from None
        members = {"_private_type": type_, "__module__": type_.__module__, "__doc__": type_.__doc__}
        sendable = type(type_)(type_.__name__, (_ByHandle, type_), members)
        return _sendable_types.setdefault(type_, sendable)


def _attach(element, lengths, memory):
    """The ctypes object over the bytes `memory`, one element or a nested array of them.

    `element` is the type of the elements, or a dtype that stands for one that can't be imported.
    """
    type_ = nest(type_of(element) if isinstance(element, np.dtype) else element, lengths)
    if memory.dtype != np.uint8 or memory.ndim != 1 or memory.nbytes != ctypes.sizeof(type_):
        raise ValueError(
            f"{type_.__name__} has {ctypes.sizeof(type_)} bytes, but the memory "
            f"is an array {memory.shape} of {memory.dtype}"
        )
    sendable = _sendable(type_)
    found = sendable.from_buffer(memory) if memory.nbytes else sendable()
    found._sharedmem = memory, element, lengths
    return found


def _new(type_, length=None):
    """A new object of the type, or array of `length` of it, all bytes zero."""
    nbytes = ctypes.sizeof(type_) * (1 if length is None else length)
    element, lengths = split(type_)
    if length is not None:
        lengths = (length, *lengths)
    return _attach(importable(element), lengths, zeros(nbytes, np.uint8))


def RawArray(typecode_or_type, size_or_initializer):
    """Array of ctypes elements in shared memory, without a lock.

    As `multiprocessing.RawArray`; besides, it can be sent by any pickle at any time, also through
    a queue to a process that already runs.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        Type of the elements: a letter of the `array` module, "c", or a ctypes type that holds no
        pointer.
    size_or_initializer : int or sequence
        Length, the elements being zero, or the elements.

    Returns
    -------
    ctypes array
        An instance of ``type * length``. `pickle` writes a handle; `copy.copy` copies into private
        memory.

    Raises
    ------
    MemoryError
        No room.
    TypeError
        The type is unknown or holds pointers, or the initializer is neither.
    ValueError
        The length is negative.

    See Also
    --------
    shmem_as_ndarray : the array as NumPy sees it.

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

    As `multiprocessing.RawValue`; besides, it can be sent by any pickle at any time.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        As for `RawArray`.
    *args : object
        What the type is initialized with; without any its bytes are zero.

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

    As `multiprocessing.Array`; besides, with its own lock it can be sent by any pickle at any time,
    also through a queue to a process that already runs.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        As for `RawArray`.
    size_or_initializer : int or sequence
        As for `RawArray`.
    lock : bool or lock, optional
        True: a new lock that lies in shared memory too, recursive, and that survives its owner.
        False: none, the result is a `RawArray`. A lock of `multiprocessing` is used as it is; the
        array can then be given to a process only as that starts.

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
        When the lock is taken after its owner ended without giving it back: what it guards may be
        half-written.

    Notes
    -----
    The lock is a robust mutex: the kernel passes it on when the thread that holds it ends, by `SIGKILL`,
    too [1]_. It serves threads and processes of one pid namespace.

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

    As `multiprocessing.Value`; besides, with its own lock it can be sent by any pickle at any time.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        As for `RawArray`.
    *args : object
        What the type is initialized with.
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
    """Pickles object and lock, when each of them can be."""

    def __reduce__(self):
        return _synchronized, (self._obj, self._lock)


def _synchronized(obj, lock):
    """multiprocessing's wrapper for the object, with its class changed to one that can be sent."""
    # A definite context, since asking for the default one would settle it for the program.
    context = multiprocessing.get_context("spawn")
    wrapper = sharedctypes.synchronized(obj, lock, context)
    kind = type(wrapper)
    wrapper.__class__ = types.new_class(kind.__name__, (_SentWithLock, kind))
    return wrapper


def as_ctypes(a):
    """View of a shared array as a ctypes object.

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
        The array is not shared, not contiguous or read-only.

    See Also
    --------
    shmem_as_ndarray : the way back.
    numpy.ctypeslib.as_ctypes : the same for private memory.

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
            "sharedmem.array(a, order='C') is a copy that is"
        )
    if not a.flags.writeable:
        raise ValueError("ctypes objects can be written to, but the array is read-only")
    if a.nbytes and not is_shared(a):
        raise ValueError("the array is not in shared memory: sharedmem.asshared(a) is a copy that is")
    return _attach(a.dtype, a.shape, asshared(a).reshape(-1).view(np.uint8))


def shmem_as_ndarray(raw_array, shape=None):
    """Array over the memory of a ctypes object.

    Parameters
    ----------
    raw_array : ctypes object
        What `Array`, `RawArray`, `Value` or `RawValue` returned, of this package or of
        `multiprocessing`. A lock is neither taken nor needed: that is left to the caller.
    shape : int or tuple of int, optional
        Lengths of the axes, for as many elements as there are; one of them may be -1. By default
        those of the ctypes array, or ``()`` for a value.

    Returns
    -------
    numpy.ndarray
        It keeps the memory alive. Over memory of this package it is a `SharedArray`, so that it
        travels by handle. Bytes (`c_char`) are of dtype uint8 and wide characters of dtype U1;
        a structure's fields are fields of the dtype.

    Raises
    ------
    TypeError
        The object is no ctypes object, or its elements (pointers, bit fields) have no dtype.
    ValueError
        The shape has another number of elements.

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
