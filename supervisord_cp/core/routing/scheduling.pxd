from supervisord_cp.core.policies.guard cimport Guard


cdef class Scheduling:
    cdef Guard _guard
    cdef object _rank, _instances, _hopeless, _on_arrival, _describe, _params
    cdef readonly double refresh_s
    cdef readonly bint needs_prefix, restricts, counts
