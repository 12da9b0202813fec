"""The blocks in which copies of private arrays travel: a sender takes one, the receiver copies out of it.

While a thread copies, only its C code has a reference to the block. If another thread forks meanwhile, the
child has that reference but not the thread, and would hold the block until its end. Therefore a child gives
such blocks back when it starts.
"""

import sys

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from sharedmem._handles cimport find_dtype, take_block
from sharedmem.arena cimport export_home, home_arena
from sharedmem.libsharedmem.arena cimport allocation, arena, pages
from sharedmem.libsharedmem.copying cimport copy_bytes
from sharedmem.libsharedmem.handle cimport byte, bytes_in, decode, fits, handle
from sharedmem.libsharedmem.home cimport allocate, home_if_any, release

from sharedmem._startup import at_fork


cdef extern from * nogil:
    """
    #ifdef _WIN32
    inline unsigned int geteuid() noexcept { return 0; }  // a process has one user for its life
    #else
    #include <unistd.h>
    #endif
    """
    unsigned int geteuid() noexcept


cdef extern from "<numpy/arrayobject.h>":
    PyTypeObject PyArray_Type
    object PyArray_NewFromDescr(PyTypeObject*, cnp.PyArray_Descr*, int, const cnp.npy_intp*,
                                const cnp.npy_intp*, void*, int, PyObject*)
    void PyArray_CLEARFLAGS(cnp.ndarray, int)
    cdef cppclass PyDataMem_Handler:
        pass
    PyObject* PyDataMem_DefaultHandler      # a capsule
    object PyDataMem_GetHandler()
    object PyDataMem_SetHandler(object)


cdef extern from "<sharedmem_pyx/arrived_memory.hpp>" namespace "sharedmem_pyx" nogil:
    cdef cppclass arrived_memory:
        @staticmethod
        PyDataMem_Handler* handler_over(PyDataMem_Handler*) noexcept

        @staticmethod
        size_t kept() noexcept


cdef enum:
    huge_page = 1 << 21


cnp.import_array()


cdef object numpys_handler = <object>PyDataMem_DefaultHandler
cdef object arrived_handler = PyCapsule_New(
    arrived_memory.handler_over(<PyDataMem_Handler*>PyCapsule_GetPointer(numpys_handler, "mem_handler")),
    "mem_handler", NULL)


# -- taken and given back

# The home arena for which it was last found out whether receivers can attach it, and the result.
cdef arena* judged_home = NULL
cdef bint judged_readable = True
cdef unsigned int user_of_setting = geteuid()


cdef int take_memory(uint64_t nbytes, allocation* block, in_hand* noted) except -1:
    cdef arena* home = home_arena()
    if home == judged_home and not judged_readable and not home_is_readable():
        refuse_user()
    cdef pages how = pages.now if nbytes >= huge_page else pages.as_needed
    if nbytes < large_bytes:
        if home.allocate_cached(nbytes, 64, block[0]):
            return 0
        block[0] = allocate(nbytes, 64, how)
    else:
        with nogil:
            in_hand.begin_step()
            try:
                block[0] = allocate(nbytes, 64, how)
                noted.enter(block.ref)
            finally:
                in_hand.end_step()
    if home_if_any() != home:
        try:
            export_home()       # another user's from now on
        except BaseException:
            give_back_memory(block, noted)
            raise
    if home_if_any() != judged_home and not home_is_readable():
        give_back_memory(block, noted)
        refuse_user()
    return 0


cdef bint home_is_readable() noexcept:
    """Whether the processes for which `transport` was called can attach the home arena.

    They belong to one user. A worker that has given up the rights of that user creates memory that these
    processes cannot attach.
    """
    global judged_home, judged_readable
    judged_readable = geteuid() == user_of_setting
    judged_home = home_if_any()
    return judged_readable


cdef int refuse_user() except -1:
    raise PermissionError(
        f"cannot send through shared memory: transport was called by user {user_of_setting}, who cannot "
        f"attach memory of this process's user, {geteuid()}")


cdef int give_back_memory(allocation* block, in_hand* noted) except -1:
    if block.bytes < large_bytes:
        noted.leave()
        release(block.ref)
    else:
        with nogil:
            in_hand.begin_step()
            noted.leave()
            release(block.ref)
            in_hand.end_step()
    return 0


