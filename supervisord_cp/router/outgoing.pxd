cimport cython

from supervisord_cp.router.exchange cimport Exchange
from supervisord_cp.router.http1.head cimport RequestHead


cdef class Credentials:
    cdef public bint ours
    cdef dict _lines
    cpdef bytes lines(self, RequestHead head, object incarnation)


cpdef bint asks_to_switch(Exchange exchange)

@cython.locals(head=RequestHead, end=bytes, first=bytes, whole=bint)
cpdef list upstream_message(Exchange exchange, object endpoint, bytes lines, object left_ms=*)
