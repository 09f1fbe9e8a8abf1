cimport cython

from supervisord_cp.core.routing.decisions cimport Decisions
from supervisord_cp.core.routing.estimate cimport WorkEstimate
from supervisord_cp.core.routing.leases cimport Account
from supervisord_cp.core.routing.pipeline cimport Pipeline
from supervisord_cp.core.routing.rotation cimport Rotation
from supervisord_cp.core.routing.scheduled_line cimport ScheduledLine


cdef class Lane:
    cdef public object deployment, policies, queries
    cdef readonly ScheduledLine line
    cdef readonly WorkEstimate work
    cdef readonly Decisions decisions
    cdef readonly Rotation rotation
    cdef public Py_ssize_t arrivals, prompt_tokens, completed, failed
    cdef public double inflight_s, changed_at
    cdef public bint needs_prefix
    cdef Pipeline _router
    cdef object _shadow, _looked_at, _rng, _here
    cdef tuple _instances, _watching
    cdef dict _accounts
    @cython.locals(accounts=list, account=Account, candidates=tuple)
    cpdef Account choose(self, object item, double now, bint fail_open=*, bint may_try=*)
    cdef object _take_over(self, object policies)
    cpdef object arrived(self, object item, double now)
    cpdef object dispatched(self, object request, Account account, double now)
    cdef object _allowed(self, object item, object accounts, double now)
    cdef object _with_trial(self, object choice)
    cdef object _context(self, double now)
    cdef object _queue_context(self, double now)
