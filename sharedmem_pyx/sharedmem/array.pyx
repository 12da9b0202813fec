"""SharedArray, and the way from an array to its handle and back."""

import contextlib
import contextvars
import copyreg
import functools

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContextVar_Reset, PyContextVar_Set, get_value
from cpython.object cimport PyObject, PyTypeObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeLatin1
from libcpp.string_view cimport string_view

from sharedmem.arena cimport export_home, offer_configured
from sharedmem.libsharedmem.arena cimport allocation, arena, block_ref, claim
from sharedmem.libsharedmem.handle cimport (
    byte, bytes_in, bytes_out, decode, encode, fits, handle, max_handle_bytes, no_lease, set_python_error)
from sharedmem.libsharedmem.home cimport acquire, arena_of, home_if_any, release

from sharedmem.errors import StaleHandleError


cdef extern from "<sharedmem_pyx/shared_array.hpp>" namespace "sharedmem_pyx":
    object make_shared_array_type(object (*)(object, int))
    object adopt_block "sharedmem_pyx::adopt"(
        allocation&, PyTypeObject*, object, int, const cnp.npy_intp*, const cnp.npy_intp*, void*, int, object)


cdef extern from "<sharedmem_pyx/message.hpp>" namespace "sharedmem_pyx":
    cdef cppclass message:
        message()
        bint usable() noexcept
        claim share(const block_ref&) except +set_python_error
        bint is_first(const void*) except +set_python_error
        PyObject* keeper(const void*) noexcept
        void keep(const void*, PyObject*) noexcept
        void end(bint) noexcept


cdef extern from "<numpy/arrayobject.h>":
    bint PyDataType_REFCHK(cnp.dtype)
    bint PyDataType_HASFIELDS(cnp.dtype)


cdef enum:
    first_unknown_type = 24     # NumPy's type numbers from here on are not built in
    longest_dtype = 64          # bytes of a dtype that travels as text
    longest_short_bytes = 255   # bytes that the opcode SHORT_BINBYTES can hold


cnp.import_array()

cdef PyTypeObject* void_type = <PyTypeObject*>np.void

# Opcodes of pickle's protocol 4 (PEP 3154): PROTO, SHORT_BINUNICODE twice, STACK_GLOBAL, SHORT_BINBYTES.
cdef bytes loading = b"\x80\x04\x8c\x0fsharedmem.array\x8c\x05_load\x93C"

by_value = contextvars.ContextVar("sharedmem.pickle_by_value", default=False)
# The Message that is being pickled. A context variable, since greenlets take turns within a thread.
current_message = contextvars.ContextVar("sharedmem.message", default=None)


# -- from an array to its handle

cdef bint in_one_block(cnp.ndarray a, arena* where, allocation* found) noexcept:
    """Whether all bytes of `a` lie in one block that this process holds. pre: it has bytes."""
    cdef char* lowest = <char*>cnp.PyArray_DATA(a)
    cdef char* highest = lowest + cnp.PyArray_ITEMSIZE(a) - 1
    cdef cnp.npy_intp reach
    cdef int i
    for i in range(cnp.PyArray_NDIM(a)):
        reach = (cnp.PyArray_DIMS(a)[i] - 1) * cnp.PyArray_STRIDES(a)[i]
        if reach < 0:
            lowest += reach
        else:
            highest += reach
    found[0] = where.find(lowest)
    return found.ref.home != NULL and highest < <char*>found.data + found.bytes


cdef object dtype_text(cnp.dtype descr):
    """What names a dtype: an empty str if its character does, None if nothing but the dtype does."""
    if descr.type_num >= first_unknown_type or PyDataType_HASFIELDS(descr):
        return None
    if cnp.PyArray_DescrFromType(descr.type_num) is descr:
        return ""
    if descr.metadata is not None or descr.type_num == cnp.NPY_VOID and descr.typeobj != void_type:
        return None
    text = descr.str
    return text if len(text) <= longest_dtype else None


cdef bytes encode_array(cnp.ndarray a, const allocation* found, cnp.dtype descr, object text,
                        message* leased_by):
    cdef handle h
    cdef claim c
    cdef byte buffer[max_handle_bytes + longest_dtype]
    cdef char character = descr.type
    cdef const char* characters
    cdef Py_ssize_t size = 0
    cdef int i
    h.where = found.ref.home.where()
    h.shape.offset = <char*>cnp.PyArray_DATA(a) - <char*>found.data
    h.shape.itemsize = cnp.PyArray_ITEMSIZE(a)
    h.shape.ndim = cnp.PyArray_NDIM(a)
    h.shape.writable = cnp.PyArray_ISWRITEABLE(a)
    for i in range(h.shape.ndim):
        h.shape.shape[i] = cnp.PyArray_DIMS(a)[i]
        h.shape.strides[i] = cnp.PyArray_STRIDES(a)[i]
    if text is not None:
        characters = PyUnicode_AsUTF8AndSize(text, &size)
        h.dtype = string_view(characters, size) if size > 0 else string_view(&character, 1)
    if leased_by != NULL:
        c = leased_by.share(found.ref)
    else:
        c = found.ref.home.share(found.ref, False)
    h.block = c.block
    h.generation = c.generation
    h.lease = c.lease
    h.nonce = c.nonce
    return PyBytes_FromStringAndSize(<char*>buffer, encode(h, bytes_out(buffer, sizeof(buffer))))


