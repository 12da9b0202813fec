"""Parcels: buffers on their way to one reader, which their sender can call back.

The layer below the integrations of engines that have connections of their own. An engine pickles as usual, by
protocol 5, and leaves large buffers out of its pickles. Before an integration writes those buffers to a
connection, it makes a parcel of them: a handle of some hundred bytes replaces each buffer that lies in shared
memory, and each large one that does not. The latter are *carried*: copied once, into a block of their own.

Who may write into the memory that arrives depends on whose it was before:

* Memory that a program has allocated by this library is shared, and all processes that have it may write to
  it.
* Carried data was private memory before, and when it arrives it belongs to its one reader, writable, as if it
  had come through a socket. `arena::mark_carried` notes this for the block, in the reader's process. When the
  data is pickled there, whatever object contains it, it is copied again, so that no third process shares it.
  The note is not in shared memory, since only one process has the block. It belongs to the block and not to
  an array, since torch, Arrow or DLPack pass on nothing but an address.
* Carried data that is read-only needs no note: no process can write to it, since the sender has only a lease
  on the block. It may be passed on by handle to any number of readers.

`sharedmem.transport` also carries, but its receivers copy the data out, so it needs no note. With
``copy=False`` there is no note either: the program has agreed that what arrives may be shared from there on.
Programs that use an engine have not, and get the same as with the bytes that the engine itself would send.
"""

import os

import numpy as np

cimport cython
cimport numpy as cnp
from libc.stdint cimport uint64_t

from sharedmem._messages cimport Message, end_message, is_in_flight, leases_of, new_message
from sharedmem.array cimport is_carried as lies_in_carried
from sharedmem._transfers.reducing cimport Reducer, reduce_exact, share_of_all_memory
from sharedmem.libsharedmem.arena cimport allocation, arena
from sharedmem.libsharedmem.home cimport arena_of

from sharedmem._handles import _drop, _load_exact
from sharedmem._startup import import_lock
from sharedmem._transfers.reducing import reducer


cdef enum:
    default_least = 32 << 10    # bytes of a private buffer from which on it is carried

cnp.import_array()

# The first byte of a handle that travels in a parcel.
cdef bytes mark_shared = b"S"
cdef bytes mark_carried = b"C"


def least_carried():
    """Bytes of a private buffer from which on it is carried: ``SHAREDMEM_CARRY``, by default 32 KiB.

    Returns
    -------
    int or None
        None: nothing is carried; the variable is 0.

    Raises
    ------
    ValueError
        The variable is not a size.
    """
    text = os.environ.get("SHAREDMEM_CARRY", "").strip()
    if not text:
        return default_least
    with import_lock:
        from sharedmem._sizes import read_size
    nbytes = read_size(text)
    if nbytes is None:
        raise ValueError(
            f"SHAREDMEM_CARRY={text!r} is not a size: it is a number of bytes such as 32768 or 64KiB; with 0 "
            "nothing is carried")
    return nbytes or None


@cython.final
@cython.no_gc_clear     # `within` is needed at its end
cdef class Parcel:
    """Buffers on their way to one reader, which their sender can call back.

    Attributes
    ----------
    handles : list of bytes or None
        For each buffer the handle that replaces it; None: its bytes have to be sent. Each handle keeps its
        memory until `open_handle` is called for it once, in the reader's process.
    nbytes : int
        Bytes of the buffers that have handles.
    carried : int
        Bytes of those that were copied.
    refused : Exception or None
        Why the first large buffer without a handle has none, such as a MemoryError with the numbers.

    Notes
    -----
    A parcel that is dropped before it was sent is called back. One thread at a time may use it.
    """
    cdef Message within
    cdef bint is_sent
    cdef readonly list handles
    cdef readonly uint64_t nbytes
    cdef readonly uint64_t carried
    cdef readonly object refused

    def sent(self):
        """Mark the handles as sent: from now on they belong to the reader, even if the parcel is dropped."""
        self.is_sent = True

    @property
    def delivered(self):
        """Whether no handle is left to be loaded: the reader has loaded all, or they were called back."""
        return self.within is None or not is_in_flight(self.within)

    def revoke(self):
        """Call back handles that have not been loaded: they become invalid. Loaded ones are not affected.

        It can be repeated.
        """
        if self.within is not None:
            end_message(self.within, False)

    def __dealloc__(self):
        if self.within is not None and self.is_sent:
            end_message(self.within, True)
        # else the end of the message calls it back


