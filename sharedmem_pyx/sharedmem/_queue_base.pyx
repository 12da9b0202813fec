"""The common base of all queues: messages, and waiting for other processes. See `sharedmem._queue`."""

import time
import types
from pickle import loads
from queue import Empty, Full

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

from sharedmem._atomics_waiting cimport seconds_of
from sharedmem._queue_outgoing cimport Outgoing, most_plain, outgoing, write_plain
from sharedmem._transfers.messages cimport load_alone
from sharedmem.arena cimport home_arena
from sharedmem.array cimport adopt
from sharedmem.libsharedmem.arena cimport allocation, arena, pages
from sharedmem.libsharedmem.handle cimport byte, bytes_in, claim
from sharedmem.libsharedmem.home cimport allocate, arena_of, release
from sharedmem.libsharedmem.robust_mutex cimport nanoseconds
from sharedmem.libsharedmem.queue cimport (
    bytes_in_ring, messages_in, queue_block_bytes, queue_checksum, queue_counts, queue_entry,
    queue_message, queue_outcome, queue_report, queue_sleeper, queue_taken, queue_wanted,
    queues_in)

from sharedmem._messages import by_value as _by_value, no_deep_copy
from sharedmem.array import is_shared

cdef double for_ever = float("inf")
cdef double longest_wait = 0.25             # seconds after which a waiting process checks again, as in C++
cdef double lock_patience = 1.0             # seconds that a call which must not wait waits for the lock

cnp.import_array()


cdef extern from "<sharedmem_pyx/plain_pickle.hpp>" namespace "sharedmem_pyx::plain":
    # The object of a pickle; `otherwise` if the pickle module has to read it.
    object read_plain "sharedmem_pyx::plain::read"(const byte*, size_t, object otherwise)

cdef object not_plain = object()


cdef inline double clock() except? -1:
    return time.monotonic()

cdef double end_of(object block, object timeout) except? -1:
    """When a wait expires, by `clock`; 0: it must not wait."""
    cdef double seconds
    if not block:
        return 0
    if timeout is None:
        return for_ever
    seconds = seconds_of(timeout)
    return clock() + seconds if seconds > 0 else 0


