"""Pickling arrays without their data, and restoring them over memory that contains the data.

Pickle's protocol 5 (PEP 574) leaves the data of arrays, and of other objects that have a buffer, out of the
pickle, in pieces. `sharedmem._pieces` places these in shared memory.
"""
import operator

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_WRITABLE
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t

from sharedmem._handles cimport extent, lie_in_one_block
from sharedmem.libsharedmem.arena cimport allocation, arena
from sharedmem.libsharedmem.handle cimport fits, geometry, max_ndim
from sharedmem.libsharedmem.home cimport arena_of


cdef extern from "Python.h":
    object PyPickleBuffer_FromObject(object)


cdef extern from "<numpy/arrayobject.h>":
    bint PyDataType_REFCHK(cnp.dtype)
    object PyArray_NewFromDescr(PyTypeObject*, cnp.PyArray_Descr*, int, const cnp.npy_intp*,
                                const cnp.npy_intp*, void*, int, PyObject*)
    PyTypeObject PyArray_Type


cnp.import_array()

cdef cnp.dtype uint8 = np.dtype(np.uint8)
cdef Py_ssize_t no_items = 0
cdef Py_ssize_t one = 1
cdef char* unsigned_bytes = b"B"


@cython.final
@cython.freelist(16)
cdef class LeftOut:
    """An array that is left out of a pickle. Its buffer is only used to see whether it may be written."""

    def __getbuffer__(self, Py_buffer* view, int flags):
        # A copy may be written, as an unpickled array may; an array that is not copied keeps its flag.
        cdef bint read_only = self.shared and not cnp.PyArray_ISWRITEABLE(self.array)
        if read_only and flags & PyBUF_WRITABLE:
            raise BufferError("the array is read-only")
        view.buf = &no_items
        view.obj = self
        view.len = 0
        view.readonly = read_only
        view.itemsize = 1
        view.format = unsigned_bytes if flags & PyBUF_FORMAT else NULL
        view.ndim = 1
        view.shape = &no_items
        view.strides = &one
        view.suboffsets = NULL
        view.internal = NULL


cdef bint find_block(char* lowest, uint64_t nbytes, allocation* found) noexcept:
    """Whether the bytes lie in one block of shared memory that this process holds, and not as a private copy.
    """
    cdef arena* where = arena_of(lowest)
    return where != NULL and lie_in_one_block(lowest, nbytes, where, found) and not found.carried


def reduce_array(cnp.ndarray a not None):
    """Reduce an exact ndarray whose data is left out of the pickle.

    The pickler must be of protocol 5 and have a `buffer_callback`, whose arguments `gather` takes.

    Parameters
    ----------
    a : numpy.ndarray
        An exact one.

    Returns
    -------
    tuple
        As `object.__reduce__` returns. Arrays without elements or with Python objects are not left out.
    """
    cdef cnp.dtype descr = a.descr
    cdef LeftOut out
    cdef allocation found
    cdef char* lowest
    cdef uint64_t nbytes
    cdef object strides = None
    if cnp.PyArray_ITEMSIZE(a) == 0 or PyDataType_REFCHK(descr):
        return np.ndarray.__reduce__(a)
    if cnp.PyArray_SIZE(a) == 0:
        return np.empty, ((<object>a).shape, descr)     # __reduce__ would make the byte order the machine's
    out = LeftOut.__new__(LeftOut)
    out.array = a
    nbytes = extent(a, &lowest)
    out.shared = find_block(lowest, nbytes, &found)
    if not cnp.PyArray_IS_C_CONTIGUOUS(a):
        if cnp.PyArray_IS_F_CONTIGUOUS(a):
            strides = "F"
        elif out.shared:
            strides = (<object>a).strides
    return restore_array, (PyPickleBuffer_FromObject(out), descr, (<object>a).shape, strides)


def restore_array(buffer, dtype, shape, strides, /):
    """Return the array over a piece of memory that `reduce_array` described.

    Parameters
    ----------
    buffer : buffer
        The piece, from the array's lowest byte on.
    dtype : numpy.dtype
        Without Python objects.
    shape : tuple of int
        The array's.
    strides : {None, "F"} or tuple of int
        None and "F": contiguous, in C's and in Fortran's order.

    Returns
    -------
    numpy.ndarray
        An exact one, read-only if the buffer is, that keeps the buffer.

    Raises
    ------
    ValueError
        The array would not lie in the buffer, its dtype contains Python objects, or an argument is invalid.
    """
    cdef cnp.ndarray piece
    cdef cnp.dtype descr
    cdef geometry g
    cdef cnp.npy_intp lengths[max_ndim]
    cdef cnp.npy_intp steps[max_ndim]
    cdef int flags = cnp.NPY_ARRAY_ALIGNED
    cdef int i
    piece = buffer if type(buffer) is np.ndarray else np.frombuffer(buffer, uint8)
    if not isinstance(dtype, np.dtype) or PyDataType_REFCHK(dtype) or cnp.PyDataType_HASSUBARRAY(dtype):
        raise ValueError("message: an array's dtype is invalid, or contains Python objects")
    descr = dtype
    if cnp.PyDataType_ELSIZE(descr) == 0 or not is_bytes(piece):
        raise ValueError("message: an array's memory or dtype is invalid")
    read_geometry(&g, cnp.PyDataType_ELSIZE(descr), shape, strides)
    if not fits(g, cnp.PyArray_NBYTES(piece)):
        raise ValueError("message: an array does not lie within its memory")
    for i in range(g.ndim):
        lengths[i] = g.shape[i]
        steps[i] = g.strides[i]
    if cnp.PyArray_ISWRITEABLE(piece):
        flags |= cnp.NPY_ARRAY_WRITEABLE
    Py_INCREF(descr)
    made = PyArray_NewFromDescr(&PyArray_Type, <cnp.PyArray_Descr*>descr, g.ndim, lengths, steps,
                                cnp.PyArray_BYTES(piece) + g.offset, flags, NULL)
    cnp.set_array_base(made, piece)
    return made


cdef int read_geometry(geometry* g, cnp.npy_intp itemsize, object shape, object strides) except -1:
    cdef uint64_t step = itemsize
    cdef uint64_t below = 0
    cdef int i, axis
    if type(shape) is not tuple or len(shape) > max_ndim:
        raise ValueError("message: an array's shape is invalid")
    g.itemsize = itemsize
    g.ndim = len(shape)
    try:
        for i in range(g.ndim):
            g.shape[i] = operator.index(shape[i])
        if type(strides) is tuple:
            if len(strides) != g.ndim:
                raise ValueError("message: an array does not have one stride for each axis")
            for i in range(g.ndim):
                g.strides[i] = operator.index(strides[i])
                if g.strides[i] < 0:
                    # May wrap for invalid strides; `fits` then finds that the offset is too small.
                    below -= <uint64_t>g.strides[i] * <uint64_t>(g.shape[i] - 1)
        else:
            for i in range(g.ndim):
                axis = i if strides is not None else g.ndim - 1 - i
                g.strides[axis] = step
                step *= <uint64_t>g.shape[axis]     # may wrap; `fits` then finds an axis that is too long
    except (TypeError, OverflowError):
        raise ValueError("message: an array's shape or strides are not 64-bit numbers") from None
    g.offset = below
    return 0


cdef bint is_bytes(object a):
    return (isinstance(a, np.ndarray) and cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.NPY_UINT8
            and cnp.PyArray_NDIM(<cnp.ndarray>a) == 1 and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>a))
