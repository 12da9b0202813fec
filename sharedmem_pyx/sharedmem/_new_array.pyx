"""How a new array is created: a plan of its layout, then its memory, then the array over it."""

import numpy as np

cimport numpy as cnp
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.float cimport FLT_MAX, FLT_MIN
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t
from libc.string cimport memcpy, memset

from sharedmem.arena cimport export_home, home_arena
from sharedmem.array cimport adopt
from sharedmem.libsharedmem.arena cimport allocation, arena, pages
from sharedmem.libsharedmem.copying cimport copy_bytes, set_bytes
from sharedmem.libsharedmem.home cimport allocate, home_if_any

from sharedmem.errors import refuse_objects
from sharedmem._in_flight import look


cdef extern from "<sharedmem_pyx/fill.hpp>" namespace "sharedmem_pyx" nogil:
    void fill(void* out, const void* item, size_t size, size_t count) noexcept
    void fill_large(void* out, const void* item, size_t size, size_t count) noexcept


cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1


cdef extern from *:
    bint __builtin_mul_overflow(cnp.npy_intp, cnp.npy_intp, cnp.npy_intp*) noexcept


cdef extern from "<numpy/arrayobject.h>":
    int PyArray_DescrConverter(object, cnp.PyArray_Descr**) except 0
    object PyArray_NewFromDescr(PyTypeObject*, cnp.PyArray_Descr*, int, const cnp.npy_intp*,
                                const cnp.npy_intp*, void*, int, PyObject*)
    PyTypeObject PyArray_Type
    bint PyDataType_REFCHK(cnp.dtype)
    bint PyArray_ISNBO(char)
    void PyDimMem_FREE(cnp.npy_intp*)


cnp.import_array()

cdef enum:
    large_bytes = 1 << 20       # from this size on memory is allocated and written without the GIL
    huge_page = 1 << 21         # and from this size all pages are allocated at once, if all will be written

cdef cnp.dtype float64 = np.dtype(np.float64)


# -- reading arguments

cdef bint read_length(object length, cnp.npy_intp* out) except -1:
    """Read an exact int. False on overflow: NumPy then raises its own error."""
    cdef int overflow = 0
    cdef long long read = PyLong_AsLongLongAndOverflow(length, &overflow)
    out[0] = <cnp.npy_intp>read
    if overflow == 0 and read > out[0]:
        raise MemoryError(f"an axis of {read} elements does not fit the address space of 32 bit")
    return overflow == 0 and out[0] == read


cdef int read_shape(plan* p, object shape) except -1:
    cdef cnp.PyArray_Dims dims
    cdef Py_ssize_t i
    if PyLong_CheckExact(shape):
        p.ndim = 1
        if read_length(shape, &p.shape[0]):
            return 0
    elif PyTuple_CheckExact(shape) and PyTuple_GET_SIZE(shape) <= 32:
        p.ndim = <int>PyTuple_GET_SIZE(shape)
        for i in range(p.ndim):
            length = <object>PyTuple_GET_ITEM(shape, i)
            if not PyLong_CheckExact(length) or not read_length(length, &p.shape[i]):
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


cdef cnp.dtype read_dtype(object argument):
    cdef cnp.PyArray_Descr* converted = NULL
    if argument is float or argument is None:
        return float64
    if isinstance(argument, cnp.dtype):
        return argument
    PyArray_DescrConverter(argument, &converted)
    descr = <cnp.dtype><PyObject*>converted
    Py_DECREF(descr)
    return descr


cdef bint read_order(object order) except -1:
    """Whether it is Fortran's order."""
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
    if not isinstance(populate, (bool, np.bool_)):
        raise TypeError(f"populate must be True, False or None, not {populate!r}")
    return pages.now if populate else pages.lazy


# -- planning

cdef cnp.dtype plan_new(plan* p, object shape, cnp.dtype descr, object order):
    p.permuted = False
    read_shape(p, shape)
    p.fortran = read_order(order)
    descr = settle_dtype(p, descr)
    measure(p, descr)
    return descr


