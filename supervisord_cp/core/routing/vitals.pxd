cdef class Vitals:
    cdef public Py_ssize_t answered, failed, failures
    cdef public dict first_token
    cdef tuple _samples
    cpdef object note(self, object measure, double at, double seconds)
