"""New arrays in shared memory: NumPy's functions, with NumPy's arguments, defaults and errors."""

import numpy as np

cimport numpy as cnp
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memset

from sharedmem.arena cimport home_arena
from sharedmem.array cimport adopt, in_arena
from sharedmem.libsharedmem.arena cimport allocation, arena, pages

from sharedmem.array import SharedArray
from sharedmem.errors import refuse_objects


cdef extern from "<sharedmem_pyx/fill.hpp>" namespace "sharedmem_pyx" nogil:
    void fill_memory "sharedmem_pyx::fill"(void* out, const void* item, size_t size, size_t count) noexcept


cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    PyTypeObject* Py_TYPE(object)


cdef extern from *:
    bint __builtin_mul_overflow(cnp.npy_intp, cnp.npy_intp, cnp.npy_intp*) noexcept


cdef extern from "<numpy/arrayobject.h>":
    int PyArray_DescrConverter(object, PyObject**) except 0
    object PyArray_NewFromDescr(PyTypeObject*, PyObject*, int, const cnp.npy_intp*, const cnp.npy_intp*, void*,
                                int, PyObject*)
    PyTypeObject PyArray_Type
    bint PyDataType_REFCHK(cnp.dtype)
    void PyDimMem_FREE(cnp.npy_intp*)


cnp.import_array()

cdef enum:
    most_axes = 64
    large_bytes = 1 << 20       # from here on memory is had and written without the GIL
    huge_page = 1 << 21         # and from here on all pages are had at once, if all will be written

cdef cnp.dtype float64 = np.dtype(np.float64)
cdef cnp.dtype int64 = np.dtype(np.int64)


cdef struct plan:
    int ndim
    bint fortran
    bint permuted                           # neither C nor Fortran order: `strides` has it
    cnp.npy_intp shape[most_axes]
    cnp.npy_intp strides[most_axes]
    cnp.npy_intp items
    cnp.npy_intp bytes


cdef enum content:
    anything
    zero
    item_everywhere


# -- reading arguments

cdef int read_shape(plan* p, object shape) except -1:
    cdef cnp.PyArray_Dims dims
    cdef Py_ssize_t i
    cdef int overflow = 0
    if PyLong_CheckExact(shape):
        p.ndim = 1
        p.shape[0] = PyLong_AsLongLongAndOverflow(shape, &overflow)
        if overflow == 0:
            return 0
    elif PyTuple_CheckExact(shape) and PyTuple_GET_SIZE(shape) <= 32:
        p.ndim = <int>PyTuple_GET_SIZE(shape)
        for i in range(p.ndim):
            length = <object>PyTuple_GET_ITEM(shape, i)
            if not PyLong_CheckExact(length):
                break
            p.shape[i] = PyLong_AsLongLongAndOverflow(length, &overflow)
            if overflow != 0:
                break
        else:
            return 0
    dims.ptr = NULL
    dims.len = 0
    cnp.PyArray_IntpConverter(shape, &dims)
    p.ndim = dims.len
    for i in range(dims.len):
        p.shape[i] = dims.ptr[i]
    PyDimMem_FREE(dims.ptr)
    return 0


cdef cnp.dtype read_dtype(object dtype):
    cdef PyObject* converted = NULL
    if dtype is float or dtype is None:
        return float64
    if isinstance(dtype, cnp.dtype):
        return dtype
    PyArray_DescrConverter(dtype, &converted)
    descr = <cnp.dtype>converted
    Py_DECREF(descr)
    return descr


cdef bint read_order(object order) except -1:
    """Whether it is Fortran's."""
    cdef cnp.NPY_ORDER read = cnp.NPY_CORDER
    if order is "C":
        return False
    cnp.PyArray_OrderConverter(order, &read)
    if read != cnp.NPY_CORDER and read != cnp.NPY_FORTRANORDER:
        raise ValueError("only 'C' or 'F' order is permitted")
    return read == cnp.NPY_FORTRANORDER


