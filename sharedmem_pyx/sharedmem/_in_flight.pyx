"""Messages that were written and that nobody can read any more: their leases are given back.

A message keeps its arrays until somebody loads it. If its reader dies first the bytes go with the pipe or
socket. So each process keeps a ledger of the messages with handles that it wrote to a connection, found by
the handles in the bytes: what is passed on counts, too. A message is given up when its connection has no
reader any more and nobody has its bytes:

* Of a pipe the kernel keeps what nobody has read, and whoever writes to it can look at that.
* Of a socket it keeps nothing. But whoever reads a handle through a connection of multiprocessing takes its
  lease over, before anything else is done with the bytes; a lease that this process still stands for was not
  read. That holds for connections made by `multiprocessing.Pipe` that are read like that alone: a process
  that asks for the descriptor of one, to read it otherwise, says so in the arena.
* Bytes that somebody in this process still refers to, and may send again, are not lost.

What cannot be told is kept: see "Messages that nobody reads" in the documentation.
"""

import os
import threading
import time
from collections import deque

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from sharedmem.libsharedmem.arena cimport arena, claim
from sharedmem.libsharedmem.channel cimport channel
from sharedmem.libsharedmem.handle cimport (
    byte, bytes_in, find_handle, handle, locator, no_lease, optional_locator, parse_locator, to_text)
from sharedmem.libsharedmem.home cimport (
    give_back_lost, home_if_any, is_read_elsewhere, note_read, note_written, read_elsewhere, stands_for)


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject*)


cdef enum:
    shortest = 60           # bytes of a message with a handle in it; it has more
    longest = 1 << 20       # bytes of a message that is looked through: looking takes as long as writing
    long_end = 2 << 10      # bytes at either end of a long message
    most_messages = 4096    # of one connection in the ledger; an older one is kept until it is loaded
    few_messages = 16
    most_connections = 256  # that are looked at

cdef double look_interval = 0.1     # seconds between two looks at all connections


# -- the ledger

cdef class Bytes:
    """What a message was written from. Pickles die with their `send`, bytes that are passed on may not."""
    cdef object data

    cdef bint in_use(self):
        return Py_REFCNT(<PyObject*>self.data) > 1


cdef class Carried:
    """A lease in messages that this process wrote."""
    cdef locator where
    cdef claim what
    cdef object key
    cdef int copies     # messages with it that may still be read
    cdef bint read      # somebody has read one: the lease is theirs
    cdef list sources   # Bytes of those messages

    cdef bint in_use(self):
        cdef Bytes each
        for each in self.sources:
            if each.in_use():
                return True
        return False


cdef class Outgoing:
    """A connection that messages with handles were written to."""
    cdef channel to
    cdef object end             # (locator, number) of its own end, or None
    cdef object messages        # deque of lists of Carried, oldest first


cdef object lock = threading.RLock()    # collecting garbage may close a connection at any time
cdef dict ledger = {}                   # Carried by key
cdef set connections = set()            # Outgoing
cdef list lost = []                     # Carried of which no copy can be read
cdef double next_look = 0


def _start_anew():
    """In a forked child: the messages are its parent's."""
    global lock, ledger, connections, lost
    lock = threading.RLock()
    ledger, connections, lost = {}, set(), []


os.register_at_fork(after_in_child=_start_anew)

cdef inline object key_of(const handle& h):
    return h.lease, h.nonce, h.where.uuid[0]


cdef inline claim claim_of(const handle& h) noexcept:
    cdef claim c
    c.block = h.block
    c.generation = h.generation
    c.lease = h.lease
    c.nonce = h.nonce
    return c


cdef int forget(Carried c) except -1:
    c.read = True
    if ledger.get(c.key) is c:
        del ledger[c.key]
    return 0


cdef int forget_all(list message) except -1:
    for c in message:
        forget(c)
    return 0


cdef int lose_copy(Carried c) except -1:
    c.copies -= 1
    if c.copies == 0 and not c.read:
        lost.append(c)
    return 0


cdef size_t first_handle(const Py_buffer* view, handle& h) noexcept:
    """The offset past a message's first handle; 0: none, or the message is too long to look through for it.

    Long messages of other data have a price: of those only both ends are searched before the rest is. Writers
    and readers find the same.
    """
    cdef const byte* data = <const byte*>view.buf
    cdef size_t size = view.len
    if size < shortest or size > longest:
        return 0
    if size > 2 * long_end and find_handle(bytes_in(data, long_end), 0, h) == 0 and (
            find_handle(bytes_in(data + size - long_end, long_end), 0, h) == 0):
        return 0
    return find_handle(bytes_in(data, size), 0, h)


cdef list enter_leases(object buf, const Py_buffer* view, handle& h, size_t at):
    """Enters the leases that a message carries; `h` is its first handle, that ends at `at`. None: none."""
    cdef Carried c
    cdef Bytes source = None
    cdef list message = None
    cdef object data
    while at != 0:
        if h.lease != no_lease:
            key = key_of(h)
            c = ledger.get(key)
            if c is None:
                c = Carried.__new__(Carried)
                c.where = h.where
                c.what = claim_of(h)
                c.key = key
                c.sources = []
            # Several handles of a message may have the same lease.
            if (message is None or c not in message) and note_written(c.where, c.what, c.copies > 0):
                if message is None:
                    message = []
                    data = <object>PyMemoryView_GET_BUFFER(buf).obj if PyMemoryView_Check(buf) else buf
                ledger[key] = c
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
    if out is None or out not in connections:       # new, or a forked child's copy of its parent's
        out = Outgoing.__new__(Outgoing)
        out.to = channel(<int>self._handle)
        out.end = self._sharedmem_end
        out.messages = deque()
        self._sharedmem_out = out
        connections.add(out)
    return out


