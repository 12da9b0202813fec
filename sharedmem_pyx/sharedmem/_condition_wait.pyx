"""What a condition does where no bytecode may run: a handler of Ctrl-C could raise there."""
import time

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, uint32_t

from sharedmem._atomics_waiting cimport seconds_of
from sharedmem.libsharedmem.futex cimport wait_end, wait_on, woken
from sharedmem.libsharedmem.robust_mutex cimport nanoseconds


cdef extern from "<sharedmem_pyx/atomics.hpp>" namespace "sharedmem_pyx::atomics" nogil:
    uint32_t load_word "sharedmem_pyx::atomics::load"(const uint32_t*) noexcept
    nanoseconds span_of(double seconds) noexcept


# Seconds between two looks for a signal such as Ctrl-C.
cdef double slice_of_wait = 0.1
# Seconds after a notification that woke others, after which a waiting thread checks again: they may have been
# killed.
cdef double patience = 0.8


cdef class WithLock:
    """What is entered and left with its lock, as a condition.

    Were these two methods written in Python, a signal handler might raise when the lock is taken and the
    ``with`` statement not yet entered, or when it is left and the lock not yet released: it would stay
    locked.
    """
    cdef public object _lock

    def __enter__(self):
        return self._lock.acquire()

    def __exit__(self, *exception):
        # A wait that was interrupted while it acquired the lock again does not hold it.
        if exception[0] is None or self._lock._is_owned():
            self._lock.release()


def sleep_without(lock, const uint32_t[::1] words not None, timeout):
    """Release a lock, sleep until a notification, and take the lock back: `Condition.wait`.

    No signal is handled between the release and the moment from which on the lock is taken back whatever
    happens, since no bytecode runs there.
    """
    cdef double seconds = seconds_of(timeout)
    cdef uint32_t start = load_word(&words[0])
    depth = lock._release_save()
    try:
        return sleep_until_notified(&words[0], start, seconds)
    finally:
        lock._acquire_restore(depth)


cdef bint sleep_until_notified(const uint32_t* words, uint32_t start, double seconds) except -1:
    """Whether there was a notification since the first word was `start`; see `_condition.py`."""
    cdef double end = time.monotonic() + seconds
    cdef double left = seconds
    cdef double now
    cdef double until = 0.0        # from then on it does not rely on another thread that was woken
    cdef uint32_t seen = start
    cdef wait_end how
    while True:
        with nogil:
            how = wait_on(words, seen, span_of(min(left, slice_of_wait)))
        if how == woken:
            return True
        PyErr_CheckSignals()
        if <int32_t>(load_word(words + 2) - start) > 0:
            return True
        seen = load_word(words)
        now = time.monotonic()
        if seen != start:
            if until == 0.0:
                until = now + patience
            elif now >= until:
                return True
        left = end - now
        if left <= 0:
            return False