cdef pages read_populate(object populate, cnp.npy_intp nbytes, bint written) except *:
    if populate is None:
        return pages.now if written and nbytes >= huge_page else pages.as_needed
    return pages.now if populate else pages.lazy


# -- making an array of a plan

cdef cnp.dtype settle_dtype(plan* p, cnp.dtype descr):
    """The dtype that the array will have, which is not always the one that was asked for."""
    cdef int i
    if PyDataType_REFCHK(descr):
        refuse_objects(descr)
    if cnp.PyDataType_ELSIZE(descr) != 0 and not cnp.PyDataType_HASSUBARRAY(descr):
        return descr
    probe = np.empty(0, descr)      # strings without a length get one; a dtype may have axes
    if p.ndim + probe.ndim - 1 > most_axes:
        np.empty((1,) * p.ndim, descr)
        raise ValueError("too many axes")
    for i in range(1, probe.ndim):
        p.shape[p.ndim] = probe.shape[i]
        p.ndim += 1
    return probe.dtype


cdef int measure(plan* p, cnp.dtype descr) except -1:
    cdef cnp.npy_intp items = 1
    cdef cnp.npy_intp nbytes = cnp.PyDataType_ELSIZE(descr)
    cdef int i
    for i in range(p.ndim):
        items *= p.shape[i]
        if p.shape[i] < 0 or p.shape[i] > 0 and __builtin_mul_overflow(nbytes, p.shape[i], &nbytes):
            # NumPy has its own words for that. Given the memory it allocates none.
            Py_INCREF(descr)
            PyArray_NewFromDescr(&PyArray_Type, <PyObject*>descr, p.ndim, p.shape, NULL, p, 0, NULL)
            raise ValueError("the array is too big")
    p.items = items
    p.bytes = nbytes if items != 0 else 0
    return 0


cdef object make(plan* p, cnp.dtype descr, pages how, content what, const void* item, PyTypeObject* cls,
                 object prototype):
    """The array; `measure` has been called."""
    cdef arena* home = home_arena()
    cdef allocation block
    cdef int flags = cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE
    if p.bytes < large_bytes:
        block = home.allocate(p.bytes, 64, how)
        write(p, block, what, item, cnp.PyDataType_ELSIZE(descr))
    else:
        itemsize = cnp.PyDataType_ELSIZE(descr)
        with nogil:
            block = home.allocate(p.bytes, 64, how)
            write(p, block, what, item, itemsize)
    if p.fortran:
        flags |= cnp.NPY_ARRAY_F_CONTIGUOUS
    return adopt(&block, cls, descr, p.ndim, p.shape, p.strides if p.permuted else NULL, block.data, flags,
                 prototype)


cdef void write(plan* p, const allocation& block, content what, const void* item, size_t itemsize) noexcept nogil:
    if what == zero and not block.zeroed:
        memset(block.data, 0, p.bytes)
    elif what == item_everywhere:
        fill_memory(block.data, item, itemsize, p.items)


cdef object create(object shape, object dtype, object order, object populate, content what):
    cdef plan p
    cdef cnp.dtype descr
    p.permuted = False
    read_shape(&p, shape)
    descr = read_dtype(dtype)
    p.fortran = read_order(order)
    if descr is not float64:
        descr = settle_dtype(&p, descr)
    measure(&p, descr)
    return make(&p, descr, read_populate(populate, p.bytes, False), what, NULL, NULL, None)


# -- arrays full of one value

cdef bint is_scalar(object value):
    return isinstance(value, (int, float, complex, str, bytes, np.generic))


