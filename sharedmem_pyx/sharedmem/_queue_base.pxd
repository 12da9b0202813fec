from libc.stdint cimport uint32_t, uint64_t

from sharedmem._queue_outgoing cimport Outgoing
from sharedmem.libsharedmem.queue cimport (
    queue, queue_counts, queue_entry, queue_message, queue_report, queue_taken)


cdef enum waiting_for:
    the_lock
    a_message
    room
    tasks


# When a wait ends, by the monotonic clock in seconds; 0: it must not wait; infinity: never.
cdef double end_of(object block, object timeout) except? -1


cdef class _Base:
    cdef queue c_obj
    cdef readonly bint _closed
    cdef object __weakref__

    cdef int make(self, uint64_t most) except -1
    cdef int open(self, object memory) except -1
    cdef object memory(self)
    cdef bint wait(self, waiting_for what, uint32_t seen, double end) except -1
    cdef bint wait_for_lock(self, double* lock_end, double end) except -1
    cdef int put_messages(
            self, const queue_message* messages, size_t count, size_t* put, double end) except -1
    cdef int put_all(self, Outgoing out, double end) except -1
    cdef int take(self, queue_taken* taken, size_t most, double end) except -1
    cdef int make_smaller(self) noexcept
    cdef object open_message(self, queue_taken* taken, const queue_entry* e)
    cdef object get_one(self, double end)
    cdef int put_one(self, object obj, double end) except -1
    cdef queue_counts count(self) except *
    cdef bint counts_tasks(self) noexcept


cdef dict queue_dict(const queue_report& found)
