cdef class WaitingLine:
    cdef readonly object entry
    cdef object _most, _most_bytes, _share
    cdef dict _items, _places, _lines
    cdef list _returned
    cdef Py_ssize_t _number
    cdef public Py_ssize_t size, bytes, tokens
    cpdef bint remove(self, object item) except -1
