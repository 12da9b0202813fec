from libcpp.vector cimport vector

from sharedmem.libsharedmem.arena cimport arena
from sharedmem.libsharedmem.handle cimport byte, claim
from sharedmem.libsharedmem.queue cimport queue_message


cdef extern from "<sharedmem_pyx/plain_pickle.hpp>" namespace "sharedmem_pyx::plain":
    # Bytes of the pickle; 0: the pickle module has to write it.
    size_t write_plain "sharedmem_pyx::plain::write"(object, byte*, size_t) noexcept

cdef enum:
    most_plain = 1024           # bytes of a pickle that is written without a pickler


cdef class Outgoing:
    cdef list pickles                   # keeps the bytes
    cdef vector[vector[claim]] claims
    cdef vector[queue_message] messages
    cdef size_t put                     # the first so many are in the queue
    cdef arena* home

    cdef int add(self, object obj) except -1
    cdef int add_pickled(self, object obj) except -1
    cdef int append(self, bytes pickled, vector[claim]& claims) except -1
    cdef int point(self) except -1
    cdef void give_back_all(self, const vector[claim]& claims) noexcept
    cdef int give_back(self) except -1


cdef Outgoing outgoing(arena* home)
