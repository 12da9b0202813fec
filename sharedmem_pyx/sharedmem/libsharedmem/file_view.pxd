from libc.stdint cimport uint64_t
from libcpp cimport bool
from libcpp.string cimport string

from sharedmem.libsharedmem.handle cimport byte, bytes_in, set_python_error


cdef extern from "<sharedmem/file_view.hpp>" namespace "sharedmem" nogil:
    cdef cppclass file_identity:
        uint64_t device
        uint64_t inode
        uint64_t birth

    cdef enum class file_mode(bool):
        read
        read_write

    cdef cppclass file_view:
        file_view() noexcept

        @staticmethod
        file_view open(const string&, file_mode) except +set_python_error

        @staticmethod
        file_view open_again "open"(
            const string&, file_mode, const file_identity&, uint64_t) except +set_python_error

        @staticmethod
        file_view create(const string&, uint64_t, bytes_in) except +set_python_error

        @staticmethod
        file_view at(const void*) noexcept

        @staticmethod
        bool holds(const void*) noexcept

        bool operator bool() noexcept
        byte* data() noexcept
        uint64_t bytes() noexcept
        file_mode mode() noexcept
        const string& path() noexcept
        file_identity identity() noexcept
        void flush(const void*, uint64_t) except +set_python_error
