"""Finding arrays by their names, waiting for them, and building what a host needs only once."""

import errno
import os
import time

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool
from libcpp.string_view cimport string_view

from sharedmem._atomics_waiting cimport seconds_of
from sharedmem._handles cimport in_one_block
from sharedmem._name_arrays cimport array_of, bind, check_dtype, text_of
from sharedmem._name_states cimport has_ended, look, read_name, sleep, state_text
from sharedmem.libsharedmem.arena cimport allocation, arena
from sharedmem.libsharedmem.home cimport arena_of
from sharedmem.libsharedmem.names cimport (
    claim_name, fail_name, give_up_name, max_description_bytes, name_arena, name_found, name_space,
    name_status, name_ticket, place_in, vacate_name)

from sharedmem._copying import array as copy_into
from sharedmem._naming import BuildError, failure_text, kind_of
from sharedmem._startup import import_lock
from sharedmem.errors import kind_text

cnp.import_array()

cdef enum:
    first_notice = 10               # seconds of waiting after which this is logged
    slice_ns = 100000000            # of waiting, after which signals are handled
    failure_ns = 250000000          # for which a failure stays visible to those that waited for it

cdef extern from "<Python.h>":
    unsigned long PyThread_get_thread_ident() noexcept


cdef set building = set()           # the names that threads of this process are building: see `key_here`


cdef object read_deadline(object timeout):
    """When waiting ends, by time.monotonic(); None: never."""
    if timeout is None:
        return None
    cdef double seconds
    try:
        seconds = seconds_of(timeout)
    except OverflowError:
        raise ValueError("timeout is too large for a float; None waits for ever") from None
    if seconds < 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more, or None, not {timeout!r}")
    return time.monotonic() + seconds


cdef uint64_t time_left(object deadline) except? 0:
    """Nanoseconds that a slice of waiting may take; 0: the time has expired."""
    if deadline is None:
        return slice_ns
    left = deadline - time.monotonic()
    return 0 if left <= 0 else min(<uint64_t>slice_ns, <uint64_t>(min(left, 1.0) * 1e9) + 1)


def attach(name, *, readonly=False, timeout=0):
    """Return the array of a name.

    Parameters
    ----------
    name : str
        The name that was given to `create`.
    readonly : bool, optional
        Whether the array is read-only, as those of `sharedmem.readonly`.
    timeout : float or None, optional
        Seconds to wait for the name; None: without limit. By default it does not wait.

    Returns
    -------
    SharedArray
        The same memory, with the shape, dtype and order of the named array.

    Raises
    ------
    FileNotFoundError
        The name does not exist, or not before the timeout; the message says whether it is being built, by
        which process and since when.
    TypeError, ValueError
        `name` is not a str, is empty or too long, or refers to a lock or the like, which is opened by
        ``RLock(name=...)``; `timeout` is not a number of seconds.
    OSError
        As `create`.

    Notes
    -----
    Any thread may call it. The array keeps its memory, and with it the name, whichever process created it.

    Examples
    --------
    >>> a = sharedmem.create("attach-example", (2, 2), "i2")
    >>> b = sharedmem.attach("attach-example")
    >>> b[0] = 7
    >>> a
    SharedArray([[7, 7],
                 [0, 0]], dtype=int16)
    """
    cdef string_view asked = read_name(name)
    cdef name_space among = name_space.now()
    cdef name_found found
    cdef unsigned round = 0
    cdef uint64_t left
    cdef bint may_write = not readonly
    deadline = None
    if timeout is None or timeout != 0:
        deadline = read_deadline(timeout)
    while True:
        found = look(asked, among)
        if found.what == name_status.ready:
            return array_only(array_of(&found, may_write), name)
        left = 0 if timeout is not None and deadline is None else time_left(deadline)
        if left == 0:
            said = "there is no array of that name"
            if deadline is not None:
                said += f", and none was made within {float(timeout):g} s"
            if found.what == name_status.building:
                if has_ended(&found):
                    continue
                said += f"; it {state_text(&found)}"
            raise FileNotFoundError(errno.ENOENT, said, name)
        sleep(&found, among, round, left)
        round += 1


