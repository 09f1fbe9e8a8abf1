cdef class Breaker:
    cdef Py_ssize_t _calls, _failures
    cdef double _window_end, _open_until, _open_s
    cdef bint _on_trial
    cpdef bint blocks(self, double now)
    cpdef bint succeeded(self, double now)
    cdef object _begin_window(self, double now)
