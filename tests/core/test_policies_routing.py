"""The built-in routing policies: what each is for, by tables and by laws."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.builtin.routers.best_score import best_score
from supervisord_cp.builtin.routers.kv_aware import KvAwareParams, kv_aware
from supervisord_cp.builtin.routers.least_loaded import least_loaded
from supervisord_cp.builtin.routers.load_balanced import load_balanced
from supervisord_cp.builtin.routers.nearest import NearestParams, nearest
from supervisord_cp.builtin.routers.power_of_two import power_of_two
from supervisord_cp.builtin.routers.random import random
from supervisord_cp.builtin.routers.rendezvous import Rendezvous, RendezvousParams
from supervisord_cp.builtin.routers.round_robin import RoundRobin
from supervisord_cp.builtin.routers.topology_aware import TopologyParams, topology_aware
from supervisord_cp.builtin.routers.weighted_round_robin import WeightedRoundRobin
from supervisord_cp.builtin.routers.within_load import LoadBound, within_load
from supervisord_cp.model.request import Candidate
from supervisord_cp.plugin_host.catalog import builtin_specs
from supervisord_cp.policy.conformance import conformance
from supervisord_cp.policy.declare import PolicyKind
from supervisord_cp.policy.params import ParamsError, read_params
from supervisord_cp.policy.routing import Affinity
from supervisord_cp.policy.testing import candidate, context, fleet, load, request

WORK = st.integers(0, 100_000)
WEIGHTS = st.sampled_from([0.5, 1.0, 2.0, 4.0])
SCORERS: dict[str, tuple[Callable[..., Sequence[float]], Any]] = {
    "load_balanced": (load_balanced, None),
    "least_loaded": (least_loaded, None),
    "kv_aware": (kv_aware, KvAwareParams()),
    "topology_aware": (topology_aware, TopologyParams(node="node-0", zone="zone-0")),
    "rendezvous": (Rendezvous(RendezvousParams()), RendezvousParams()),
}


@st.composite
def fleets(draw: st.DrawFn, least: int = 1) -> list[Candidate]:
    sizes = draw(st.lists(st.tuples(WORK, WORK, st.integers(0, 9), WEIGHTS), min_size=least, max_size=8))
    return [
        candidate(n, booked_prefill=prefill, booked_decode=decode, foreign=foreign, weight=weight)
        for n, (prefill, decode, foreign, weight) in enumerate(sizes)
    ]


def best(scores: Sequence[float], candidates: Sequence[Candidate]) -> str:
    return candidates[max(range(len(scores)), key=lambda n: scores[n])].instance.id


@pytest.mark.parametrize("name", [n for n, s in builtin_specs().items() if s.kind is not PolicyKind.SCALER])
def test_every_built_in_policy_keeps_to_what_policies_must(name: str) -> None:
    spec = builtin_specs()[name]
    assert conformance(spec) == []


@given(candidates=fleets(), seed=st.integers(), name=st.sampled_from(sorted(SCORERS)))
def test_scores_do_not_depend_on_the_order_of_the_instances(
    candidates: list[Candidate], seed: int, name: str
) -> None:
    score, params = SCORERS[name]
    asked, ctx = request(session="s"), context(params)
    straight = dict(zip((c.instance.id for c in candidates), score(asked, candidates, ctx), strict=True))
    Random(seed).shuffle(candidates)
    assert (
        dict(zip((c.instance.id for c in candidates), score(asked, candidates, ctx), strict=True)) == straight
    )


# --- load


def test_load_balanced_counts_tokens_not_requests() -> None:
    many_small = candidate(0, inflight=10, booked_prefill=100, booked_decode=100)
    one_large = candidate(1, inflight=1, booked_prefill=50_000, booked_decode=10)
    low, high = load_balanced(request(), [one_large, many_small], context())
    assert high > low


def test_load_balanced_counts_what_others_sent() -> None:
    busy, ours = candidate(0, foreign=5), candidate(1, inflight=1, booked_prefill=400)
    low, high = load_balanced(request(), [busy, ours], context(request_tokens=300.0))
    assert high > low


@given(fleets(least=2))
def test_load_balanced_never_takes_one_that_is_worse_in_work_and_weight(candidates: list[Candidate]) -> None:
    ctx = context(request_tokens=300.0)
    chosen = candidates[best_score(request(), candidates, load_balanced(request(), candidates, ctx), ctx)]
    cost = (chosen.booked + 300 * chosen.foreign + 100) / chosen.instance.weight
    assert all(
        cost <= (other.booked + 300 * other.foreign + 100) / other.instance.weight + 1e-9
        for other in candidates
    )


def test_work_spreads_by_weight() -> None:
    ctx, booked = context(), [0, 0]
    for _ in range(300):
        pair = [candidate(0, booked_decode=booked[0]), candidate(1, weight=2.0, booked_decode=booked[1])]
        booked[best_score(request(), pair, load_balanced(request(), pair, ctx), ctx)] += 100
    assert booked[1] / booked[0] == pytest.approx(2.0, rel=0.05)


def test_least_loaded_counts_requests() -> None:
    pair = [candidate(0, inflight=3, weight=2.0), candidate(1, inflight=2), candidate(2, foreign=4)]
    assert best(least_loaded(request(), pair, context()), pair) == "chat-0"


def test_equals_are_chosen_alike() -> None:
    ctx, four = context(), fleet(4)
    counts = Counter(best_score(request(), four, (1.0, 1.0, 1.0, 0.0), ctx) for _ in range(3000))
    assert set(counts) == {0, 1, 2}
    assert min(counts.values()) > 850


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ({"load": load(kv_cache_usage=0.95)}, {"booked_decode": 3000}, "chat-1"),
        ({"load": load(kv_cache_usage=0.10)}, {"booked_decode": 3000}, "chat-0"),
        ({"load": load(kv_cache_usage=0.95, age_ms=60_000)}, {"booked_decode": 3000}, "chat-0"),
        ({"load": load(kv_cache_usage=None)}, {"booked_decode": 3000}, "chat-0"),
        ({"load": load(kv_cache_usage=1.0)}, {"load": load(kv_cache_usage=1.0), "foreign": 1}, "chat-0"),
    ],
)
def test_kv_aware_keeps_away_from_full_caches(
    first: dict[str, Any], second: dict[str, Any], wanted: str
) -> None:
    pair = [candidate(0, **first), candidate(1, **second)]
    assert best(kv_aware(request(), pair, context(KvAwareParams())), pair) == wanted


# --- turns


def test_round_robin_goes_round_and_forgives_changes() -> None:
    policy = RoundRobin()

    def turn(*numbers: int) -> str:
        candidates = [candidate(n) for n in numbers]
        return candidates[policy(request(), candidates, [0.0] * len(candidates), context())].instance.id

    assert [turn(0, 1, 2) for _ in range(4)] == ["chat-0", "chat-1", "chat-2", "chat-0"]
    assert [turn(2, 0) for _ in range(3)] == ["chat-2", "chat-0", "chat-2"]


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(1, 5))
def test_weighted_round_robin_gives_each_its_share_in_every_round(weights: list[int], rounds: int) -> None:
    policy = WeightedRoundRobin()
    candidates = [candidate(n, weight=float(weight)) for n, weight in enumerate(weights)]
    for _ in range(rounds):
        turns = Counter(policy(request(), candidates, (), context()) for _ in range(sum(weights)))
        assert [turns[n] for n in range(len(weights))] == weights


def test_weighted_round_robin_interleaves() -> None:
    policy = WeightedRoundRobin()
    candidates = [candidate(0, weight=2.0), candidate(1, weight=1.0)]
    turns = [policy(request(), candidates, (), context()) for _ in range(6)]
    assert turns in ([0, 1, 0, 0, 1, 0], [0, 1, 0] * 2)


def test_weighted_round_robin_remembers_only_those_who_are_there() -> None:
    policy = WeightedRoundRobin()
    for n in range(100):
        policy(request(), [candidate(n), candidate(n + 1)], (), context())
    assert len(policy._earned) == 2


def test_random_takes_any() -> None:
    ctx, three = context(), fleet(3)
    counts = Counter(random(request(), three, (9.0, 0.0, 0.0), ctx) for _ in range(3000))
    assert min(counts.values()) > 800


@given(fleets(least=2), st.integers())
def test_power_of_two_never_takes_the_worst(candidates: list[Candidate], seed: int) -> None:
    ctx = context(seed=seed, request_tokens=300.0)
    work = [c.work(300.0) for c in candidates]
    chosen = power_of_two(request(), candidates, [0.0] * len(candidates), ctx)
    assert work[chosen] < max(work) or work.count(max(work)) > 1


def test_power_of_two_heeds_scores_and_spreads() -> None:
    ctx, four = context(), fleet(4)
    counts = Counter(power_of_two(request(), four, (1.0, 1.0, 1.0, 0.0), ctx) for _ in range(3000))
    assert counts[3] == 0
    assert min(counts[n] for n in range(3)) > 700


# --- bounds and affinity


@given(fleets(), st.floats(1.0, 3.0), st.floats(0.0, 4.0))
def test_the_load_bound_holds_and_leaves_somebody(
    candidates: list[Candidate], bound: float, slack: float
) -> None:
    kept = within_load(
        request(), candidates, context(LoadBound(bound=bound, slack=slack), request_tokens=300.0)
    )
    work = [c.work(300.0) for c in candidates]
    most = bound * sum(work) / len(work) + slack * 300.0
    assert min(candidates, key=lambda c: c.work(300.0)) in kept
    assert [c in kept for c in candidates] == [w <= most for w in work]


def winner(session: str, candidates: Sequence[Candidate], **params: Any) -> str:
    given_ = RendezvousParams(**params)
    return best(Rendezvous(given_)(request(session=session), candidates, context(given_)), candidates)


def test_a_session_stays_whatever_the_work() -> None:
    idle, busy = fleet(5), fleet(5, booked_decode=90_000)
    for number in range(50):
        assert winner(f"s{number}", idle) == winner(f"s{number}", busy)


def test_only_the_sessions_of_an_instance_that_goes_move() -> None:
    before, after = fleet(6), fleet(6)[:-1]
    moved = [s for s in map(str, range(500)) if winner(s, before) != winner(s, after)]
    assert moved == [s for s in map(str, range(500)) if winner(s, before) == "chat-5"]
    assert 40 < len(moved) < 130


def test_sessions_spread_by_weight() -> None:
    three = [candidate(0), candidate(1), candidate(2, weight=2.0)]
    counts = Counter(winner(str(n), three) for n in range(4000))
    assert counts["chat-2"] / 4000 == pytest.approx(0.5, abs=0.04)
    assert counts["chat-0"] / 4000 == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("by", "one", "other", "same"),
    [
        (("session", "user"), {"session": "a", "user": "x"}, {"session": "a", "user": "y"}, True),
        (("session", "user"), {"user": "x", "key": "k"}, {"user": "x", "key": "l"}, True),
        (("user",), {"session": "a", "user": "x"}, {"session": "b", "user": "x"}, True),
        (("key",), {"session": "a", "key": "k"}, {"session": "b", "key": "k"}, True),
        (("session",), {"session": "x"}, {"user": "x"}, False),
    ],
)
def test_what_keeps_requests_together(by: Any, one: Any, other: Any, same: bool) -> None:
    many, policy = fleet(64), Rendezvous(RendezvousParams(by=by))
    scores = [policy(request(**fields), many, context()) for fields in (one, other)]
    assert (scores[0] == scores[1]) is same


def test_without_a_session_work_decides() -> None:
    pair = [candidate(0, booked_decode=500), candidate(1)]
    assert best(Rendezvous(RendezvousParams())(request(), pair, context()), pair) == "chat-1"


def test_it_says_whether_a_session_went_where_it_was_before() -> None:
    policy = Rendezvous(RendezvousParams())

    def sent(session: str, number: int) -> Any:
        return policy.on_dispatch(request(session=session), candidate(number), context())

    assert sent("", 1) is None
    assert [sent("a", 1), sent("a", 1), sent("b", 1)] == [Affinity.NEW, Affinity.HIT, Affinity.NEW]
    assert [sent("a", 2), sent("a", 2), sent("a", 1)] == [Affinity.MOVED, Affinity.HIT, Affinity.HIT]
    policy.on_instance_reset(candidate(1).instance.incarnation)
    assert [sent("a", 1), sent("b", 2)] == [Affinity.MOVED, Affinity.NEW]


def test_only_instances_that_are_there_are_remembered() -> None:
    policy = Rendezvous(RendezvousParams())
    for n in range(100):
        policy(request(session="s"), [candidate(n), candidate(n + 1)], context())
    assert len(policy._hashes) <= 10


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ParamsError, match="by"):
        read_params({"by": ["cookie"]}, RendezvousParams)


# --- places


HERE = candidate(0, node="a", zone="z1")
BESIDE = candidate(1, node="b", zone="z1")
FAR = candidate(2, node="c", zone="z2")


def busy(there: Candidate) -> Candidate:
    return Candidate(instance=there.instance, booked_decode=50_000)


@pytest.mark.parametrize(
    ("candidates", "kept"),
    [
        ([HERE, BESIDE, FAR], [HERE]),
        ([busy(HERE), BESIDE, FAR], [BESIDE]),
        ([busy(HERE), busy(BESIDE), FAR], [FAR]),
        ([BESIDE, FAR], [BESIDE]),
        ([FAR], [FAR]),
        ([busy(HERE), busy(BESIDE), busy(FAR)], [busy(HERE)]),
    ],
)
def test_the_nearest_come_first_and_spill_when_they_are_loaded(
    candidates: list[Candidate], kept: list[Candidate]
) -> None:
    assert nearest(request(), candidates, context(NearestParams(), node="a", zone="z1")) == kept


def test_a_router_that_does_not_know_where_it_is_takes_all() -> None:
    three = [HERE, BESIDE, FAR]
    assert nearest(request(), three, context(NearestParams())) == three
    assert nearest(request(), three, context(NearestParams(zone="z2"))) == [FAR]


@pytest.mark.parametrize(
    ("candidates", "params", "wanted"),
    [
        ([HERE, BESIDE, FAR], {}, "chat-0"),
        ([BESIDE, FAR], {}, "chat-1"),
        ([busy(HERE), BESIDE, FAR], {}, "chat-1"),
        ([Candidate(instance=HERE.instance, booked_decode=300), BESIDE], {"hop_tokens": 1000}, "chat-0"),
        ([Candidate(instance=HERE.instance, booked_decode=300), BESIDE], {"hop_tokens": 100}, "chat-1"),
        ([candidate(0, gpus=1, booked_decode=900), candidate(1, gpus=4, booked_decode=1600)], {}, "chat-1"),
        (
            [candidate(0, gpus=1, booked_decode=900), candidate(1, gpus=4, booked_decode=1600)],
            {"width": 0.0},
            "chat-0",
        ),
    ],
)
def test_topology_trades_distance_and_width_for_work(
    candidates: list[Candidate], params: dict[str, float], wanted: str
) -> None:
    ctx = context(TopologyParams(**params), node="a", zone="z1")
    assert best(topology_aware(request(), candidates, ctx), candidates) == wanted
