cdef class Rotation:
    cdef readonly list routable, usable, trying
    cdef readonly bint special
    cdef list _warming
    cdef double _warmup_s
    cdef bint _refreshed
