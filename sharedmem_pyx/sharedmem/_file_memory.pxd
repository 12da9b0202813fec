from libc.stdint cimport uint64_t
from numpy cimport ndarray

from sharedmem.libsharedmem.file_view cimport file_identity, file_view


# A reference to a mapped file.
cdef class FileMemory:
    cdef file_view view

    # Raises ValueError if there is none.
    cdef int check(self) except -1

# Which bytes of a file an array has, counted from the file's start.
cdef struct place:
    uint64_t start              # of the first element
    uint64_t low                # lowest
    uint64_t high               # the one behind the highest

# The file that an array lies in as a whole, and where; None if there is none, or the array has no bytes.
cdef FileMemory place_of(ndarray a, place* found)

# A file that somebody else has opened before: see the function of this name in C++.
cdef FileMemory open_again(bytes path, bint writable, const file_identity& identity, uint64_t nbytes)
