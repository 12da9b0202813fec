from numpy cimport dtype, ndarray

from sharedmem.libsharedmem.arena cimport allocation, arena, claim


# Whether all bytes of `a` lie in one block that this process holds. pre: it has bytes.
cdef bint in_one_block(ndarray a, arena* where, allocation* found) noexcept

# What names a dtype: an empty str if its character does, None if nothing but the dtype does.
cdef object dtype_text(dtype descr)

# The handle of `a`, which lies in the block `found`. `c` is what the arena gave for the block, and `text`
# what `dtype_text` gave for the dtype `descr`.
cdef bytes encode_array(ndarray a, const allocation* found, dtype descr, object text, const claim& c)
