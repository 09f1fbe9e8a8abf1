cdef class RequestHead:
    cdef public bytes method, target, fields
    cdef public str path, query
    cdef public dict values
    cdef public bint http11, chunked, keep_alive, expects_continue, upgrade
    cdef public tuple admitted
    cdef public object traits
    cpdef str value(self, bytes name)


cdef class ResponseHead:
    cdef public int status
    cdef public bint http11, chunked, keep_alive, is_json
    cdef public dict values
    cdef public bytes fields
