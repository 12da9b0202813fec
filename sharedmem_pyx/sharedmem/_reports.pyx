"""Reports: the memory of arenas, and the processes that participate in them."""

from libc.stdint cimport uint64_t
from libcpp.vector cimport vector

from sharedmem._queue_base cimport queue_dict
from sharedmem.libsharedmem.arena cimport arena, arena_statistics, participant_report, participant_state
from sharedmem.libsharedmem.home cimport attached_arenas, available_bytes, home_if_any
from sharedmem.libsharedmem.inspect cimport inspect, optional_inspection
from sharedmem.libsharedmem.names cimport name_report
from sharedmem.libsharedmem.queue cimport all_queues, queue_report
from sharedmem.libsharedmem.segment cimport backing, segment_name

from sharedmem._startup import import_lock
from sharedmem._transfers.reducing import transport_stats


cdef size_t add_up(arena* home, arena_statistics* total) except? 1 nogil:
    """The numbers of the home arena (NULL: none), totals of this process's arrays, and the number of arenas.

    No Python code runs meanwhile: it might fork, or drop the last array of an arena.
    """
    cdef attached_arenas arenas
    cdef arena_statistics one
    cdef size_t i
    if home != NULL:
        total[0] = home.statistics()
    for i in range(arenas.size()):
        if &arenas[i] != home:
            one = arenas[i].statistics()
            total.live_bytes += one.live_bytes
            total.live_blocks += one.live_blocks
    return arenas.size()


def stats():
    """Report where the memory is, in bytes.

    Any thread may call it. Other processes go on meanwhile, so the result is not a consistent snapshot.

    Returns
    -------
    dict
        live_bytes, live_blocks
            Memory of this process's arrays, in all arenas.
        shared_bytes, shared_blocks
            Memory that any process of the arena, or a message, refers to, and that was shared at least once.
        cached_bytes
            Free memory that is kept for the next arrays of any process of the arena; see `cleanup`.
        mapped_bytes, arena_bytes
            The arena's size in memory, and in addresses.
        available_bytes
            Estimate of the total for new arrays: the smaller of what the system calls available and
            what the memory cgroups of this process leave, minus memory of arrays that was not written yet.
        participants, segments
            Number of processes in the arena, and of kernel objects of which it consists.
        leases, bytes_in_flight
            Arrays that were sent and not loaded yet, and the bytes that they keep. Queues count, too: their
            messages, and the memory of the queue itself, even if it is empty.
        oldest_in_flight
            Seconds since the oldest of them was sent; 0.0 if there is none. `participants` lists them by
            process.
        attached_arenas
            Arenas that this process uses, including its own.
        cache_limit
            See `memory_limit`.
        transport
            What this process sent while `transport` was enabled: ``messages`` whose data went through shared
            memory, and the ``bytes`` of that; bytes ``in_flight``, not loaded yet; messages ``by_pipe``
            although they were large, since memory or `max_in_flight` did not allow more.
        queues
            A dict for each queue in the arenas that this process uses, as `Queue.stats` returns it, oldest
            first: its own queues and those of other processes, whose pids are in ``processes``. A queue in
            memory that is gone is left out.
        arena, backing
            The arena's id, and the kind of its segments, 'sysv' or 'memfd', on Windows 'section'; None
            before the first use.
    """
    cdef arena_statistics total
    cdef arena* mine = home_if_any()
    cdef size_t attached
    cdef uint64_t available
    with nogil:
        attached = add_up(mine, &total)
        available = available_bytes()
    return {
        "live_bytes": total.live_bytes,
        "live_blocks": total.live_blocks,
        "shared_bytes": total.shared_bytes,
        "shared_blocks": total.shared_blocks,
        "cached_bytes": total.cached_bytes,
        "mapped_bytes": total.resident_bytes,
        "arena_bytes": total.arena_bytes,
        "available_bytes": available,
        "participants": total.participants,
        "segments": total.segments,
        "leases": total.leases,
        "bytes_in_flight": total.bytes_in_flight,
        "oldest_in_flight": total.oldest_in_flight_ns / 1e9,
        "attached_arenas": attached,
        "cache_limit": total.cache_limit,
        "transport": transport_stats(),
        "queues": queue_list(all_queues(), False),
        "arena": None if mine == NULL else uuid_text(mine.where().uuid[0], mine.where().uuid[1]),
        "backing": None if mine == NULL else backing_text(mine.where().segment.kind),
    }


