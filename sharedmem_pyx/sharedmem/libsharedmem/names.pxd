from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from sharedmem.libsharedmem.arena cimport allocation, arena, block_ref
from sharedmem.libsharedmem.handle cimport set_python_error


cdef extern from "<sharedmem/names.hpp>" namespace "sharedmem" nogil:
    enum: max_name_bytes
    enum: max_description_bytes

    cdef cppclass name_space:
        @staticmethod
        name_space now() noexcept

    cdef enum class name_status(uint8_t):
        none
        building
        ready
        failed

    cdef cppclass name_ticket:
        uint32_t entry
        uint64_t word
        uint64_t use() noexcept

    cdef cppclass name_found:
        name_status what
        name_ticket at
        allocation block
        string text
        uint32_t pid
        uint64_t age_ns

    name_found find_name(string_view, name_space) except +set_python_error
    bool claim_name(string_view, name_ticket&, name_space) except +set_python_error
    void bind_name(const name_ticket&, const block_ref&, string_view) except +set_python_error
    void fail_name(const name_ticket&, string_view) noexcept
    void give_up_name(const name_ticket&) noexcept
    bool vacate_name(const name_ticket&) noexcept
    bool wait_for_name(const name_ticket&, unsigned, uint64_t) except +set_python_error
    void wait_for_names(uint64_t, name_space) except +set_python_error
    arena* name_arena(const name_ticket&) noexcept
    arena* place_in(arena*) noexcept

    cdef cppclass name_report:
        string name
        name_status what
        string text
        uint32_t pid
        uint64_t age_ns
        vector[uint32_t] holders
        bool holders_known

    vector[name_report] all_names(name_space) except +set_python_error
