"""Queues in shared memory with the interface of multiprocessing's, which a killed process cannot break."""

import operator
import sys

from libc.stdint cimport uint32_t, uint64_t

from sharedmem._queue_base cimport _Base, end_of, tasks
from sharedmem._queue_outgoing cimport Outgoing, outgoing
from sharedmem.libsharedmem.queue cimport queue_outcome, queue_taken

from sharedmem._arguments import read_arguments


cdef double for_ever = float("inf")


cdef object with_attribute(object error, str name, object value):
    """The exception to raise so that its attribute has this value.

    Some classes of exceptions forbid assignments, as frozen dataclasses do, or have a property of this name.
    """
    try:
        object.__setattr__(error, name, value)
        return error
    except AttributeError:
        made = RuntimeError(f"{type(error).__name__} was raised, which has another attribute {name!r}")
        made.__cause__ = error
        setattr(made, name, value)
        return made


cdef uint64_t read_maxsize(object maxsize) except? 0:
    if isinstance(maxsize, (bool, float)) or not hasattr(type(maxsize), "__index__"):
        raise TypeError(f"maxsize must be an integer, the number of messages, not {type(maxsize).__name__}")
    number = maxsize.__index__()
    return 0 if number <= 0 else min(number, (1 << 63) - 1)


cdef class Queue(_Base):
    """Queue(maxsize=0, *, ctx=None)
--

    Queue of messages in shared memory, with the interface of `multiprocessing.Queue`.

    A process may be killed at any instruction of `put` or `get`: at most the message that it was itself
    putting or getting is lost, and no other process waits for it. There is no feeder thread: `put` pickles
    in the caller, and when it returns the message is in the queue, whatever happens to its sender. Shared
    arrays in messages are not copied.

    A queue can be created at any time, inherited, and sent to running processes in any pickle.

    Parameters
    ----------
    maxsize : int, optional
        The most messages that it can contain; with 0 or less only memory limits it.
    ctx : object, optional
        Not used; accepted because multiprocessing's class has it.

    Raises
    ------
    MemoryError
        There is not enough memory for a queue.
    OSError
        The system refused shared memory.
    TypeError
        `maxsize` is not an integer.

    Notes
    -----
    Methods may be called by any threads and processes at the same time. Messages of one sender arrive in
    order.

    If a worker is killed between `get` and the end of its work, its message is lost; a program that must
    notice this keeps track of what was answered.
    """

    def __init__(self, *args, **keywords):
        given = read_arguments(type(self).__name__, args, keywords, ("maxsize",), ("ctx",))
        if self.c_obj.home() == NULL:
            self.make(read_maxsize(given.get("maxsize", 0)))

    cdef int check_open(self) except -1:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        if self.c_obj.home() == NULL:
            raise ValueError("Queue.__init__ was not called")
        return 0

    @property
    def maxsize(self):
        """The most messages that the queue can contain; 0: no bound."""
        self.check_made()
        return self.c_obj.most()

    cdef int check_made(self) except -1:
        if self.c_obj.home() == NULL:
            raise ValueError("Queue.__init__ was not called")
        return 0

    def put(self, obj, block=True, timeout=None):
        """Put an object into the queue.

        Parameters
        ----------
        obj : object
            Anything that can be pickled. It is pickled by this call.
        block : bool, optional
            Whether to wait for space if the queue is bounded and full.
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Raises
        ------
        MemoryError
            The message does not fit into memory; the text has the numbers.
        queue.Full
            The queue was full until the timeout.
        TypeError, ValueError
            `timeout` is not a number, or is NaN.
        ValueError
            The queue was closed in this process.
        """
        self.check_open()
        self.put_one(obj, end_of(block, timeout))

    def put_many(self, objects, block=True, timeout=None):
        """Put several objects, in order, in little more time than one takes.

        Parameters
        ----------
        objects : iterable
            All are pickled before the first one is put.
        block : bool, optional
            As for `put`.
        timeout : float or None, optional
            Seconds for all of them together.

        Raises
        ------
        MemoryError, queue.Full
            As `put`. Some of the objects may have been put; the exception's attribute `put_before` is their
            number. An exception that a signal handler raised while this waited, such as KeyboardInterrupt,
            has it, too.
        TypeError, ValueError
            As `put`.
        """
        cdef Outgoing out
        cdef double end
        self.check_open()
        end = end_of(block, timeout)
        out = outgoing(self.c_obj.home())
        try:
            for each in objects:
                out.add(each)
        except BaseException:
            out.give_back()
            raise
        try:
            self.put_all(out, end)
        except BaseException as error:
            raise with_attribute(error, "put_before", out.put)

    def get(self, block=True, timeout=None):
        """Take the oldest object out of the queue.

        Parameters
        ----------
        block : bool, optional
            Whether to wait for an object if the queue is empty.
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Returns
        -------
        object
            A copy of the object that was put; shared arrays in it are the same memory.

        Raises
        ------
        queue.Empty
            The queue was empty until the timeout.
        RuntimeError
            A stray write has changed the message.
        TypeError, ValueError
            `timeout` is not a number, or is NaN.
        ValueError
            The queue was closed in this process.
        """
        self.check_open()
        return self.get_one(end_of(block, timeout))

    def get_many(self, max_items=None, block=True, timeout=None):
        """Take several objects at once: all that are there, at least one.

        Parameters
        ----------
        max_items : int or None, optional
            The most objects to take. None: all, or as many as fit into 16 MiB, not counting data outside
            the queue's ring: shared arrays, and messages of more than 4 KiB.
        block : bool, optional
            Whether to wait for the first one.
        timeout : float or None, optional
            As for `get`.

        Returns
        -------
        list
            The objects, oldest first.

        Raises
        ------
        queue.Empty, RuntimeError, TypeError, ValueError
            As `get`. If a message cannot be loaded, or loading it is interrupted (KeyboardInterrupt), the
            attribute `messages` of the exception has the objects of the others.
        TypeError, ValueError
            `max_items` is not an integer, or less than 1.
        """
        cdef queue_taken taken
        cdef size_t most = <size_t>-1
        cdef size_t i
        self.check_open()
        if max_items is not None:
            number = operator.index(max_items)
            if number < 1:
                raise ValueError(f"max_items must be at least 1, not {max_items}")
            most = min(number, sys.maxsize)
        self.take(&taken, most, end_of(block, timeout))
        found = []
        failed = None
        for i in range(taken.entries.size()):
            try:
                found.append(self.open_message(&taken, &taken.entries[i]))
            except BaseException as error:
                if failed is None or not isinstance(error, Exception):      # Ctrl-C is never kept back
                    failed = error
        if failed is not None:
            raise with_attribute(failed, "messages", found)
        return found

    def put_nowait(self, obj):
        """Put an object if there is space for it now.

        Parameters
        ----------
        obj : object
            As for `put`.

        Raises
        ------
        MemoryError, queue.Full, ValueError
            As `put`.
        """
        self.put(obj, False)

    def get_nowait(self):
        """Take an object if there is one now, as ``get(False)`` does."""
        return self.get(False)

    def qsize(self):
        """Number of messages in the queue: exact, at one moment during the call."""
        self.check_made()
        return self.count().waiting

    def __len__(self):
        return self.qsize()

    def __bool__(self):
        return True     # as multiprocessing's, empty or not

    def empty(self):
        """Whether the queue contains no message."""
        return self.qsize() == 0

    def full(self):
        """Whether the queue is bounded and contains that many messages."""
        return self.maxsize != 0 and self.qsize() >= self.c_obj.most()

    def close(self):
        """Declare that this object will not be used any more. Other processes may go on using the queue."""
        self._closed = True

    def join_thread(self):
        """Return at once: there is no feeder thread, and everything that was put is in the queue.

        Raises
        ------
        ValueError
            The queue was not closed.
        """
        if not self._closed:
            raise ValueError(f"Queue {self!r} not closed")

    def cancel_join_thread(self):
        """Do nothing: a process that ends does not wait until what it has put is read."""


