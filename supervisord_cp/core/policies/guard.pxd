from supervisord_cp.core.policies.breaker cimport Breaker


cdef class Figures:
    cdef public Py_ssize_t calls, failures, open
    cdef public double seconds
    cdef public str last_failure


cdef class Guard:
    cdef readonly object name
    cdef Figures _figures
    cdef object _listener, _timer, _watch
    cdef double _budget_s
    cdef Breaker _breaker
    cdef bint _open
    cdef double _count(self, double began) except? -1
    cdef object _close(self)
