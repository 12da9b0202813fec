"""The arenas of this process: which one is home, what they hold, and how it is given back."""

import multiprocessing
import operator
import os
from multiprocessing import process, util

from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from sharedmem.libsharedmem.arena cimport arena, arena_statistics, participant_report, participant_state
from sharedmem.libsharedmem.home cimport (
    attached, home, home_if_any, home_locator, linger, make_root, offer, start_new_home,
    visiting)
from sharedmem.libsharedmem.inspect cimport inspect, optional_inspection
from sharedmem.libsharedmem.segment cimport backing, segment_name


# Where children look for the locator of their parent's arena: a variable that every kind of child
# inherits, and a key of the configuration that travels with each Process object, also to children of a
# server that was started before there was an arena.
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
    """Start a tree of one's own: from now on this process allocates from a new arena.

    So will the children that it starts from now on. Arrays that exist stay where they are. Another
    thread that makes arrays meanwhile gets them from either arena.

    Raises
    ------
    OSError
        The system refused every size that was tried; the message has each attempt.
    ValueError
        A setting in the environment means nothing; the message names it.
    """
    with nogil:
        start_new_home()
    export_home()


# -- reports

def stats():
    """Where the memory is, in bytes.

    Any thread may call it. Other processes go on meanwhile, so that the numbers need not be of one moment.

    Returns
    -------
    dict
        live_bytes, live_blocks
            What arrays of this process hold, in all arenas.
        shared_bytes, shared_blocks
            What any process of the arena, or a message, holds of memory that was shared at least once.
        cached_bytes
            Free, but kept for the next arrays of any process of the arena; see `cleanup`.
        mapped_bytes, arena_bytes
            The arena's size in memory, and in addresses.
        participants, segments
            Processes in the arena, and kernel objects that it consists of.
        leases, bytes_in_flight
            Arrays that were sent and not loaded yet, and the bytes that they keep.
        attached_arenas
            Arenas that this process has in use, its own included.
        cache_limit
            See `memory_limit`.
        arena, backing
            The arena's id, and the kind of its segments, 'sysv' or 'memfd'; None before the first use.
    """
    cdef arena_statistics total, one
    cdef arena* mine = home_if_any()
    cdef visiting _guard
    cdef vector[arena*] arenas = attached()
    cdef arena* each
    if mine != NULL:
        with nogil:
            total = mine.statistics()
    for each in arenas:
        if each != mine:
            with nogil:
                one = each.statistics()
            total.live_bytes += one.live_bytes
            total.live_blocks += one.live_blocks
    return {
        "live_bytes": total.live_bytes,
        "live_blocks": total.live_blocks,
        "shared_bytes": total.shared_bytes,
        "shared_blocks": total.shared_blocks,
        "cached_bytes": total.cached_bytes,
        "mapped_bytes": total.resident_bytes,
        "arena_bytes": total.arena_bytes,
        "participants": total.participants,
        "segments": total.segments,
        "leases": total.leases,
        "bytes_in_flight": total.bytes_in_flight,
        "attached_arenas": arenas.size(),
        "cache_limit": total.cache_limit,
        "arena": None if mine == NULL else uuid_text(mine.where().uuid[0], mine.where().uuid[1]),
        "backing": None if mine == NULL else backing_text(mine.where().segment.kind),
    }


cdef str uuid_text(uint64_t first, uint64_t second):
    return f"{first:016x}{second:016x}"


cdef str backing_text(backing kind):
    return "sysv" if kind == backing.sysv else "memfd"


def participants():
    """The processes of this process's arena.

    Returns
    -------
    list of dict
        slot
            Where the arena keeps the process.
        pid
            Its process id, in its own pid namespace.
        state
            'active'; 'reserved' for a child about to be forked; 'dead' if nobody has cleared up yet.
        chunks, bytes
            Parts of the arena from which it allocates.
        self
            Whether it is this process.

    Notes
    -----
    A process is dead if its pid is gone or belongs to a process that started at another time: kill(2) and
    field 22 of ``/proc/PID/stat`` [1]_, within one pid and time namespace.

    References
    ----------
    .. [1] Linux man-pages, proc_pid_stat(5).
    """
    cdef arena* mine = home_if_any()
    cdef vector[participant_report] reports
    if mine == NULL:
        return []
    with nogil:
        reports = mine.participants()
    return participant_list(reports)


def inspect_arena(str backing_name, int id, int pid=0, uint64_t tag=0):
    """An arena that this process need not belong to, seen from outside: read-only, for a moment.

    Parameters
    ----------
    backing_name : {"sysv", "memfd"}
        What holds its bytes.
    id : int
        The shmid; for a memfd a descriptor of process `pid`.
    pid : int, optional
        For a memfd.
    tag : int, optional
        For a memfd: the number in its name.

    Returns
    -------
    dict or None
        arena, segments, cached_bytes, cache_limit, leases, bytes_in_flight as in `stats`; participants.
        None: the segment is not the first one of an arena.
    """
    cdef segment_name name
    cdef optional_inspection found
    name.kind = backing.sysv if backing_name == "sysv" else backing.memfd
    name.id = id
    name.pid = pid
    with nogil:
        found = inspect(name, tag)
    if not found.has_value():
        return None
    return {
        "arena": uuid_text(found.value().uuid[0], found.value().uuid[1]),
        "segments": found.value().segments,
        "cached_bytes": found.value().cached_bytes,
        "cache_limit": found.value().cache_limit,
        "leases": found.value().leases,
        "bytes_in_flight": found.value().bytes_in_flight,
        "participants": participant_list(found.value().participants),
    }


