cdef class Decisions:
    cdef object _kept
    cdef public object snapshot_version
    cpdef object note(self, str request, double at, object choice, tuple considered, tuple asked)
