cdef class Pipeline:
    cdef readonly tuple steps, names
    cdef list _filters, _scorers
    cdef object _picker, _score, _pick
    cdef readonly bint needs_prefix, watches
    cdef tuple _on_dispatch, _on_first_byte, _on_complete, _on_instance_reset, _describe
    cpdef object choose(self, object request, tuple candidates, object context)
    cdef object _scores(self, object request, tuple candidates, object context)
    cdef object _index(self, object request, tuple candidates, object scores, object context)