cdef void readers_are_this_user() noexcept:
    global judged_home, judged_readable, user_of_setting
    user_of_setting = geteuid()
    judged_home = NULL      # so that it is found out again
    judged_readable = True


# -- arriving

def _copy_out(bytes state not None, dtype=None):
    """A private copy of the array of a handle; called by pickles of private arrays that were carried.

    Parameters
    ----------
    state : bytes
        The handle. Its lease is consumed, and with it goes the block.
    dtype : numpy.dtype, optional
        The dtype, if the handle has none.

    Returns
    -------
    numpy.ndarray
        It owns its data.

    Raises
    ------
    StaleHandleError, ValueError, OSError
        As `sharedmem.array._load`. ValueError also if the handle's array is not contiguous.
    MemoryError
        There is no private memory for it.
    """
    cdef handle h = decode(bytes_in(<byte*>PyBytes_AS_STRING(state), PyBytes_GET_SIZE(state)))
    cdef cnp.dtype descr = find_dtype(&h, dtype)
    cdef allocation block
    cdef in_hand noted
    take_block(&h, &block)
    if block.bytes >= large_bytes:
        noted.enter(block.ref)
    try:
        if not fits(h.shape, block.bytes):
            raise ValueError("handle: its array does not lie within its block")
        return read_copy(&h, descr, &block)
    finally:
        give_back_memory(&block, &noted)


cdef object read_copy(const handle* h, cnp.dtype descr, const allocation* block):
    cdef cnp.npy_intp shape[64]
    cdef cnp.ndarray copy
    cdef uint64_t nbytes
    cdef const void* source = <const char*>block.data + h.shape.offset
    cdef void* target
    cdef bint fortran = False
    cdef int i
    for i in range(h.shape.ndim):
        shape[i] = h.shape.shape[i]
    if h.shape.ndim > 1 and not has_strides(h, shape, False):
        fortran = True
    if not has_strides(h, shape, fortran):
        raise ValueError("handle: an array that is copied out is contiguous")
    if block.bytes < large_bytes:
        copy = new_private(descr, h.shape.ndim, shape, fortran)
    else:
        copy = new_large_private(descr, h.shape.ndim, shape, fortran)
    nbytes = cnp.PyArray_NBYTES(copy)
    target = cnp.PyArray_DATA(copy)
    if nbytes < large_bytes:
        memcpy(target, source, nbytes)
    else:
        with nogil:
            copy_bytes(target, source, nbytes)
    if not h.shape.writable:
        PyArray_CLEARFLAGS(copy, cnp.NPY_ARRAY_WRITEABLE)
    return copy


cdef cnp.ndarray new_private(cnp.dtype descr, int ndim, const cnp.npy_intp* shape, bint fortran):
    Py_INCREF(descr)
    return PyArray_NewFromDescr(&PyArray_Type, <cnp.PyArray_Descr*>descr, ndim, shape, NULL, NULL, fortran,
                                NULL)


cdef cnp.ndarray new_large_private(cnp.dtype descr, int ndim, const cnp.npy_intp* shape, bint fortran):
    """The same in memory of arrays that have arrived before, unless the caller has a handler of its own."""
    if PyDataMem_GetHandler() is not numpys_handler:
        return new_private(descr, ndim, shape, fortran)
    before = PyDataMem_SetHandler(arrived_handler)
    try:
        return new_private(descr, ndim, shape, fortran)
    finally:
        PyDataMem_SetHandler(before)


def kept_bytes():
    """Bytes of private memory that are kept for the next large arrays that arrive."""
    return arrived_memory.kept()


cdef bint has_strides(const handle* h, const cnp.npy_intp* shape, bint fortran) noexcept:
    """Whether the handle's array lies without gaps in that order. Axes of one element may have any stride."""
    cdef cnp.npy_intp expected = h.shape.itemsize
    cdef int ndim = h.shape.ndim
    cdef int i, axis
    for i in range(ndim):
        axis = i if fortran else ndim - 1 - i
        if shape[axis] != 1 and h.shape.strides[axis] != expected:
            return False
        expected *= shape[axis]
    return True


def release_of_other_threads():
    """Give back what other threads held when this process was forked."""
    in_hand.release_of_other_threads()


at_fork(after_in_child=release_of_other_threads)

# Pickles name it as a member of `sharedmem.array`, like all functions that load a handle.
_copy_out.__module__ = "sharedmem.array"
sys.modules["sharedmem.array"]._copy_out = _copy_out
