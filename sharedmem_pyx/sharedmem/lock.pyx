"""Locks in shared memory that can be sent like arrays and survive their owners."""
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

    It is used like `multiprocessing.RLock`, with two differences. It can be sent at any time and
    by any means, like an array: through a queue to a worker that already runs, or as the bytes of a
    pickle. And it does not stay locked when its owner dies.

    Methods may be called by several threads and processes at once. Forking while a thread holds the
    lock does not make the child an owner.

    Parameters
    ----------
    name : str or None, optional
        All callers that give the same name get the same lock, whether they are related or not: processes of
        one user, as for `sharedmem.create`. The first one creates it. None: a new lock, which can be sent.

    Raises
    ------
    TypeError, ValueError
        The name is not a str, is empty or too long, or refers to something else; or its lock was created in
        another pid namespace.
    MemoryError, OSError, BuildError
        As `get_or_create`.

    Warns
    -----
    RuntimeWarning
        When it is acquired after a thread that held it, of any process, has ended without releasing
        it. The lock is usable; the data that it guards may be half-written.
        Python by default shows it once for each line of code; ``warnings.simplefilter("always")`` shows each.
        With "error" it is an exception, the lock is released again, and the next `acquire` succeeds.

    Notes
    -----
    The kernel detects dead owners, see pthread_mutexattr_setrobust(3). A lock works among
    processes of one pid namespace only; in another one it can't be unpickled.

    A process keeps the memory of a lock while one of its threads holds it, even if no object refers to the
    lock any more. After the end of such a thread the memory is freed when the process acquires new locks.

    A name exists as long as a process has the lock; `unlink` removes it earlier. If the owner is
    killed and no other process has the lock, the next caller with the name gets a new lock, and no warning.
    """

    def acquire(self, block=True, timeout=None):
        """Acquire the lock, or acquire it once more.

        Parameters
        ----------
        block : bool, optional
            Whether to wait while another thread or process holds the lock.
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Returns
        -------
        bool
            Whether the caller holds the lock now.

        Raises
        ------
        TypeError, ValueError
            `timeout` is not a number, or is NaN.
        """
        return self.obtain(block, timeout)

    cdef bint obtain(self, object block, object timeout) except -1:
        cdef Hold hold = self.mine()
        if hold is None:
            return LockBase.obtain(self, block, timeout)
        hold.depth += 1
        return True

    def release(self):
        """Release the lock once; after the last time others can acquire it.

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
            False also if its owner has ended without releasing it: the next caller acquires it.

        Raises
        ------
        NotImplementedError
            This system does not report it.
        """
        return self.is_held()

    def __reduce__(self):
        if _by_value.get():
            return RLock, ()    # its owner and waiters cannot be saved: a new lock
        return _open_lock, (self.memory,)


@cython.final
cdef class Lock(LockBase):
    """Lock(*, name=None)
--

    Lock in shared memory that one thread acquires and the same thread releases.

    It is used like `multiprocessing.Lock`. It can be sent at any time and by any means, like an array, and
    it does not stay locked when its owner dies. To make this possible it has an owner: no other thread or
    process can release it, and a thread that acquires it twice without a timeout gets an error instead of
    waiting for itself for ever.

    Methods may be called by several threads and processes at once. Forking while a thread holds the
    lock does not make the child an owner.

    Parameters
    ----------
    name : str or None, optional
        All callers that give the same name get the same lock, as with `RLock`, which has the same errors.

    Warns
    -----
    RuntimeWarning
        When it is acquired after a thread that held it, of any process, has ended without releasing
        it. The lock is usable; the data that it guards may be half-written.
        Python by default shows it once for each line of code; ``warnings.simplefilter("always")`` shows each.
        With "error" it is an exception, the lock is released again, and the next `acquire` succeeds.

    See Also
    --------
    RLock : A lock that its owner may acquire several times.
    """

    def acquire(self, block=True, timeout=None):
        """Acquire the lock.

        Parameters
        ----------
        block : bool, optional
            Whether to wait while a thread or process holds the lock.
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Returns
        -------
        bool
            Whether the caller holds the lock now.

        Raises
        ------
        RuntimeError
            The calling thread holds it and would wait for itself for ever.
        TypeError, ValueError
            `timeout` is not a number, or is NaN.
        """
        return self.obtain(block, timeout)

    cdef bint obtain(self, object block, object timeout) except -1:
        if self.mine() is None:
            return LockBase.obtain(self, block, timeout)
        if not block:
            return False
        cdef double seconds = seconds_of(timeout)
        if seconds > threading.TIMEOUT_MAX:
            raise RuntimeError("this thread already holds the lock: it would wait for itself for ever")
        time.sleep(max(seconds, 0))
        return False

    def release(self):
        """Release the lock, so that others can acquire it.

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
            This system does not report it.
        """
        return self.is_held()

    cdef object not_held(self):
        return ValueError("attempt to release a lock that this thread does not hold; only its holder can")

    def __reduce__(self):
        if _by_value.get():
            return Lock, ()
        return _open_plain_lock, (self.memory,)


def _open_lock(memory):
    """The RLock that lies in `memory`."""
    return RLock(_memory=memory)


def _open_plain_lock(memory):
    """The Lock that lies in `memory`."""
    return Lock(_memory=memory)


def call_with(RLock lock not None, function, *args):
    """The result of function(*args), called while the lock is held.

    There is no warning of the death of an owner, so it is for data that is consistent after each step. No
    signal is handled between acquiring the lock and the call, nor between the call's end and the release.
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
