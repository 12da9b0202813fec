cimport numpy as cnp


cdef extern from "<sharedmem_pyx/elements.hpp>" namespace "sharedmem_pyx":
    enum element "sharedmem_pyx::element":
        other "sharedmem_pyx::element::other"


# What the elements of an array are, if atomic operations work on them; `written`: and if they may be changed.
cdef element check_array(object a, bint written) except *

# Refuses an element that is not aligned to its size.
cdef int check_address(const void* at, element of, object a) except -1

# Refuses bool, with which the operation of this name does not work.
cdef int check_number(element of, str name) except -1

# The address of the element, which is one that atomic operations work on.
cdef char* find(cnp.ndarray a, object index, element of) except NULL
