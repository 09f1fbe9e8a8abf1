cdef class LengthBody:
    cdef Py_ssize_t _left


cdef class OpenBody:
    pass


cdef class ChunkedBody:
    cdef Py_ssize_t _left, _trailer_bytes
    cdef bytes _held
    cdef bint _ended
    cdef Py_ssize_t _content(self, bytes data, Py_ssize_t at, list parts) except -1
    cdef Py_ssize_t _trailer(self, bytes data, Py_ssize_t at) except -1
    cdef object _hold(self, bytes data, Py_ssize_t at)