cdef object make_full(plan* p, cnp.dtype descr, object value, object populate, PyTypeObject* cls, object prototype):
    """The array of a plan with `value` in it, cast as `np.copyto` casts."""
    cdef double number
    cdef int64_t whole
    cdef int overflow = 0
    cdef pages how = read_populate(populate, p.bytes, True)
    if descr is float64 and PyFloat_CheckExact(value):
        number = PyFloat_AS_DOUBLE(value)
        return make(p, descr, how, item_everywhere, &number, cls, prototype)
    if PyLong_CheckExact(value) and (descr is float64 or descr is int64):
        whole = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0 and descr is int64:
            return make(p, descr, how, item_everywhere, &whole, cls, prototype)
        if overflow == 0 and -1 <= whole <= 1:
            number = <double>whole
            return make(p, descr, how, item_everywhere, &number, cls, prototype)
    if p.items > 0 and is_scalar(value):
        cell = np.empty((), descr)
        np.copyto(cell, value, casting="unsafe")
        return make(p, descr, how, item_everywhere, cnp.PyArray_DATA(cell), cls, prototype)
    a = make(p, descr, how, anything, NULL, cls, prototype)
    np.copyto(a, value, casting="unsafe")
    return a


# -- the user's functions

def empty(shape, dtype=float, order="C", *, populate=None):
    """New array in shared memory, its elements not set.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis; zero is allowed.
    dtype : dtype_like, optional
        Fixed-size type; object types hold one process's pointers and are refused.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.
    populate : bool, optional
        True: all memory is had before returning, so that it cannot be missing later. False: each page
        is had when somebody first touches it. By default large arrays get theirs at once, within reason.

    Returns
    -------
    SharedArray
        Data aligned to 64 bytes or better; any view of it keeps the memory alive.

    Raises
    ------
    MemoryError
        No room: the message gives bytes asked for, bytes available and the limit met.
    TypeError
        `dtype` contains Python objects.

    Examples
    --------
    >>> a = sharedmem.empty((2, 3))
    >>> a.shape
    (2, 3)
    """
    return create(shape, dtype, order, populate, anything)


def zeros(shape, dtype=float, order="C", *, populate=None):
    """New array of zeros in shared memory.

    Parameters
    ----------
    shape, dtype, order, populate
        As in `empty`.

    Returns
    -------
    SharedArray
        Memory fresh from the system is zero already and is not written.

    Examples
    --------
    >>> sharedmem.zeros(3)
    SharedArray([0., 0., 0.])
    """
    return create(shape, dtype, order, populate, zero)


def ones(shape, dtype=None, order="C", *, populate=None):
    """New array of ones in shared memory.

    Parameters
    ----------
    shape, dtype, order, populate
        As in `empty`.

    Returns
    -------
    SharedArray
        Every element is one.

    Examples
    --------
    >>> sharedmem.ones(3)
    SharedArray([1., 1., 1.])
    """
    cdef plan p
    cdef cnp.dtype descr
    p.permuted = False
    read_shape(&p, shape)
    descr = read_dtype(dtype)
    p.fortran = read_order(order)
    if descr is not float64:
        descr = settle_dtype(&p, descr)
    measure(&p, descr)
    return make_full(&p, descr, 1, populate, NULL, None)


def full(shape, fill_value, dtype=None, order="C", *, populate=None):
    """New array in shared memory, full of one value.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis.
    fill_value : scalar or array_like
        The value, or values that broadcast to `shape`.
    dtype : dtype_like, optional
        That of `np.asarray(fill_value)` by default.
    order, populate
        As in `empty`.

    Returns
    -------
    SharedArray
        Every element is `fill_value`.

    Examples
    --------
    >>> sharedmem.full((2, 2), 7)
    SharedArray([[7, 7],
                 [7, 7]])
    """
    cdef plan p
    cdef cnp.dtype descr
    p.permuted = False
    read_shape(&p, shape)
    if dtype is not None:
        descr = read_dtype(dtype)
    elif PyFloat_CheckExact(fill_value):
        descr = float64
    else:
        fill_value = np.asarray(fill_value)
        descr = fill_value.dtype
        if fill_value.ndim == 0 and not PyDataType_REFCHK(descr):
            fill_value = fill_value[()]
    p.fortran = read_order(order)
    descr = settle_dtype(&p, descr)
    measure(&p, descr)
    return make_full(&p, descr, fill_value, populate, NULL, None)


