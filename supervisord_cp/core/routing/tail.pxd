cdef class Tail:
    cdef list _pieces
    cdef Py_ssize_t _size
    cpdef object add(self, bytes data)
    cpdef object usage(self)
    cpdef bint failed(self) except -1