cdef object array_only(cnp.ndarray a, object name):
    """Return `a`, unless the name refers to a lock or the like, whose bytes must not be written to."""
    if cnp.PyDataType_HASFIELDS(a.descr):
        kind = kind_of(a.descr)
        if kind != "array":
            raise TypeError(f"the name {name!r} refers to sharedmem.{kind}(name={name!r}), not to an array")
    return a


def get_or_create(name, build, *, readonly=True, timeout=None):
    """Return the array of a name; if it does not exist, one process of the host builds it for all.

    Of all processes and threads, exactly one caller calls `build`; the others sleep until it is done. The
    building ends by success; or by an exception, which all waiting callers get; or by the death of the
    process, which another one replaces; but never by a time limit.

    Parameters
    ----------
    name : str
        As for `create`. If it may mean something else later, include a version: ``"model-v3"``.
    build : callable
        Called without arguments; returns an array, or anything that `numpy.asarray` accepts. Arrays that its
        thread creates by this library meanwhile are allocated in the arena of named arrays, so that one of
        these is returned without a copy. Any other array, or a read-only or non-contiguous one, is copied.
        The mask of a masked array is dropped, as by `numpy.array`.
    readonly : bool, optional
        Whether the array is read-only, as those of `sharedmem.readonly`. An array that all processes of a
        host share is seldom meant to be changed by one: think of ``table -= table.mean()`` in 64 workers.
    timeout : float or None, optional
        Seconds to wait while others build; None: without limit. It does not limit this process's own
        `build`.

    Returns
    -------
    SharedArray
        The same memory in all processes.

    Raises
    ------
    Exception
        Whatever `build` raises, in the process that called it.
    BuildError
        Another caller, for which this one waited, got an exception from `build`; the next call builds again.
    TimeoutError
        Another process is still building; the message says which one, and for how long.
    RuntimeError
        `build` asks for the name that it builds, or another greenlet of its thread does; or a forked child
        returned from its parent's `build`.
    TypeError, ValueError
        `build` is not callable, or returns Python objects; the name refers to a lock or the like;
        `timeout` is not a number of seconds; otherwise as `create`.
    MemoryError, OSError
        As `create`.

    See Also
    --------
    attach : Get the array of a name that exists already.
    readonly : Explains read-only arrays.

    Notes
    -----
    KeyboardInterrupt and SystemExit in `build` are raised only in its own process; one of the waiting
    processes builds then. A process that dies while it builds is replaced within a quarter of a second. One
    that is alive but stuck is not replaced until it is ended. A waiting process logs what it waits for, at
    level INFO of the logger "sharedmem", after 10 seconds and then at doubling intervals.

    The array lives as long as any process has it: when all workers end at the same time, it is gone. Its
    memory is charged to the builder's cgroup.

    Examples
    --------
    >>> table = sharedmem.get_or_create("table-example", lambda: sharedmem.full(3, 7.0))
    >>> table
    SharedArray([7., 7., 7.])
    >>> table.flags.writeable
    False
    """
    if not callable(build):
        raise TypeError(f"build must be callable, not {type(build).__name__}")
    read_deadline(timeout)      # to reject an invalid one even if there is no need to wait
    return array_only(found_or_built(name, build, not readonly, timeout), name)


def find_or_build(name, build):
    """The writable array of `get_or_create`, whether the name refers to an array or to another object."""
    return found_or_built(name, build, True, None)


cdef object found_or_built(object name, object build, bint may_write, object timeout):
    cdef string_view asked = read_name(name)
    cdef name_space among = name_space.now()
    cdef name_found found
    cdef name_ticket mine
    cdef bool claimed
    cdef object waiting = None
    while True:
        found = look(asked, among)
        if found.what == name_status.ready:
            return array_of(&found, may_write)
        if found.what == name_status.building:
            if waiting is None:
                refuse_recursion(name)
                waiting = _Waiting(name, timeout)
            (<_Waiting>waiting).wait(&found, among)
        elif found.what == name_status.failed:
            if waiting is not None and (<_Waiting>waiting).waited_for(&found):
                raise BuildError(f"building {name!r} failed in process {found.pid}: "
                                 f"{text_of(&found).decode('utf-8', 'replace')}", name, found.pid)
            if 0 < found.age_ns < failure_ns:
                time.sleep((failure_ns - found.age_ns) * 1e-9)
                continue
            vacate_name(found.at)
        else:
            with nogil:
                claimed = claim_name(asked, mine, among)
            if claimed:
                return build_now(&mine, name, build, may_write)


