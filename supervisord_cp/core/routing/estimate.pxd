cimport cython


cdef class WorkEstimate:
    cdef public double tokens_per_byte, prompt_tokens, completion_tokens, seconds
    cdef public object pace
    cdef _Ratio _first, _answer
    cpdef Py_ssize_t prefill(self, Py_ssize_t body_bytes)
    cpdef Py_ssize_t decode(self, object max_tokens, Py_ssize_t choices) except -1
    @cython.locals(prompt=double, answer=double, ratio=double, each=double)
    cpdef object learn(self, Py_ssize_t body_bytes, object usage, Py_ssize_t choices)
    cpdef object learn_duration(self, double seconds)


cdef class _Ratio:
    cdef double _seconds, _tokens
    cdef object see(self, double seconds, double tokens)
