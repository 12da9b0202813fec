from libcpp cimport bool
from libcpp.vector cimport vector

from sharedmem.libsharedmem.handle cimport byte, set_python_error


cdef extern from "<sharedmem/channel.hpp>" namespace "sharedmem" nogil:
    cdef cppclass channel:
        channel() noexcept
        channel(int) noexcept
        bool is_pipe() noexcept
        bool is_socket() noexcept
        bool abandoned() noexcept
        bool keep() noexcept
        bool is_kept() noexcept
        bool drained() noexcept
        vector[byte] unread() except +set_python_error
