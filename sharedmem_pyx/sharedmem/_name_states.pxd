from libc.stdint cimport uint64_t
from libcpp.string_view cimport string_view

from sharedmem.libsharedmem.names cimport name_found, name_space


# The bytes of a name, which live as long as it does.
cdef string_view read_name(object name) except *

# What it stands for now among these names; the caller releases the block of one that is ready.
cdef name_found look(string_view name, name_space among) except *

# Whether a building has come to its end, since its process has died: looks once whether that lives.
cdef bint has_ended(name_found* found) except -1

# One slice of waiting for a name; signals are handled.
cdef int sleep(name_found* found, name_space among, unsigned round, uint64_t ns) except -1

# "is being built by process 4242 since 1.5 s", "is bound to float64 (3, 4)".
cdef str state_text(const name_found* found)

# The exception for a name that is taken; releases the block.
cdef object exists(object name, name_found* found)