cdef class _Base:
    """The common base of the three kinds of queues: a queue in shared memory, and waiting for it."""
    __class_getitem__ = classmethod(types.GenericAlias)

    cdef int make(self, uint64_t most) except -1:
        cdef allocation block
        home_arena()
        block = allocate(queue_block_bytes, 64, pages.as_needed)
        self.c_obj.create(block, most)
        return 0

    cdef int open(self, object memory) except -1:
        cdef arena* where
        cdef allocation found
        cdef cnp.ndarray a = memory
        where = arena_of(cnp.PyArray_DATA(a))
        if where == NULL:
            raise ValueError("the memory of a queue must be shared")
        found = where.find(cnp.PyArray_DATA(a))
        if found.ref.home == NULL or <void*>found.data != cnp.PyArray_DATA(a):
            raise ValueError("a queue needs a block of memory of its own")
        found.ref = where.duplicate(found.ref)
        self.c_obj.open(found)
        return 0

    cdef object memory(self):
        """The array that a pickle of the queue holds."""
        cdef allocation block
        cdef cnp.npy_intp size = queue_block_bytes
        block.ref = self.c_obj.home().duplicate(self.c_obj.block().ref)
        block.data = self.c_obj.block().data
        block.bytes = self.c_obj.block().bytes
        return adopt(&block, NULL, np.dtype("u1"), 1, &size, NULL, block.data,
                     cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE | cnp.NPY_ARRAY_C_CONTIGUOUS, None)

    def __deepcopy__(self, memo):
        no_deep_copy(self, memo)

    def __reduce__(self):
        if _by_value.get():
            raise TypeError(
                f"a {type(self).__name__} cannot be saved: its messages are in flight to other processes")
        if self.c_obj.home() == NULL:
            raise ValueError(f"{type(self).__name__}.__init__ was not called")
        return _open_queue, (type(self), self.memory(), self.__getstate__())

    def __getstate__(self):
        return None

    def __setstate__(self, state):
        pass

    cdef bint wait(self, waiting_for what, uint32_t seen, double end) except -1:
        """False: the time has expired."""
        cdef double left = longest_wait
        cdef int64_t ns
        if end != for_ever:
            left = min(left, end - clock())
            if not left > 0:
                return False
        ns = <int64_t>(left * 1e9)
        with nogil:
            if what == a_message:
                self.c_obj.wait_for_message(seen, nanoseconds(ns))
            elif what == room:
                self.c_obj.wait_for_room(seen, nanoseconds(ns))
            elif what == tasks:
                self.c_obj.wait_for_tasks(seen, nanoseconds(ns))
            else:
                self.c_obj.wait_for_lock(nanoseconds(ns))
        PyErr_CheckSignals()
        return True

    cdef bint wait_for_lock(self, double* lock_end, double end) except -1:
        """`lock_end`: 0 before the first wait of a call. False: the time has expired."""
        if lock_end[0] == 0:
            lock_end[0] = clock() + lock_patience
        return self.wait(the_lock, 0, max(end, lock_end[0]))

    cdef int put_messages(
            self, const queue_message* messages, size_t count, size_t* put, double end) except -1:
        """Puts `count` messages. `put`: how many of them were, also if it raises."""
        cdef queue_outcome how
        cdef uint32_t seen = 0
        cdef size_t now = 0
        cdef double lock_end = 0
        while True:
            now = 0
            try:
                how = self.c_obj.try_put(messages_in(messages + put[0], count - put[0]), now, seen)
            finally:
                put[0] += now
            if how == queue_outcome.done:
                return 0
            if how == queue_outcome.no_ring:
                self.c_obj.set_ring(bytes_in_ring(messages[put[0]]))
            elif how == queue_outcome.busy:
                if not self.wait_for_lock(&lock_end, end):
                    raise Full
            elif end == 0 or not self.wait(room, seen, end):
                raise Full

    cdef int put_all(self, Outgoing out, double end) except -1:
        try:
            out.point()
            self.put_messages(out.messages.data(), out.messages.size(), &out.put, end)
        finally:
            out.give_back()
        return 0

    cdef int take(self, queue_taken* taken, size_t most, double end) except -1:
        cdef queue_outcome how
        cdef uint32_t seen = 0
        cdef double lock_end = 0
        while True:
            how = self.c_obj.try_get(most, taken[0], seen)
            if how == queue_outcome.done:
                break
            if how == queue_outcome.busy:
                if not self.wait_for_lock(&lock_end, end):
                    raise Empty
            elif end == 0 or not self.wait(a_message, seen, end):
                raise Empty
        if self.c_obj.ring_is_large():
            self.make_smaller()
        return 0

    cdef int make_smaller(self) noexcept:
        """Give memory of the ring back. If there is no memory for a smaller one, it is not done now."""
        try:
            self.c_obj.set_ring(0)
        except Exception:
            pass
        return 0

    cdef object open_message(self, queue_taken* taken, const queue_entry* e):
        """The object of a message that was taken; if loading it raises, what was not loaded is given back."""
        cdef arena* home = self.c_obj.home()
        cdef claim* claims = taken.claims.data() + e.claims_at
        cdef allocation body
        cdef bytes data
        cdef const byte* at
        cdef char* to
        cdef bint same
        cdef size_t i
        try:
            if e.in_block:
                body = home.acquire(claims[0])
                try:
                    if body.bytes < e.length:
                        raise RuntimeError("a message of a queue is corrupted: a stray write has changed it")
                    # Objects are created from this copy, which no other process can change.
                    data = PyBytes_FromStringAndSize(NULL, e.length)
                    to = PyBytes_AS_STRING(data)
                    with nogil:
                        memcpy(to, body.data, e.length)
                        same = queue_checksum(bytes_in(<byte*>to, e.length)) == e.checksum
                finally:
                    release(body.ref)
            else:
                at = taken.bytes.data() + e.bytes_at
                same = queue_checksum(bytes_in(at, e.length)) == e.checksum
                if same and e.claims == 0:
                    found = read_plain(at, e.length, not_plain)
                    if found is not not_plain:
                        return found
                elif same:
                    found = load_alone(at, e.length)
                    if found is not None:
                        return found
                data = PyBytes_FromStringAndSize(<const char*>at, e.length)
            if not same:
                raise RuntimeError(
                    f"message {e.number} of a queue was changed by a stray write: it is dropped")
            return loads(data)
        except BaseException:
            for i in range(e.claims):
                home.give_back(claims[i])
            raise

    cdef object get_one(self, double end):
        cdef queue_taken taken
        self.take(&taken, 1, end)
        return self.open_message(&taken, &taken.entries[0])

    cdef int put_one(self, object obj, double end) except -1:
        cdef byte pickled[most_plain]
        cdef queue_message m
        cdef size_t put = 0
        cdef Outgoing out
        m.length = write_plain(obj, pickled, sizeof(pickled))
        if m.length == 0:
            out = outgoing(self.c_obj.home())
            out.add_pickled(obj)
            return self.put_all(out, end)
        m.bytes = bytes_in(pickled, m.length)
        m.checksum = queue_checksum(m.bytes)
        return self.put_messages(&m, 1, &put, end)

    cdef queue_counts count(self) except *:
        cdef queue_counts found
        cdef double lock_end = 0
        while self.c_obj.count(found) != queue_outcome.done:
            self.wait_for_lock(&lock_end, for_ever)
        return found

    def stats(self):
        """Report what the queue contains, and which processes have it and wait for it.

        It does not wait for other processes. The numbers of messages are of one moment, the rest is of a
        later one.

        Returns
        -------
        dict
            messages, bytes
                Number of messages in the queue, and bytes of their pickles, without the memory of arrays.
            unfinished
                Messages put, minus calls of `JoinableQueue.task_done`.
            memory
                Bytes of the ring in which messages up to 4 KiB lie.
            kept
                Bytes of the memory that its messages keep in addition, as allocated: arrays, and pickles
                of more than 4 KiB. Memory that occurs in two messages counts twice.
            maxsize
                The most messages that it can contain; 0: no bound.
            receivers, senders, joiners
                Pids of the processes that sleep until there is a message, until there is space, or in `join`:
                one for each thread, at most 32 in all.
            processes
                Pids of those that have the queue. If there are none, they have died, and the memory of the
                queue is freed when memory is short, or by `sharedmem.collect`.
            pid, seconds
                The process that created it, and how long ago; 0.0 if its clock is another one.

        Raises
        ------
        ValueError
            ``__init__`` was not called.
        """
        cdef vector[queue_report] found
        cdef queue_report mine
        cdef size_t i
        if self.c_obj.home() == NULL:
            raise ValueError(f"{type(self).__name__}.__init__ was not called")
        with nogil:
            found = queues_in(self.c_obj.home()[0])
        for i in range(found.size()):
            if found[i].block == self.c_obj.block().ref.block:
                mine = found[i]
        if not mine.readable:       # so many processes were using it that no consistent look was possible
            mine.now = self.count()
            mine.most = self.c_obj.most()
        return queue_dict(mine)

    def __repr__(self):
        cdef queue_counts found
        cdef str text = f"<{type(self).__name__} at {id(self):#x}"
        if self.c_obj.home() == NULL:
            return f"{text}, not made>"
        if self.c_obj.look(found):
            text += f", {found.waiting} message{'s' * (found.waiting != 1)}"
            if found.unfinished > found.waiting and self.counts_tasks():
                text += f", {found.unfinished} unfinished"
        if self.c_obj.most() != 0:
            text += f", maxsize {self.c_obj.most()}"
        return text + (", closed>" if self._closed else ">")

    cdef bint counts_tasks(self) noexcept:
        """Whether messages count as unfinished until `task_done` is called."""
        return False


