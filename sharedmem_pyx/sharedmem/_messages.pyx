"""How shared arrays are pickled, and the messages whose leases keep them until they are loaded."""

import contextvars
import copyreg
import functools
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.contextvars cimport PyContextVar_Reset, PyContextVar_Set, get_value
from cpython.object cimport PyObject
from libcpp.vector cimport vector

from sharedmem._handles cimport dtype_text, encode_array, in_one_block
from sharedmem.array cimport pickle_with
from sharedmem.libsharedmem.arena cimport allocation, arena, block_ref, claim
from sharedmem.libsharedmem.handle cimport set_python_error
from sharedmem.libsharedmem.home cimport arena_of

from sharedmem._handles import _load, _load_kept
from sharedmem.array import SharedArray


cdef extern from "<sharedmem_pyx/message.hpp>" namespace "sharedmem_pyx":
    cdef cppclass uuid "sharedmem_pyx::message::uuid":
        pass

    cdef cppclass message:
        message()
        bint usable() noexcept
        claim share(const block_ref&) except +set_python_error
        bint is_first(const void*) except +set_python_error
        PyObject* keeper(const void*) noexcept
        void keep(const void*, PyObject*) noexcept
        void end(bint) noexcept
        void end_into(const uuid&, vector[claim]&) except +set_python_error


cdef enum:
    longest_short_bytes = 255   # bytes that the opcode SHORT_BINBYTES can hold


cnp.import_array()

# Opcodes of pickle's protocol 4 (PEP 3154): PROTO, SHORT_BINUNICODE twice, STACK_GLOBAL, SHORT_BINBYTES.
cdef bytes loading = b"\x80\x04\x8c\x0fsharedmem.array\x8c\x05_load\x93C"

by_value = contextvars.ContextVar("sharedmem.pickle_by_value", default=False)
# The Message that is being pickled. A context variable, since greenlets take turns within a thread.
current_message = contextvars.ContextVar("sharedmem.message", default=None)


# -- what an array is pickled as

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
    cdef claim c
    if cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_ITEMSIZE(a) > 0:
        where = arena_of(cnp.PyArray_DATA(a))
    if where == NULL or get_value(by_value) or not in_one_block(a, where, &found):
        if type(a) is SharedArray:
            return np.asarray(a).__reduce_ex__(protocol)
        return np.ndarray.__reduce__(a)
    descr = a.descr
    text = dtype_text(descr)
    keeper = keeper_of(a, &found, leased_by) if among_others and leased_by != NULL else None
    if keeper is None and leased_by != NULL:
        c = leased_by.share(found.ref)
    else:
        c = found.ref.home.share(found.ref, False)
    state = encode_array(a, &found, descr, text, c)
    given = None if text is not None else descr
    if type(a) is not SharedArray:
        # The empty state is one that a subclass may extend, as it may ndarray's.
        if keeper is not None:
            return _load_kept, (state, keeper, given, type(a)), ()
        return _load, (state, given, type(a)), ()
    if keeper is not None:
        return _load_kept, (state, keeper) if given is None else (state, keeper, given)
    return _load, (state,) if given is None else (state, given)


# -- what a transfer pickles

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
    """The pickle of a SharedArray as a message of its own, or None: let a pickler do it."""
    cdef message m
    pickled = write_alone(obj, &m)
    if pickled is not None:
        m.end(True)
    return pickled


cdef object write_alone(object obj, message* m):
    """What a pickler writes in protocol 4, but for what only messages of several objects need; or None."""
    reduced = reduce_for(obj, 4, m, False)
    if reduced[0] is not _load or len(reduced[1]) != 1:
        return None
    state = <bytes>reduced[1][0]
    if PyBytes_GET_SIZE(state) > longest_short_bytes:
        return None
    return b"%b%c%b\x85R." % (loading, PyBytes_GET_SIZE(state), state)


# -- what a queue pickles

cdef bint is_plain(object obj) noexcept:
    """Whether no pickler of any kind treats the object in a way of its own."""
    return obj is None or type(obj) in (int, float, bool, str, bytes)


cdef bint is_plain_or_tuple(object obj) noexcept:
    if type(obj) is not tuple:
        return is_plain(obj)
    if len(<tuple>obj) > 16:
        return False
    for each in <tuple>obj:
        if not is_plain(each):
            return False
    return True


cdef bytes pickle_for_queue(object obj, arena* where, vector[claim]* kept):
    cdef Message within
    if is_plain_or_tuple(obj):
        return plain_dumps(obj, 5)
    within = Message.__new__(Message)
    before = PyContextVar_Set(current_message, within)
    try:
        pickled = None
        if type(obj) is SharedArray and may_write_alone(ForkingPickler):
            pickled = write_alone(obj, &within.written)
        if pickled is None:
            within.written.end(False)
            within = Message.__new__(Message)
            PyContextVar_Set(current_message, within)
            stream = io.BytesIO()
            plain_dump(ForkingPickler(stream, 5), obj)
            pickled = stream.getvalue()
        within.written.end_into((<const uuid*>&where.where().uuid)[0], kept[0])
    finally:
        within.written.end(False)
        PyContextVar_Reset(current_message, before)
    return pickled


# `dump` of `ForkingPickler` begins a message of its own: see `holding`.
cdef object plain_dump = pickle.Pickler.dump
cdef object plain_dumps = pickle.dumps


cdef bint may_write_alone(object pickler):
    return SharedArray not in pickler._extra_reducers and SharedArray not in copyreg.dispatch_table


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


pickle_with(reduce_array)
