cpdef object read_body(bytes content_type, object body)
cpdef str read_query(str query)
cdef object _read_json(object body, bint strict)
