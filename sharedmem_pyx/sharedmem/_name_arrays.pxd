from numpy cimport dtype, ndarray

from sharedmem.libsharedmem.arena cimport arena
from sharedmem.libsharedmem.handle cimport handle
from sharedmem.libsharedmem.names cimport name_found, name_ticket


# Refuses a dtype that cannot be described beside a name: before anything is claimed.
cdef int check_dtype(dtype descr) except -1

# The handle and the dtype of a description; the handle's dtype text lives as long as `text`.
cdef dtype read_description(bytes text, handle* h)

# The description of a name that is ready; why it is not, of one that has failed.
cdef bytes text_of(const name_found* found)
cdef tuple shape_of(const handle* h)

# The array of a name that is ready; takes the block's reference over.
cdef object array_of(name_found* found, bint may_write)

# Binds the name to an array of its arena, `host`; what others will get, too.
cdef object bind(const name_ticket* mine, arena* host, ndarray a, bint may_write)
