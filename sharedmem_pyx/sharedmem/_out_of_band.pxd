cimport cython
from libc.stdint cimport uint64_t
from numpy cimport ndarray

from sharedmem.libsharedmem.arena cimport allocation


# An array that is left out of a pickle.
@cython.final
cdef class LeftOut:
    cdef ndarray array
    cdef bint shared        # its data lies in one block of shared memory: it stays there

# Whether the bytes lie in one block of shared memory that this process holds, not as a copy of its own.
cdef bint find_block(char* lowest, uint64_t nbytes, allocation* found) noexcept

# Whether it is a contiguous array of bytes, with one axis.
cdef bint is_bytes(object a)
