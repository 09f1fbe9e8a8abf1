from supervisord_cp.core.routing.leases cimport Account
from supervisord_cp.router.fleet cimport Fleet
from supervisord_cp.router.flow cimport Flow
from supervisord_cp.router.metrics cimport RouterMetrics
from supervisord_cp.router.pools cimport Pools


cdef class Judge:
    cdef object _most_failures, _watcher
    cdef double _factor, _next_look
    cdef Fleet _fleet
    cdef Pools _pools
    cdef RouterMetrics _metrics
    cpdef object began(self, Flow flow, Account account, double now)
    cpdef object ended(self, Flow flow, Account account, object usage, double now)
    cdef object _failed(self, Flow flow, Account account, double now)
    cdef object _measure(self, Flow flow, Account account, object usage, double now)
    cdef object _tried(self, Flow flow, Account account, double now)
    cdef object _passed(self, Account account, double now)
