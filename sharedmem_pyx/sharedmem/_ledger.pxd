from sharedmem.libsharedmem.arena cimport claim
from sharedmem.libsharedmem.channel cimport channel
from sharedmem.libsharedmem.handle cimport handle, locator


cdef class Bytes:
    cdef object data

    cdef bint in_use(self)      # whether another object than the ledger refers to them


cdef class Carried:
    cdef locator where
    cdef claim what
    cdef object key
    cdef int copies     # messages with it that may still be read
    cdef bint read      # a process has read one: the lease is its own now
    cdef bint nested    # in bytes within a task, which its worker may pass on without loading them
    cdef list sources   # Bytes of those messages

    cdef bint in_use(self)


cdef class Outgoing:
    cdef channel to
    cdef object end             # (locator, number) of its own end, or None
    cdef object messages        # deque of lists of Carried, oldest first
    cdef bint to_workers        # whoever reads loads at once, or is killed; `workers_ended` comes last


cdef class Ledger:
    cdef object lock
    cdef dict carried       # Carried by key
    cdef set connections    # Outgoing
    cdef list lost          # Carried of which no copy can be read

    cdef int start_anew(self) except -1


# The ledger of this process; one object from the import on.
cdef Ledger the_ledger()

# The key of a handle with a lease.
cdef object key_of(const handle& h)

# A lease needs the ledger no longer: it was read, or given back.
cdef int forget(Carried c) except -1
cdef int forget_all(list message) except -1

# One message with this lease can no longer be read. The lease is lost with the last one.
cdef int lose_copy(Carried c) except -1

# Forgets messages that have been read, oldest first.
cdef int tidy(Outgoing out) except -1

# Enters a message that is about to be written, since a reader may have it before the write returns.
# None: it carries no lease that can be lost with it.
cdef list enter(object conn, object buf)

# A message was not written as a whole. `unread`: it has no reader any more.
cdef int withdraw(object conn, list message, bint unread) except -1

# Takes over the leases of a message that was read from a connection.
cdef int take_over(object buf) except -1
