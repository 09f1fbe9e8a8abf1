cimport cython

from supervisord_cp.core.routing.estimate cimport WorkEstimate
from supervisord_cp.core.routing.tail cimport Tail
from supervisord_cp.router.flow cimport Flow


@cython.locals(tail=Tail, work=WorkEstimate)
cpdef object learned(Flow flow, double now)
