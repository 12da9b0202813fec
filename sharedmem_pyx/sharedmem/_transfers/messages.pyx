"""Messages of transfers that deliver once: creating their bytes, and the entries of their picklers.

A transfer creates its pickler as usual. Before the pickler writes, `hook` puts the entries for arrays into
the dispatch table of this one pickler, which is a copy. So the classes of picklers do not change, objects
that are not arrays cost nothing, and a program that creates a pickler of such a class itself gets the
unchanged class.

For modules of this package that send messages themselves::

    r = reducing.reducer(protocol, min_bytes=1, zero_copy_from=0)    # all data goes through the arena
    data = messages.dumps(obj, protocol, r)                          # a memoryview, as ForkingPickler.dumps
    r.carried     # bytes of data that went through the arena
    r.refused     # the first reason why some of it is in `data`: a MemoryError with the numbers, or None

``pickle.loads`` reads `data`. Each lease in it is consumed by the first load, and keeps its block until then,
or until `sharedmem.revoke`. By default the settings of `sharedmem.transport` apply.
"""

import copyreg
import functools
import pickle
from io import BytesIO
from multiprocessing.reduction import ForkingPickler

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContextVar_Reset, PyContextVar_Set, get_value
from libc.string cimport memcmp, memcpy
from libcpp.vector cimport vector

from sharedmem._handles cimport dtype_text
from sharedmem._messages cimport Message, end_message, end_message_into, leases_of, new_message
from sharedmem._transfers.reducing cimport Reducer, count_message, goes_by_value, new_reducer, reduce_exact
from sharedmem.libsharedmem.arena cimport arena, claim
from sharedmem.libsharedmem.handle cimport byte

from numpy import ndarray

from sharedmem._handles import _load, _load_exact
from sharedmem._messages import by_value, current_message
from sharedmem._transfers.blocks import _copy_out
from sharedmem.array import SharedArray


cdef extern from "<sharedmem_pyx/plain_pickle.hpp>" namespace "sharedmem_pyx::plain":
    bint is_plain(object) noexcept


cdef enum:
    longest_short_bytes = 255   # bytes that the opcode SHORT_BINBYTES can hold
    first_unknown_type = 24     # NumPy's type numbers from here on are not built in


cnp.import_array()

cdef int default_protocol = pickle.DEFAULT_PROTOCOL
cdef object pickle_dumps = pickle.dumps

# Entries for other types, added by integrations of other libraries: (type, function that makes the entry for
# a reducer).
cdef list other_kinds = []
# For picklers that have their own entry for ndarrays: (that entry or its type, function that makes the entry
# to use from a reducer and that entry).
cdef list others_entries = []


# -- the entries of a pickler

def add_kind(kind, entry):
    """Have every message reduce objects of exactly this type by the function ``entry(reducer)``."""
    other_kinds.append((kind, entry))


def add_wrapper(theirs, wrap):
    """Use ``wrap(reducer, entry)`` where a pickler has `theirs`, or an instance of it, for ndarrays."""
    others_entries.append((theirs, wrap))


def number_of(protocol):
    """The protocol's number, as `pickle.Pickler` understands its argument."""
    if protocol is None:
        return pickle.DEFAULT_PROTOCOL
    return pickle.HIGHEST_PROTOCOL if protocol < 0 else protocol


cdef object wrapper_of(object entry):
    for theirs, wrap in others_entries:
        if entry is theirs or type(entry) is theirs:
            return wrap
    return None


def hook(pickler, Reducer reducer not None):
    """Put the entries for arrays into the dispatch table of a pickler that is about to be used.

    Entries that exist already stay, unless an integration wraps them. Within `sharedmem.pickle_by_value`
    nothing is done.
    """
    if get_value(by_value):
        return
    table = getattr(pickler, "dispatch_table", None)
    if table is None:
        return
    if type(table) is not dict:
        table = pickler.dispatch_table = dict(table)
    entry = table.get(ndarray)
    if entry is None:
        table[ndarray] = reducer
    else:
        wrap = wrapper_of(entry)
        if wrap is not None:
            table[ndarray] = wrap(reducer, entry)
    if reducer.min_bytes != 0 and SharedArray not in table:
        table[SharedArray] = reducer    # for those in private memory, as `a.copy()` makes them
    for kind, make in other_kinds:
        if kind not in table:
            table[kind] = make(reducer)


# -- messages

