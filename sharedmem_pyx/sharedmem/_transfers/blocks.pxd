from libc.stdint cimport uint64_t

from sharedmem.libsharedmem.arena cimport allocation, block_ref


cdef enum:
    large_bytes = 1 << 20       # blocks from this size on are taken, copied and given back without the GIL


cdef extern from "<sharedmem_pyx/in_hand.hpp>" namespace "sharedmem_pyx" nogil:
    cdef cppclass in_hand:
        in_hand()
        void enter(const block_ref&) noexcept
        void leave() noexcept

        @staticmethod
        void begin_step() noexcept

        @staticmethod
        void end_step() noexcept

        @staticmethod
        void release_of_other_threads() noexcept


# A block for a message, noted as held by this thread if it is large. PermissionError: the receivers of
# messages could not attach it.
cdef int take_memory(uint64_t nbytes, allocation* block, in_hand* noted) except -1

cdef int give_back_memory(allocation* block, in_hand* noted) except -1

# From now on the receivers of messages are taken to be processes of the current user of this process.
cdef void readers_are_this_user() noexcept
