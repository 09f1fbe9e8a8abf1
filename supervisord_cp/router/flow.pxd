from supervisord_cp.core.routing.lane cimport Lane
from supervisord_cp.core.routing.leases cimport Account, Lease
from supervisord_cp.core.routing.tail cimport Tail
from supervisord_cp.router.http1.head cimport ResponseHead
from supervisord_cp.router.upstream cimport UpstreamConnection


cdef class Flow:
    cdef object _host, _held
    cdef bint _believed
    cdef bytes _id_line, _instance_line
    cdef Lease _lease
    cdef object _length
    cdef Tail _tail
    cdef UpstreamConnection _upstream
    cdef ResponseHead _answer
    cdef double _waits_since
    cdef public object exchange, expiry, request, pin
    cdef public Lane lane
    cdef public Account account
    cdef public Py_ssize_t body_bytes, decode, choices, events
    cdef public double arrived_at, dispatched_at, first_byte_at, first_wait_at, waited_s
    cdef public int losses, refusals, status
    cdef public bint broke, cut, held_back, is_over, trial
    cpdef object connected(self, UpstreamConnection connection)
    cpdef object dispatch(self, Account account, double now)
    cdef object _left_ms(self)
    cdef bint _holds_back(self, bytes data) except -1
    cdef object _start(self, ResponseHead head, bytes data)
    cdef object _switch(self, ResponseHead head)
    cdef object _first_bytes(self, int status, bytes data)
    cdef object _miss(self, object miss, str why)
    cdef object _finish(self)
