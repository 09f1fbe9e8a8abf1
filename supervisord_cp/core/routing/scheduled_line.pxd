from supervisord_cp.core.routing.queue cimport WaitingLine
from supervisord_cp.core.routing.scheduling cimport Scheduling


cdef class ScheduledLine:
    cdef WaitingLine _line
    cdef public Scheduling scheduling
    cdef object _shadow
    cdef bint _failed
    cdef double _fresh_until
