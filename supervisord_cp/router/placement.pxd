cimport cython

from supervisord_cp.core.routing.lane cimport Lane
from supervisord_cp.router.fleet cimport Fleet
from supervisord_cp.router.flow cimport Flow
from supervisord_cp.router.metrics cimport RouterMetrics
from supervisord_cp.router.turns cimport Turns


cdef class Placement:
    cdef object _missed, _reject, _updates
    cdef Turns _turns
    cdef Fleet _fleet
    cdef RouterMetrics _metrics
    cdef double _queue_timeout_s, _hold_timeout_s
    cdef bint _ending
    @cython.locals(lane=Lane)
    cpdef object place(self, Flow flow, double now, bint again=*)
    cpdef object freed(self, Lane lane, double now)
    cdef object _turn_away(self, Flow flow, object reason)
