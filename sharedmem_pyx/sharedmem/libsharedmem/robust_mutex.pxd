"""robust_mutex, as robust_mutex.hpp declares it."""
from libc.stdint cimport int64_t, uint8_t, uint32_t

from sharedmem.libsharedmem.handle cimport set_python_error


cdef extern from "<chrono>" namespace "std::chrono" nogil:
    cdef cppclass nanoseconds:
        nanoseconds(int64_t)

cdef extern from "sharedmem/robust_mutex.hpp" namespace "sharedmem" nogil:
    cdef enum class owner_state "sharedmem::robust_mutex::owner_report::state"(uint8_t):
        unknown
        free
        held
        left

    cdef cppclass owner_report "sharedmem::robust_mutex::owner_report":
        owner_state what
        uint32_t thread

    cdef cppclass robust_mutex:
        robust_mutex() noexcept

        @staticmethod
        robust_mutex create(void* where) except +set_python_error

        @staticmethod
        robust_mutex open(void* where) except +set_python_error

        robust_mutex_outcome try_lock() except +set_python_error
        robust_mutex_outcome try_lock_for(nanoseconds limit) except +set_python_error
        void unlock() noexcept
        owner_report owner() noexcept

    enum robust_mutex_outcome "sharedmem::robust_mutex::outcome":
        taken "sharedmem::robust_mutex::outcome::taken"
        inherited "sharedmem::robust_mutex::outcome::inherited"
        busy "sharedmem::robust_mutex::outcome::busy"

    size_t robust_mutex_bytes "sharedmem::robust_mutex::bytes"