cdef list participant_list(vector[participant_report]& reports):
    cdef participant_report each
    return [{"slot": each.slot, "pid": each.pid, "state": state_text(each.what), "chunks": each.chunks,
             "bytes": each.bytes, "self": each.self} for each in reports]


cdef str state_text(participant_state what):
    if what == participant_state.active:
        return "active"
    return "reserved" if what == participant_state.reserved else "dead"


def check():
    """Look whether the tables of the arenas that this process uses make sense.

    For debugging: a stray write, by code that goes past the end of some other memory, may hit them.

    Raises
    ------
    RuntimeError
        Names the first thing that makes no sense.
    """
    cdef visiting _guard
    cdef arena* each
    for each in attached():
        with nogil:
            each.check()


# -- giving back

def cleanup():
    """Give cached memory back to the system: memory of arrays that are gone, kept for new ones.

    No array is touched. Other processes may go on meanwhile, and may need what was given back.

    Returns
    -------
    int
        Bytes given back.

    Notes
    -----
    Pages are given back by ``MADV_REMOVE`` [1]_, which frees them for all processes at once.

    References
    ----------
    .. [1] Linux man-pages, madvise(2).
    """
    cdef uint64_t done = 0
    cdef visiting _guard
    cdef arena* each
    for each in attached():
        with nogil:
            done += each.trim()
    return done


def collect(leases=False):
    """Take back what dead processes held.

    That happens by itself before memory is refused; this is for whoever wants it sooner. Any thread may
    call it, and processes may die while it runs: it can be repeated without harm.

    Parameters
    ----------
    leases : bool, optional
        Also end the time, 60 seconds, that arrays sent by processes now dead are kept for whoever may
        still load them.

    Returns
    -------
    int
        Bytes of the arrays that were freed, an estimate.
    """
    cdef uint64_t done = 0
    cdef bint also = leases
    cdef visiting _guard
    cdef arena* each
    for each in attached():
        with nogil:
            done += each.collect(also)
    return done


def revoke(older_than):
    """Give up arrays that were sent and never loaded: their memory is freed unless someone has them.

    For queues and pipes that were thrown away unread. Whoever loads such a message afterwards meets a
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
    ValueError
        `older_than` is negative, or 1e9 and more.
    """
    cdef double seconds = older_than
    cdef uint64_t nanoseconds, done = 0
    cdef visiting _guard
    cdef arena* each
    if not 0 <= seconds < 1e9:
        raise ValueError(f"older_than must be a number of seconds from 0 to 1e9, not {older_than!r}")
    nanoseconds = <uint64_t>(seconds * 1e9)
    for each in attached():
        with nogil:
            done += each.revoke(nanoseconds)
    return done


cdef uint64_t read_bytes(object cache) except? 0:
    try:
        number = int(cache) if isinstance(cache, float) else operator.index(cache)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"cache must be a number of bytes, not {cache!r}") from None
    if not 0 <= number < 1 << 64:
        raise ValueError(f"cache must be a number of bytes from 0 to 2**64 - 1, not {cache!r}")
    return number


def memory_limit(cache=None):
    """The limits of this process's arena, in bytes; sets one if it is given.

    A limit that is set holds for all processes of the arena, at once. Before it is set it is a quarter of
    the memory that machine and cgroup allow, or of the arena if that is less.

    Parameters
    ----------
    cache : int, optional
        Bytes of free memory kept for new arrays, of all processes of the arena together.

    Returns
    -------
    dict
        cache
            As above.
        arena
            Bytes of the arena, which bound all arrays in it together.

    Raises
    ------
    TypeError, ValueError
        `cache` is no number of bytes; it is negative or has more than 64 bits.
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


# -- birth and end

_finalizer = None
_lingered = None    # the process that did: exit handlers may run twice


def _linger():
    global _lingered
    if _lingered != os.getpid():
        _lingered = os.getpid()
        with nogil:
            linger()


def _watch_exit(_=None):
    """Asks to be called at an orderly end, after children have been joined and queues flushed."""
    global _finalizer
    if _finalizer is not None:
        _finalizer.cancel()     # a forked child's copy is its parent's and would be passed over
    _finalizer = util.Finalize(None, _linger, exitpriority=-100)


def _is_root():
    """Whether no parent's configuration has come, or is still to come while the main module is imported."""
    here = process.current_process()
    return multiprocessing.parent_process() is None and not getattr(here, "_inheriting", False)


_watch_exit()
os.register_at_fork(after_in_child=_watch_exit)
util.register_after_fork(_watch_exit, _watch_exit)  # a multiprocessing child drops all finalizers first
if _is_root():
    with nogil:
        make_root()
    export_home()
