from supervisord_cp.router.connection cimport ClientConnection
from supervisord_cp.router.http1.head cimport RequestHead


cdef class SocketExchange:
    cdef public RequestHead head
    cdef public object body, events
    cdef public str key, peer
    cdef public bint over
    cdef ClientConnection _connection
    cdef int _framing
    cdef bint _keep
    cdef Py_ssize_t _left
    cdef bytes _pending