cdef class JoinableQueue(Queue):
    """JoinableQueue(maxsize=0, *, ctx=None)
--

    A queue that counts unfinished tasks, like `multiprocessing.JoinableQueue`.

    Parameters
    ----------
    maxsize : int, optional
        As for `Queue`.
    ctx : object, optional
        As for `Queue`.

    Notes
    -----
    The task of a worker that is killed before `task_done` stays unfinished, because it cannot be known how
    far the work came. The program that replaces the worker calls `task_done` for it, or puts the task again
    and then calls it.
    """

    cdef bint counts_tasks(self) noexcept:
        return True

    def task_done(self):
        """Report that the work on an object that was taken is finished.

        Raises
        ------
        ValueError
            It was called more often than objects were put.
        """
        cdef double lock_end = 0
        cdef queue_outcome how = queue_outcome.busy
        self.check_made()
        while True:
            how = self.c_obj.task_done()
            if how == queue_outcome.done:
                return
            if how == queue_outcome.nothing:
                raise ValueError("task_done() called too many times")
            self.wait_for_lock(&lock_end, for_ever)

    def join(self):
        """Wait until `task_done` was called for every object that was put."""
        cdef double lock_end = 0
        cdef uint32_t seen = 0
        cdef queue_outcome how
        self.check_made()
        while True:
            how = self.c_obj.try_join(seen)
            if how == queue_outcome.done:
                return
            if how == queue_outcome.nothing:
                self.wait(tasks, seen, for_ever)
            else:
                self.wait_for_lock(&lock_end, for_ever)


cdef class SimpleQueue(_Base):
    """SimpleQueue(*, ctx=None)
--

    The simplest queue, like `multiprocessing.SimpleQueue`; see `Queue` for what it guarantees.

    Parameters
    ----------
    ctx : object, optional
        Not used.
    """

    def __init__(self, *args, **keywords):
        read_arguments(type(self).__name__, args, keywords, names=("ctx",))
        if self.c_obj.home() == NULL:
            self.make(0)

    cdef int check_open(self) except -1:
        if self._closed:
            raise OSError("handle is closed")
        if self.c_obj.home() == NULL:
            raise ValueError("SimpleQueue.__init__ was not called")
        return 0

    def put(self, obj):
        """Put an object into the queue.

        Parameters
        ----------
        obj : object
            Anything that can be pickled. It is pickled by this call.

        Raises
        ------
        MemoryError
            The message does not fit into memory; the text has the numbers.
        OSError
            The queue was closed in this process.
        """
        self.check_open()
        self.put_one(obj, for_ever)

    def get(self):
        """Take the oldest object out of the queue; wait for one if it is empty."""
        self.check_open()
        return self.get_one(for_ever)

    def empty(self):
        """Whether the queue contains no message."""
        self.check_open()
        return self.count().waiting == 0

    def close(self):
        """Declare that this object will not be used any more. Other processes may go on using the queue."""
        self._closed = True