def make_parcel(buffers, least=None):
    """A parcel of buffers.

    Parameters
    ----------
    buffers : iterable of buffer
        Each is contiguous. They are not kept.
    least : int, optional
        Private buffers of at least that many bytes are carried; None: none.

    Returns
    -------
    Parcel
        It has not been sent yet.

    Raises
    ------
    Exception
        An item is not a buffer, or not contiguous. If memory or leases are short nothing is raised; the
        handle is None.

    Notes
    -----
    The GIL is released while large buffers are copied. Carried buffers and messages of `sharedmem.transport`
    that are in flight may together take one sixteenth of the memory that this process may use; and leases
    keep at most ``SHAREDMEM_IN_FLIGHT_LIMIT`` bytes.
    """
    cdef Parcel made = Parcel.__new__(Parcel)
    cdef Reducer by = None      # made when it is needed: most messages are small
    cdef cnp.ndarray a
    cdef uint64_t nbytes, before
    cdef bytes handle
    made.handles = []
    made.within = new_message()
    for buffer in buffers:
        handle = None
        if type(buffer) is bytes and (least is None or len(<bytes>buffer) < least):
            made.handles.append(None)   # its memory is Python's
            continue
        view = memoryview(buffer)
        nbytes = view.nbytes
        if nbytes > 0:
            a = np.frombuffer(view, np.uint8)
            if is_shared_with_others(a) or least is not None and nbytes >= <uint64_t>least:
                if by is None:
                    by = reducer(5, limit=share_of_all_memory())
                before = by.carried
                try:
                    reduced = reduce_exact(by, a, leases_of(made.within), False)
                except (MemoryError, OSError, RuntimeError, ValueError) as error:
                    reduced = None      # all leases are out, or the limit of what they may keep is reached
                    if made.refused is None:
                        made.refused = error
                if reduced is not None and reduced[0] is _load_exact:
                    carried = by.carried != before
                    handle = (mark_carried if carried else mark_shared) + <bytes>reduced[1][0]
                    made.nbytes += nbytes
        made.handles.append(handle)
    if by is not None:
        made.carried = by.carried
        if made.refused is None:
            made.refused = by.refused
    return made


cdef bint is_shared_with_others(cnp.ndarray a) noexcept:
    return arena_of(cnp.PyArray_DATA(a)) != NULL and not lies_in_carried(a)


def open_handle(bytes handle not None):
    """The buffer to which a handle of a parcel refers.

    Parameters
    ----------
    handle : bytes
        One of `Parcel.handles`.

    Returns
    -------
    numpy.ndarray
        Of bytes, over the memory; writable if the buffer was. One that was carried is the caller's own.

    Raises
    ------
    StaleHandleError
        It was opened before, or called back, or its memory was freed.
    OSError, MemoryError
        The system refuses the memory, or this process has attached as many arenas as it can.
    ValueError
        It is not a handle of a parcel.
    """
    cdef cnp.ndarray a
    cdef arena* where
    cdef allocation found
    kind = handle[:1]
    if kind != mark_shared and kind != mark_carried:
        raise ValueError("not the handle of a parcel")
    a = _load_exact(handle[1:])
    if kind == mark_carried and cnp.PyArray_ISWRITEABLE(a):
        where = arena_of(cnp.PyArray_DATA(a))
        found = where.find(cnp.PyArray_DATA(a))
        where.mark_carried(found.ref)
    return a


def drop_handle(bytes handle not None):
    """Consume a handle of a parcel without opening it, and give its memory back. Raises nothing."""
    try:
        _drop(handle[1:])
    except (MemoryError, OSError, RuntimeError, ValueError):
        pass    # it is invalid already


def is_carried(cnp.ndarray a not None):
    """Whether an array lies in a block that was carried to this process, and so is not shared with others."""
    return lies_in_carried(a)
