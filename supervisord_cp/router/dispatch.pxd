from supervisord_cp.core.routing.retry cimport RetryBudget
from supervisord_cp.router.fleet cimport Fleet
from supervisord_cp.router.judge cimport Judge
from supervisord_cp.router.metrics cimport RouterMetrics
from supervisord_cp.router.outgoing cimport Credentials
from supervisord_cp.router.placement cimport Placement
from supervisord_cp.router.pools cimport Pools


cdef class Dispatcher:
    cdef readonly object clock
    cdef readonly Pools pools
    cdef readonly Credentials credentials
    cdef readonly Fleet fleet
    cdef readonly RouterMetrics metrics
    cdef public bint draining
    cdef set _flows
    cdef object _rules, _config, _keys, _rate, _stored, _call_later, _created, _watcher, _ids
    cdef RetryBudget _budget
    cdef tuple _observers
    cdef Judge _judge
    cdef Placement _placement
    cdef str _id_prefix
