cimport cython
from cpython.object cimport PyObject
from numpy cimport ndarray

from sharedmem.libsharedmem.arena cimport block_ref, claim
from sharedmem.libsharedmem.handle cimport set_python_error


cdef extern from "<sharedmem_pyx/message.hpp>" namespace "sharedmem_pyx":
    # Its functions are called in `sharedmem._messages` alone: they compare addresses and counts of that
    # module.
    cdef cppclass message:
        message()
        bint usable() noexcept
        claim share(const block_ref&) except +set_python_error
        bint is_first(const void*) except +set_python_error
        PyObject* keeper(const void*) noexcept
        void keep(const void*, PyObject*) noexcept
        void end(bint) noexcept


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

# Ends a message, complete or not; in the latter case its leases are given back.
cdef void end_message(Message within, bint complete) noexcept

# What a pickle has for an array, as a handle where its memory is shared. `leased_by` NULL: handles have no
# lease; `among_others`: there may be more arrays of the same block in the message. An exact ndarray must not
# have Python objects in it.
cdef object reduce_for(ndarray a, int protocol, message* leased_by, bint among_others)
