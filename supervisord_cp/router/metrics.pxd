cimport cython


cdef class Histogram:
    cdef tuple _bounds
    cdef list _counts
    cdef double _sum
    @cython.locals(bounds=tuple, bound=double, least=Py_ssize_t, most=Py_ssize_t, middle=Py_ssize_t)
    cpdef object observe(self, double value)


cdef class DeploymentFigures:
    cdef public dict codes
    cdef public Py_ssize_t cut
    cdef readonly Histogram duration, first_byte, overhead, queue_wait
    cpdef object code(self, int status)


cdef class RouterMetrics:
    cdef dict _deployments
    cdef readonly dict rejected, retries, ejections
    cdef public object connections
    cpdef DeploymentFigures of(self, object deployment)
