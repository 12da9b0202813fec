cimport cython
from cpython.object cimport PyObject
from libcpp.vector cimport vector
from numpy cimport ndarray

from sharedmem.libsharedmem.arena cimport arena, block_ref, claim
from sharedmem.libsharedmem.handle cimport set_python_error


cdef extern from "<sharedmem_pyx/message.hpp>" namespace "sharedmem_pyx":
    # Its functions are called in `sharedmem._messages` alone: they compare addresses and counts of that
    # module.
    cdef cppclass uuid "sharedmem_pyx::message::uuid":
        pass

    cdef cppclass message:
        message()
        bint usable() noexcept
        claim share(const block_ref&) except +set_python_error
        bint is_first(const void*) except +set_python_error
        PyObject* keeper(const void*) noexcept
        void keep(const void*, PyObject*) noexcept
        bint in_flight() noexcept
        void end(bint) noexcept
        void end_into(const uuid&, vector[claim]&) except +set_python_error


@cython.final
cdef class Message:
    cdef message written


cdef Message new_message()

# Where leases for what this thread pickles in the current message belong; NULL: there is none, it takes no
# leases.
cdef message* current_leases() noexcept
cdef message* leases_of(Message within) noexcept

# The claim of a block with a lease that belongs to the message.
cdef claim lease_in(message* within, const block_ref& ref) except *

# Whether one of the leases of a message that has not ended is still out.
cdef bint is_in_flight(Message within) noexcept

# Ends a message, complete or not; in the latter case its leases are given back.
cdef void end_message(Message within, bint complete) noexcept

# Ends a complete message. The leases that it took in the arena are appended to `taken`, and are the caller's;
# those of other arenas belong to the process that loads the message. If it raises, the message has not ended.
cdef int end_message_into(Message within, arena* where, vector[claim]* taken) except -1

# What a pickle has for an array, as a handle where its memory is shared. `leased_by` NULL: handles have no
# lease; `among_others`: there may be more arrays of the same block in the message. An exact ndarray must not
# have Python objects in it.
cdef object reduce_for(ndarray a, int protocol, message* leased_by, bint among_others)
