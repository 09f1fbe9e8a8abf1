cdef class RetryBudget:
    cdef double _tokens, _filled_at
    cpdef object earn(self, Py_ssize_t work)
