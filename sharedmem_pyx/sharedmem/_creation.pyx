"""New arrays in shared memory: NumPy's functions, with NumPy's arguments, defaults and errors."""

import numpy as np

cimport numpy as cnp
from cpython.float cimport PyFloat_CheckExact
from cpython.object cimport PyTypeObject

from sharedmem._new_array cimport (
    anything, content, make, make_full, one_item, plan, plan_like, plan_new, read_dtype, read_populate, zero)

from sharedmem.array import SharedArray

cdef cnp.dtype int64 = np.dtype(np.int64)


cdef extern from "Python.h":
    PyTypeObject* Py_TYPE(object)


cdef object create(object shape, object dtype, object order, object populate, content what):
    cdef plan p
    cdef cnp.dtype descr = plan_new(&p, shape, read_dtype(dtype), order)
    return make(&p, descr, read_populate(populate, p.bytes, False), what, NULL, NULL, None)


cdef object create_like(object prototype, object dtype, object order, object subok, object shape,
                        content what, object value):
    cdef plan p
    cdef cnp.ndarray source = np.asanyarray(prototype)
    cdef cnp.dtype descr = source.descr if dtype is None else read_dtype(dtype)
    cdef PyTypeObject* cls = NULL
    descr = plan_like(&p, source, descr, order, shape)
    if subok and isinstance(source, SharedArray):
        cls = Py_TYPE(source)
    else:
        source = None
    if what == one_item:
        return make_full(&p, descr, value, None, cls, source)
    return make(&p, descr, read_populate(None, p.bytes, False), what, NULL, cls, source)


def empty(shape, dtype=float, order="C", *, populate=None):
    """Create an array in shared memory without setting its elements.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis; zero is allowed.
    dtype : dtype_like, optional
        Fixed-size type; object types are rejected, since pointers are valid in one process only.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.
    populate : bool, optional
        True: allocate all memory before returning, so that it cannot be missing later. False: each page
        is allocated when it is first touched. By default arrays of 2 MiB and more get all their pages at
        once, if that takes no more than half of the available memory.

    Returns
    -------
    SharedArray
        Data aligned to 64 bytes or better; any view of it keeps the memory alive.

    Raises
    ------
    MemoryError
        Not enough memory: the message has the bytes requested and available, the limit and its setting.
    TypeError
        `dtype` contains Python objects; the message names the field. Or `populate` is of another type.
    ValueError
        A length is negative, there are more than 64 axes, or the array is larger than the address space.
    OSError
        The system refused shared memory for this process's first array; the message lists each attempt.

    Notes
    -----
    Any thread may call it at any time, also in a forked child. Huge pages are created by one touch in each
    2 MiB and ``MADV_COLLAPSE`` [1]_ (Linux 6.1). Available memory is estimated from ``MemAvailable`` [2]_
    and the limits of memory cgroups [3]_.

    References
    ----------
    .. [1] Linux man-pages, madvise(2).
    .. [2] Linux man-pages, proc_meminfo(5).
    .. [3] Linux kernel documentation, Control Group v2, memory.max.

    Examples
    --------
    >>> a = sharedmem.empty((2, 3))
    >>> a.shape
    (2, 3)
    """
    return create(shape, dtype, order, populate, anything)


def zeros(shape, dtype=float, order="C", *, populate=None):
    """Create an array of zeros in shared memory.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis.
    dtype : dtype_like, optional
        Fixed-size type without Python objects.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.
    populate : bool, optional
        As in `empty`.

    Returns
    -------
    SharedArray
        Fresh memory from the system is zero already and is not written.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`.

    Examples
    --------
    >>> sharedmem.zeros(3)
    SharedArray([0., 0., 0.])
    """
    return create(shape, dtype, order, populate, zero)


def ones(shape, dtype=float, order="C", *, populate=None):
    """Create an array of ones in shared memory.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis.
    dtype : dtype_like, optional
        Fixed-size type without Python objects.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.
    populate : bool, optional
        As in `empty`.

    Returns
    -------
    SharedArray
        Every element is one.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`.

    Examples
    --------
    >>> sharedmem.ones(3)
    SharedArray([1., 1., 1.])
    """
    cdef plan p
    cdef cnp.dtype descr = plan_new(&p, shape, read_dtype(dtype), order)
    return make_full(&p, descr, 1, populate, NULL, None)


