"""queue.hpp: a queue of messages in shared memory."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.vector cimport vector

from sharedmem.libsharedmem.arena cimport allocation, arena
from sharedmem.libsharedmem.handle cimport byte, bytes_in, claim, set_python_error
from sharedmem.libsharedmem.robust_mutex cimport nanoseconds


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass claims_in "std::span<const sharedmem::claim>":
        claims_in()
        claims_in(const claim*, size_t)


cdef extern from "<sharedmem/queue.hpp>" namespace "sharedmem" nogil:
    cdef cppclass queue_message:
        queue_message()
        claims_in claims
        bytes_in bytes
        bool in_block
        uint64_t length
        uint64_t checksum

    cdef cppclass messages_in "std::span<const sharedmem::queue_message>":
        messages_in()
        messages_in(const queue_message*, size_t)

    cdef cppclass queue_entry:
        uint64_t number
        uint64_t length
        uint64_t checksum
        size_t bytes_at
        size_t claims_at
        size_t claims
        bool in_block

    cdef cppclass queue_taken:
        queue_taken()
        vector[queue_entry] entries
        vector[byte] bytes
        vector[claim] claims

    uint64_t queue_checksum(bytes_in) noexcept

    cdef enum class queue_outcome "sharedmem::queue::outcome"(uint8_t):
        done
        busy
        nothing
        no_ring

    cdef enum class queue_wanted "sharedmem::queue::wanted"(uint8_t):
        message
        room
        tasks

    cdef cppclass queue_sleeper "sharedmem::queue::sleeper":
        uint32_t pid
        queue_wanted what

    cdef cppclass queue_counts "sharedmem::queue::counts":
        uint64_t waiting
        uint64_t unfinished
        uint64_t bytes
        uint64_t ring_bytes

    cdef cppclass queue_report:
        queue_report()
        arena* home
        uint32_t block
        bool readable
        queue_counts now
        uint64_t kept_bytes
        uint64_t most
        uint64_t age_ns
        uint32_t maker
        vector[uint32_t] holders
        vector[queue_sleeper] sleepers

    vector[queue_report] queues_in(arena&) except +set_python_error
    vector[queue_report] all_queues() except +set_python_error

    size_t queue_block_bytes "sharedmem::queue::block_bytes"
    size_t queue_most_inline "sharedmem::queue::most_inline"
    size_t bytes_in_ring "sharedmem::queue::bytes_in_ring"(const queue_message&) noexcept

    cdef cppclass queue:
        queue()
        void create(allocation&, uint64_t) except +set_python_error
        void open(allocation&) except +set_python_error
        arena* home() noexcept
        const allocation& block() noexcept
        uint64_t most() noexcept
        queue_outcome try_put(messages_in, size_t&, uint32_t&) except +set_python_error
        queue_outcome try_get(size_t, queue_taken&, uint32_t&) except +set_python_error
        queue_outcome set_ring(size_t) except +set_python_error
        bool ring_is_large() noexcept
        queue_outcome count(queue_counts&) except +set_python_error
        bool look(queue_counts&) noexcept
        queue_outcome task_done() except +set_python_error
        queue_outcome try_join(uint32_t&) except +set_python_error
        void wait_for_lock(nanoseconds) except +set_python_error
        void wait_for_message(uint32_t, nanoseconds) except +set_python_error
        void wait_for_room(uint32_t, nanoseconds) except +set_python_error
        void wait_for_tasks(uint32_t, nanoseconds) except +set_python_error
