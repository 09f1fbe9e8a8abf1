"""Where requests go: the built-in policies, the pipeline around any policy, and lanes."""

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.builtin.routers.best_score import best_score
from supervisord_cp.core.routing.ejection import Ejections
from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.leases import Ledger
from supervisord_cp.core.routing.pipeline import Pipeline, Step
from supervisord_cp.core.routing.queue import WaitingLine
from supervisord_cp.core.routing.rejection import RejectReason
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId
from supervisord_cp.model.fleet import PolicyUse, RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import EngineLoad, InstanceState
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.plugin_host.registry import build_pipeline, builtin_routing
from supervisord_cp.policy.declare import PolicyKind
from supervisord_cp.policy.routing import RouteContext

REQUEST = RoutingRequest(id="r", deployment=DeploymentName("d"), prompt_tokens=100)


def routed(number: int, **more: object) -> RoutedInstance:
    return RoutedInstance(  # type: ignore[arg-type]
        id=InstanceId(f"d-{number}"),
        deployment=DeploymentName("d"),
        incarnation=Incarnation(f"d-{number}.a"),
        url="http://x",
        **({"state": InstanceState.READY} | more),
    )


def candidate(number: int, *, weight: float = 1.0, **more: int) -> Candidate:
    return Candidate(instance=routed(number, weight=weight), **more)


def context(seed: int = 1) -> RouteContext:
    return RouteContext(rng=Random(seed), request_tokens=300.0)


def uses(*names: str) -> tuple[PolicyUse, ...]:
    return tuple(PolicyUse(use=name) for name in names)


def test_the_built_in_policies_are_found() -> None:
    assert {"load_balanced", "round_robin", "random", "best_score"} <= set(builtin_routing())


def test_load_balanced_takes_the_least_work_in_tokens() -> None:
    pipeline = build_pipeline(uses("load_balanced"))
    many_small = candidate(0, inflight=10, booked_prefill=100, booked_decode=100)
    one_large = candidate(1, inflight=1, booked_prefill=50_000, booked_decode=10)
    assert pipeline.choose(REQUEST, [many_small, one_large], context()) is many_small


def test_load_balanced_counts_what_others_sent() -> None:
    pipeline = build_pipeline(uses("load_balanced"))
    busy = candidate(0, foreign=5)
    ours = candidate(1, inflight=1, booked_prefill=400)
    assert pipeline.choose(REQUEST, [busy, ours], context()) is ours


@given(
    work=st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([0.5, 1.0, 2.0])), min_size=2, max_size=6)
)
def test_load_balanced_never_takes_one_that_is_worse_in_both(work: list[tuple[int, float]]) -> None:
    candidates = [
        candidate(n, weight=weight, booked_decode=booked) for n, (booked, weight) in enumerate(work)
    ]
    chosen = build_pipeline(uses("load_balanced")).choose(REQUEST, candidates, context())
    cost = (chosen.booked + 100) / chosen.instance.weight
    assert all(cost <= (other.booked + 100) / other.instance.weight for other in candidates)


def test_work_spreads_by_weight() -> None:
    pipeline = build_pipeline(uses("load_balanced"))
    booked = [0, 0]
    for _ in range(300):
        candidates = [
            candidate(0, booked_decode=booked[0]),
            candidate(1, weight=2.0, booked_decode=booked[1]),
        ]
        booked[candidates.index(pipeline.choose(REQUEST, candidates, context()))] += 100
    assert booked[1] / booked[0] == pytest.approx(2.0, rel=0.05)


def test_equals_are_chosen_alike() -> None:
    pipeline, ctx = build_pipeline(uses("load_balanced")), context()
    counts = Counter(
        pipeline.choose(REQUEST, [candidate(n) for n in range(4)], ctx).instance.id for _ in range(4000)
    )
    assert min(counts.values()) > 850


def test_round_robin_goes_round_and_forgives_changes() -> None:
    pipeline = build_pipeline(uses("round_robin"))

    def turn(*numbers: int) -> str:
        return pipeline.choose(REQUEST, [candidate(n) for n in numbers], context()).instance.id

    assert [turn(0, 1, 2) for _ in range(4)] == ["d-0", "d-1", "d-2", "d-0"]
    assert [turn(2, 0) for _ in range(3)] == ["d-2", "d-0", "d-2"]


