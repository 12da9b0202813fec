"""How shared arrays are pickled, and the messages whose leases keep them until they are loaded."""

import contextvars
import functools

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.contextvars cimport PyContextVar_Reset, PyContextVar_Set, get_value
from cpython.object cimport PyObject
from libcpp.vector cimport vector

from sharedmem._handles cimport dtype_text, encode_array, in_one_block
from sharedmem.array cimport pickle_with
from sharedmem.libsharedmem.arena cimport allocation, arena, block_ref, claim
from sharedmem.libsharedmem.file_view cimport file_view
from sharedmem.libsharedmem.home cimport arena_of

from sharedmem._handles import _load, _load_exact, _load_exact_kept, _load_kept
from sharedmem._startup import import_lock
from sharedmem.array import SharedArray


cnp.import_array()

by_value = contextvars.ContextVar("sharedmem.pickle_by_value", default=False)
# The Message that is being pickled. It is a context variable, since greenlets alternate within a thread.
current_message = contextvars.ContextVar("sharedmem.message", default=None)


def no_deep_copy(self, memo):
    """Refuse `copy.deepcopy`: the method of locks, queues and other objects that are meant to be shared.

    Raises
    ------
    TypeError
        Always. The message says what to do instead.
    """
    kind = type(self).__name__
    raise TypeError(f"a {kind} cannot be copied: its users and those of the copy would not meet; "
                    f"pass on the same {kind}, as `copy.copy` and any pickle do, or create a new one")


# -- pickling an array

@cython.final
cdef class Message:
    """What a pickler writes. A copy of its context may outlive it; then no leases are acquired."""


cdef Message new_message():
    return Message.__new__(Message)


cdef claim lease_in(message* within, const block_ref& ref) except *:
    return within.share(ref)


cdef bint is_in_flight(Message within) noexcept:
    return within.written.in_flight()


cdef void end_message(Message within, bint complete) noexcept:
    within.written.end(complete)


cdef int end_message_into(Message within, arena* where, vector[claim]* taken) except -1:
    within.written.end_into((<const uuid*>&where.where().uuid)[0], taken[0])
    return 0


cdef message* current_leases() noexcept:
    return leases_of(get_value(current_message))


cdef message* leases_of(Message within) noexcept:
    """The message to which leases of arrays that this thread pickles in `within` belong; NULL: none."""
    return &within.written if within is not None and within.written.usable() else NULL


@cython.final
cdef class Keeper:
    """Keeps a block while a pickle of several views of it is loaded.

    The handles of these views have no leases. Instead each is accompanied by a reference to the keeper, which
    loads as an array of its own. Each pickler that meets the keeper acquires one lease for it, whatever else
    it pickles; this also holds for a pickler that an object uses for itself in the middle of a message.
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
    """The result of `__reduce_ex__` for a SharedArray."""
    cdef Message within = get_value(current_message)
    return reduce_for(obj, protocol, leases_of(within), True)


cdef object reduce_for(cnp.ndarray a, int protocol, message* leased_by, bint among_others):
    """The reduction of an array; `among_others`: there may be more of the same block.

    `leased_by` NULL: the handle has no lease. An exact ndarray must not contain Python objects. An array that
    was carried to this process belongs to it alone, and its data is copied.
    """
    cdef cnp.dtype descr
    cdef arena* where = NULL
    cdef allocation found
    cdef claim c
    if cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_ITEMSIZE(a) > 0:
        where = arena_of(cnp.PyArray_DATA(a))
    if where == NULL or get_value(by_value) or not in_one_block(a, where, &found) or found.carried:
        if where == NULL and file_view.holds(cnp.PyArray_DATA(a)) and not get_value(by_value):
            reduced = reduce_in_file(a)
            if reduced is not None:
                return reduced
        if type(a) is SharedArray or cnp.PyArray_CheckExact(a):
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
    if cnp.PyArray_CheckExact(a):
        if keeper is not None:
            return _load_exact_kept, (state, keeper) if given is None else (state, keeper, given)
        return _load_exact, (state,) if given is None else (state, given)
    if type(a) is not SharedArray:
        # A subclass may extend the empty state, as it may ndarray's.
        if keeper is not None:
            return _load_kept, (state, keeper, given, type(a)), ()
        return _load, (state, given, type(a)), ()
    if keeper is not None:
        return _load_kept, (state, keeper) if given is None else (state, keeper, given)
    return _load, (state,) if given is None else (state, given)


cdef object reduce_mapped = None
cdef object load_mapped = None


cdef object reduce_in_file(cnp.ndarray a):
    """The same for an array in a file, whose module is imported when it is first needed."""
    global reduce_mapped, load_mapped
    if reduce_mapped is None:
        with import_lock:
            import sharedmem._file_handles
        load_mapped = sharedmem._file_handles.load_mapped
        reduce_mapped = sharedmem._file_handles.reduce_mapped
    return reduce_mapped(a)


# -- pickling by a transfer

def holding(dump):
    """A version of a pickler's `dump` whose messages keep the arrays in them until they are loaded.

    If `dump` fails, the leases of the message are given back.
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
            try:
                PyContextVar_Reset(current_message, before)
            except BaseException:
                complete = False    # the message is not sent
                raise
            finally:
                within.written.end(complete)
        return result
    return dump_holding


pickle_with(reduce_array)