# -- arrays like another

cdef int read_like(plan* p, cnp.ndarray prototype, object order, object shape) except -1:
    """Shape and order: C, Fortran's, or the axes sorted as the prototype's strides are."""
    cdef cnp.NPY_ORDER read = cnp.NPY_KEEPORDER
    cdef int i
    if order is not "K":
        cnp.PyArray_OrderConverter(order, &read)
    if shape is not None:
        read_shape(p, shape)
    else:
        p.ndim = cnp.PyArray_NDIM(prototype)
        for i in range(p.ndim):
            p.shape[i] = cnp.PyArray_DIMS(prototype)[i]
    if read == cnp.NPY_ANYORDER:
        p.fortran = cnp.PyArray_ISFORTRAN(prototype)
    elif read == cnp.NPY_KEEPORDER:
        c_like = p.ndim <= 1 or p.ndim != prototype.ndim or cnp.PyArray_IS_C_CONTIGUOUS(prototype)
        p.fortran = not c_like and cnp.PyArray_IS_F_CONTIGUOUS(prototype)
        p.permuted = not c_like and not p.fortran
        return 0
    else:
        p.fortran = read == cnp.NPY_FORTRANORDER
    p.permuted = False
    return 0


cdef int permute(plan* p, cnp.ndarray prototype, cnp.npy_intp itemsize) except -1:
    """Strides without gaps whose sizes are in the order of the prototype's."""
    cdef int axes[most_axes]
    cdef int i, k, axis
    cdef cnp.npy_intp stride = itemsize
    cdef cnp.npy_intp* theirs = cnp.PyArray_STRIDES(prototype)
    for i in range(p.ndim):     # insertion sort, the largest first; axes that a dtype adds come last
        axis = i
        k = i
        if i < prototype.ndim:
            while k > 0 and abs(theirs[axes[k - 1]]) < abs(theirs[axis]):
                axes[k] = axes[k - 1]
                k -= 1
        axes[k] = axis
    for i in range(p.ndim - 1, -1, -1):
        p.strides[axes[i]] = stride
        stride *= p.shape[axes[i]]
    return 0


cdef object create_like(object prototype, object dtype, object order, object subok, object shape, content what,
                        object value):
    cdef plan p
    cdef cnp.ndarray source = np.asanyarray(prototype)
    cdef cnp.dtype descr = source.descr if dtype is None else read_dtype(dtype)
    cdef PyTypeObject* cls = NULL
    cdef pages how
    read_like(&p, source, order, shape)
    descr = settle_dtype(&p, descr)
    measure(&p, descr)
    if p.permuted:
        permute(&p, source, cnp.PyDataType_ELSIZE(descr))
    if subok and isinstance(source, SharedArray):
        cls = Py_TYPE(source)
    else:
        source = None
    if what == item_everywhere:
        return make_full(&p, descr, value, None, cls, source)
    return make(&p, descr, read_populate(None, p.bytes, False), what, NULL, cls, source)


def empty_like(prototype, dtype=None, order="K", subok=True, shape=None):
    """New array in shared memory with the shape and dtype of another, its elements not set.

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
    """
    return create_like(prototype, dtype, order, subok, shape, anything, None)


def zeros_like(a, dtype=None, order="K", subok=True, shape=None):
    """New array of zeros in shared memory with the shape and dtype of another.

    Parameters
    ----------
    a, dtype, order, subok, shape
        As in `empty_like`.

    Returns
    -------
    SharedArray
        New memory, all zero.
    """
    return create_like(a, dtype, order, subok, shape, zero, None)


def ones_like(a, dtype=None, order="K", subok=True, shape=None):
    """New array of ones in shared memory with the shape and dtype of another.

    Parameters
    ----------
    a, dtype, order, subok, shape
        As in `empty_like`.

    Returns
    -------
    SharedArray
        New memory, every element one.
    """
    return create_like(a, dtype, order, subok, shape, item_everywhere, 1)


