"""SharedArray: the class of arrays in shared memory.

How one is pickled is decided by `sharedmem._messages`, which imports this module and calls `pickle_with`.
"""

cimport numpy as cnp
from cpython.object cimport PyTypeObject

from sharedmem.libsharedmem.arena cimport allocation, arena
from sharedmem.libsharedmem.file_view cimport file_view
from sharedmem.libsharedmem.home cimport arena_of

from sharedmem._startup import import_lock


cdef extern from "<sharedmem_pyx/shared_array.hpp>" namespace "sharedmem_pyx":
    ctypedef object (*reducer)(object, int)
    object make_shared_array_type()
    void reduce_with(reducer)
    object adopt_block "sharedmem_pyx::adopt"(
        allocation&, PyTypeObject*, object, int, const cnp.npy_intp*, const cnp.npy_intp*, void*, int, object)


cnp.import_array()

SharedArray = make_shared_array_type()


cdef void pickle_with(object (*reduce)(object, int)) noexcept:
    reduce_with(reduce)


cdef object adopt(allocation* block, PyTypeObject* cls, cnp.dtype descr, int ndim, const cnp.npy_intp* shape,
                  const cnp.npy_intp* strides, void* data, int flags, object prototype):
    return adopt_block(block[0], cls, descr, ndim, shape, strides, data, flags, prototype)


cdef bint in_arena(object a) noexcept:
    return cnp.PyArray_Check(a) and arena_of(cnp.PyArray_DATA(a)) != NULL


cdef bint in_shared_memory(object a) noexcept:
    return in_arena(a) or cnp.PyArray_Check(a) and file_view.holds(cnp.PyArray_DATA(a))


cdef bint is_carried(cnp.ndarray a) noexcept:
    cdef arena* where = arena_of(cnp.PyArray_DATA(a))
    return where != NULL and where.find(cnp.PyArray_DATA(a)).carried


def is_shared(a, /):
    """Whether an array lies in shared memory.

    Parameters
    ----------
    a : object
        An ndarray; not an object that contains arrays, such as a DataFrame.

    Returns
    -------
    bool
        True for a shared array, any view of one and any other ndarray whose data lies in an arena, or in a
        file opened by `open_memmap`, `memmap` or `load`; False for everything else, for example a copy of
        a shared array.

    Notes
    -----
    The address of the first element decides, not the class. So it is also True for an ordinary array that an
    engine has carried to this process, although that belongs to this process alone. It never raises or waits
    for another process, and any thread may call it.
    """
    return in_shared_memory(a)


def __getattr__(name):
    """Names of the array module of the package of 2009."""
    if name.startswith("shared_"):
        with import_lock:
            from sharedmem import _legacy
        if name in _legacy.__all__:
            return getattr(_legacy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
