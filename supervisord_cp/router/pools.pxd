from supervisord_cp.core.routing.leases cimport Account
from supervisord_cp.router.http1.recurring cimport RecurringHeads
from supervisord_cp.router.upstream cimport UpstreamConnection


cdef class _Pool:
    cdef readonly object endpoint
    cdef public list idle


cdef class Pools:
    cdef object _clock
    cdef dict _pools
    cdef set _open, _dials
    cdef RecurringHeads _heads
    cpdef UpstreamConnection take(self, Account account)
    cpdef object keep(self, UpstreamConnection connection)
    cpdef object drop(self, object incarnation)
    cdef _Pool _pool(self, Account account)
    cdef object _close_idle(self, _Pool pool)