def full(shape, fill_value, dtype=None, order="C", *, populate=None):
    """Create an array in shared memory and fill it with one value.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis.
    fill_value : scalar or array_like
        The value, or values that broadcast to `shape`.
    dtype : dtype_like, optional
        That of `np.asarray(fill_value)` by default.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.
    populate : bool, optional
        As in `empty`.

    Returns
    -------
    SharedArray
        Every element is `fill_value`.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`.
    ValueError
        `fill_value` does not broadcast to `shape`.

    Examples
    --------
    >>> sharedmem.full((2, 2), 7)
    SharedArray([[7, 7],
                 [7, 7]])
    """
    cdef plan p
    cdef cnp.dtype descr
    if dtype is not None:
        descr = read_dtype(dtype)
    elif PyFloat_CheckExact(fill_value):
        descr = read_dtype(None)
    else:
        fill_value = np.asarray(fill_value)
        descr = fill_value.dtype
        if fill_value.ndim == 0 and not descr.hasobject:
            fill_value = fill_value.item() if descr is int64 else fill_value[()]
    descr = plan_new(&p, shape, descr, order)
    return make_full(&p, descr, fill_value, populate, NULL, None)


def empty_like(prototype, dtype=None, order="K", subok=True, shape=None):
    """Create an array in shared memory like another one, without setting its elements.

    Parameters
    ----------
    prototype : array_like
        Any array, shared or not.
    dtype : dtype_like, optional
        Instead of the prototype's.
    order : {"K", "C", "F", "A"}, optional
        "K" keeps the order of the prototype's axes in memory.
    subok : bool, optional
        Whether the class of the prototype is kept if it is a subclass of SharedArray.
    shape : int or tuple of int, optional
        Instead of the prototype's.

    Returns
    -------
    SharedArray
        New memory.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`.
    """
    return create_like(prototype, dtype, order, subok, shape, anything, None)


def zeros_like(a, dtype=None, order="K", subok=True, shape=None):
    """Create an array of zeros in shared memory with the shape and dtype of another.

    Parameters
    ----------
    a : array_like
        Any array, shared or not.
    dtype : dtype_like, optional
        Instead of that of `a`.
    order : {"K", "C", "F", "A"}, optional
        As in `empty_like`.
    subok : bool, optional
        As in `empty_like`.
    shape : int or tuple of int, optional
        Instead of that of `a`.

    Returns
    -------
    SharedArray
        New memory, all zero.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`.
    """
    return create_like(a, dtype, order, subok, shape, zero, None)


def ones_like(a, dtype=None, order="K", subok=True, shape=None):
    """Create an array of ones in shared memory with the shape and dtype of another.

    Parameters
    ----------
    a : array_like
        Any array, shared or not.
    dtype : dtype_like, optional
        Instead of that of `a`.
    order : {"K", "C", "F", "A"}, optional
        As in `empty_like`.
    subok : bool, optional
        As in `empty_like`.
    shape : int or tuple of int, optional
        Instead of that of `a`.

    Returns
    -------
    SharedArray
        New memory, every element one.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`.
    """
    return create_like(a, dtype, order, subok, shape, one_item, 1)


def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None):
    """Create an array in shared memory, full of one value, with the shape and dtype of another.

    Parameters
    ----------
    a : array_like
        Any array, shared or not.
    fill_value : scalar or array_like
        The value, cast to the dtype, or values that broadcast to the shape.
    dtype : dtype_like, optional
        Instead of that of `a`.
    order : {"K", "C", "F", "A"}, optional
        As in `empty_like`.
    subok : bool, optional
        As in `empty_like`.
    shape : int or tuple of int, optional
        Instead of that of `a`.

    Returns
    -------
    SharedArray
        New memory, every element `fill_value`.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`.
    ValueError
        `fill_value` does not broadcast to the shape.
    """
    return create_like(a, dtype, order, subok, shape, one_item, fill_value)