cdef list queue_list(const vector[queue_report]& reports, bint with_others):
    """`with_others`: include queues that cannot be read, with None in the place of their numbers."""
    cdef list found = []
    cdef size_t i
    for i in range(reports.size()):
        if reports[i].readable:
            found.append(queue_dict(reports[i]))
        elif with_others:
            known = ("kept", "processes")
            found.append({name: value if name in known else None
                          for name, value in queue_dict(reports[i]).items()})
    return found


cdef str uuid_text(uint64_t first, uint64_t second):
    return f"{first:016x}{second:016x}"


cdef str backing_text(backing kind):
    return "sysv" if kind == backing.sysv else "memfd" if kind == backing.memfd else "section"


cdef backing backing_of(str text):
    return backing.sysv if text == "sysv" else backing.memfd if text == "memfd" else backing.section


def participants():
    """Report the processes of this process's arena.

    Returns
    -------
    list of dict
        slot
            The index of its entry in the arena.
        pid
            Its process id, in its own pid namespace.
        state
            'active'; 'reserved' for a child about to be forked; 'dead' if it was not cleaned up yet.
        chunks, bytes
            Parts of the arena from which this process allocates.
        leases, bytes_in_flight, oldest_in_flight
            As in `stats`, for arrays that it sent. Arrays that dead processes sent are not counted here, so
            the sums may be less than in `stats`.
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
    """Read an arena that this process need not belong to from outside, through a brief read-only mapping.

    Parameters
    ----------
    backing_name : {"sysv", "memfd", "section"}
        The kind of segment that contains it.
    id : int
        The shmid; for a memfd a descriptor of process `pid`; for a section the last number in its name.
    pid : int, optional
        For a memfd.
    tag : int, optional
        For a memfd the number in its name, for a section the first one of two.

    Returns
    -------
    dict or None
        arena, segments, cached_bytes, cache_limit, leases, bytes_in_flight and oldest_in_flight as in
        `stats`; participants; names, as `names` reports them, or None if it is not an arena of names; queues,
        as in `stats`, except those in an extension segment, for which all is None but kept and processes.
        None: the segment is not the first one of an arena.
    """
    cdef segment_name name
    cdef optional_inspection found
    name.kind = backing_of(backing_name)
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
        "oldest_in_flight": found.value().oldest_in_flight_ns / 1e9,
        "participants": participant_list(found.value().participants),
        "names": name_list(found.value().names) if found.value().has_names else None,
        "queues": queue_list(found.value().queues, True),
    }


cdef list name_list(vector[name_report]& reports):
    cdef size_t i
    with import_lock:
        from sharedmem._name_states import info_of     # not needed by most programs
    return [info_of(<bytes>reports[i].name, <int>reports[i].what, <bytes>reports[i].text, reports[i].pid,
                    reports[i].age_ns / 1e9, tuple(reports[i].holders))
            for i in range(reports.size())]


cdef list participant_list(vector[participant_report]& reports):
    cdef participant_report each
    return [{"slot": each.slot, "pid": each.pid, "state": state_text(each.what), "chunks": each.chunks,
             "bytes": each.bytes, "leases": each.leases, "bytes_in_flight": each.bytes_in_flight,
             "oldest_in_flight": each.oldest_in_flight_ns / 1e9, "self": each.self} for each in reports]


cdef str state_text(participant_state what):
    if what == participant_state.active:
        return "active"
    return "reserved" if what == participant_state.reserved else "dead"
