"""Handles of arrays: writing them, and loading arrays from them.

A handle identifies a block of an arena, the bytes of it that the array uses, and in most cases its dtype.
"""

import contextlib
import sys

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyTypeObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeLatin1
from libc.stdint cimport uint64_t
from libcpp.string_view cimport string_view

from sharedmem.arena cimport export_home, offer_configured
from sharedmem.array cimport adopt
from sharedmem.libsharedmem.arena cimport allocation, arena, claim
from sharedmem.libsharedmem.handle cimport (
    byte, bytes_in, bytes_out, decode, encode, fits, handle, max_handle_bytes, no_lease)
from sharedmem.libsharedmem.home cimport acquire, home_if_any, release

from sharedmem.array import SharedArray
from sharedmem.errors import StaleHandleError


cdef extern from "<numpy/arrayobject.h>":
    PyTypeObject PyArray_Type
    object PyArray_View(cnp.ndarray, cnp.PyArray_Descr*, PyTypeObject*)
    bint PyDataType_REFCHK(cnp.dtype)
    bint PyDataType_HASFIELDS(cnp.dtype)


cdef enum:
    first_unknown_type = 24     # NumPy's type numbers from here on are not built in
    longest_dtype = 64          # bytes of a dtype that travels as text


cnp.import_array()

cdef PyTypeObject* void_type = <PyTypeObject*>np.void


# -- from an array to its handle

cdef uint64_t extent(cnp.ndarray a, char** lowest) noexcept:
    """Bytes from the lowest to the highest one of the elements of `a`. pre: it has elements."""
    cdef char* highest = <char*>cnp.PyArray_DATA(a) + cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp reach
    cdef int i
    lowest[0] = <char*>cnp.PyArray_DATA(a)
    for i in range(cnp.PyArray_NDIM(a)):
        reach = (cnp.PyArray_DIMS(a)[i] - 1) * cnp.PyArray_STRIDES(a)[i]
        if reach < 0:
            lowest[0] += reach
        else:
            highest += reach
    return highest - lowest[0]


cdef bint lie_in_one_block(const char* lowest, uint64_t nbytes, arena* where, allocation* found) noexcept:
    """Whether that many bytes from `lowest` on lie in one block that this process holds. pre: more than 0."""
    found[0] = where.find(lowest)
    if found.read_only:     # the block's address is that in the writable mapping
        lowest = <const char*>where.writable(lowest)
    return found.ref.home != NULL and lowest + nbytes <= <char*>found.data + found.bytes


cdef bint in_one_block(cnp.ndarray a, arena* where, allocation* found) noexcept:
    """Whether all bytes of `a` lie in one block that this process holds. pre: it has bytes."""
    cdef char* lowest
    cdef uint64_t nbytes = extent(a, &lowest)
    return lie_in_one_block(lowest, nbytes, where, found)


cdef object dtype_text(cnp.dtype descr):
    """The name of a dtype; an empty str if its character identifies it, None if only the dtype does."""
    if descr.type_num >= first_unknown_type or PyDataType_HASFIELDS(descr):
        return None
    if cnp.PyArray_DescrFromType(descr.type_num) is descr:
        return ""
    if descr.metadata is not None or descr.type_num == cnp.NPY_VOID and descr.typeobj != void_type:
        return None
    text = descr.str
    return text if len(text) <= longest_dtype else None


cdef bytes encode_array(cnp.ndarray a, const allocation* found, cnp.dtype descr, object text, const claim& c):
    cdef handle h
    cdef byte buffer[max_handle_bytes + longest_dtype]
    cdef char character = descr.type
    cdef const char* characters
    cdef char* data = <char*>cnp.PyArray_DATA(a)
    cdef Py_ssize_t size = 0
    cdef int i
    if found.read_only:
        data = <char*>found.ref.home.writable(data)
    h.where = found.ref.home.where()
    h.shape.offset = data - <char*>found.data
    h.shape.itemsize = cnp.PyArray_ITEMSIZE(a)
    h.shape.ndim = cnp.PyArray_NDIM(a)
    h.shape.read_only_mapping = found.read_only
    h.shape.writable = cnp.PyArray_ISWRITEABLE(a) and not found.read_only
    for i in range(h.shape.ndim):
        h.shape.shape[i] = cnp.PyArray_DIMS(a)[i]
        h.shape.strides[i] = cnp.PyArray_STRIDES(a)[i]
    if text is not None:
        characters = PyUnicode_AsUTF8AndSize(text, &size)
        h.dtype = string_view(characters, size) if size > 0 else string_view(&character, 1)
    h.what = c
    return PyBytes_FromStringAndSize(<char*>buffer, encode(h, bytes_out(buffer, sizeof(buffer))))


# -- from a handle to its array

cdef str was_a_message = (
    "A message holds its memory until it is loaded once; for many readers keep sharedmem.share(obj). If its "
    "sender ends and no other process has the arena, it does so for SHAREDMEM_LINGER seconds more, and not "
    "at all if the sender is killed")

cdef str looks_saved = (
    "The pickle looks saved, or sent by other means than multiprocessing, which would have kept the memory. "
    "To save the data of an array use pickle.dump into a file, or any pickler within "
    "sharedmem.pickle_by_value(). Locks and queues exist as long as a process has them")


