cimport cython

from supervisord_cp.core.routing.usage cimport read_usage


cdef class Tail:
    cdef list _pieces
    cdef Py_ssize_t _size
    cpdef object add(self, bytes data)
    @cython.locals(text=bytes, at=Py_ssize_t, end=Py_ssize_t)
    cpdef object usage(self)
    cpdef bint failed(self) except -1
