"""Finding messages that were written but can no longer be read, and giving their leases back.

A message keeps its arrays until it is loaded. If its reader dies first, the bytes disappear with the pipe or
socket. Therefore each process keeps a ledger of the messages with handles that it wrote to a connection
(`sharedmem._ledger`). A message is given up when its connection has no reader any more and no process has its
bytes:

* For a pipe, the kernel keeps the bytes that were not read, and the writing process can examine them.
* For a socket, the kernel keeps nothing. But a process that reads a handle through a connection of
  multiprocessing takes its lease over before it does anything else with the bytes, so a lease that still
  belongs to this process was not read. This applies to connections made by `multiprocessing.Pipe` that are
  read in no other way: a process that asks for the descriptor of one, to read from it directly, records that
  in the arena.
* A message is not lost if an object in this process still refers to its bytes, and may send them again.
* Workers of an executor or a pool load each task that they read. So when all of them have ended, every task
  whose lease still belongs to this process is lost, whether it was read or not. Handles in bytes within a
  task, such as a pickle that it passes on, are an exception, since they are not loaded with it.

If this cannot be determined, the message is kept: see "Messages that nobody reads" in the documentation.
"""

import time
from multiprocessing.connection import Connection

from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from sharedmem._ledger cimport (
    Carried, Ledger, Outgoing, enter, forget, forget_all, key_of, lose_copy, take_over, the_ledger, tidy,
    withdraw)
from sharedmem.libsharedmem.arena cimport arena
from sharedmem.libsharedmem.handle cimport (
    byte, bytes_in, find_handle, handle, no_lease, optional_locator, parse_locator, to_text)
from sharedmem.libsharedmem.home cimport (
    give_back_lost, home_if_any, is_read_elsewhere, read_elsewhere, stands_for)


cdef enum:
    most_connections = 256  # closed ones that are still examined

cdef double look_interval = 0.1     # seconds between two examinations of all connections
cdef double next_look = 0

cdef Ledger ledger = the_ledger()


cdef bint only_we_read(object end):
    """Whether all code that reads at the other end takes leases over."""
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
        if h.what.lease != no_lease:
            found.add(key_of(h))


cdef bint give_up_unread(Outgoing out) except -1:
    """Give up the messages of a connection that can no longer be read. False: they can be read."""
    if not out.to.abandoned():
        return False
    end_messages(out, keys_in(out.to.unread()), only_we_read(out.end))
    return True


cdef int end_messages(Outgoing out, set unread, bint told) except -1:
    """Decide which messages of a connection are lost, now that nobody reads it: those with a key in `unread`.

    `told`: also those whose leases nobody has taken over, since all who read them would have done so. Workers
    take over the leases of tasks by loading them, except those in bytes, which they may have passed on.
    """
    cdef Carried c
    cdef list message
    cdef bint taken
    ledger.connections.discard(out)
    for message in out.messages:
        for c in message:
            taken = told or out.to_workers and not c.nested     # by all who have read it
            if not c.read and (c.key in unread or taken and stands_for(c.where, c.what)):
                lose_copy(c)
            else:
                forget(c)
    out.messages.clear()
    return 0


cdef int give_back() except -1:
    cdef Carried c
    cdef int given = 0
    cdef list waiting = ledger.lost[:]
    del ledger.lost[:]
    for c in waiting:
        if c.read or c.copies > 0:
            continue
        if c.in_use():
            ledger.lost.append(c)
            continue
        given += give_back_lost(c.where, c.what)
        forget(c)
    return given


def look():
    """Free the arrays of messages that this process wrote and that can no longer be read.

    Returns
    -------
    int
        Number of leases given back.
    """
    global next_look
    with ledger.lock:
        next_look = time.monotonic() + look_interval
        for out in list(ledger.connections):
            if not give_up_unread(out):
                tidy(out)
                if not (<Outgoing>out).messages and (<Outgoing>out).to.is_kept():
                    ledger.connections.discard(out)
        return give_back()


# -- hooks of connections

# The methods of a connection that are replaced. These are C variables, since at the end of the interpreter
# the names of a module may be gone before the last connection is closed.
cdef object plain_send_bytes = Connection._send_bytes
cdef object plain_recv_bytes = Connection._recv_bytes
cdef object plain_close = Connection._close


def send_bytes(self, buf):
    """As `Connection._send_bytes`; also enters the message into the ledger."""
    cdef list message = enter(self, buf)
    if message is None:
        plain_send_bytes(self, buf)
        return
    try:
        plain_send_bytes(self, buf)
    except BaseException as error:
        withdraw(self, message, isinstance(error, (BrokenPipeError, ConnectionResetError)))
        raise
    if time.monotonic() >= next_look:
        look()


def recv_bytes(self, maxsize=None):
    """As `Connection._recv_bytes`; also takes over the leases in the message."""
    buf = plain_recv_bytes(self, maxsize)
    if buf is not None:
        take_over(buf.getbuffer())
    return buf


def give_up(data):
    """Give back the leases of a message that this process has read but could not load.

    Parameters
    ----------
    data : buffer
        The bytes of the message. No process has them any more, unless they were read by `recv_bytes`.

    Returns
    -------
    int
        Number of leases given back: those that this process took over when it read the message.
    """
    cdef const unsigned char[::1] view = data
    cdef handle h
    cdef size_t at = 0
    cdef int given = 0
    if view.shape[0] == 0:
        return 0
    while True:
        at = find_handle(bytes_in(<const byte*>&view[0], view.shape[0]), at, h)
        if at == 0:
            return given
        if h.what.lease != no_lease:
            given += give_back_lost(h.where, h.what)


def discard(data):
    """Give back the leases of a message that this process has read, not by `recv_bytes`, in order to drop it.

    Parameters
    ----------
    data : buffer
        The bytes of one message. No other process has them.

    Returns
    -------
    int
        Number of leases given back.
    """
    take_over(data)
    return give_up(data)


def close(self):
    """As `Connection._close`; also gives up messages that can no longer be read."""
    if self._sharedmem_out is not None:
        end_connection(self._sharedmem_out)
    plain_close(self)


cdef int end_connection(Outgoing out) except -1:
    """Give back what was written to a connection that is about to be closed, or keep watching it."""
    with ledger.lock:
        if out not in ledger.connections:
            return 0
        if give_up_unread(out):
            give_back()
            return 0
        tidy(out)
        if out.to_workers:
            return 0
        few = len(ledger.connections) < most_connections
        if out.messages and few and only_we_read(out.end) and out.to.keep():
            return 0
        ledger.connections.discard(out)
        for message in out.messages:
            forget_all(message)
    return 0


def to_workers(conn):
    """Say that whoever reads from a connection's other end loads each message, or is killed.

    `workers_ended` has to follow, also if the connection is closed meanwhile.

    Parameters
    ----------
    conn : Connection
        Its writing end.
    """
    conn._sharedmem_to_workers = True


def workers_ended(conn):
    """Give back the leases of the messages of a connection whose readers have all ended.

    Parameters
    ----------
    conn : Connection
        Its writing end, perhaps closed.

    Returns
    -------
    int
        Number of leases given back.
    """
    cdef Outgoing out = conn._sharedmem_out
    with ledger.lock:
        if out is None or out not in ledger.connections:
            return 0
        end_messages(out, keys_in(out.to.unread()), False)
        return give_back()


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
    """Record that code which does not take leases over may read at an end."""
    cdef optional_locator where = locator_of(end[0])
    if where.has_value():
        read_elsewhere(where.value(), end[1])
