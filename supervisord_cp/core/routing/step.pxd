from supervisord_cp.core.policies.guard cimport Guard


cdef class Step:
    cdef readonly object kind, call, params
    cdef public object affinities
    cdef readonly Guard guard
    cdef readonly double weight
    cdef readonly bint needs_prefix
    cpdef object given(self, object shared)
