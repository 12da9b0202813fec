"""Locks in shared memory that go wherever an array goes and survive their owners."""
import threading
import time

cimport cython

from sharedmem._atomics_waiting cimport seconds_of
from sharedmem._lock_base cimport Hold, LockBase
from sharedmem.libsharedmem.robust_mutex cimport taken

from sharedmem._messages import by_value as _by_value


@cython.final
cdef class RLock(LockBase):
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

    A process keeps the memory of a lock while one of its threads holds it, even if no object is left that
    stands for the lock. After the end of such a thread the memory goes when the process takes new locks.

    A name lives as long as a process has the lock, and `unlink` takes it away before. If the owner is
    killed and no other process had it, the next one to give the name gets a new lock, and no warning.
    """

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
        return self.obtain(block, timeout)

    cdef bint obtain(self, object block, object timeout) except -1:
        cdef Hold hold = self.mine()
        if hold is None:
            return LockBase.obtain(self, block, timeout)
        hold.depth += 1
        return True

    def release(self):
        """Give the lock back once; after the last time others can take it.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        """
        self.give_back()

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
        return self.is_held()

    def __reduce__(self):
        if _by_value.get():
            return RLock, ()    # who waits for a lock, and who has it, is no data: a new one
        return _open_lock, (self.memory,)


@cython.final
cdef class Lock(LockBase):
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
        return self.obtain(block, timeout)

    cdef bint obtain(self, object block, object timeout) except -1:
        if self.mine() is None:
            return LockBase.obtain(self, block, timeout)
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
        self.give_back()

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
        return self.is_held()

    cdef object not_held(self):
        return ValueError("attempt to release a lock that this thread does not hold; no other can")

    def __reduce__(self):
        if _by_value.get():
            return Lock, ()
        return _open_plain_lock, (self.memory,)


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
    if lock.mine() is not None:
        lock.obtain(True, None)
    else:
        lock.wait(float("inf"))
        lock.take(taken)
    try:
        return function(*args)
    finally:
        lock.give_back()
