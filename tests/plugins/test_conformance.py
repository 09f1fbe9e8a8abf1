"""The testing module: what authors are given, and that it finds what it is for."""

from typing import Any

import pytest

from supervisord_cp.plugin_host.catalog import builtin_specs
from supervisord_cp.policy import (
    Candidate,
    NodeName,
    PlaceView,
    ScaleProposal,
    ScaleView,
    Value,
    filter,
    picker,
    placer,
    scaler,
    scheduler,
    scorer,
)
from supervisord_cp.policy.conformance import conformance
from supervisord_cp.policy.declare import declared
from supervisord_cp.policy.testing import assert_conforms, fleet


@scorer("good")
def good(request: Any, candidates: Any, context: Any) -> list[float]:
    return [float(len(c.instance.id)) for c in candidates]


@scorer("forgets the unknown")
def forgets_the_unknown(request: Any, candidates: Any, context: Any) -> list[float]:
    return [-c.instance.load.kv_cache_usage for c in candidates]


@scorer("divides by zero")
def divides(request: Any, candidates: Any, context: Any) -> list[float]:
    return [1 / c.inflight for c in candidates]


@filter("renames")
def renames(request: Any, candidates: Any, context: Any) -> list[Candidate]:
    return list(fleet(len(candidates)))


@picker("second")
def second(request: Any, candidates: Any, scores: Any, context: Any) -> int:
    return 1


@picker("has its own chance")
class OwnChance:
    def __call__(self, request: Any, candidates: Any, scores: Any, context: Any) -> int:
        return id(self) % 7919 % len(candidates)


@scheduler("text")
def text(waiting: Any, context: Any) -> str:
    return waiting.request.id


@scheduler("refuses in words")
class RefusesInWords:
    def __call__(self, waiting: Any, context: Any) -> float:
        return 0.0

    def hopeless(self, waiting: Any, context: Any) -> str:
        return "no"


@scaler("negative")
def negative(view: ScaleView) -> ScaleProposal:
    return ScaleProposal(policy="negative", replicas=-1.0)


@scaler("guesses")
def guesses(view: ScaleView) -> int:
    return 3


class Memory(Value, frozen=True, kw_only=True):
    seen: int = 0


@scaler("remembers", memory=Memory)
def remembers(view: ScaleView, memory: Memory) -> tuple[ScaleProposal, Memory]:
    return ScaleProposal(policy="remembers", replicas=1.0), Memory(seen=memory.seen + 1)


@scaler("forgets its memory", memory=Memory)
def forgets(view: ScaleView, memory: Memory) -> ScaleProposal:
    return ScaleProposal(policy="forgets", replicas=1.0)


@placer("elsewhere")
def elsewhere(view: PlaceView) -> NodeName:
    return NodeName("elsewhere")


@pytest.mark.parametrize("policy", [good, remembers], ids=lambda policy: policy.__name__)
def test_what_conforms_passes(policy: Any) -> None:
    assert_conforms(policy)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (forgets_the_unknown, "two without reports: forgets the unknown raised AttributeError"),
        (divides, "raised ZeroDivisionError"),
        (renames, "returned something that is no candidate"),
        (second, "one instance: second returned 1, not an index below 1"),
        (OwnChance, "asked the same again"),
        (text, "returned 'r-1', not a finite number"),
        (RefusesInWords, "hopeless: an ordinary request: refuses in words returned 'no', not True or False"),
        (negative, "proposed -1.0 replicas"),
        (guesses, "returned 3, not a ScaleProposal"),
        (forgets, "raised TypeError"),
        (elsewhere, "returned 'elsewhere', not the name of a node"),
    ],
)
def test_what_does_not_is_told_by_case(policy: Any, told: str) -> None:
    with pytest.raises(AssertionError, match="does not conform") as caught:
        assert_conforms(policy)
    assert told in str(caught.value)


def test_what_is_not_declared_is_told() -> None:
    with pytest.raises(AssertionError, match="is not declared"):
        assert_conforms(lambda r, c, x: [])


def test_slow_policies_are_found_with_a_timer() -> None:
    spec = declared(good)
    assert spec is not None
    ticks = iter(range(10**6))
    assert all("took 1000.0 ms" in failure.what for failure in conformance(spec, timer=lambda: next(ticks)))
    assert conformance(spec, timer=lambda: 0.0) == []


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("hpa", {"query": "q", "target_average_value": 4}),
        ("kpa", {}),
        ("queue_slo", {}),
        ("fixed", {}),
        ("schedule", {"periods": [{"start": "0 8 * * *", "end": "0 18 * * *", "min": 2}]}),
    ],
)
def test_the_built_in_scalers_conform(name: str, params: dict[str, Any]) -> None:
    assert_conforms(builtin_specs()[name].target, params)
