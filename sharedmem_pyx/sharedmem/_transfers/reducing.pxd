cimport cython
from libc.stdint cimport uint64_t
from numpy cimport ndarray

from sharedmem._messages cimport message


# What one pickler has for arrays, from its first to its last.
@cython.final
cdef class Reducer:
    cdef readonly int protocol
    cdef uint64_t min_bytes         # of data, from which on it is carried; 0: none is
    cdef uint64_t zero_copy_from
    cdef uint64_t limit             # bytes that this process may have under way
    cdef uint64_t seen              # bytes of private arrays met so far
    cdef readonly uint64_t carried  # bytes of those that went through the arena
    cdef readonly object refused    # the first exception because of which one went by the pipe, or None

# By the settings of `sharedmem.transport`.
cdef Reducer new_reducer(int protocol)

# What the reducer has for an exact ndarray in place of its bytes, with leases that belong to `leases`.
# None: it is to be pickled as ever.
cdef object reduce_exact(Reducer self, ndarray a, message* leases, bint among_others)

# Whether an exact ndarray that is a message of its own is pickled as ever, by the settings.
cdef bint goes_by_value(ndarray a) noexcept

# Counts a message that was pickled completely.
cdef void count_message(Reducer self) noexcept

# Bytes that messages of this process may keep in shared memory where nothing else was set: a part of what
# machine and cgroup allow.
cdef uint64_t share_of_all_memory() noexcept