cdef cnp.dtype find_dtype(const handle* h, object given):
    """The dtype of a handle, checked: it must not contain pointers or more bytes than the handle says."""
    cdef cnp.dtype descr = None
    cdef char first
    if h.dtype.empty():
        if isinstance(given, np.dtype):
            descr = given
    else:
        first = h.dtype.data()[0]
        text = PyUnicode_DecodeLatin1(h.dtype.data(), h.dtype.size(), NULL)
        if h.dtype.size() == 1 and (text.isalpha() or first == b"?"):
            descr = cnp.PyArray_DescrFromType(first)
        elif h.dtype.size() > 1 and first in b"<>|" and "," not in text:
            with contextlib.suppress(TypeError, ValueError, OverflowError, SyntaxError):
                descr = np.dtype(text)
    if descr is None or PyDataType_REFCHK(descr) or cnp.PyDataType_HASSUBARRAY(descr):
        raise ValueError("handle: its dtype is invalid, or contains Python objects")
    if cnp.PyDataType_ELSIZE(descr) == 0 or cnp.PyDataType_ELSIZE(descr) != h.shape.itemsize:
        raise ValueError(f"handle: items of {h.shape.itemsize} bytes are not of dtype {descr}")
    return descr


cdef int take_block(const handle* h, allocation* block) except -1:
    """Acquire a reference to the block of the handle, and consume the handle's lease."""
    cdef arena* home = home_if_any()
    if home == NULL:
        offer_configured()
    elif home.where().uuid[0] == h.where.uuid[0] and home.where().uuid[1] == h.where.uuid[1]:
        block[0] = home.acquire(h.what)
        return 0
    try:
        with nogil:
            block[0] = acquire(h.where, h.what)
    finally:
        if home == NULL:
            export_home()       # the home may have been determined although the handle is invalid
    return 0


def _load(bytes state not None, dtype=None, cls=None):
    """Load the array of a handle; pickles of shared arrays call this function.

    Parameters
    ----------
    state : bytes
        The handle.
    dtype : numpy.dtype, optional
        The dtype, if the handle has none.
    cls : type, optional
        A subclass of SharedArray.

    Returns
    -------
    SharedArray
        The same memory, not a copy of it.

    Raises
    ------
    StaleHandleError
        The memory was freed, or belongs to another host or user.
    ValueError
        The handle is truncated, altered, or invalid.
    OSError
        The kernel refused the memory: PermissionError if it belongs to another user, ENOMEM if there is no
        address space for it.
    """
    return load(state, dtype, cls)


def _drop(bytes state not None):
    """Consume the lease of a handle, so that its message does not keep the memory any longer.

    Raises
    ------
    StaleHandleError, ValueError, OSError
        As `_load`, but the dtype is not checked.
    """
    cdef handle h = decode(bytes_in(<byte*>PyBytes_AS_STRING(state), PyBytes_GET_SIZE(state)))
    cdef allocation block
    take_block(&h, &block)
    release(block.ref)


def _load_kept(bytes state not None, keeper, dtype=None, cls=None):
    """The same for one of several views of a block in a pickle.

    Parameters
    ----------
    keeper : SharedArray
        Over the same block, which it keeps during the call; see `Keeper`.
    """
    return load(state, dtype, cls)


def _load_exact(bytes state not None, dtype=None):
    """The same for an array that was an exact ndarray, not a SharedArray: an ndarray over the memory.

    Returns
    -------
    numpy.ndarray
        Its base is a SharedArray, which keeps the memory.
    """
    return as_exact(load(state, dtype, None))


def _load_exact_kept(bytes state not None, keeper, dtype=None):
    """The counterpart of `_load_kept` for exact ndarrays."""
    return as_exact(load(state, dtype, None))


cdef inline object as_exact(object shared):
    return PyArray_View(shared, NULL, &PyArray_Type)


cdef inline object load(bytes state, object dtype, object cls):
    cdef handle h = decode(bytes_in(<byte*>PyBytes_AS_STRING(state), PyBytes_GET_SIZE(state)))
    cdef cnp.dtype descr = find_dtype(&h, dtype)
    cdef PyTypeObject* type_ = NULL
    cdef allocation block
    cdef cnp.npy_intp shape[64]
    cdef cnp.npy_intp strides[64]
    cdef int flags = cnp.NPY_ARRAY_ALIGNED
    cdef char* data
    cdef int i
    if cls is not None:
        if not (isinstance(cls, type) and issubclass(cls, SharedArray)):
            raise ValueError("handle: its class is not a subclass of SharedArray")
        type_ = <PyTypeObject*>cls
    for i in range(h.shape.ndim):
        shape[i] = h.shape.shape[i]
        strides[i] = h.shape.strides[i]
    if h.shape.writable:
        flags |= cnp.NPY_ARRAY_WRITEABLE
    try:
        take_block(&h, &block)
    except StaleHandleError as error:
        hint = looks_saved if h.what.lease == no_lease else was_a_message
        raise StaleHandleError(f"{error}. {hint}") from None
    if not fits(h.shape, block.bytes):
        release(block.ref)
        raise ValueError("handle: its array does not lie within its block")
    data = <char*>block.data
    if h.shape.read_only_mapping:
        try:
            data = <char*>block.ref.home.read_only(data)
        except BaseException:
            release(block.ref)
            raise
    return adopt(&block, type_, descr, h.shape.ndim, shape, strides, data + h.shape.offset, flags, None)


# Pickles name these functions as members of `sharedmem.array`, and so they are found there.
for function in (_load, _load_kept, _load_exact, _load_exact_kept):
    function.__module__ = "sharedmem.array"
    setattr(sys.modules["sharedmem.array"], function.__name__, function)
del function