def dumps(obj, protocol=None, Reducer reducer=None, pickler=ForkingPickler):
    """The bytes of a message; see the docstring of this module.

    Parameters
    ----------
    obj : object
        What is sent.
    protocol : int, optional
        As for `pickle.dumps`.
    reducer : Reducer, optional
        By default one with the settings of `sharedmem.transport`.
    pickler : type, optional
        Called with a file and the protocol; it has a dispatch table of its own.

    Returns
    -------
    memoryview
        Of bytes.

    Raises
    ------
    Exception
        What pickling the object raises; the leases that were taken are given back.
    """
    buffer = BytesIO()
    made = pickler(buffer, protocol)
    write(made, obj, new_reducer(number_in(made, protocol)) if reducer is None else reducer)
    return buffer.getbuffer()


cdef int number_in(object pickler, object protocol) except -1:
    """The protocol of a pickler that was made with that argument. Some picklers have their own default."""
    if protocol is None and type(pickler) is ForkingPickler:
        return default_protocol
    known = getattr(pickler, "proto", None)
    return number_of(protocol) if known is None else known


cdef int write(object pickler, object obj, Reducer reducer) except -1:
    hook(pickler, reducer)
    pickler.dump(obj)
    count_message(reducer)
    return 0


def write_message(pickler, obj, protocol):
    """Write a message by a pickler whose `dump` keeps its arrays alive (`sharedmem._messages.holding`)."""
    write(pickler, obj, new_reducer(number_in(pickler, protocol)))


# Opcodes of pickle's protocol 4 (PEP 3154): PROTO, SHORT_BINUNICODE twice, STACK_GLOBAL, SHORT_BINBYTES.
cdef bytes loading_named(str module, str name):
    return b"\x80\x04\x8c%c%b\x8c%c%b\x93C" % (len(module), module.encode(), len(name), name.encode())


cdef dict loading = {
    name: loading_named(module, name) for module, name in (
        ("sharedmem.array", "_load"), ("sharedmem.array", "_load_exact"), ("sharedmem.array", "_copy_out"),
        ("sharedmem._file_handles", "load_mapped"))}
# What loads the state of such a message, by its beginning.
cdef list loaders = [(loading[function.__name__], function) for function in (_load, _load_exact, _copy_out)]
cdef bytes loading_ends = b"\x85R."     # TUPLE1, REDUCE, STOP


cdef bint fits_in_a_handle(cnp.ndarray a) except -1:
    """Whether a handle can contain the dtype.

    This is checked before the data is copied; otherwise the pickler that is used then would copy it again.
    The handle of a copy is never too long: its sizes and the name of its dtype have at most 140 bytes.
    """
    cdef cnp.dtype descr = a.descr
    if descr.type_num == cnp.NPY_VOID or descr.type_num >= first_unknown_type:
        return dtype_text(descr) is not None
    return cnp.PyArray_DescrFromType(descr.type_num) is descr or descr.metadata is None


cdef bytes write_alone(object a, Reducer reducer, Message within):
    """The pickle, in protocol 4, of an array that is a message by itself; None: a pickler is needed."""
    if not fits_in_a_handle(a):
        return None
    reduced = reduce_exact(reducer, a, leases_of(within), False)
    if reduced is None or len(<tuple>reduced) != 2 or len(<tuple>reduced[1]) != 1:
        return None
    prefix = loading.get(reduced[0].__name__)
    state = <bytes>reduced[1][0]
    if prefix is None or type(state) is not bytes or PyBytes_GET_SIZE(state) > longest_short_bytes:
        return None
    return alone(prefix, state)


cdef bytes alone(bytes prefix, bytes state):
    cdef size_t before = PyBytes_GET_SIZE(prefix)
    cdef size_t size = PyBytes_GET_SIZE(state)
    cdef size_t after = PyBytes_GET_SIZE(loading_ends)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, before + 1 + size + after)
    cdef char* to = PyBytes_AS_STRING(made)
    memcpy(to, PyBytes_AS_STRING(prefix), before)
    to[before] = <char>size
    memcpy(to + before + 1, PyBytes_AS_STRING(state), size)
    memcpy(to + before + 1 + size, PyBytes_AS_STRING(loading_ends), after)
    return made


cdef object load_alone(const byte* pickled, size_t length):
    cdef size_t around = 1 + PyBytes_GET_SIZE(loading_ends)
    cdef const char* at = <const char*>pickled
    cdef size_t before
    cdef bytes prefix
    for prefix, load in loaders:
        before = PyBytes_GET_SIZE(prefix)
        if length > before + around and memcmp(at, PyBytes_AS_STRING(prefix), before) == 0:
            return load(PyBytes_FromStringAndSize(at + before + 1, length - before - around))
    return None