@cython.final
cdef class Message:
    """What a pickler writes. Copies of its context may hold it after its end; it takes no leases then."""
    cdef message written


cdef message* leases_of(Message within) noexcept:
    """Where leases for what this thread pickles in `within` belong; NULL: it takes none."""
    return &within.written if within is not None and within.written.usable() else NULL


@cython.final
cdef class Keeper:
    """Keeps a block while a pickle of several views of it is loaded.

    The handles of these views have no leases: with each travels a reference to the keeper, which loads as
    an array of its own. Each pickler that meets the keeper takes one lease for it, whatever it pickles
    besides; this holds for a pickler that an object uses for itself in the middle of a message, too.
    """
    cdef cnp.ndarray array

    def __reduce__(self):
        cdef Message within = get_value(current_message)
        return reduce_for(self.array, 4, leases_of(within), False)


cdef object keeper_of(cnp.ndarray a, const allocation* found, message* within):
    """The keeper of a block in a message; None for its first view, which has a lease of its own."""
    cdef Keeper made
    if within.is_first(found.data):
        return None
    if within.keeper(found.data) == NULL:
        made = Keeper.__new__(Keeper)
        made.array = a.view(SharedArray)
        within.keep(found.data, <PyObject*>made)
    return <object>within.keeper(found.data)


cdef object reduce_array(object obj, int protocol):
    """What `__reduce_ex__` returns for a SharedArray."""
    cdef Message within = get_value(current_message)
    return reduce_for(obj, protocol, leases_of(within), True)


cdef object reduce_for(cnp.ndarray a, int protocol, message* leased_by, bint among_others):
    """What a pickle has for an array; `among_others`: there may be more of the same block.

    `leased_by` NULL: the handle has no lease.
    """
    cdef cnp.dtype descr
    cdef arena* where = NULL
    cdef allocation found
    if cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_ITEMSIZE(a) > 0:
        where = arena_of(cnp.PyArray_DATA(a))
    if where == NULL or get_value(by_value) or not in_one_block(a, where, &found):
        if type(a) is SharedArray:
            return np.asarray(a).__reduce_ex__(protocol)
        return np.ndarray.__reduce__(a)
    descr = a.descr
    text = dtype_text(descr)
    keeper = keeper_of(a, &found, leased_by) if among_others and leased_by != NULL else None
    state = encode_array(a, &found, descr, text, leased_by if keeper is None else NULL)
    given = None if text is not None else descr
    if type(a) is not SharedArray:
        # The empty state is one that a subclass may extend, as it may ndarray's.
        if keeper is not None:
            return _load_kept, (state, keeper, given, type(a)), ()
        return _load, (state, given, type(a)), ()
    if keeper is not None:
        return _load_kept, (state, keeper) if given is None else (state, keeper, given)
    return _load, (state,) if given is None else (state, given)


# -- from a handle to its array

cdef str looks_saved = (
    "The pickle looks saved, or sent by other means than multiprocessing, which would have kept the memory. "
    "To save the data use pickle.dump into a file, or any pickler within sharedmem.pickle_by_value()")


cdef cnp.dtype find_dtype(const handle* h, object given):
    """The dtype of a handle, checked: it must not read pointers or other bytes than the handle has."""
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
        raise ValueError("handle: its dtype makes no sense, or has Python objects in it")
    if cnp.PyDataType_ELSIZE(descr) == 0 or cnp.PyDataType_ELSIZE(descr) != h.shape.itemsize:
        raise ValueError(f"handle: items of {h.shape.itemsize} bytes are not of dtype {descr}")
    return descr


cdef int take_block(const handle* h, allocation* block) except -1:
    """Takes a reference to the block that the handle names, and consumes its lease."""
    cdef arena* home = home_if_any()
    cdef claim c
    c.block = h.block
    c.generation = h.generation
    c.lease = h.lease
    c.nonce = h.nonce
    if home == NULL:
        offer_configured()
    elif home.where().uuid[0] == h.where.uuid[0] and home.where().uuid[1] == h.where.uuid[1]:
        block[0] = home.acquire(c)
        return 0
    try:
        with nogil:
            block[0] = acquire(h.where, c)
    finally:
        if home == NULL:
            export_home()       # it may have been decided although the handle is of no use
    return 0


