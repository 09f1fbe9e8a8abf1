cimport cython

from supervisord_cp.core.routing.lane cimport Lane
from supervisord_cp.core.routing.leases cimport Account, Lease
from supervisord_cp.core.routing.tail cimport Tail
from supervisord_cp.router.answers cimport id_line, messages_line
from supervisord_cp.router.exchange cimport Exchange
from supervisord_cp.router.held cimport begins_with_error
from supervisord_cp.router.host cimport Host
from supervisord_cp.router.http1.head cimport RequestHead, ResponseHead
from supervisord_cp.router.metrics cimport DeploymentFigures
from supervisord_cp.router.outgoing cimport upstream_message
from supervisord_cp.router.traits cimport Traits, traits_of
from supervisord_cp.router.upstream cimport AnswerReader, UpstreamConnection


cdef class Flow(AnswerReader):
    cdef Host _host
    cdef object _held, _length
    cdef bint _believed, _may_stream
    cdef bytes _id_line, _instance_line
    cdef Lease _lease
    cdef Tail _tail
    cdef UpstreamConnection _upstream
    cdef ResponseHead _answer
    cdef double _waits_since
    cdef public Exchange exchange
    cdef public object expiry, pin
    cdef readonly object request
    cdef readonly DeploymentFigures figures
    cdef readonly Lane lane
    cdef readonly Account account
    cdef readonly Py_ssize_t prompt_tokens, tokens, body_bytes, decode, choices, events
    cdef readonly double arrived_at, dispatched_at, first_wait_at, waited_s
    cdef public double first_byte_at
    cdef public int losses, refusals
    cdef readonly int status
    cdef readonly Traits traits
    cdef readonly bint broke, cut, held_back, is_over, trial
    cpdef object connected(self, UpstreamConnection connection)
    @cython.locals(head=RequestHead, lines=bytes)
    cdef object _send(self, UpstreamConnection connection, Account account, double now)
    @cython.locals(connection=UpstreamConnection)
    cpdef object dispatch(self, Account account, double now)
    cdef bint _holds_back(self, bytes data) except -1
    @cython.locals(framed=bint)
    cdef object _start(self, ResponseHead head, bytes data)
    cdef object _switch(self, ResponseHead head)
    cdef object _first_bytes(self, int status, bytes data)
    cdef object _miss(self, object miss, str why)
    @cython.locals(upstream=UpstreamConnection)
    cdef object _finish(self)