cdef object dumps_alone(object a):
    """The message of an array, written without a pickler; None: a pickler is needed."""
    cdef Message within
    cdef Reducer reducer
    cdef object written = None
    if get_value(by_value):
        return None
    reducer = new_reducer(pickle.DEFAULT_PROTOCOL)
    within = new_message()
    try:
        pickled = write_alone(a, reducer, within)
        if pickled is None:
            return None
        written = memoryview(pickled)
    finally:
        end_message(within, written is not None)
    count_message(reducer)
    return written


def transferring(pickler, dump):
    """A version of the class method `pickler.dumps` for messages with arrays in them.

    An array that is sent alone, and is completely described by its handle, needs no pickler.

    Parameters
    ----------
    pickler : type
        A class such as `multiprocessing.reduction.ForkingPickler`.
    dump : callable
        Its original method `dump`, which does not keep arrays alive. Subclasses use their own method.
    """
    plain = pickler.dumps.__func__
    elsewhere = copyreg.dispatch_table
    # Whether it differs from pickle's own pickler only in its entries, none of which is used for plain
    # objects.
    cdef bint has_entries_only = pickler.__bases__ == (pickle.Pickler,) and (
        "persistent_id" not in vars(pickler) and "reducer_override" not in vars(pickler))

    def dumps(cls, obj, protocol=None, *args, **keywords):
        cdef Message within
        cdef Reducer reducer
        cdef bint complete = False
        kind = type(obj)
        if cls is pickler and not args and not keywords:
            if kind is ndarray or kind is SharedArray:
                if protocol is None and kind not in cls._extra_reducers and kind not in elsewhere:
                    if has_entries_only and kind is ndarray and goes_by_value(obj):
                        return memoryview(pickle_dumps(obj))
                    pickled = dumps_alone(obj)
                    if pickled is not None:
                        return pickled
            elif has_entries_only and is_plain(obj) and cls.dump is held:
                return memoryview(pickle_dumps(obj, protocol))
        buffer = BytesIO()
        made = cls(buffer, protocol, *args, **keywords) if args or keywords else cls(buffer, protocol)
        reducer = new_reducer(number_in(made, protocol))
        if cls is not pickler or cls.dump is not held:
            write(made, obj, reducer)
            return buffer.getbuffer()
        # The same as `write`, with `sharedmem._messages.holding` written out, because most messages are small
        # and calls take a large part of their time.
        hook(made, reducer)
        within = new_message()
        before = PyContextVar_Set(current_message, within)
        try:
            dump(made, obj)
            pickled = buffer.getbuffer()
            complete = True
        finally:
            try:
                PyContextVar_Reset(current_message, before)
            except BaseException:
                complete = False    # the message is not sent
                raise
            finally:
                end_message(within, complete)
        count_message(reducer)
        return pickled

    held = pickler.dump
    return classmethod(functools.wraps(plain)(dumps))


# -- messages of queues in shared memory

cdef bytes pickle_for_queue(object obj, arena* where, vector[claim]* kept):
    cdef Message within
    cdef Reducer reducer
    cdef bytes pickled = None
    if is_plain(obj):
        return pickle_dumps(obj, queue_protocol)
    kind = type(obj)
    if (kind is ndarray or kind is SharedArray) and not get_value(by_value) and (
            kind not in forking_reducers and kind not in global_reducers):
        pickled = alone_for_queue(obj, where, kept)
        if pickled is not None:
            return pickled
    reducer = new_reducer(queue_protocol)
    within = new_message()
    before = PyContextVar_Set(current_message, within)
    try:
        buffer = BytesIO()
        made = ForkingPickler(buffer, queue_protocol)
        hook(made, reducer)
        pickle_plainly(made, obj)
        pickled = buffer.getvalue()
        end_message_into(within, where, kept)
    finally:
        end_message(within, False)
        PyContextVar_Reset(current_message, before)
    count_message(reducer)
    return pickled


cdef bytes alone_for_queue(object a, arena* where, vector[claim]* kept):
    """The same for an array, without a pickler; None: let one do it."""
    cdef Reducer reducer = new_reducer(queue_protocol)
    cdef Message within = new_message()
    cdef bytes pickled
    try:
        pickled = write_alone(a, reducer, within)
        if pickled is None:
            return None
        end_message_into(within, where, kept)
    finally:
        end_message(within, False)
    count_message(reducer)
    return pickled


cdef int queue_protocol = 5
cdef dict forking_reducers = ForkingPickler._extra_reducers
cdef dict global_reducers = copyreg.dispatch_table
# Unlike `dump` of `ForkingPickler`, this does not begin a message: see `sharedmem._messages.holding`.
cdef object pickle_plainly = pickle.Pickler.dump
