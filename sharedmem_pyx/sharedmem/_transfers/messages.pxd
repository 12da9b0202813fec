from libcpp.vector cimport vector

from sharedmem.libsharedmem.arena cimport arena, claim
from sharedmem.libsharedmem.handle cimport byte


# The pickle of a message that is put into a queue in the arena `where`. The leases that it takes there are
# appended to `kept`: the caller keeps them or gives them back. Those of other arenas belong to the process
# that loads the message. Data of arrays goes through the arena as `sharedmem.transport` is set, and is
# counted. If it raises, everything was given back.
cdef bytes pickle_for_queue(object obj, arena* where, vector[claim]* kept)

# The array of a message that was pickled without a pickler, as `pickle.loads` would return it; None: it is
# another message.
cdef object load_alone(const byte* pickled, size_t length)
