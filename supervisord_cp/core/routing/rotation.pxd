cdef class Rotation:
    cdef readonly list routable, usable, trying
    cdef readonly bint special
    cdef list _warming
    cdef double _warmup_s
    cdef bint _refreshed
    cpdef list offered(self, double now, bint may_try=*)
    cpdef list warm(self, double now)
    cdef list _new_with_share(self, list warm, double now)
