"""The arenas of this process: which one is its home, what they contain, and how memory is given back."""

import functools
import multiprocessing
import os
import sys
import threading
from multiprocessing import process, util

from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from sharedmem.libsharedmem.arena cimport arena, arena_statistics
from sharedmem.libsharedmem.handle cimport handle_version
from sharedmem.libsharedmem.home cimport (
    attached_arenas, go_on, home, home_locator, linger, linger_at_exit, make_root, offer, start_new_home)
from sharedmem.libsharedmem.segment cimport backing

from sharedmem._in_flight import look
from sharedmem._startup import at_fork, import_lock


cdef extern from "<sharedmem_pyx/arrived_memory.hpp>" namespace "sharedmem_pyx" nogil:
    size_t drop_arrived "sharedmem_pyx::arrived_memory::drop"() noexcept


# Children find the locator of their parent's arena in two places: a variable that every kind of child
# inherits, and a key of the configuration that travels with each Process object, also to children of a
# fork server that is older than the arena. The C++ library sets the variable (`settle_on` in home.cpp), since
# its users need it without Python. But `os.environ` is a copy that Python made at its start: it does not
# notice this, and programs pass it to their children. Assigning to it is the only way to update it before
# Python 3.14.
_VARIABLE = "SHAREDMEM_ARENA"
_KEY = "sharedmem"


# -- the home arena

cdef int offer_configured() except -1:
    text = process.current_process()._config.get(_KEY)
    if isinstance(text, str):
        name = (<str>text).encode("ascii", "replace")
        offer(string_view(<const char*>name, len(name)))
    return 0


cdef int export_home() except -1:
    cdef string text = home_locator()
    if not text.empty():
        name = text.decode("ascii")
        if os.environ.get(_VARIABLE) != name:
            os.environ[_VARIABLE] = name
        process.current_process()._config[_KEY] = name
    return 0


cdef arena* decide_home() except NULL:
    cdef arena* found
    offer_configured()
    with nogil:
        found = &home()
    export_home()
    return found


def new_arena():
    """Create a new arena, from which this process allocates from now on.

    So will the children that it starts from now on. Existing arrays stay where they are. If another
    thread creates arrays meanwhile, they lie in either arena.

    The former arena stays attached until this process ends, also when no array is left in it. Therefore a
    process can call this function some 120 times.

    Raises
    ------
    MemoryError
        This process has attached 128 arenas, the limit.
    OSError
        The system refused every size that was tried; the message lists each attempt.
    ValueError
        A setting in the environment is invalid; the message names it.
    """
    with nogil:
        start_new_home()
    export_home()


def where_home():
    """Describe which other processes can attach the home arena; it is created now if there is none.

    Returns
    -------
    version : int
        Of the layout of arenas and handles.
    host : int
        Equal for processes of one boot of one kernel and of one IPC namespace.
    is_memfd : bool
            Whether it lies in a memfd, which is found by the pid of its creator.

    Raises
    ------
    OSError, ValueError
        As `new_arena`.
    """
    cdef arena* mine = decide_home()
    return handle_version, mine.where().host, mine.where().segment.kind == backing.memfd


# -- checking and giving back
#
# No Python code runs while an `attached_arenas` lives: it might fork, or drop the last array of an arena.

cdef int check_all() except -1 nogil:
    cdef attached_arenas arenas
    cdef size_t i
    for i in range(arenas.size()):
        arenas[i].check()
    return 0


cdef uint64_t trim_all() except? 1 nogil:
    cdef attached_arenas arenas
    cdef uint64_t done = 0
    cdef size_t i
    for i in range(arenas.size()):
        done += arenas[i].trim()
    return done


cdef uint64_t collect_all(bint leases) except? 1 nogil:
    cdef attached_arenas arenas
    cdef uint64_t done = 0
    cdef size_t i
    for i in range(arenas.size()):
        done += arenas[i].collect(leases)
    return done


cdef uint64_t revoke_all(uint64_t older_than) except? 1 nogil:
    cdef attached_arenas arenas
    cdef uint64_t done = 0
    cdef size_t i
    for i in range(arenas.size()):
        done += arenas[i].revoke(older_than)
    return done


def check():
    """Check the tables of the arenas that this process uses.

    For debugging: a stray write, by code that writes past the end of some other memory, may hit them.

    Raises
    ------
    RuntimeError
        Names the first invalid entry.
    """
    with nogil:
        check_all()


def cleanup():
    """Give cached memory back to the system: memory of former arrays that is kept for new ones.

    Arrays are not affected. Other processes may go on meanwhile, and may need what was given back. It is
    shared memory, and private memory of this process in which copies arrived (see `transport`).

    Returns
    -------
    int
        Bytes given back. On Windows those of private memory only: shared memory stays committed until the
        last process of its arena ends, although the system may use its RAM for others.

    Notes
    -----
    Pages are given back by ``MADV_REMOVE`` [1]_, which frees them for all processes at once; on Windows their
    RAM is, by ``DiscardVirtualMemory`` [2]_.

    References
    ----------
    .. [1] Linux man-pages, madvise(2).
    .. [2] Microsoft, Win32 API, DiscardVirtualMemory function (memoryapi.h).
    """
    cdef uint64_t done
    with nogil:
        done = trim_all() + drop_arrived()
    return done


