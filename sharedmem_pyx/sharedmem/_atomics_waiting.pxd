from libc.stdint cimport uint32_t


# Whether the word has another value than `same`, within so many seconds: it sleeps, and hears signals.
cdef bint sleep_while(const uint32_t* word, uint32_t same, double seconds) except -1

# The seconds of a timeout; infinity for None. Refuses what is not a number.
cdef double seconds_of(object timeout) except? -1
