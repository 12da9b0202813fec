from sharedmem.libsharedmem.arena cimport arena
from sharedmem.libsharedmem.home cimport home_if_any


# The arena that this process allocates from, decided or made if it is the first call.
cdef arena* decide_home() except NULL

# Before the first decision: passes on a locator that came with the process's configuration.
cdef int offer_configured() except -1

# After it: lets children know.
cdef int export_home() except -1


cdef inline arena* home_arena() except NULL:
    cdef arena* home = home_if_any()
    return home if home != NULL else decide_home()