def _load(bytes state not None, dtype=None, cls=None):
    """The array that a handle means; what pickles of shared arrays call.

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
        The memory has gone, or belongs to another host or user.
    ValueError
        The handle is truncated, altered, or makes no sense.
    OSError
        The kernel refuses the memory: PermissionError if it is another user's, ENOMEM if there is no
        address space for it.
    """
    return load(state, dtype, cls)


def _drop(bytes state not None):
    """Consumes the lease of a handle, so that its message keeps the memory no longer.

    Raises
    ------
    StaleHandleError, ValueError, OSError
        As `_load`, but nothing is said about the dtype.
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


cdef inline object load(bytes state, object dtype, object cls):
    cdef handle h = decode(bytes_in(<byte*>PyBytes_AS_STRING(state), PyBytes_GET_SIZE(state)))
    cdef cnp.dtype descr = find_dtype(&h, dtype)
    cdef PyTypeObject* type_ = NULL
    cdef allocation block
    cdef cnp.npy_intp shape[64]
    cdef cnp.npy_intp strides[64]
    cdef int flags = cnp.NPY_ARRAY_ALIGNED
    cdef int i
    if cls is not None:
        if not (isinstance(cls, type) and issubclass(cls, SharedArray)):
            raise ValueError("handle: its class is no subclass of SharedArray")
        type_ = <PyTypeObject*>cls
    for i in range(h.shape.ndim):
        shape[i] = h.shape.shape[i]
        strides[i] = h.shape.strides[i]
    if h.shape.writable:
        flags |= cnp.NPY_ARRAY_WRITEABLE
    try:
        take_block(&h, &block)
    except StaleHandleError as error:
        if h.lease != no_lease:
            raise       # a message, which kept its memory as long as it could
        raise StaleHandleError(f"{error}. {looks_saved}") from None
    if not fits(h.shape, block.bytes):
        release(block.ref)
        raise ValueError("handle: its array does not lie within its block")
    return adopt_block(block, type_, descr, h.shape.ndim, shape, strides, <char*>block.data + h.shape.offset,
                       flags, None)


def holding(dump):
    """A version of a pickler's `dump` whose messages hold the arrays in them until they are loaded.

    If `dump` fails, what the message held is given back.
    """
    @functools.wraps(dump)
    def dump_holding(*args, **kwargs):
        cdef Message within = Message.__new__(Message)
        cdef bint complete = False
        before = PyContextVar_Set(current_message, within)
        try:
            result = dump(*args, **kwargs)
            complete = True
        finally:
            within.written.end(complete)
            PyContextVar_Reset(current_message, before)
        return result
    return dump_holding


cdef object pickle_alone(object obj):
    """The pickle of a SharedArray as a message of its own, or None: let a pickler do it.

    It says what a pickler would write, in protocol 4, but for what only messages of several objects need.
    """
    cdef message m
    reduced = reduce_for(obj, 4, &m, False)
    if reduced[0] is not _load or len(reduced[1]) != 1:
        return None
    state = <bytes>reduced[1][0]
    if PyBytes_GET_SIZE(state) > longest_short_bytes:
        return None
    pickled = b"%b%c%b\x85R." % (loading, PyBytes_GET_SIZE(state), state)
    m.end(True)
    return pickled


def dumping_alone(pickler):
    """A version of the class method `pickler.dumps` that needs no pickler for a shared array sent alone."""
    plain = pickler.dumps.__func__
    elsewhere = copyreg.dispatch_table

    def dumps(cls, obj, protocol=None):
        if (type(obj) is SharedArray and cls is pickler and protocol is None
                and SharedArray not in cls._extra_reducers and SharedArray not in elsewhere):
            pickled = pickle_alone(obj)
            if pickled is not None:
                return memoryview(pickled)
        return plain(cls, obj, protocol)
    return classmethod(functools.wraps(plain)(dumps))


# -- the class

SharedArray = make_shared_array_type(reduce_array)


cdef object adopt(allocation* block, PyTypeObject* cls, cnp.dtype descr, int ndim, const cnp.npy_intp* shape,
                  const cnp.npy_intp* strides, void* data, int flags, object prototype):
    return adopt_block(block[0], cls, descr, ndim, shape, strides, data, flags, prototype)


cdef bint in_arena(object a) noexcept:
    return cnp.PyArray_Check(a) and arena_of(cnp.PyArray_DATA(a)) != NULL


def is_shared(a, /):
    """Whether an array lies in shared memory.

    Parameters
    ----------
    a : object
        Usually an ndarray.

    Returns
    -------
    bool
        True for a shared array, any view of one and any other ndarray whose data lies in an arena;
        False for everything else, a copy of a shared array for instance.

    Notes
    -----
    The address of the first element decides, not the class. It neither raises nor waits, and any thread
    may call it.
    """
    return in_arena(a)


def __getattr__(name):
    """The names that the array module of the package of 2009 had."""
    if name.startswith("shared_"):
        from sharedmem import _legacy
        if name in _legacy.__all__:
            return getattr(_legacy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
