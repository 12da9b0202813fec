"""Messages that are about to be put into a queue in shared memory."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy
from libcpp.vector cimport vector

from sharedmem._transfers.messages cimport pickle_for_queue
from sharedmem.libsharedmem.arena cimport allocation, arena
from sharedmem.libsharedmem.handle cimport byte, bytes_in, claim
from sharedmem.libsharedmem.home cimport release
from sharedmem.libsharedmem.queue cimport claims_in, queue_checksum, queue_message, queue_most_inline


@cython.final
cdef class Outgoing:
    """Messages that are about to be put, and the memory and leases that they own until then."""

    cdef int add(self, object obj) except -1:
        cdef vector[claim] none
        cdef byte plain[most_plain]
        cdef size_t size = write_plain(obj, plain, sizeof(plain))
        if size == 0:
            return self.add_pickled(obj)
        return self.append(PyBytes_FromStringAndSize(<const char*>plain, size), none)

    cdef int add_pickled(self, object obj) except -1:
        """As `add`, for an object that `write_plain` has refused."""
        cdef vector[claim] claims
        pickled = pickle_for_queue(obj, self.home, &claims)
        return self.append(pickled, claims)

    cdef int append(self, bytes pickled, vector[claim]& claims) except -1:
        """Takes the claims over, also if it raises."""
        cdef queue_message m
        cdef vector[claim] with_body
        cdef allocation body
        cdef const byte* data = <const byte*>PyBytes_AS_STRING(pickled)
        cdef size_t size = PyBytes_GET_SIZE(pickled)
        try:
            m.length = size
            m.in_block = size > queue_most_inline
            if m.in_block:
                body = self.home.allocate(size)
                try:
                    with nogil:
                        memcpy(body.data, data, size)
                        m.checksum = queue_checksum(bytes_in(data, size))
                    with_body.push_back(self.home.share(body.ref, True))
                finally:
                    release(body.ref)       # the lease keeps it
                with_body.insert(with_body.end(), claims.begin(), claims.end())
                claims.swap(with_body)
            else:
                m.bytes = bytes_in(data, size)
                m.checksum = queue_checksum(m.bytes)
                self.pickles.append(pickled)
            self.claims.push_back(claims)
            self.messages.push_back(m)
        except BaseException:
            self.give_back_all(claims)
            raise
        return 0

    cdef int point(self) except -1:
        """Make the messages refer to their claims, which do not move any more."""
        cdef size_t i
        for i in range(self.messages.size()):
            self.messages[i].claims = claims_in(self.claims[i].data(), self.claims[i].size())
        return 0

    cdef void give_back_all(self, const vector[claim]& claims) noexcept:
        cdef size_t i
        for i in range(claims.size()):
            self.home.give_back(claims[i])

    cdef int give_back(self) except -1:
        """Give back what the messages that were not put own."""
        cdef size_t i
        for i in range(self.put, self.messages.size()):
            self.give_back_all(self.claims[i])
        return 0


cdef Outgoing outgoing(arena* home):
    cdef Outgoing made = Outgoing.__new__(Outgoing)
    made.home = home
    made.pickles = []
    return made
