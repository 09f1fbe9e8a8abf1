from supervisord_cp.router.http1.recurring cimport HeadReader


cdef class UpstreamConnection:
    cdef public object transport, endpoint, incarnation
    cdef public double idle_since
    cdef HeadReader _heads
    cdef object _idle, _gone, _clock, _reader, _body
    cdef bytes _head
    cdef bint _decode, _bodiless, _keep, _used, _reading_held
    cdef double _sent_at
    cpdef object hold_reading(self, bint held)
    cpdef object leave(self)
    cdef bytes _read_head(self, bytes data)
    cdef object _read_body(self, bytes data)
    cdef object _invalid(self, str why)
