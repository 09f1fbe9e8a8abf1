"""For tests of a policy: builders of what it is given, and what every policy must keep to.

from supervisord_cp.policy.testing import assert_conforms, candidate, context, request

def test_idle_instances_are_preferred():
    busy, idle = candidate(0, booked_decode=5000), candidate(1)
    low, high = my_scorer(request(), [busy, idle], context())
    assert high > low

def test_it_conforms():
    assert_conforms(my_scorer)
"""

from collections.abc import Callable, Mapping
from typing import Any

from supervisord_cp.policy.conformance import Failure, conformance
from supervisord_cp.policy.declare import PolicySpec, declared
from supervisord_cp.policy.params import read_params
from supervisord_cp.policy.samples import (
    candidate,
    context,
    fleet,
    instance,
    load,
    place_view,
    query_results,
    queue_context,
    request,
    scale_view,
    waiting,
)

__all__ = [
    "Failure",
    "assert_conforms",
    "candidate",
    "conformance",
    "context",
    "fleet",
    "instance",
    "load",
    "place_view",
    "query_results",
    "queue_context",
    "request",
    "scale_view",
    "waiting",
]


def assert_conforms(policy: Callable[..., Any], params: Mapping[str, Any] | None = None) -> None:
    """Fail with everything that the policy does not keep to.

    `params` are written as in the configuration; None: the defaults.
    """
    spec: PolicySpec | None = declared(policy)
    assert spec is not None, f"{policy!r} is not declared: decorate it, for example with @scorer"
    given = read_params(params or {}, spec.params)
    failures = conformance(spec, given)
    told = "\n".join(f"  {failure.case}: {spec.name} {failure.what}" for failure in failures)
    assert not failures, f"{spec.kind} {spec.name} does not conform:\n{told}"
