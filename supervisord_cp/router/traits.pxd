from supervisord_cp.router.http1.head cimport RequestHead


cdef class Traits:
    cdef readonly bint is_health, is_models, forwarded, is_messages, stores, wishes
    cdef readonly str response, given_id
    cdef readonly bytes content_type


cpdef Traits traits_of(RequestHead head)
