cdef class Turns:
    cdef object _wake
    cpdef bint others_wait(self, object entry) except -1
    cpdef object freed(self, object entry)
