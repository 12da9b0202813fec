from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool
from libcpp.vector cimport vector

from sharedmem.libsharedmem.arena cimport participant_report
from sharedmem.libsharedmem.handle cimport set_python_error
from sharedmem.libsharedmem.names cimport name_report
from sharedmem.libsharedmem.queue cimport queue_report
from sharedmem.libsharedmem.segment cimport segment_name


cdef extern from "<sharedmem/inspect.hpp>" namespace "sharedmem" nogil:
    cdef cppclass inspection:
        uint64_t uuid[2]
        uint64_t cached_bytes
        uint64_t cache_limit
        uint64_t leases
        uint64_t bytes_in_flight
        uint64_t oldest_in_flight_ns
        uint32_t segments
        vector[participant_report] participants
        bool has_names
        vector[name_report] names
        vector[queue_report] queues

    cdef cppclass optional_inspection "std::optional<sharedmem::inspection>":
        bool has_value() noexcept
        inspection& value() noexcept

    optional_inspection inspect(const segment_name&, uint64_t) except +set_python_error