cdef class _Waiting:
    """Waiting while another process builds."""
    cdef object name, deadline, began, next_notice
    cdef uint64_t use
    cdef uint32_t entry
    cdef unsigned round

    def __init__(self, name, timeout):
        self.name = name
        self.deadline = read_deadline(timeout)
        self.began = time.monotonic()
        self.next_notice = first_notice

    cdef bint waited_for(self, name_found* found) noexcept:
        return self.round > 0 and found.at.use() == self.use and found.at.entry == self.entry

    cdef int wait(self, name_found* found, name_space among) except -1:
        cdef uint64_t ns = time_left(self.deadline)
        self.use = found.at.use()
        self.entry = found.at.entry
        if ns == 0:
            spent = f"{found.age_ns / 1e9:.1f} s" if found.age_ns != 0 else "an unknown time"
            raise TimeoutError(errno.ETIMEDOUT,
                               f"process {found.pid} has been building this name for {spent}", self.name)
        sleep(found, among, self.round, ns)
        self.round += 1
        waited = time.monotonic() - self.began
        if waited >= self.next_notice:
            self.next_notice *= 2
            with import_lock:
                import logging      # only here, since importing it takes longer than finding a built array
            logging.getLogger("sharedmem").info(
                "waiting for %r, which process %d has been building for %.0f s", self.name, found.pid,
                found.age_ns / 1e9)
        return 0


cdef tuple key_here(object name):
    """The entry in `building` for that name and this thread; a forked child builds nothing.

    It contains the system's thread id, because greenlets of one thread would wait for each other as the
    thread would for itself, and `threading.local` may be different for each of them.
    """
    return os.getpid(), PyThread_get_thread_ident(), name


cdef int refuse_recursion(object name) except -1:
    if key_here(name) in building:
        raise RuntimeError(f"this thread is already building {name!r} and would wait for itself: the "
                           "function that builds it, or another greenlet of this thread, asks for it")
    return 0


cdef object build_now(const name_ticket* mine, object name, object build, bint may_write):
    """Call `build` and end the building, whatever happens."""
    cdef arena* host
    cdef arena* before
    cdef bytes text
    cdef tuple key = None
    try:                            # any failure after the claim ends it, or others would wait for ever
        key = key_here(name)
        process = key[0]
        building.add(key)
        host = name_arena(mine[0])
        before = place_in(host)
        try:
            a = contiguous_in(host, build(), name)
        finally:
            place_in(before)
        if os.getpid() != process:
            raise RuntimeError(f"a forked child returned from the function by which process {process} builds "
                               f"{name!r}; end the child by os._exit")
        return bind(mine, host, a, may_write)
    except Exception as error:
        try:
            text = failure_text(error, max_description_bytes)
        except BaseException:       # without a text: a waiting process builds, as if this one had died
            give_up_name(mine[0])
            raise
        fail_name(mine[0], string_view(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)))
        raise
    except BaseException:
        give_up_name(mine[0])
        raise
    finally:
        if key is not None:
            building.discard(key)


cdef object contiguous_in(arena* where, object made, object name):
    """An array that lies in the arena, is writable and contiguous, with the items of `made`.

    Memory that came through a read-only mapping may have been promised to others as read-only.
    """
    cdef allocation found
    cdef cnp.ndarray a = made if isinstance(made, np.ndarray) else np.asarray(made)
    if a.descr.hasobject and a is not made:
        raise TypeError(f"the function that builds {name!r} returned {kind_text(made)}, not an array of "
                        "numbers, text or dates; sharedmem.share is for other objects")
    check_dtype(a.descr)
    if (cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_ITEMSIZE(a) > 0 and cnp.PyArray_ISWRITEABLE(a)
            and (cnp.PyArray_IS_C_CONTIGUOUS(a) or cnp.PyArray_IS_F_CONTIGUOUS(a))
            and arena_of(cnp.PyArray_DATA(a)) == where and in_one_block(a, where, &found)):
        return a
    return copy_into(np.asarray(a), order="A")
