from libc.stdint cimport uint64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from sharedmem.libsharedmem.arena cimport allocation, arena, block_ref, claim, pages
from sharedmem.libsharedmem.handle cimport locator, set_python_error


cdef extern from "<sharedmem/home.hpp>" namespace "sharedmem" nogil:
    arena& home() except +set_python_error
    allocation allocate "sharedmem::allocate"(uint64_t, uint64_t, pages) except +set_python_error
    uint64_t available_bytes() noexcept
    arena* home_if_any() noexcept
    void make_root() noexcept
    void offer(string_view) except +set_python_error
    void start_new_home() except +set_python_error
    string home_locator() except +set_python_error
    allocation acquire "sharedmem::acquire"(const locator&, const claim&) except +set_python_error
    bool note_read(const locator&, const claim&) noexcept
    bool note_written(const locator&, const claim&, bool) noexcept
    bool stands_for(const locator&, const claim&) noexcept
    bool give_back_lost(const locator&, const claim&) noexcept
    void read_elsewhere(const locator&, uint64_t) except +set_python_error
    bool is_read_elsewhere(const locator&, uint64_t) noexcept
    arena* arena_of(const void*) noexcept
    void release(block_ref&) noexcept
    cdef cppclass attached_arenas:
        attached_arenas() noexcept
        size_t size() noexcept
        arena& operator[](size_t) noexcept

    void linger() noexcept
    void go_on() noexcept
    void linger_at_exit() noexcept
