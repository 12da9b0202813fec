"""Handles of arrays in files: which file it is, which of its bytes, and in which mode it is opened.

A handle is valid on its host only, and the same for every process that has the file under that path.
"""

import binascii
from os.path import isabs

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport Py_TYPE, PyTypeObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.string_view cimport string_view

from sharedmem._file_memory cimport FileMemory, open_again, place, place_of
from sharedmem._handles cimport dtype_text, find_dtype
from sharedmem.libsharedmem.file_view cimport file_identity
from sharedmem.libsharedmem.handle cimport fits, handle, max_ndim

from sharedmem.array import SharedArray


cnp.import_array()

cdef enum:
    version = 1
    checksum_bytes = 4

# The start of a handle. There follow the shape, the strides, the text of the dtype, the path and a CRC-32 of
# all of it; in the byte order of the machine, which it does not leave.
cdef packed struct head:
    uint8_t version
    uint8_t writable
    uint8_t ndim
    uint8_t text_bytes
    uint32_t path_bytes
    uint32_t itemsize
    file_identity identity
    uint64_t offset

cdef PyTypeObject* shared_array = <PyTypeObject*>SharedArray


def reduce_mapped(cnp.ndarray a not None):
    """Reduce a SharedArray in a file.

    Parameters
    ----------
    a : SharedArray
        With elements.

    Returns
    -------
    tuple or None
        As `__reduce_ex__` returns it; None if the array does not lie in a file as a whole.
    """
    cdef place found
    cdef head h
    cdef cnp.dtype descr = a.descr
    cdef char* at
    cdef int i
    cdef int64_t number
    cdef FileMemory memory = place_of(a, &found)
    if memory is None:
        return None
    text = dtype_text(descr)
    name = b"" if text is None else text.encode() if text else bytes([descr.type])
    path = memory.path
    h.version = version
    h.writable = cnp.PyArray_ISWRITEABLE(a)
    h.ndim = cnp.PyArray_NDIM(a)
    h.text_bytes = len(name)
    h.path_bytes = len(path)
    h.itemsize = cnp.PyArray_ITEMSIZE(a)
    h.identity = memory.view.identity()
    h.offset = found.start
    state = PyBytes_FromStringAndSize(NULL, sizeof(head) + 16 * h.ndim)
    at = PyBytes_AS_STRING(state)
    memcpy(at, &h, sizeof(head))
    at += sizeof(head)
    for i in range(2 * h.ndim):
        number = cnp.PyArray_DIMS(a)[i] if i < h.ndim else cnp.PyArray_STRIDES(a)[i - h.ndim]
        memcpy(at + 8 * i, &number, 8)
    state += name + path
    state += binascii.crc32(state).to_bytes(checksum_bytes, "little")
    if Py_TYPE(a) == shared_array:
        return load_mapped, (state,) if text is not None else (state, descr)
    # A subclass may extend the empty state, as it may ndarray's.
    return load_mapped, (state, None if text is not None else descr, type(a)), ()


def load_mapped(bytes state not None, dtype=None, cls=None):
    """Load the array of a handle; pickles of arrays in files call this function.

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
        In the same file.

    Raises
    ------
    StaleHandleError
        The file was replaced since.
    ValueError
        It was truncated; or the handle is truncated, altered, or invalid.
    OSError
        FileNotFoundError if the file no longer exists, PermissionError if this user may not open it in that
        mode, ...
    """
    cdef head h
    cdef handle whole
    cdef const char* at = PyBytes_AS_STRING(state)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(state) - checksum_bytes
    cdef cnp.dtype descr
    cdef FileMemory memory
    cdef uint64_t end
    cdef int i
    if size < <Py_ssize_t>sizeof(head):
        raise ValueError("handle: it is truncated")
    memcpy(&h, at, sizeof(head))
    if h.version != version:
        raise ValueError("handle: it was made by a version of the library that does not fit this one")
    if binascii.crc32(memoryview(state)[:size]).to_bytes(checksum_bytes, "little") != state[size:]:
        raise ValueError("handle: its checksum is wrong: it is truncated or was altered")
    if (h.writable > 1 or h.ndim > max_ndim
            or size != <Py_ssize_t>sizeof(head) + 16 * h.ndim + h.text_bytes + <Py_ssize_t>h.path_bytes):
        raise ValueError("handle: its fields are invalid")
    if cls is None:
        cls = SharedArray
    elif not (isinstance(cls, type) and issubclass(cls, SharedArray)):
        raise ValueError("handle: its class is not a subclass of SharedArray")
    at += sizeof(head)
    whole.shape.ndim = h.ndim
    whole.shape.itemsize = h.itemsize
    whole.shape.offset = h.offset
    memcpy(whole.shape.shape, at, 8 * h.ndim)
    memcpy(whole.shape.strides, at + 8 * h.ndim, 8 * h.ndim)
    at += 16 * h.ndim
    whole.dtype = string_view(at, h.text_bytes)
    at += h.text_bytes
    descr = find_dtype(&whole, dtype)
    end = h.offset + h.itemsize
    for i in range(h.ndim):
        if whole.shape.shape[i] < 1:
            raise ValueError("handle: its shape is invalid")
        if whole.shape.strides[i] > 0:
            end += (whole.shape.shape[i] - 1) * whole.shape.strides[i]
    # No sum above can have overflowed if this holds: `end` is the largest byte that it looks at.
    if not fits(whole.shape, end) or end > <uint64_t>1 << 62 or not isabs(at[:h.path_bytes]):
        raise ValueError("handle: its fields are invalid")
    memory = open_again(at[:h.path_bytes], h.writable, h.identity, end)
    shape = tuple([whole.shape.shape[i] for i in range(h.ndim)])
    strides = tuple([whole.shape.strides[i] for i in range(h.ndim)])
    return np.ndarray.__new__(cls, shape, descr, memory, h.offset, strides)
