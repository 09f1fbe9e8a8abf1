cdef class Decisions:
    cdef object _kept
    cdef public object snapshot_version
    cpdef object note(self, object request, double at, object choice, tuple considered, tuple asked)
