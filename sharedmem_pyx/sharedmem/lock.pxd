from sharedmem.libsharedmem.robust_mutex cimport robust_mutex, robust_mutex_outcome


cdef class RLock:
    cdef robust_mutex c_obj
    cdef object memory             # SharedArray of the lock's bytes
    cdef size_t address            # of those bytes
    cdef object __weakref__

    cdef Py_ssize_t depth(self) noexcept
    cdef robust_mutex_outcome wait(self, double timeout) except *
    cdef int take(self, robust_mutex_outcome how, object key) except -1


cdef class Lock:
    cdef RLock inner
    cdef object __weakref__