cdef int tidy(Outgoing out) except -1:
    """Forgets messages that have been read, oldest first."""
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
    # What is purged with the other end of a socket counts as read: look at that afterwards.
    if len(out.messages) > few_messages and out.to.drained() and not out.to.abandoned():
        while out.messages:
            forget_all(out.messages.popleft())
    while len(out.messages) > most_messages:
        forget_all(out.messages.popleft())
    return 0


# -- what is lost

cdef bint only_we_read(object end):
    """Whether whatever arrives at the other end is read by code that takes leases over."""
    if end is None:
        return False
    cdef optional_locator where = locator_of(end[0])
    return where.has_value() and not is_read_elsewhere(where.value(), <uint64_t>end[1] ^ 1)


cdef optional_locator locator_of(str text):
    name = text.encode("ascii", "replace")
    return parse_locator(string_view(<const char*>name, len(name)))


cdef set keys_in(const vector[byte]& data):
    cdef handle h
    cdef size_t at = 0
    cdef set found = set()
    while True:
        at = find_handle(bytes_in(data.data(), data.size()), at, h)
        if at == 0:
            return found
        if h.lease != no_lease:
            found.add(key_of(h))


cdef bint settle(Outgoing out) except -1:
    """Settles the messages of a connection that nobody can read any more. False: somebody can."""
    cdef Carried c
    cdef list message
    cdef set unread
    cdef bint told
    if not out.to.abandoned():
        return False
    connections.discard(out)
    unread = keys_in(out.to.unread())
    told = only_we_read(out.end)
    for message in out.messages:
        for c in message:
            if not c.read and (c.key in unread or told and stands_for(c.where, c.what)):
                lose_copy(c)
            else:
                forget(c)
    out.messages.clear()
    return True


cdef int give_back() except -1:
    cdef Carried c
    cdef int given = 0
    cdef list waiting = lost[:]
    del lost[:]
    for c in waiting:
        if c.read or c.copies > 0:
            continue
        if c.in_use():
            lost.append(c)
            continue
        given += give_back_lost(c.where, c.what)
        forget(c)
    return given


def look():
    """Give back the arrays of messages that this process wrote and that nobody can read any more.

    Returns
    -------
    int
        Number of leases given back.
    """
    global next_look
    with lock:
        next_look = time.monotonic() + look_interval
        for out in list(connections):
            if not settle(out):
                tidy(out)
                if not (<Outgoing>out).messages and (<Outgoing>out).to.is_kept():
                    connections.discard(out)
        return give_back()


# -- what connections do

def enter(conn, buf):
    """Enter a message that is about to be written; None: it carries no lease that can be lost with it.

    Before the write: a reader may have it before that returns.
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
            with lock:
                message = enter_leases(buf, &view, h, at)
                if message is not None:
                    out = outgoing(conn)
                    tidy(out)
                    out.messages.append(message)
    finally:
        PyBuffer_Release(&view)
    return message


def withdraw(conn, list message, bint unread):
    """A message was not written as a whole. `unread`: nobody is there to read it."""
    cdef Outgoing out = conn._sharedmem_out
    cdef Carried c
    cdef Py_ssize_t i
    with lock:
        for i in range(len(out.messages)):
            if out.messages[i] is message:
                del out.messages[i]
                break
        else:
            return
        for c in message:
            if unread:
                lose_copy(c)
            else:
                forget(c)


def take_over(buf):
    """Take the leases of a message over that was read from a connection."""
    cdef Py_buffer view
    cdef handle h
    cdef size_t at
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        at = first_handle(&view, h)
        while at != 0:
            if h.lease != no_lease:
                note_read(h.where, claim_of(h))
                if ledger:      # a message that this process wrote itself
                    with lock:
                        known = ledger.get(key_of(h))
                        if known is not None:
                            forget(known)
            at = find_handle(bytes_in(<byte*>view.buf, view.len), at, h)
    finally:
        PyBuffer_Release(&view)


def close(conn):
    """Settle what was written to a connection that is about to be closed, or go on looking at it."""
    cdef Outgoing out = conn._sharedmem_out
    with lock:
        if out not in connections:
            return
        if settle(out):
            give_back()
            return
        tidy(out)
        few = len(connections) < most_connections
        if out.messages and few and only_we_read(out.end) and out.to.keep():
            return
        connections.discard(out)
        for message in out.messages:
            forget_all(message)


def look_now_and_then():
    """Look, unless that was done a moment ago."""
    if time.monotonic() >= next_look:
        look()


def new_ends():
    """Numbers for both ends of a new connection, each with the arena that knows it; or None."""
    cdef arena* home = home_if_any()
    cdef string where
    cdef uint64_t first
    if home == NULL:
        return None
    where = to_text(home.where())
    text = where.decode("ascii")
    first = home.new_ends()
    return (text, first), (text, first + 1)


def say_read_elsewhere(tuple end):
    """Say that what arrives at an end may be read by code that takes no leases over."""
    cdef optional_locator where = locator_of(end[0])
    if where.has_value():
        read_elsewhere(where.value(), end[1])
