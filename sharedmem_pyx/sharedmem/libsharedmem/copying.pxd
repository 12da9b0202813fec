cdef extern from "<sharedmem/copying.hpp>" namespace "sharedmem" nogil:
    void in_parts(size_t, size_t, void (*)(void*, size_t, size_t) noexcept, void*) noexcept
    void copy_bytes(void*, const void*, size_t) noexcept
    void set_bytes(void*, int, size_t) noexcept
