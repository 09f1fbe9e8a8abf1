from supervisord_cp.core.routing.queue cimport WaitingLine


cdef class ScheduledLine:
    cdef WaitingLine _line
    cdef public object scheduling
    cdef object _shadow
    cdef bint _failed
    cdef double _fresh_until
