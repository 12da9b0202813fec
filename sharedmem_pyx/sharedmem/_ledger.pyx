"""The ledger of the messages with handles that this process wrote to connections and that may be unread.

A message is identified by the handles in its bytes, so that a message that is only forwarded counts, too. The
ledger records which leases a message carries and which objects in this process still have its bytes, from
which `sharedmem._in_flight` determines the messages that are lost.
"""

import threading
from collections import deque

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from libcpp cimport bool

from sharedmem.libsharedmem.channel cimport channel
from sharedmem.libsharedmem.handle cimport byte, bytes_in, find_handle, handle, no_lease
from sharedmem.libsharedmem.home cimport note_read, note_written, stands_for

from sharedmem._startup import at_fork


cdef extern from "<sharedmem_pyx/pickled_bytes.hpp>" namespace "sharedmem_pyx" nogil:
    cdef cppclass pickled_bytes:
        pickled_bytes() noexcept
        pickled_bytes(bytes_in) noexcept
        bool one_ends_at(size_t) noexcept


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject*)


cdef enum:
    shortest = 60           # bytes; every message with a handle has more
    longest = 1 << 20       # bytes; longer messages are not searched: that would take as long as the write
    long_end = 2 << 10      # bytes at either end of a long message
    most_messages = 4096    # of one connection in the ledger; an older one is kept until it is loaded
    few_messages = 16


cdef class Bytes:
    """The object from which a message was written.

    The pickle that `send` makes is freed when that returns; bytes that are passed on may live longer.
    """

    cdef bint in_use(self):
        return Py_REFCNT(<PyObject*>self.data) > 1


cdef class Carried:
    """A lease in messages that this process wrote."""

    cdef bint in_use(self):
        cdef Bytes each
        for each in self.sources:
            if each.in_use():
                return True
        return False


cdef class Outgoing:
    """A connection to which messages with handles were written."""


cdef class Ledger:
    """All data on this process's messages. It is read and changed with its lock held."""

    def __cinit__(self):
        self.start_anew()

    cdef int start_anew(self) except -1:
        self.lock = threading.RLock()   # reentrant: the garbage collector may close a connection at any time
        self.carried = {}
        self.connections = set()
        self.lost = []
        return 0


cdef Ledger ledger = Ledger()


cdef Ledger the_ledger():
    return ledger


def _start_anew():
    """In a forked child: the messages are its parent's."""
    ledger.start_anew()


at_fork(after_in_child=_start_anew)


# -- adding and removing messages

cdef object key_of(const handle& h):
    return h.what.lease, h.what.nonce, h.where.uuid[0]


cdef int forget(Carried c) except -1:
    c.read = True
    if ledger.carried.get(c.key) is c:
        del ledger.carried[c.key]
    return 0


cdef int forget_all(list message) except -1:
    for c in message:
        forget(c)
    return 0


cdef int lose_copy(Carried c) except -1:
    c.copies -= 1
    if c.copies == 0 and not c.read:
        ledger.lost.append(c)
    return 0


cdef size_t first_handle(const Py_buffer* view, handle& h) noexcept:
    """The offset past a message's first handle; 0: none, or the message is too long to be searched.

    Searching long messages without handles would be expensive, so both ends are searched first, and the rest
    only if these contain a handle. Writers and readers find the same handles.
    """
    cdef const byte* data = <const byte*>view.buf
    cdef size_t size = view.len
    if size < shortest or size > longest:
        return 0
    if size > 2 * long_end and find_handle(bytes_in(data, long_end), 0, h) == 0 and (
            find_handle(bytes_in(data + size - long_end, long_end), 0, h) == 0):
        return 0
    return find_handle(bytes_in(data, size), 0, h)


