cdef class Known:
    cdef readonly object head
    cdef readonly bytes before, behind


cdef class RecurringHeads:
    cdef readonly object parse
    cdef dict _whole, _known
    cpdef tuple read_whole(self, bytes block)
    cpdef Known find(self, bytes before, bytes behind, bytes block)


cdef class HeadReader:
    cdef RecurringHeads _heads
    cdef Known _last
    cpdef tuple read(self, bytes block)