cdef cnp.dtype plan_like(plan* p, cnp.ndarray prototype, cnp.dtype descr, object order, object shape):
    cdef cnp.NPY_ORDER read = cnp.NPY_KEEPORDER
    cdef int i
    cdef int ndim = cnp.PyArray_NDIM(prototype)
    if order is not "K":
        cnp.PyArray_OrderConverter(order, &read)
    if shape is not None:
        read_shape(p, shape)
    else:
        p.ndim = ndim
        for i in range(ndim):
            p.shape[i] = cnp.PyArray_DIMS(prototype)[i]
    p.permuted = False
    if read == cnp.NPY_ANYORDER:
        p.fortran = cnp.PyArray_ISFORTRAN(prototype)
    elif read != cnp.NPY_KEEPORDER:
        p.fortran = read == cnp.NPY_FORTRANORDER
    elif p.ndim <= 1 or p.ndim != ndim or cnp.PyArray_IS_C_CONTIGUOUS(prototype):
        p.fortran = False
    else:
        p.fortran = cnp.PyArray_IS_F_CONTIGUOUS(prototype)
        p.permuted = not p.fortran
    descr = settle_dtype(p, descr)
    measure(p, descr)
    if p.permuted:
        permute(p, prototype, cnp.PyDataType_ELSIZE(descr))
    return descr


cdef cnp.dtype settle_dtype(plan* p, cnp.dtype descr):
    """The dtype that the array will have, which is not always the one that was requested."""
    cdef int i
    if descr is float64:
        return descr
    if PyDataType_REFCHK(descr):
        refuse_objects(descr)
    if cnp.PyDataType_ELSIZE(descr) != 0 and not cnp.PyDataType_HASSUBARRAY(descr):
        return descr
    probe = np.empty(0, descr)      # strings without a length get one; a dtype may have axes
    if p.ndim + probe.ndim - 1 > most_axes:
        raise ValueError(f"maximum supported dimension for an ndarray is {most_axes}, "
                         f"found {p.ndim + probe.ndim - 1}")
    for i in range(1, probe.ndim):
        p.shape[p.ndim] = probe.shape[i]
        p.ndim += 1
    return probe.dtype


cdef int measure(plan* p, cnp.dtype descr) except -1:
    cdef cnp.npy_intp items = 1
    cdef cnp.npy_intp nbytes = cnp.PyDataType_ELSIZE(descr)
    cdef int i
    for i in range(p.ndim):
        if p.shape[i] < 0 or p.shape[i] > 0 and __builtin_mul_overflow(nbytes, p.shape[i], &nbytes):
            # NumPy raises its own error here. It allocates nothing, since it is given a pointer to memory.
            Py_INCREF(descr)
            PyArray_NewFromDescr(&PyArray_Type, <cnp.PyArray_Descr*>descr, p.ndim, p.shape, NULL, p, 0, NULL)
            raise ValueError("the array is too big")
        items *= p.shape[i]
    p.items = items
    p.bytes = nbytes if items != 0 else 0
    return 0


cdef int permute(plan* p, cnp.ndarray prototype, cnp.npy_intp itemsize) except -1:
    """Strides without gaps, with the axes in the order of the prototype's."""
    cdef int axes[most_axes]
    cdef int i, k
    cdef cnp.npy_intp stride = itemsize
    cdef cnp.npy_intp* theirs = cnp.PyArray_STRIDES(prototype)
    for i in range(p.ndim):     # insertion sort, the largest first; axes of the dtype stay last
        k = i
        while 0 < k and i < cnp.PyArray_NDIM(prototype) and abs(theirs[axes[k - 1]]) < abs(theirs[i]):
            axes[k] = axes[k - 1]
            k -= 1
        axes[k] = i
    for i in range(p.ndim - 1, -1, -1):
        p.strides[axes[i]] = stride
        stride *= p.shape[axes[i]]
    return 0


# -- creating

cdef void write(plan* p, const allocation& block, content what, const void* source,
                size_t itemsize) noexcept nogil:
    if what == zero and not block.zeroed:
        memset(block.data, 0, p.bytes)
    elif what == one_item:
        fill(block.data, source, itemsize, p.items)
    elif what == same_bytes:
        memcpy(block.data, source, p.bytes)


cdef void write_large(plan* p, const allocation& block, content what, const void* source,
                      size_t itemsize) noexcept nogil:
    """The same, by several threads if that is faster."""
    if what == zero and not block.zeroed:
        set_bytes(block.data, 0, p.bytes)
    elif what == one_item:
        fill_large(block.data, source, itemsize, p.items)
    elif what == same_bytes:
        copy_bytes(block.data, source, p.bytes)