cdef list enter_leases(object buf, const Py_buffer* view, handle& h, size_t at, bint is_task):
    """Enter the leases that a message carries; `h` is its first handle, which ends at `at`. None: none."""
    cdef pickled_bytes states
    cdef Carried c
    cdef Bytes source = None
    cdef list message = None
    cdef object data
    if is_task:
        states = pickled_bytes(bytes_in(<byte*>view.buf, view.len))
    while at != 0:
        if h.what.lease != no_lease:
            key = key_of(h)
            c = ledger.carried.get(key)
            if c is None:
                c = Carried.__new__(Carried)
                c.where = h.where
                c.what = h.what
                c.key = key
                c.sources = []
            if is_task and not states.one_ends_at(at):
                c.nested = True
            # Several handles of a message may have the same lease.
            if (message is None or c not in message) and note_written(c.where, c.what, c.copies > 0):
                if message is None:
                    message = []
                    data = <object>PyMemoryView_GET_BUFFER(buf).obj if PyMemoryView_Check(buf) else buf
                ledger.carried[key] = c
                c.copies += 1
                source = add_source(c, data, source)
                message.append(c)
        at = find_handle(bytes_in(<byte*>view.buf, view.len), at, h)
    return message


cdef Bytes add_source(Carried c, object data, Bytes source):
    cdef Bytes each
    for each in c.sources:
        if each.data is data:
            return each
    if source is None:
        source = Bytes.__new__(Bytes)
        source.data = data
    c.sources.append(source)
    return source


cdef Outgoing outgoing(object self):
    cdef Outgoing out = self._sharedmem_out
    if out is None or out not in ledger.connections:       # new, or a forked child's copy of its parent's
        out = Outgoing.__new__(Outgoing)
        out.to = channel(<int>self._handle)
        out.end = self._sharedmem_end
        out.to_workers = self._sharedmem_to_workers
        out.messages = deque()
        self._sharedmem_out = out
        ledger.connections.add(out)
    return out


cdef int tidy(Outgoing out) except -1:
    """Remove messages that have been read, oldest first."""
    cdef Carried c
    cdef list message
    while out.messages:
        message = out.messages[0]
        for c in message:
            if not c.read and stands_for(c.where, c.what):
                break
        else:
            forget_all(message)
            out.messages.popleft()
            continue
        break
    # A socket whose other end was closed has no unread bytes either, although they were not read. Therefore
    # this is checked last. Workers may die before they load what they have read.
    if len(out.messages) > few_messages and not out.to_workers and (
            out.to.drained() and not out.to.abandoned()):
        while out.messages:
            forget_all(out.messages.popleft())
    while len(out.messages) > most_messages:
        forget_all(out.messages.popleft())
    return 0


# -- writing and reading

cdef list enter(object conn, object buf):
    """Enter a message that is about to be written; None: it carries no lease that can be lost with it.

    This is done before the write, because a reader may have the message before that returns.
    """
    cdef Py_buffer view
    cdef handle h
    cdef size_t at
    cdef list message = None
    cdef Outgoing out
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        at = first_handle(&view, h)
        if at != 0:
            with ledger.lock:
                message = enter_leases(buf, &view, h, at, conn._sharedmem_to_workers)
                if message is not None:
                    out = outgoing(conn)
                    tidy(out)
                    out.messages.append(message)
    finally:
        PyBuffer_Release(&view)
    return message


cdef int withdraw(object conn, list message, bint unread) except -1:
    """Note that a message was not written completely. `unread`: it has no reader any more."""
    cdef Outgoing out = conn._sharedmem_out
    cdef Carried c
    cdef Py_ssize_t i
    with ledger.lock:
        for i in range(len(out.messages)):
            if out.messages[i] is message:
                del out.messages[i]
                break
        else:
            return 0
        for c in message:
            if unread:
                lose_copy(c)
            else:
                forget(c)


cdef int take_over(object buf) except -1:
    """Take over the leases of a message that was read from a connection."""
    cdef Py_buffer view
    cdef handle h
    cdef size_t at
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        at = first_handle(&view, h)
        while at != 0:
            if h.what.lease != no_lease:
                note_read(h.where, h.what)
                if ledger.carried:      # a message that this process wrote itself
                    with ledger.lock:
                        known = ledger.carried.get(key_of(h))
                        if known is not None:
                            forget(known)
            at = find_handle(bytes_in(<byte*>view.buf, view.len), at, h)
    finally:
        PyBuffer_Release(&view)
