"""Waiting until an element changes, and waking the waiting threads: for `sharedmem.atomics` and for locks."""
import operator
import time

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t

from sharedmem._atomics cimport check_array, element, find
from sharedmem.libsharedmem.futex cimport wait_on, wake
from sharedmem.libsharedmem.robust_mutex cimport nanoseconds


cdef extern from "<sharedmem_pyx/elements.hpp>" namespace "sharedmem_pyx":
    bint can_be_waited_for(element) noexcept
    bint read_word(element of, object value, uint32_t* out) except False


cdef extern from "<sharedmem_pyx/atomics.hpp>" namespace "sharedmem_pyx::atomics" nogil:
    uint32_t load_word "sharedmem_pyx::atomics::load"(const uint32_t*) noexcept
    nanoseconds span_of(double seconds) noexcept


cnp.import_array()

# Seconds between two checks for a signal such as Ctrl-C, whose handler runs in the main thread only.
cdef double slice_of_wait = 0.1


cdef element check_word(object a) except *:
    cdef element of = check_array(a, False)
    if not can_be_waited_for(of):
        raise TypeError(f"the kernel waits for int32 and uint32, not for {a.dtype}")
    return of


def end_of_wait(timeout):
    """When a wait that begins now expires, by `time.monotonic`; infinity for None."""
    return time.monotonic() + seconds_of(timeout)


cdef double seconds_of(object timeout) except? -1:
    """The seconds of a timeout; infinity for None."""
    if timeout is None:
        return float("inf")
    cdef double seconds
    try:
        seconds = timeout
    except TypeError:
        kind = type(timeout).__name__
        raise TypeError(f"timeout must be a number of seconds or None, not {kind}") from None
    if seconds != seconds:
        raise ValueError(f"timeout must be a number of seconds or None, not {timeout!r}")
    return seconds


def wait(a, index, value, timeout=None):
    """Sleep while an element has a value.

    Parameters
    ----------
    a : numpy.ndarray
        Of int32 or uint32; it may be read-only.
    index : int or tuple of int
        Of one element.
    value : int
        The call returns as soon as the element has another value, and at once if it has one now. Code that
        changes the element must call `notify` afterwards.
    timeout : float or None, optional
        Seconds to wait at most; None: without limit.

    Returns
    -------
    bool
        Whether the element had another value; False: the time expired.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says. TypeError also for elements of another size: the kernel waits for words of 32
        bits.

    Notes
    -----
    Ctrl-C and other signals are handled while it waits. The element is checked ten times a second even
    without a `notify`, so that a process that is killed between its change and `notify` leaves no thread
    asleep.

    References
    ----------
    .. [1] Linux man-pages, futex(2).
    """
    cdef element of = check_word(a)
    cdef const uint32_t* word = <const uint32_t*>find(a, index, of)
    cdef uint32_t same = 0
    read_word(of, value, &same)
    return sleep_while(word, same, seconds_of(timeout))


cdef bint sleep_while(const uint32_t* word, uint32_t same, double seconds) except -1:
    """Whether the word changes from `same` within so many seconds."""
    cdef double left = seconds
    cdef double end
    if load_word(word) != same:
        return True
    end = time.monotonic() + seconds
    while left > 0:
        with nogil:
            wait_on(word, same, span_of(min(left, slice_of_wait)))
        PyErr_CheckSignals()
        if load_word(word) != same:
            return True
        left = end - time.monotonic()
    return False


def notify(a, index, count=None):
    """Wake processes and threads that wait for an element.

    Parameters
    ----------
    a : numpy.ndarray
        Of int32 or uint32.
    index : int or tuple of int
        Of one element, which was changed before the call.
    count : int or None, optional
        How many to wake at most; None: all that wait.

    Returns
    -------
    int
        How many were woken; on Windows 0, because the system does not tell.

    Raises
    ------
    TypeError, ValueError, IndexError
        As the module says; TypeError for a `count` that is not an integer, ValueError for a negative one.
    """
    cdef element of = check_word(a)
    cdef const uint32_t* word = <const uint32_t*>find(a, index, of)
    cdef int most = 2**31 - 1
    if count is not None:
        number = operator.index(count)
        if number < 0:
            raise ValueError(f"count, the number of threads to wake, must not be negative: {count}")
        most = min(number, most)
    return wake(word, most)