cdef dict queue_dict(const queue_report& found):
    """The result of `_Base.stats` for a queue."""
    cdef queue_sleeper each
    cdef size_t i
    waiting = {queue_wanted.message: [], queue_wanted.room: [], queue_wanted.tasks: []}
    for i in range(found.sleepers.size()):
        each = found.sleepers[i]
        if each.what in waiting:
            waiting[each.what].append(each.pid)
    return {
        "messages": found.now.waiting, "bytes": found.now.bytes, "unfinished": found.now.unfinished,
        "memory": found.now.ring_bytes, "kept": found.kept_bytes, "maxsize": found.most,
        "receivers": sorted(waiting[queue_wanted.message]), "senders": sorted(waiting[queue_wanted.room]),
        "joiners": sorted(waiting[queue_wanted.tasks]), "processes": list(found.holders), "pid": found.maker,
        "seconds": found.age_ns / 1e9}


def _open_queue(cls, memory, state):
    """Return the queue that lies in `memory`; pickles of queues call this function.

    Raises
    ------
    ValueError
        There is no queue, or it was created in another pid namespace, or by another version of the library.
    """
    cdef _Base made
    if not (isinstance(cls, type) and issubclass(cls, _Base)) or not is_shared(memory):
        raise ValueError("this is not the pickle of a queue")
    made = cls.__new__(cls)
    made.open(memory)
    if state is not None:
        made.__setstate__(state)
    return made
