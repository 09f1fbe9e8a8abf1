cimport cython

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
    @cython.locals(idle=list, connection=UpstreamConnection)
    cpdef UpstreamConnection take(self, Account account, double now)
    @cython.locals(pool=_Pool)
    cpdef object keep(self, UpstreamConnection connection)
    cpdef object drop(self, object incarnation)
    @cython.locals(pool=_Pool)
    cdef _Pool _pool(self, Account account)
    cdef object _close_idle(self, _Pool pool)
