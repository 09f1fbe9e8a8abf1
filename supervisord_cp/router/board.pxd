cimport cython


cdef class Board:
    cdef readonly int descriptor
    cdef readonly object words, floats, bucket_tags, bucket_times
    cdef object _memory


cdef class Row:
    cdef object _words, _floats
    cdef Py_ssize_t _at
    cdef readonly object tag
    cdef readonly Others others
    cpdef object tell(self, Py_ssize_t requests)
    cpdef object tell_bytes(self, Py_ssize_t size)
    cpdef list waiting(self)


cdef class Others:
    cdef object _words
    cdef Board _board
    cdef int _own
    cdef list _columns
    cdef dict _layouts, _rows
    cdef readonly bint any
