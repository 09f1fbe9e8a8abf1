cimport cython

from supervisord_cp.router.http1.head cimport RequestHead
from supervisord_cp.router.http1.recurring cimport HeadReader
from supervisord_cp.router.socket_exchange cimport SocketExchange


cdef class ClientConnection:
    cdef public object transport
    cdef public bint closing
    cdef object _core, _limits, _clock, _body, _content
    cdef HeadReader _heads
    cdef set _connections
    cdef str _peer, _key
    cdef bytes _buffer
    cdef RequestHead _head
    cdef SocketExchange _exchange
    cdef double _body_begun, _deadline, _slow_since, _grace_s
    cdef bint _reading_held, _working
    cdef Py_ssize_t _lingered
    @cython.locals(begins=bint)
    cpdef object data_received(self, bytes data)
    cpdef object answered(self, bint keep)
    cpdef object hold_reading(self, bint held)
    cdef object _work(self)
    cdef bint _awaits_head(self)
    cdef bint _is_whole(self)
    @cython.locals(buffer=bytes, head=RequestHead, at=Py_ssize_t, length=Py_ssize_t)
    cdef bint _read_head(self) except -1
    cdef object _begin_body(self, RequestHead head, Py_ssize_t length, bytes rest)
    cdef object _read_body(self, bytes data)
    @cython.locals(head=RequestHead, exchange=SocketExchange)
    cdef object _hand_over(self)
    cdef object _data_while_busy(self, SocketExchange exchange, bytes data)
    cdef object _turn_away(self)
    cdef object _linger(self)
    cdef object _too_large(self)
    cdef object _answer_refusal(self, RequestHead head, object rejection)
    cdef object _refuse(self, object rejection)
