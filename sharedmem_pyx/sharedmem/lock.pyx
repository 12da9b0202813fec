"""Locks in shared memory that go wherever an array goes and survive their owners."""
import threading
import time
import warnings

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

from sharedmem._atomics_waiting cimport seconds_of
from sharedmem.libsharedmem.robust_mutex cimport (
    busy, inherited, nanoseconds, owner_report, owner_state, robust_mutex, robust_mutex_bytes,
    robust_mutex_outcome, taken,
)

from sharedmem._arguments import read_arguments
from sharedmem._messages import by_value as _by_value, no_deep_copy
from sharedmem._startup import at_fork, import_lock
from sharedmem.array import is_shared
from sharedmem._creation import empty

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_native_id()


cdef extern from *:
    """
    #include <atomic>
    #include <cstdint>

    // The calling thread's number, which no other thread of this process has or ever had. The kernel gives
    // the id of a thread that has ended to a new one, and so does Python.
    inline std::uint64_t thread_number() noexcept {
      static std::atomic<std::uint64_t> last{0};
      thread_local const std::uint64_t mine = ++last;
      return mine;
    }
    """
    uint64_t thread_number() noexcept


# Seconds between two looks for a signal such as Ctrl-C: a wait for a mutex is not ended by one.
cdef double slice_of_wait = 0.1


@cython.final
cdef class _Hold:
    """How a thread of this process holds a lock."""
    cdef object memory             # stays while the thread's list of held locks points into it
    cdef unsigned long thread      # the kernel's id: differs from those of the process that was forked
    cdef uint64_t number           # and from those of threads that have ended
    cdef Py_ssize_t depth

    cdef bint is_mine(self) noexcept:
        return self.number == thread_number() and self.thread == PyThread_get_thread_native_id()


# Address of a lock -> _Hold. An entry belongs to the thread that holds the lock: it alone adds and
# removes it, and it does so while it holds the lock.
cdef dict holds = {}
at_fork(after_in_child=holds.clear)      # a child holds nothing


