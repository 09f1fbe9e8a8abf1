cimport cython

from supervisord_cp.router.http1.head cimport ResponseHead
from supervisord_cp.router.http1.recurring cimport HeadReader


cdef class AnswerReader:
    cpdef bint answer_head(self, ResponseHead head, object length) except -1
    cpdef object answer_data(self, bytes data)
    cpdef object answer_end(self)


cdef class UpstreamConnection:
    cdef public object transport, endpoint, incarnation
    cdef public double idle_since
    cdef HeadReader _heads
    cdef object _idle, _gone, _clock, _body
    cdef AnswerReader _reader
    cdef bytes _head
    cdef bint _decode, _bodiless, _keep, _used, _reading_held
    cdef double _sent_at
    cpdef object send(self, AnswerReader reader, list pieces, double now, bint bodiless)
    cpdef object hold_reading(self, bint held)
    cpdef object leave(self)
    @cython.locals(head=ResponseHead, reader=AnswerReader, length=Py_ssize_t)
    cdef bytes _read_head(self, bytes data)
    @cython.locals(reader=AnswerReader, end=Py_ssize_t)
    cdef object _read_body(self, bytes data)
    @cython.locals(reader=AnswerReader)
    cdef object _read_whole(self, bytes data, bint clean)
    cdef object _complete(self, AnswerReader reader, bint clean)
    cdef object _invalid(self, str why)
