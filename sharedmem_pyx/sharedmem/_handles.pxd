from libc.stdint cimport uint64_t
from numpy cimport dtype, ndarray

from sharedmem.libsharedmem.arena cimport allocation, arena, claim
from sharedmem.libsharedmem.handle cimport handle


# The bytes from the lowest one of the elements of `a` to the highest one. pre: it has bytes.
cdef uint64_t extent(ndarray a, char** lowest) noexcept

# Whether so many bytes from `lowest` on lie in one block that this process holds. pre: they are some.
cdef bint lie_in_one_block(const char* lowest, uint64_t nbytes, arena* where, allocation* found) noexcept

# Whether all bytes of `a` lie in one block that this process holds. pre: it has bytes.
cdef bint in_one_block(ndarray a, arena* where, allocation* found) noexcept

# What names a dtype: an empty str if its character does, None if nothing but the dtype does.
cdef object dtype_text(dtype descr)

# The handle of `a`, which lies in the block `found`. `c` is what the arena gave for the block, and `text`
# what `dtype_text` gave for the dtype `descr`.
cdef bytes encode_array(ndarray a, const allocation* found, dtype descr, object text, const claim& c)

# The dtype of a handle, checked against its itemsize; `given` is one that travelled beside it.
cdef dtype find_dtype(const handle* h, object given)

# Takes a reference to the block that a handle names, and consumes its lease.
cdef int take_block(const handle* h, allocation* block) except -1