cdef int take_memory(plan* p, pages how, allocation* block) except -1:
    """A block that is not in the thread's cache."""
    cdef arena* home = home_if_any()
    try:
        allocate_anew(p, how, block)
    except MemoryError:
        if look() == 0:
            raise
        allocate_anew(p, how, block)
    if home_if_any() != home:
        export_home()       # it is another user's from now on
    return 0


cdef int allocate_anew(plan* p, pages how, allocation* block) except -1:
    if p.bytes < large_bytes:
        block[0] = allocate(p.bytes, 64, how)
    else:
        with nogil:
            block[0] = allocate(p.bytes, 64, how)
    return 0


cdef object make(plan* p, cnp.dtype descr, pages how, content what, const void* source, PyTypeObject* cls,
                 object prototype):
    cdef arena* home = home_arena()
    cdef allocation block
    cdef cnp.npy_intp* strides = NULL
    cdef size_t itemsize = cnp.PyDataType_ELSIZE(descr)
    cdef int flags = cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE
    if not home.allocate_cached(p.bytes, 64, block):
        take_memory(p, how, &block)
    if p.bytes < large_bytes:
        write(p, block, what, source, itemsize)
    else:
        with nogil:
            write_large(p, block, what, source, itemsize)
    if p.fortran:
        flags |= cnp.NPY_ARRAY_F_CONTIGUOUS
    if p.permuted:
        strides = p.strides
    return adopt(&block, cls, descr, p.ndim, p.shape, strides, block.data, flags, prototype)


cdef object make_full(plan* p, cnp.dtype descr, object value, object populate, PyTypeObject* cls,
                      object prototype):
    cdef char item[8]
    cdef pages how = read_populate(populate, p.bytes, True)
    if write_number(descr, value, item):
        return make(p, descr, how, one_item, item, cls, prototype)
    if p.items > 0 and isinstance(value, (int, float, complex, str, bytes, np.generic)):
        cell = np.zeros((), descr)      # not empty: padding is copied, too
        np.copyto(cell, value, casting="unsafe")
        return make(p, descr, how, one_item, cnp.PyArray_DATA(cell), cls, prototype)
    a = make(p, descr, how, anything, NULL, cls, prototype)
    np.copyto(a, value, casting="unsafe")
    return a


cdef bint write_number(cnp.dtype descr, object value, char* item) except -1:
    """Write a number as `np.copyto` would; False: it is not of a kind that is as simple as that."""
    cdef int size = cnp.PyDataType_ELSIZE(descr)
    cdef int overflow = 0
    cdef double number
    cdef int64_t whole
    if not PyArray_ISNBO(descr.byteorder) or size > 8:
        return False
    if PyFloat_CheckExact(value) and descr.kind == c"f":
        number = PyFloat_AS_DOUBLE(value)
        return write_float(item, size, number, number == 0 or FLT_MIN <= abs(number) <= FLT_MAX)
    if not PyLong_CheckExact(value):
        return False
    whole = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0:
        return False
    if descr.kind == c"f":
        return -(1 << 24) <= whole <= 1 << 24 and write_float(item, size, <double>whole, True)
    if descr.kind == c"b":
        item[0] = whole != 0
        return True
    if descr.kind == c"u":
        return whole >= 0 and (size == 8 or whole >> 8 * size == 0) and write_int(item, size, whole)
    if descr.kind == c"i":
        return (whole >> 8 * size - 1 in (0, -1)) and write_int(item, size, whole)
    return False


cdef bint write_float(char* item, int size, double number, bint fits_float) noexcept:
    if size == 8:
        (<double*>item)[0] = number
        return True
    if size == 4 and fits_float:
        (<float*>item)[0] = <float>number
        return True
    return False


cdef bint write_int(char* item, int size, int64_t whole) noexcept:
    if size == 8:
        (<int64_t*>item)[0] = whole
    elif size == 4:
        (<int32_t*>item)[0] = <int32_t>whole
    elif size == 2:
        (<int16_t*>item)[0] = <int16_t>whole
    else:
        (<int8_t*>item)[0] = <int8_t>whole
    return True
