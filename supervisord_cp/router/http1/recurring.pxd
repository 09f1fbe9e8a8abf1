cimport cython


cdef class Known:
    cdef readonly object head
    cdef readonly bytes before, behind


cdef class RecurringHeads:
    cdef readonly object parse
    cdef dict _whole, _known
    cpdef tuple read_whole(self, bytes block)
    cpdef Known find(self, bytes before, bytes behind, bytes block)


cdef class HeadReader:
    cdef readonly Py_ssize_t length, size
    cdef RecurringHeads _heads
    cdef Known _last
    @cython.locals(last=Known, at=Py_ssize_t, end=Py_ssize_t, stop=Py_ssize_t, length=Py_ssize_t, digit=int)
    cpdef object read(self, bytes data)
    cdef object _search(self, bytes block)
    cdef object _take(self, tuple found)
