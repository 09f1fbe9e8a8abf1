cimport cython

from supervisord_cp.router.connection cimport ClientConnection
from supervisord_cp.router.exchange cimport Exchange


cdef class SocketExchange(Exchange):
    cdef readonly bint over
    cdef ClientConnection _connection
    cdef int _framing
    cdef bint _keep
    cdef Py_ssize_t _left
    cdef bytes _pending
    cpdef object close_after(self)
    cpdef object lost(self)
    @cython.locals(http11=bint, framing=bytes, first=bytes)
    cpdef object start(self, int status, bytes fields, object length, bint framed=*)
    @cython.locals(framing=int)
    cpdef object write(self, bytes data)
