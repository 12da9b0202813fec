from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from sharedmem.libsharedmem.segment cimport segment_name


cdef extern from "<sharedmem_pyx/translate.hpp>" namespace "sharedmem_pyx" nogil:
    int set_python_error() except *


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass bytes_in "std::span<const std::byte>":
        bytes_in()
        bytes_in(const byte*, size_t)

    cdef cppclass bytes_out "std::span<std::byte>":
        bytes_out()
        bytes_out(byte*, size_t)


cdef extern from "<sharedmem/handle.hpp>" namespace "sharedmem" nogil:
    cdef cppclass byte "std::byte":
        pass

    enum: max_ndim
    enum: max_handle_bytes
    const unsigned handle_version
    const uint32_t no_lease

    cdef cppclass locator:
        segment_name segment
        uint64_t bytes
        uint64_t uuid[2]
        uint64_t host

    string to_text(const locator&) except +set_python_error

    cdef cppclass optional_locator "std::optional<sharedmem::locator>":
        bool has_value() noexcept
        locator& value() noexcept

    optional_locator parse_locator(string_view) noexcept

    cdef cppclass claim:
        uint32_t block
        uint64_t generation
        uint32_t lease
        uint64_t nonce

    cdef cppclass geometry:
        uint64_t offset
        uint32_t itemsize
        int ndim
        bool writable
        int64_t shape[max_ndim]
        int64_t strides[max_ndim]

    bool fits(const geometry&, uint64_t) noexcept

    cdef cppclass handle:
        locator where
        claim what
        geometry shape
        string_view dtype

    size_t encode(const handle&, bytes_out) except +set_python_error
    handle decode(bytes_in) except +set_python_error
    size_t find_handle(bytes_in, size_t, handle&) noexcept
