cdef class Credentials:
    cdef public bint ours
    cdef dict _lines