def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None):
    """New array in shared memory, full of one value, with the shape and dtype of another.

    Parameters
    ----------
    a, dtype, order, subok, shape
        As in `empty_like`.
    fill_value : scalar or array_like
        The value, cast to the dtype, or values that broadcast to the shape.

    Returns
    -------
    SharedArray
        New memory, every element `fill_value`.
    """
    return create_like(a, dtype, order, subok, shape, item_everywhere, fill_value)


# -- copies of what exists

cdef bint is_definite(cnp.dtype descr):
    """Whether a dtype says all about the items, so that values need not be looked at."""
    return (cnp.PyDataType_ELSIZE(descr) != 0 and not cnp.PyDataType_HASSUBARRAY(descr)
            and not (descr.kind in b"mM" and np.datetime_data(descr)[0] == "generic"))


def array(obj, dtype=None, order="K", *, ndmin=0):
    """Copy of anything that makes an array, in shared memory.

    Parameters
    ----------
    obj : array_like
        What `np.array` takes.
    dtype : dtype_like, optional
        That of `np.asarray(obj)` by default.
    order : {"K", "A", "C", "F"}, optional
        "K" keeps the order of axes in memory.
    ndmin : int, optional
        Axes of length 1 are put in front up to this number.

    Returns
    -------
    SharedArray
        A copy, always.

    Examples
    --------
    >>> sharedmem.array([[1, 2], [3, 4]])
    SharedArray([[1, 2],
                 [3, 4]])
    """
    cdef plan p
    cdef cnp.ndarray source
    cdef cnp.dtype descr = None
    if dtype is not None:
        descr = read_dtype(dtype)
        if not PyDataType_REFCHK(descr) and not (isinstance(obj, np.ndarray) and is_definite(descr)):
            obj = np.asarray(obj, descr)
            descr = None
    source = np.asarray(obj)
    if descr is None:
        descr = source.descr
    if ndmin > source.ndim:
        source = np.array(source, ndmin=ndmin, copy=None)
    read_like(&p, source, order, None)
    descr = settle_dtype(&p, descr)
    measure(&p, descr)
    if p.permuted:
        permute(&p, source, cnp.PyDataType_ELSIZE(descr))
    made = make(&p, descr, read_populate(None, p.bytes, True), anything, NULL, NULL, None)
    cnp.PyArray_CopyInto(made, source)
    return made


def copy(a, order="K"):
    """Copy of an array in shared memory.

    Parameters
    ----------
    a : array_like
        Any array, shared or not.
    order : {"K", "A", "C", "F"}, optional
        As in `array`.

    Returns
    -------
    SharedArray
        A copy, always; `asshared` copies only what is not shared.
    """
    return array(a, None, order)


def asshared(a, dtype=None, order=None):
    """The array itself if it is shared, else a copy of it in shared memory.

    Parameters
    ----------
    a : array_like
        Any array, shared or not.
    dtype : dtype_like, optional
        The dtype that is wanted; an array of another is copied.
    order : {"K", "A", "C", "F"}, optional
        The order that is wanted; "K" and "A" take any.

    Returns
    -------
    SharedArray
        `a` if it is a shared SharedArray; a view of it if it is another ndarray over shared memory;
        else a copy.
    """
    if in_arena(a) and (dtype is None or a.dtype == read_dtype(dtype)) and has_order(a, order):
        return a if isinstance(a, SharedArray) else a.view(SharedArray)
    return array(a, dtype, "K" if order is None else order)


cdef bint has_order(cnp.ndarray a, object order) except -1:
    cdef cnp.NPY_ORDER read = cnp.NPY_KEEPORDER
    if order is not None:
        cnp.PyArray_OrderConverter(order, &read)
    if read == cnp.NPY_CORDER:
        return cnp.PyArray_IS_C_CONTIGUOUS(a)
    return read != cnp.NPY_FORTRANORDER or cnp.PyArray_IS_F_CONTIGUOUS(a)
