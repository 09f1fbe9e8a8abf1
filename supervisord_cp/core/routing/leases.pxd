from supervisord_cp.core.routing.vitals cimport Vitals


cdef class Lease:
    cdef public Account account
    cdef public Py_ssize_t prefill, decode
    cpdef object first_byte(self)
    cpdef bint close(self) except -1


cdef class Account:
    cdef public object instance, ceiling
    cdef readonly object entry
    cdef readonly Vitals vitals
    cdef public Py_ssize_t siblings, limit, foreign
    cdef public object warm_since
    cdef public bint on_trial
    cdef public Lease trial
    cdef set _leases
    cdef Py_ssize_t _booked_prefill, _booked_decode, _peak, _earlier_peak
    cdef object _candidate
    cpdef bint has_room(self, double now) except -1
    cpdef object offer(self, double now)
    cpdef Lease open(self, Py_ssize_t prefill, Py_ssize_t decode)
    cpdef object look(self)
    cdef object _fold_load(self, object instance)


cdef class Ledger:
    cdef dict _accounts
    cdef readonly object _entries