def test_round_robin_of_two_deployments_are_two() -> None:
    first, second = build_pipeline(uses("round_robin")), build_pipeline(uses("round_robin"))
    both = [candidate(0), candidate(1)]
    assert [p.choose(REQUEST, both, context()).instance.id for p in (first, second)] == ["d-0", "d-0"]


def test_random_takes_any() -> None:
    pipeline, ctx = build_pipeline(uses("random")), context()
    counts = Counter(
        pipeline.choose(REQUEST, [candidate(n) for n in range(3)], ctx).instance.id for _ in range(3000)
    )
    assert min(counts.values()) > 800


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (PolicyUse(use="load_balance"), 'did you mean "load_balanced"'),
        (PolicyUse(use="zzz"), "known: "),
        (PolicyUse(use="random", params={"a": 1}), "takes no parameters"),
    ],
)
def test_unknown_policies_and_parameters_are_told(use: PolicyUse, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_pipeline((use,))


def raises(*_: object) -> None:
    raise RuntimeError("broken policy")


BAD = {
    "filter raises": Step(name="p", kind=PolicyKind.FILTER, call=raises),
    "filter invents": Step(name="p", kind=PolicyKind.FILTER, call=lambda *_: [candidate(99)]),
    "filter returns nothing": Step(name="p", kind=PolicyKind.FILTER, call=lambda *_: None),
    "scorer raises": Step(name="p", kind=PolicyKind.SCORER, call=raises),
    "scorer is short": Step(name="p", kind=PolicyKind.SCORER, call=lambda *_: [1.0]),
    "scorer is no number": Step(name="p", kind=PolicyKind.SCORER, call=lambda *_: [math.nan, 1.0, 2.0]),
    "scorer returns text": Step(name="p", kind=PolicyKind.SCORER, call=lambda *_: ["a", "b", "c"]),
    "picker raises": Step(name="p", kind=PolicyKind.PICKER, call=raises),
    "picker is out of range": Step(name="p", kind=PolicyKind.PICKER, call=lambda *_: 3),
    "picker is negative": Step(name="p", kind=PolicyKind.PICKER, call=lambda *_: -1),
    "picker returns a candidate": Step(name="p", kind=PolicyKind.PICKER, call=lambda r, c, s, x: c[0]),
    "picker returns a bool": Step(name="p", kind=PolicyKind.PICKER, call=lambda *_: True),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_policy_never_fails_a_request(what: str) -> None:
    failures: list[str] = []
    pipeline = Pipeline([BAD[what]], pick=best_score, on_failure=lambda name, why: failures.append(name))
    candidates = [candidate(n) for n in range(3)]
    assert pipeline.choose(REQUEST, candidates, context()) in candidates
    assert failures == ["p"]


def test_a_filter_that_keeps_nobody_keeps_everybody() -> None:
    pipeline = Pipeline([Step(name="f", kind=PolicyKind.FILTER, call=lambda *_: [])], pick=best_score)
    assert pipeline.choose(REQUEST, [candidate(0)], context()).instance.id == "d-0"


def test_steps_compose() -> None:
    def evens(request: object, candidates: list[Candidate], ctx: object) -> list[Candidate]:
        return [c for c in candidates if int(c.instance.id[-1]) % 2 == 0]

    def likes(wanted: int) -> object:
        return lambda r, candidates, x: [
            1000.0 if c.instance.id == f"d-{wanted}" else 0.0 for c in candidates
        ]

    steps = [
        Step(name="evens", kind=PolicyKind.FILTER, call=evens),
        Step(name="two", kind=PolicyKind.SCORER, call=likes(2), weight=1.0),  # type: ignore[arg-type]
        Step(name="four", kind=PolicyKind.SCORER, call=likes(4), weight=2.0),  # type: ignore[arg-type]
    ]
    pipeline = Pipeline(steps, pick=best_score)
    assert pipeline.choose(REQUEST, [candidate(n) for n in range(6)], context()).instance.id == "d-4"


# --- lanes


class Item:
    body_bytes = 1
    prompt_tokens = 1


def lane(
    *instances: RoutedInstance, ejected: tuple[str, ...] = (), **more: object
) -> tuple[Lane[Item], Ledger]:
    deployment = RoutedDeployment(name=DeploymentName("d"), names=("d",), **more)  # type: ignore[arg-type]
    line: WaitingLine[Item] = WaitingLine(most=10, most_bytes=10)
    made: Lane[Item] = Lane(deployment, build_pipeline(uses("load_balanced")), line, Random(1))
    ledger, ejections = Ledger(), Ejections()
    ledger.sync((instance, instance.max_concurrency) for instance in instances)
    for incarnation in ejected:
        ejections.eject(Incarnation(incarnation), 0.0)
    made.refresh(instances, ledger, ejections, 5.0)
    return made, ledger


def test_a_lane_chooses_among_those_with_room() -> None:
    made, _ = lane(routed(0, max_concurrency=1), routed(1, max_concurrency=1))
    first = made.choose(REQUEST, 0.0)
    assert first is not None
    first.open(1, 1)
    second = made.choose(REQUEST, 0.0)
    assert second is not None
    assert second is not first
    second.open(1, 1)
    assert made.choose(REQUEST, 0.0) is None
    assert not made.has_room(0.0)
    assert made.reachable
    assert made.inflight == 2


def test_ejected_ones_are_left_out_unless_all_are() -> None:
    made, _ = lane(routed(0), routed(1), ejected=("d-0.a",))
    assert {made.choose(REQUEST, 0.0).incarnation for _ in range(20)} == {"d-1.a"}  # type: ignore[union-attr]
    made, _ = lane(routed(0), ejected=("d-0.a",))
    assert made.choose(REQUEST, 0.0) is None
    assert made.choose(REQUEST, 0.0, fail_open=True) is not None
    assert not made.reachable


@pytest.mark.parametrize(
    ("wanted", "states", "draining", "reason"),
    [
        (0, [], False, RejectReason.NO_CAPACITY),
        (1, [], False, RejectReason.WAKING),
        (0, [InstanceState.STARTING], False, RejectReason.WAKING),
        (0, [InstanceState.BACKOFF], False, RejectReason.WAKING),
        (0, [InstanceState.READY], True, RejectReason.DRAINING),
        (0, [InstanceState.STOPPING], False, RejectReason.DRAINING),
        (0, [InstanceState.STOPPED], False, RejectReason.NO_CAPACITY),
    ],
)
def test_why_nothing_serves(
    wanted: int, states: list[InstanceState], draining: bool, reason: RejectReason
) -> None:
    instances = [routed(n, state=state, draining=draining) for n, state in enumerate(states)]
    made, _ = lane(*instances, wanted=wanted)
    assert made.absence() is reason


def test_waiting_is_estimated_from_what_requests_take() -> None:
    made, _ = lane(routed(0, max_concurrency=4))
    made.work.seconds = 8.0
    assert made.estimated_wait_s(0.0) == pytest.approx(2.0)
    for _ in range(3):
        made.line.add(Item())
    assert made.estimated_wait_s(0.0) == pytest.approx(8.0)
    assert made.retry_after_s(0.0) == 8
    made, _ = lane(start_estimate_s=40.5)
    assert (made.estimated_wait_s(0.0), made.retry_after_s(0.0)) == (40.5, 41)
    made, _ = lane()
    assert (made.estimated_wait_s(0.0), made.retry_after_s(0.0)) == (None, 5)


def test_a_lane_knows_when_waiting_changed_its_meaning() -> None:
    made, ledger = lane()
    assert made.changed_at == 0.0
    ledger.sync([(routed(0), 0)])
    made.refresh([routed(0)], ledger, Ejections(), 9.0)
    assert made.changed_at == 9.0
    made.refresh([routed(0)], ledger, Ejections(), 10.0)
    assert made.changed_at == 9.0


def test_pinned_work_goes_to_draining_ones_too() -> None:
    made, _ = lane(routed(0, draining=True), routed(1, state=InstanceState.STOPPED))
    assert made.pinned(Incarnation("d-0.a")) is not None
    assert made.pinned(Incarnation("d-1.a")) is None
    assert made.pinned(Incarnation("d-9.a")) is None


def test_hopeless_is_when_nothing_can_come() -> None:
    assert lane(wanted=0, wakes=False)[0].hopeless
    assert not lane(wanted=0)[0].hopeless
    assert not lane(wanted=1, wakes=False)[0].hopeless
    assert not lane(routed(0, state=InstanceState.STARTING), wanted=0, wakes=False)[0].hopeless


def test_an_engines_load_reaches_the_candidates() -> None:
    _, ledger = lane(routed(0, load=EngineLoad(running=3, waiting=4)))
    account = ledger.get(Incarnation("d-0.a"))
    assert account is not None
    assert account.candidate.foreign == 7
