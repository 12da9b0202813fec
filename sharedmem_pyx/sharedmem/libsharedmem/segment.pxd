from libc.stdint cimport int32_t, uint8_t


cdef extern from "<sharedmem/segment.hpp>" namespace "sharedmem" nogil:
    cdef enum class backing(uint8_t):
        none
        sysv
        memfd
        section

    cdef cppclass segment_name:
        backing kind
        int32_t id
        int32_t pid

    size_t sweep_orphans() noexcept
