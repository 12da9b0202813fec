"""The arrays to which names refer, and their descriptions for processes that look names up."""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libcpp.string_view cimport string_view

from sharedmem._handles cimport dtype_text, encode_array, find_dtype
from sharedmem.array cimport adopt
from sharedmem.libsharedmem.arena cimport allocation, arena, claim
from sharedmem.libsharedmem.handle cimport byte, bytes_in, decode, fits, handle
from sharedmem.libsharedmem.home cimport release
from sharedmem.libsharedmem.names cimport bind_name, max_description_bytes, name_found, name_ticket

from sharedmem._naming import describe_dtype, parse_dtype
from sharedmem._read_only import readonly as protect
from sharedmem.errors import refuse_objects


cdef extern from "<numpy/arrayobject.h>":
    bint PyDataType_REFCHK(cnp.dtype)


cnp.import_array()


# -- descriptions: two bytes of length, a handle, and what a .npy header says of the dtype if the handle
#    does not

cdef object describe(cnp.ndarray a, const allocation* found):
    cdef cnp.dtype descr = a.descr
    cdef claim c
    text = dtype_text(descr)
    c = found.ref.home.share(found.ref, False)
    state = encode_array(a, found, descr, text, c)
    return len(state).to_bytes(2, "little") + state + (b"" if text is not None else describe_dtype(descr))


cdef int check_dtype(cnp.dtype descr) except -1:
    """Check that the dtype can be described, before the name is claimed."""
    if PyDataType_REFCHK(descr):
        refuse_objects(descr)
    if cnp.PyDataType_ELSIZE(descr) == 0:
        raise ValueError(f"items of dtype {descr} have no bytes and cannot have a name")
    if dtype_text(descr) is None:
        text = describe_dtype(descr)
        room = max_description_bytes - 256      # what a handle of a few axes takes
        if len(text) > room:
            raise ValueError(f"the description of the dtype has {len(text)} bytes; at most {room} can be "
                             "stored with a name: it has too many fields")
    return 0


cdef cnp.dtype read_description(bytes text, handle* h):
    """The handle, whose dtype text lives as long as `text`, and the dtype."""
    cdef size_t size = PyBytes_GET_SIZE(text)
    cdef const char* data = PyBytes_AS_STRING(text)
    cdef size_t length
    if size < 2:
        raise ValueError("the description of a named array is invalid")
    length = <unsigned char>data[0] | <size_t>(<unsigned char>data[1]) << 8
    if length > size - 2:
        raise ValueError("the description of a named array is invalid")
    h[0] = decode(bytes_in(<byte*>data + 2, length))
    return find_dtype(h, None if length == size - 2 else parse_dtype(text[2 + length:]))


cdef bytes text_of(const name_found* found):
    return PyBytes_FromStringAndSize(found.text.data(), found.text.size())


cdef tuple shape_of(const handle* h):
    return tuple([h.shape.shape[i] for i in range(h.shape.ndim)])


# -- arrays

cdef object array_of(name_found* found, bint may_write):
    """The array of a name that is ready; takes the block's reference over."""
    return array_over(&found.block, text_of(found), may_write)


cdef object array_over(allocation* block, bytes text, bint may_write):
    """The array of that description; takes the block's reference over."""
    cdef handle h
    cdef cnp.dtype descr
    cdef cnp.npy_intp shape[64]
    cdef cnp.npy_intp strides[64]
    cdef int i
    try:
        descr = read_description(text, &h)
        if not fits(h.shape, block.bytes):
            raise ValueError("the description of a named array is invalid: "
                             "it does not lie within its block")
    except BaseException:
        release(block.ref)
        raise
    for i in range(h.shape.ndim):
        shape[i] = h.shape.shape[i]
        strides[i] = h.shape.strides[i]
    a = adopt(block, NULL, descr, h.shape.ndim, shape, strides, <char*>block.data + h.shape.offset,
              cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE, None)
    return a if may_write else protect(a)


cdef object bind(const name_ticket* mine, arena* host, cnp.ndarray a, bint may_write):
    """Bind the name to an array of its arena, `host`, and return the array as others will get it."""
    cdef allocation found = host.find(cnp.PyArray_DATA(a))
    cdef bytes text = describe(a, &found)
    if len(text) > max_description_bytes:
        raise ValueError(f"the description of the array has {len(text)} bytes; at most "
                         f"{max_description_bytes} can be stored with a name")
    found.ref = found.ref.home.duplicate(found.ref)
    made = array_over(&found, text, may_write)
    bind_name(mine[0], host.find(cnp.PyArray_DATA(a)).ref,
              string_view(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)))
    return made
