"""The steps around any routing policy: composed, guarded, told what happens, shadowed."""

import math
from random import Random
from typing import Any

import pytest

from supervisord_cp.core.policies.breaker import MOST_FAILURES
from supervisord_cp.core.policies.guard import Overrun
from supervisord_cp.core.routing.shadow import MOST_DIFFERENCES, Agreement, RouterShadow
from supervisord_cp.model.request import Candidate
from supervisord_cp.policy.context import Context
from supervisord_cp.policy.routing import Affinity, Outcome
from supervisord_cp.policy.testing import candidate, context, fleet, request
from tests.core.policies_kit import Bench


def raises(*_: object) -> None:
    raise RuntimeError("broken policy")


def does_not_come_back(*_: object) -> None:
    raise Overrun


def empties(request_: object, candidates: Any, *_: object) -> None:
    candidates.clear()


def grows_scores(request_: object, candidates: object, scores: Any, *_: object) -> int:
    scores.append(1e9)
    raise RuntimeError


BAD: dict[str, tuple[str, Any]] = {
    "filter raises": ("filter", raises),
    "filter does not come back": ("filter", does_not_come_back),
    "filter invents": ("filter", lambda *_: [candidate(99)]),
    "filter copies": ("filter", lambda r, c, x: [Candidate(instance=c[0].instance)]),
    "filter repeats": ("filter", lambda r, c, x: [c[0], c[0]]),
    "filter returns nothing": ("filter", lambda *_: None),
    "filter returns text": ("filter", lambda *_: "chat-0"),
    "filter empties what it is given": ("filter", empties),
    "scorer raises": ("scorer", raises),
    "scorer does not come back": ("scorer", does_not_come_back),
    "scorer is short": ("scorer", lambda *_: [1.0]),
    "scorer is long": ("scorer", lambda *_: [1.0] * 4),
    "scorer is no number": ("scorer", lambda *_: [math.nan, 1.0, 2.0]),
    "scorer is complex": ("scorer", lambda *_: [1j, 2j, 3j]),
    "scorer is larger than a float": ("scorer", lambda *_: [10**400, 10**401, 1]),
    "scorer is infinite": ("scorer", lambda *_: [math.inf, 1.0, 2.0]),
    "scorer is too large": ("scorer", lambda *_: [10**400, 1.0, 2.0]),
    "scorer returns text": ("scorer", lambda *_: ["a", "b", "c"]),
    "scorer returns a string": ("scorer", lambda *_: "abc"),
    "scorer returns a number": ("scorer", lambda *_: 1.0),
    "scorer empties what it is given": ("scorer", empties),
    "picker raises": ("picker", raises),
    "picker does not come back": ("picker", does_not_come_back),
    "picker grows what it is given": ("picker", grows_scores),
    "picker is out of range": ("picker", lambda *_: 3),
    "picker is negative": ("picker", lambda *_: -1),
    "picker returns a candidate": ("picker", lambda r, c, s, x: c[0]),
    "picker returns a bool": ("picker", lambda *_: True),
    "picker returns a float": ("picker", lambda *_: 1.0),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_policy_never_fails_a_request_and_load_decides_in_its_place(what: str) -> None:
    bench = Bench()
    pipeline = bench.pipeline(bench.step(*BAD[what]))
    candidates = (candidate(0, booked_decode=9000), candidate(1), candidate(2, booked_decode=5000))
    assert pipeline.choose(request(), candidates, context()).candidate is candidates[1]
    assert bench.figures["p"].failures == 1


def test_what_a_picker_does_to_scores_is_not_what_the_fallback_chooses_by() -> None:
    bench = Bench()
    steps = bench.step("scorer", lambda *_: [0.0, 2.0, 1.0]), bench.step("picker", grows_scores)
    candidates = fleet(3)
    assert bench.pipeline(*steps).choose(request(), candidates, context()).candidate is candidates[1]


def test_a_scorer_that_fails_leaves_the_others_to_decide() -> None:
    bench = Bench()
    last = bench.step("scorer", lambda r, c, x: range(len(c)), "last")
    pipeline = bench.pipeline(bench.step("scorer", raises), last)
    assert pipeline.choose(request(), fleet(3), context()).candidate.instance.id == "chat-2"


def test_after_some_failures_the_policy_is_not_asked_for_a_while() -> None:
    bench, asked = Bench(), []

    def fails(*_: object) -> None:
        asked.append(1)
        raise ValueError

    pipeline = bench.pipeline(bench.step("scorer", fails))
    for _ in range(100):
        pipeline.choose(request(), fleet(3), context())
    assert len(asked) == MOST_FAILURES
    assert bench.listener.said == ["p opened"]
    pipeline.retire()
    assert bench.figures["p"].open == 0


def test_a_filter_that_keeps_nobody_keeps_everybody() -> None:
    bench = Bench()
    pipeline = bench.pipeline(bench.step("filter", lambda *_: []))
    assert pipeline.choose(request(), fleet(1), context()).candidate.instance.id == "chat-0"
    assert bench.figures["p"].failures == 0


def test_steps_compose() -> None:
    bench = Bench()

    def likes(wanted: int) -> Any:
        return lambda r, candidates, x: [1000.0 * (c.instance.id == f"chat-{wanted}") for c in candidates]

    pipeline = bench.pipeline(
        bench.step("filter", lambda r, c, x: [one for one in c if int(one.instance.id[-1]) % 2 == 0]),
        bench.step("scorer", likes(2), weight=1.0),
        bench.step("scorer", likes(4), weight=2.0),
    )
    choice = pipeline.choose(request(), fleet(6), context())
    assert choice.candidate.instance.id == "chat-4"
    assert [c.instance.id for c in choice.candidates] == ["chat-0", "chat-2", "chat-4"]
    assert choice.scores == (0.0, 1.0, 2.0)


@pytest.mark.parametrize("scores", [[-1.7e308, 1.7e308], [1e308, -1e308], [5e-324, 0.0], [0.0, 0.0]])
def test_any_finite_scores_add_up(scores: list[float]) -> None:
    bench = Bench()
    one = bench.step("scorer", lambda *_: scores)
    other = bench.step("scorer", lambda *_: [0.0, 0.0])
    choice = bench.pipeline(one, other).choose(request(), fleet(2), context())
    assert all(map(math.isfinite, choice.scores))
    if scores[0] != scores[1]:
        assert choice.candidate.instance.id == f"chat-{scores.index(max(scores))}"


def test_each_step_is_given_its_own_parameters() -> None:
    bench, seen = Bench(), []

    def look(request_: object, candidates: Any, ctx: Context[Any]) -> list[float]:
        seen.append((ctx.params, ctx.now, ctx.request_tokens, ctx.zone))
        return [0.0] * len(candidates)

    steps = (bench.step("scorer", look, params="a"), bench.step("scorer", look))
    bench.pipeline(*steps).choose(request(), fleet(2), context(now=5.0, request_tokens=7.0, zone="z"))
    assert seen == [("a", 5.0, 7.0, "z"), (None, 5.0, 7.0, "z")]


class Watching:
    """A scorer that wants to know."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def __call__(self, request_: object, candidates: Any, ctx: object) -> list[float]:
        return [0.0] * len(candidates)

    def on_dispatch(self, request_: Any, there: Candidate, ctx: object) -> None:
        self.seen.append(("dispatch", request_.id, there.instance.id))

    def on_first_byte(self, request_: Any, there: Candidate, ctx: object) -> None:
        self.seen.append(("first byte", request_.id))

    def on_complete(self, request_: Any, there: Candidate, outcome: Outcome, ctx: object) -> None:
        self.seen.append(("complete", request_.id, outcome.ok))

    def on_instance_reset(self, incarnation: str) -> None:
        self.seen.append(("reset", incarnation))

    def describe(self) -> str:
        return f"{len(self.seen)} things\nand more"


def test_policies_are_told_what_becomes_of_requests() -> None:
    bench, policy = Bench(), Watching()
    pipeline = bench.pipeline(bench.step("scorer", policy))
    assert pipeline.watches
    there, ctx = candidate(3), context()
    pipeline.dispatched(request("a"), there, ctx)
    pipeline.first_byte(request("a"), there, ctx)
    pipeline.completed(request("a"), there, Outcome(ok=True, seconds=1.0), ctx)
    pipeline.reset(there.instance.incarnation, 0.0)
    assert policy.seen == [
        ("dispatch", "a", "chat-3"),
        ("first byte", "a"),
        ("complete", "a", True),
        ("reset", "chat-3.a"),
    ]
    assert list(pipeline.described(0.0)) == [("p", "4 things")]


@pytest.mark.parametrize("said", [None, "hit", 3, [], Affinity.HIT, Affinity.MOVED])
def test_what_a_policy_says_of_affinity_is_counted_and_nothing_else(said: Any) -> None:
    class Keeps(Watching):
        def on_dispatch(self, request_: Any, there: Candidate, ctx: object) -> Any:
            return said

    bench, counts = Bench(), dict.fromkeys(Affinity, 0)
    step = bench.step("scorer", Keeps())
    step.affinities = counts
    counted = bench.pipeline(step)
    shadow = bench.pipeline(bench.step("scorer", Keeps()))
    for pipeline in (counted, shadow):
        pipeline.dispatched(request(), candidate(1), context())
    assert counts == {one: int(one is said) for one in Affinity}
    assert bench.figures["p"].failures == 0


def test_a_function_is_told_nothing() -> None:
    bench = Bench()
    assert not bench.pipeline(bench.step("scorer", lambda r, c, x: [0.0] * len(c))).watches


@pytest.mark.parametrize(
    "hook", ["on_dispatch", "on_first_byte", "on_complete", "on_instance_reset", "describe"]
)
def test_a_hook_that_raises_harms_nobody(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watching, hook, raises)
    bench = Bench()
    pipeline = bench.pipeline(bench.step("scorer", Watching()))
    there, ctx = candidate(3), context()
    pipeline.dispatched(request(), there, ctx)
    pipeline.first_byte(request(), there, ctx)
    pipeline.completed(request(), there, Outcome(ok=True, seconds=1.0), ctx)
    pipeline.reset(there.instance.incarnation, 0.0)
    assert len(list(pipeline.described(0.0))) == (hook != "describe")
    assert bench.figures["p"].failures == 1


# --- shadows


def shadow_of(bench: Bench, *steps: Any) -> RouterShadow:
    return RouterShadow("other", bench.pipeline(*steps), Random(1), Agreement())


def test_agreement_is_counted_and_differences_are_kept() -> None:
    bench = Bench()
    shadow = shadow_of(bench, bench.step("scorer", lambda r, c, x: [float(n) for n in range(len(c))]))
    three = fleet(3)
    shadow.compare(request("same"), three, three[2], context())
    shadow.compare(request("other"), three, three[0], context(now=8.0))
    (difference,) = shadow.agreement.differences
    assert (shadow.agreement.decisions, shadow.agreement.agreed) == (2, 1)
    assert (difference.request, difference.live, difference.shadow) == ("other", "chat-0", "chat-2")
    assert (difference.at, difference.scores) == (8.0, {"chat-0": 0.0, "chat-1": 1.0, "chat-2": 2.0})


def test_differences_are_bounded() -> None:
    bench = Bench()
    shadow = shadow_of(bench, bench.step("scorer", lambda r, c, x: [float(n) for n in range(len(c))]))
    three = fleet(3)
    for n in range(3 * MOST_DIFFERENCES):
        shadow.compare(request(str(n)), three, three[0], context())
    kept = [difference.request for difference in shadow.agreement.differences]
    assert kept == [str(n) for n in range(2 * MOST_DIFFERENCES, 3 * MOST_DIFFERENCES)]
    assert shadow.agreement.decisions == 3 * MOST_DIFFERENCES


def test_a_shadow_takes_no_chance_from_the_one_in_use() -> None:
    bench, ctx = Bench(), context(seed=4)
    before = ctx.random.getstate()
    shadow = shadow_of(bench, bench.step("picker", lambda r, c, s, x: x.random.randrange(len(c))))
    three = fleet(3)
    shadow.compare(request(), three, three[0], ctx)
    assert ctx.random.getstate() == before


def test_a_shadow_that_fails_is_a_difference_at_most() -> None:
    bench = Bench()
    shadow = shadow_of(bench, bench.step("scorer", raises))
    three = fleet(3)
    shadow.compare(request(), three, three[0], context())
    assert shadow.agreement.decisions == 1
    assert bench.figures["p"].failures == 1
