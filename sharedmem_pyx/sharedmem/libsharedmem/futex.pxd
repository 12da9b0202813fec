"""wait_on and wake, as futex.hpp declares them."""
from libc.stdint cimport uint32_t

from sharedmem.libsharedmem.handle cimport set_python_error
from sharedmem.libsharedmem.robust_mutex cimport nanoseconds


cdef extern from "<sharedmem/futex.hpp>" namespace "sharedmem" nogil:
    enum wait_end "sharedmem::wait_end":
        woken "sharedmem::wait_end::woken"
        changed "sharedmem::wait_end::changed"
        timed_out "sharedmem::wait_end::timed_out"
        interrupted "sharedmem::wait_end::interrupted"

    wait_end wait_on(const uint32_t* word, uint32_t expected, nanoseconds limit) except +set_python_error
    int wake(const uint32_t* word, int count) noexcept
