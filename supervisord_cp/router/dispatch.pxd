cimport cython

from supervisord_cp.core.routing.lane cimport Lane
from supervisord_cp.core.routing.leases cimport Account
from supervisord_cp.core.routing.retry cimport RetryBudget
from supervisord_cp.router.exchange cimport Exchange
from supervisord_cp.router.fleet cimport Fleet
from supervisord_cp.router.flow cimport Flow
from supervisord_cp.router.host cimport Host
from supervisord_cp.router.http1.head cimport RequestHead
from supervisord_cp.router.intake cimport take
from supervisord_cp.router.learning cimport learned
from supervisord_cp.router.judge cimport Judge
from supervisord_cp.router.metrics cimport DeploymentFigures, RouterMetrics
from supervisord_cp.router.placement cimport Placement
from supervisord_cp.router.traits cimport Traits, traits_of


cdef class Dispatcher(Host):
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
    cpdef str admit(self, RequestHead head, str peer)
    @cython.locals(traits=Traits, flow=Flow, lane=Lane, now=double)
    cpdef object serve(self, Exchange exchange)
    cdef str _new_id(self)
    cdef object _released(self, Account account)
    @cython.locals(figures=DeploymentFigures, account=Account, now=double)
    cpdef object answered(self, Flow flow, int status, bytes data)
    @cython.locals(figures=DeploymentFigures, account=Account, lane=Lane, now=double, status=int, good=bint)
    cpdef object over(self, Flow flow)