@cython.final
cdef class RLock:
    """RLock(*, name=None)
--

    Recursive lock in shared memory.

    It is used as `multiprocessing.RLock` is, with two differences. It can be sent at any time and
    by any means, as arrays can: through a queue to a worker that already runs, or as the bytes of a
    pickle. And it is not lost when its owner dies.

    Methods may be called by several threads and processes at once. Forking while a thread holds the
    lock does not make the child an owner.

    Parameters
    ----------
    name : str or None, optional
        All who give the same name have the same lock, whoever started them: processes of one user, as for
        `sharedmem.create`. The first one makes it. None: a new lock, which others are sent.

    Raises
    ------
    TypeError, ValueError
        The name is no str, is empty or too long, or stands for something else; or its lock was made in
        another pid namespace.
    MemoryError, OSError, BuildError
        As `get_or_create`.

    Warns
    -----
    RuntimeWarning
        When it is acquired after a thread that held it, of any process, has ended without releasing
        it. The lock is fine; what it guards may be half-written.

    Notes
    -----
    Lost owners are detected by the kernel, see pthread_mutexattr_setrobust(3). A lock is of use to
    processes of one pid namespace only; in another one it can't be unpickled.

    A name lives as long as a process has the lock, and `unlink` takes it away before. If the owner is
    killed and no other process had it, the next one to give the name gets a new lock, and no warning.
    """

    def __cinit__(self, *args, **keywords):
        cdef unsigned char[::1] view
        _memory = keywords.pop("_memory", None)
        name = read_arguments("RLock", args, keywords, names=("name",)).get("name")
        if name is not None:
            _memory = named_lock(name, "RLock")
        if _memory is None:
            self.memory = empty(robust_mutex_bytes, "u1")
        elif is_shared(_memory):
            self.memory = _memory
        else:
            raise ValueError("the memory of a lock must be shared")
        view = self.memory
        if view.shape[0] != <Py_ssize_t>robust_mutex_bytes:
            raise ValueError(f"a lock has {robust_mutex_bytes} bytes, not {view.shape[0]}")
        self.address = <size_t>&view[0]
        if _memory is None:
            self.c_obj = robust_mutex.create(&view[0])
        else:
            self.c_obj = robust_mutex.open(&view[0])

    def acquire(self, block=True, timeout=None):
        """Take the lock, or take it once more.

        Parameters
        ----------
        block : bool, optional
            Whether to wait while another thread or process holds the lock.
        timeout : float or None, optional
            Seconds to wait at most; None: as long as it takes.

        Returns
        -------
        bool
            Whether the caller holds the lock now.

        Raises
        ------
        TypeError, ValueError
            `timeout` is no number, or not a number (NaN).
        """
        cdef object key = self.address
        cdef _Hold hold = holds.get(key)
        if hold is not None and hold.is_mine():
            hold.depth += 1
            return True
        cdef double seconds = 0.0
        if block:
            seconds = seconds_of(timeout)
        how = self.wait(seconds)
        if how == busy:
            return False
        self.take(how, key)
        return True

    cdef robust_mutex_outcome wait(self, double timeout) except *:
        cdef robust_mutex_outcome how = self.c_obj.try_lock()
        if how != busy or timeout <= 0:
            return how
        cdef double end = time.monotonic() + timeout
        cdef double left = timeout
        while how == busy and left > 0:
            left = min(left, slice_of_wait)
            with nogil:
                how = self.c_obj.try_lock_for(nanoseconds(<long long>(left * 1e9)))
            if how == busy:
                PyErr_CheckSignals()
                left = end - time.monotonic()
        return how

    cdef int take(self, robust_mutex_outcome how, object key) except -1:
        cdef _Hold hold
        try:
            hold = _Hold.__new__(_Hold)
            hold.memory = self.memory
            hold.thread = PyThread_get_thread_native_id()
            hold.number = thread_number()
            hold.depth = 1
            holds[key] = hold
            if how == inherited:
                warnings.warn("a thread or process ended while it held this lock: what the lock guards "
                              "may be half-written", RuntimeWarning, stacklevel=1)
        except BaseException:
            holds.pop(key, None)
            self.c_obj.unlock()
            raise
        return 0

    def release(self):
        """Give the lock back once; after the last time others can take it.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        """
        cdef object key = self.address      # first: it may want memory, and then the lock stays as it is
        cdef _Hold hold = holds.get(key)
        if hold is None or not hold.is_mine():
            raise AssertionError("attempt to release a lock that this thread does not hold")
        hold.depth -= 1
        if hold.depth == 0:
            del holds[key]
            self.c_obj.unlock()

    def locked(self):
        """Whether a thread of any process holds the lock.

        Returns
        -------
        bool
            False also if its owner has ended without releasing it: who asks next gets it.

        Raises
        ------
        NotImplementedError
            This system does not tell.
        """
        return is_locked(self)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exception):
        # A Ctrl-C in the middle of a condition's wait may come when the lock is not taken back yet.
        if exception[0] is None or self._is_owned():
            self.release()

    def __repr__(self):
        return f"<RLock at {id(self):#x}, {state_of(self)}>"

    def __deepcopy__(self, memo):
        no_deep_copy(self, memo)

    def __reduce__(self):
        if _by_value.get():
            return RLock, ()    # who waits for a lock, and who has it, is no data: a new one
        return _open_lock, (self.memory,)

    cdef Py_ssize_t depth(self) noexcept:
        """How often the calling thread has taken the lock."""
        cdef _Hold hold = holds.get(self.address)
        return hold.depth if hold is not None and hold.is_mine() else 0

    # What threading.Condition and ours ask of a lock.

    def _is_owned(self):
        return self.depth() > 0

    def _release_save(self):
        cdef object key = self.address
        cdef _Hold hold = holds.get(key)
        if hold is None or not hold.is_mine():
            raise AssertionError("attempt to release a lock that this thread does not hold")
        cdef Py_ssize_t depth = hold.depth
        del holds[key]
        self.c_obj.unlock()
        return depth

    def _acquire_restore(self, Py_ssize_t depth):
        self.acquire()
        (<_Hold>holds[self.address]).depth = depth


