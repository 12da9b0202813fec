from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.vector cimport vector

from sharedmem.libsharedmem.handle cimport byte, claim, locator, set_python_error


cdef extern from "<sharedmem/arena.hpp>" namespace "sharedmem" nogil:
    cdef cppclass block_ref:
        arena* home
        uint32_t block
        uint32_t epoch

    cdef cppclass allocation:
        block_ref ref
        byte* data
        uint64_t bytes
        bool zeroed
        bool read_only
        bool carried

    cdef enum class pages(uint8_t):
        as_needed
        now
        lazy

    cdef cppclass arena_statistics:
        uint64_t live_bytes
        uint64_t live_blocks
        uint64_t shared_bytes
        uint64_t shared_blocks
        uint64_t cached_bytes
        uint64_t resident_bytes
        uint64_t arena_bytes
        uint64_t cache_limit
        uint64_t leases
        uint64_t bytes_in_flight
        uint64_t oldest_in_flight_ns
        uint32_t participants
        uint32_t segments

    cdef enum class participant_state "sharedmem::participant_report::state"(uint8_t):
        active
        reserved
        dead

    cdef cppclass participant_report:
        uint32_t slot
        uint32_t pid
        participant_state what
        uint64_t chunks
        uint64_t bytes
        uint64_t leases
        uint64_t bytes_in_flight
        uint64_t oldest_in_flight_ns
        bool self

    cdef cppclass arena:
        const locator& where() noexcept
        allocation allocate(uint64_t) except +set_python_error
        allocation allocate(uint64_t, uint64_t) except +set_python_error
        allocation allocate(uint64_t, uint64_t, pages) except +set_python_error
        bool allocate_cached(uint64_t, uint64_t, allocation&) noexcept
        void release(block_ref&) noexcept
        claim share(const block_ref&, bool) except +set_python_error
        allocation acquire(const claim&) except +set_python_error
        void give_back(const claim&) noexcept
        bool note_read(const claim&) noexcept
        bool note_written(const claim&, bool) noexcept
        bool stands_for(const claim&) noexcept
        bool is_in_flight(const claim&) noexcept
        bool give_back_lost(const claim&) noexcept
        uint64_t new_ends() noexcept
        void read_elsewhere(uint64_t) noexcept
        bool is_read_elsewhere(uint64_t) noexcept
        allocation find(const void*) noexcept
        void mark_carried(const block_ref&) noexcept
        const byte* read_only(const void*) except +set_python_error
        byte* writable(const void*) noexcept
        bool contains(const void*) noexcept
        bool held_elsewhere(const block_ref&) noexcept
        block_ref duplicate(const block_ref&) except +set_python_error
        uint64_t trim() except +set_python_error
        uint64_t collect(bool) except +set_python_error
        uint64_t revoke(uint64_t) except +set_python_error
        uint64_t cache_limit() noexcept
        void set_cache_limit(uint64_t) noexcept
        arena_statistics statistics() except +set_python_error
        vector[participant_report] participants() except +set_python_error
        void check() except +set_python_error
