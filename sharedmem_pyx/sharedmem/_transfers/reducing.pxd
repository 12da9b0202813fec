cimport cython
from libc.stdint cimport uint64_t
from numpy cimport ndarray

from sharedmem._messages cimport message


# Reduces the arrays of one message, for its pickler.
@cython.final
cdef class Reducer:
    cdef readonly int protocol
    cdef uint64_t min_bytes         # data of a message, from which on it is carried; 0: nothing is carried
    cdef uint64_t zero_copy_from
    cdef uint64_t limit             # bytes that messages of this process may have in flight
    cdef uint64_t seen              # bytes of private arrays met so far
    cdef readonly uint64_t carried  # bytes of those that went through the arena
    cdef readonly object refused    # the first exception because of which one went through the pipe, or None

# A reducer with the settings of `sharedmem.transport`.
cdef Reducer new_reducer(int protocol)

# What to pickle instead of an exact ndarray's bytes, with leases that belong to `leases`.
# None: it is pickled as without this library.
cdef object reduce_exact(Reducer self, ndarray a, message* leases, bint among_others)

# Whether the settings leave an exact ndarray that is a message by itself to ordinary pickling.
cdef bint goes_by_value(ndarray a) noexcept

# Counts a message that was pickled completely.
cdef void count_message(Reducer self) noexcept

# Bytes that messages of this process may keep in shared memory by default: a part of what machine and cgroup
# allow.
cdef uint64_t share_of_all_memory() noexcept