def collect(leases=False):
    """Free what dead processes held, and messages that this process sent to readers that are dead now.

    This happens automatically before an allocation is refused; call it to have it sooner. Any thread may
    call it. A process that dies while it runs does no harm: it can be repeated.

    Parameters
    ----------
    leases : bool, optional
        Also free the arrays that processes now dead have sent and that were not loaded. Otherwise they are
        kept for receivers that may still load them, until an allocation would be refused.

    Returns
    -------
    int
        Bytes of the arrays that were freed, an estimate.
    """
    cdef uint64_t done
    cdef bint also = leases
    look()
    with nogil:
        done = collect_all(also)
    return done


def revoke(older_than):
    """Give up arrays that were sent and never loaded: their memory is freed unless a process has them.

    For queues and pipes that were discarded unread. Loading such a message afterwards raises
    StaleHandleError, unless some process still has the array.

    Parameters
    ----------
    older_than : float
        Seconds since they were sent.

    Returns
    -------
    int
        Number of arrays given up.

    Raises
    ------
    TypeError, ValueError
        `older_than` is not a number; it is negative, or 1e9 and more.
    """
    cdef double seconds
    cdef uint64_t nanoseconds, done
    try:
        seconds = older_than
    except TypeError:
        raise TypeError(f"older_than must be a number of seconds, not {type(older_than).__name__}") from None
    if not 0 <= seconds < 1e9:
        raise ValueError(f"older_than must be a number of seconds from 0 to 1e9, not {older_than!r}")
    nanoseconds = <uint64_t>(seconds * 1e9)
    with nogil:
        done = revoke_all(nanoseconds)
    return done


cdef uint64_t read_bytes(object cache) except? 0:
    with import_lock:
        from sharedmem._sizes import check_bytes
    return check_bytes("cache", cache, 0, 64)


def memory_limit(cache=None):
    """Return the limits of this process's arena, in bytes; set one if it is given.

    A limit that is set applies to all processes of the arena at once. The default is a quarter of
    the memory that machine and cgroup allow, or of the arena if that is less.

    Parameters
    ----------
    cache : int, optional
        Bytes of free memory kept for new arrays, of all processes of the arena together.

    Returns
    -------
    dict
        cache
            The limit for free memory, as above.
        arena
            Size of the arena, which limits all arrays in it together.

    Raises
    ------
    TypeError, ValueError
        `cache` is not an int; it is negative or has more than 64 bits.
    """
    cdef arena* mine
    cdef arena_statistics now
    cdef uint64_t limit
    if cache is not None:
        limit = read_bytes(cache)
    mine = decide_home()
    with nogil:
        if cache is not None:
            mine.set_cache_limit(limit)
        now = mine.statistics()
    return {"cache": mine.cache_limit(), "arena": now.arena_bytes}


# -- start and end of processes

def _linger():
    look()      # so that the linger does not wait for messages that can no longer be read
    # A forked child ends by os._exit, which does not run handlers of exit(3); so this must be done here. How
    # this child was created is not known; in a spawned one those handlers run as well, and do the rest.
    if multiprocessing.parent_process() is None:
        return
    if sys.exc_info()[0] in (None, SystemExit):
        # multiprocessing would wait for these threads next, and they may still send. After an error it first
        # reports the error.
        threading._shutdown()
    with nogil:
        linger()


def _watch_exit(_=None):
    """Register for the orderly end of a child of multiprocessing, as the last of its finalizers."""
    global _finalizer
    if _finalizer is not None:
        _finalizer.cancel()     # a forked child inherits its parent's finalizer, which would not be run
    _finalizer = util.Finalize(None, _linger, exitpriority=-sys.maxsize)


_finalizer = None


def _lingering(replace):
    """A version of `os.execv` or `os.execve` that lingers first, since a program's messages end with it."""
    @functools.wraps(replace)
    def replace_lingering(*args, **kwargs):
        look()
        with nogil:
            linger()
        try:
            return replace(*args, **kwargs)
        finally:
            with nogil:
                go_on()
    return replace_lingering


def _is_root():
    """Whether no parent's configuration has come, or can still come while the main module is imported."""
    here = process.current_process()
    return multiprocessing.parent_process() is None and not getattr(here, "_inheriting", False)


# Exit handlers of Python run before those of exit(3), even those that were registered before this import.
linger_at_exit()
_watch_exit()
at_fork(after_in_child=_watch_exit)
util.register_after_fork(_watch_exit, _watch_exit)  # a multiprocessing child drops all finalizers first
os.execv, os.execve = _lingering(os.execv), _lingering(os.execve)   # the others of that name call these
if _is_root():
    with nogil:
        make_root()
    export_home()
# To add a variable to the environment moves the table of all of them, while other threads may read it by
# getenv(3); so it is added now, before threads exist. Later only its value is replaced, by one store.
os.environ.setdefault(_VARIABLE, "")
