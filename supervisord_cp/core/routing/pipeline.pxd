cimport cython

from supervisord_cp.core.routing.step cimport Step


cdef class Pipeline:
    cdef readonly tuple steps, names
    cdef list _filters, _scorers
    cdef Step _picker
    cdef object _score, _pick
    cdef readonly bint needs_prefix, watches
    cdef tuple _on_dispatch, _on_first_byte, _on_complete, _on_instance_reset, _describe
    @cython.locals(step=Step)
    cpdef object choose(self, object request, tuple candidates, object context)
    @cython.locals(step=Step, total=list)
    cdef object _scores(self, object request, tuple candidates, object context)
    @cython.locals(step=Step)
    cdef object _index(self, object request, tuple candidates, object scores, object context)
