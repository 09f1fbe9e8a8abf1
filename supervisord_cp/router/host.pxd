from supervisord_cp.router.flow cimport Flow
from supervisord_cp.router.outgoing cimport Credentials
from supervisord_cp.router.pools cimport Pools


cdef class Host:
    cdef readonly Pools pools
    cdef readonly Credentials credentials
    cdef readonly object clock
    cpdef object answered(self, Flow flow, int status, bytes data)
    cpdef object over(self, Flow flow)
