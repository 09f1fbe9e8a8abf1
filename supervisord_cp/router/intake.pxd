cimport cython

from supervisord_cp.core.routing.classify cimport read_body, read_query
from supervisord_cp.core.routing.lane cimport Lane
from supervisord_cp.router.exchange cimport Exchange
from supervisord_cp.router.fleet cimport Fleet
from supervisord_cp.router.http1.head cimport RequestHead
from supervisord_cp.router.traits cimport Traits, traits_of


@cython.locals(head=RequestHead, traits=Traits, lane=Lane)
cpdef tuple take(Exchange exchange, Fleet fleet, object stored, str request_id)

@cython.locals(lane=Lane)
cdef Lane _lane(str model, object home, Fleet fleet)
