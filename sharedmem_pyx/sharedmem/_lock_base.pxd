cimport cython
from libc.stdint cimport uint64_t

from sharedmem.libsharedmem.robust_mutex cimport robust_mutex, robust_mutex_outcome


@cython.final
cdef class Hold:
    cdef object memory             # stays while the thread's list of held locks points into it
    cdef unsigned long thread      # the kernel's id: differs from those of the process that was forked
    cdef uint64_t number           # and from those of threads that have ended
    cdef Py_ssize_t depth
    cdef robust_mutex c_obj        # in `memory`

    cdef bint is_mine(self) noexcept


cdef class LockBase:
    cdef robust_mutex c_obj
    cdef object memory             # SharedArray of the lock's bytes
    cdef object key                # address of those bytes
    cdef bint asked                # whether a thread has tried to take it
    cdef object __weakref__

    cdef Hold mine(self)
    cdef bint obtain(self, object block, object timeout) except -1
    cdef robust_mutex_outcome wait(self, double timeout) except *
    cdef int take(self, robust_mutex_outcome how) except -1
    cdef int give_back(self) except -1
    cdef object not_held(self)
    cdef bint is_held(self) except -1
