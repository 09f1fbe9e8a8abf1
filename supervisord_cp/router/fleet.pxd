from supervisord_cp.core.routing.lane cimport Lane
from supervisord_cp.core.routing.leases cimport Ledger


cdef class Fleet:
    cdef readonly object table, ejections
    cdef readonly Ledger ledger
    cdef public dict lanes
    cdef readonly object binder
    cdef public bint known
    cdef object _entries, _queue_requests, _queue_bytes, _rng, _here, _queries
    cdef double _look_at, _warmup_s
    cdef dict _bound
    cpdef object look(self, double now)
    cpdef Lane lane(self, str model)
