from sharedmem._lock_base cimport LockBase


cdef class RLock(LockBase):
    pass


cdef class Lock(LockBase):
    pass
