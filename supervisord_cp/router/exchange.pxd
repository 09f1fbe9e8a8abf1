from supervisord_cp.router.http1.head cimport RequestHead


cdef class Exchange:
    cdef public RequestHead head
    cdef public object body, events, peer, key
    cdef public bint takes_chunks
    cpdef object start(self, int status, bytes fields, object length, bint framed=*)
    cpdef object write(self, bytes data)
    cpdef object end(self)
    cpdef object abort(self)
    cpdef object release(self)