@cython.final
cdef class Lock:
    """Lock(*, name=None)
--

    Lock in shared memory that one thread takes and the same thread gives back.

    It is used as `multiprocessing.Lock` is. It can be sent at any time and by any means, as arrays can, and
    it is not lost when its owner dies. For that it must know its owner: no other thread or process can
    release it, and a thread that takes it twice without a timeout gets an error instead of waiting for
    itself for ever.

    Methods may be called by several threads and processes at once. Forking while a thread holds the
    lock does not make the child an owner.

    Parameters
    ----------
    name : str or None, optional
        All who give the same name have the same lock, as with `RLock`, whose errors there are, too.

    Warns
    -----
    RuntimeWarning
        When it is acquired after a thread that held it, of any process, has ended without releasing
        it. The lock is fine; what it guards may be half-written.

    See Also
    --------
    RLock : A lock that its owner may take several times.
    """

    def __cinit__(self, *args, **keywords):
        _memory = keywords.pop("_memory", None)
        name = read_arguments("Lock", args, keywords, names=("name",)).get("name")
        if name is not None:
            _memory = named_lock(name, "Lock")
        self.inner = RLock(_memory=_memory)

    def acquire(self, block=True, timeout=None):
        """Take the lock.

        Parameters
        ----------
        block : bool, optional
            Whether to wait while a thread or process holds the lock.
        timeout : float or None, optional
            Seconds to wait at most; None: as long as it takes.

        Returns
        -------
        bool
            Whether the caller holds the lock now.

        Raises
        ------
        RuntimeError
            The calling thread holds it and would wait for itself without an end.
        TypeError, ValueError
            `timeout` is no number, or not a number (NaN).
        """
        if self.inner.depth() == 0:
            return self.inner.acquire(block, timeout)
        if not block:
            return False
        cdef double seconds = seconds_of(timeout)
        if seconds > threading.TIMEOUT_MAX:
            raise RuntimeError("this thread holds the lock already: it would wait for itself for ever")
        time.sleep(max(seconds, 0))
        return False

    def release(self):
        """Give the lock back, so that others can take it.

        Raises
        ------
        ValueError
            The calling thread does not hold the lock.
        """
        if self.inner.depth() == 0:
            raise ValueError("attempt to release a lock that this thread does not hold; no other can")
        self.inner.release()

    def locked(self):
        """Whether a thread of any process holds the lock; see `RLock.locked`.

        Returns
        -------
        bool
            False also if its owner has ended without releasing it.

        Raises
        ------
        NotImplementedError
            This system does not tell.
        """
        return is_locked(self.inner)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exception):
        # A Ctrl-C in the middle of a condition's wait may come when the lock is not taken back yet.
        if exception[0] is None or self._is_owned():
            self.release()

    def __repr__(self):
        return f"<Lock at {id(self):#x}, {state_of(self.inner)}>"

    def __deepcopy__(self, memo):
        no_deep_copy(self, memo)

    def __reduce__(self):
        if _by_value.get():
            return Lock, ()
        return _open_plain_lock, (self.inner.memory,)

    def _is_owned(self):
        return self.inner.depth() > 0

    def _release_save(self):
        return self.inner._release_save()

    def _acquire_restore(self, depth):
        self.inner._acquire_restore(depth)


cdef object named_lock(object name, str kind):
    """The memory of the lock of that name."""
    with import_lock:
        from sharedmem._named_objects import named_memory     # which few programs need
    return named_memory(name, kind, robust_mutex_bytes, begin_lock)


def begin_lock(unsigned char[::1] memory not None):
    """Make a free lock in the first bytes of shared memory that nobody else uses yet."""
    if memory.shape[0] < <Py_ssize_t>robust_mutex_bytes:
        raise ValueError(f"a lock needs {robust_mutex_bytes} bytes, not {memory.shape[0]}")
    robust_mutex.create(&memory[0])


cdef bint is_locked(RLock lock) except *:
    cdef owner_report seen = lock.c_obj.owner()
    if seen.what == owner_state.unknown:
        raise NotImplementedError("this system does not tell who holds a lock; acquire(block=False) does")
    return seen.what == owner_state.held


cdef str state_of(RLock lock):
    """Who holds the lock, for `repr`."""
    cdef owner_report seen
    depth = lock.depth()
    if depth > 0:
        return f"held by this thread, depth {depth}"
    seen = lock.c_obj.owner()
    if seen.what == owner_state.unknown:
        return "not held by this thread"
    if seen.what == owner_state.free:
        return "not held"
    if seen.what == owner_state.left:
        return "left by a thread that has ended"
    with import_lock:
        from sharedmem._owners import owner_text    # which few programs need
    return f"held by {owner_text(seen.thread)}"


def _open_lock(memory):
    """The lock that lies in `memory`."""
    return RLock(_memory=memory)


def _open_plain_lock(memory):
    """The Lock that lies in `memory`."""
    return Lock(_memory=memory)


def call_with(RLock lock not None, function, *args):
    """The result of function(*args), called while the lock is held.

    The death of an owner is not told by a warning: for what is consistent after each step. No signal is
    handled between the moment that the lock is taken and the call, nor between its end and the release.
    """
    cdef object key = lock.address
    if lock.depth() > 0:
        lock.acquire()
    else:
        lock.wait(float("inf"))
        lock.take(taken, key)
    try:
        return function(*args)
    finally:
        lock.release()
