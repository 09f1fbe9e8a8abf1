"""The contract of scalers: what they are given, what they may answer, and what a bad one can do."""

import json
import math
from dataclasses import dataclass

import msgspec
import pytest

from supervisord_cp.core.scaling.scalers import Scaler, ask, bind
from supervisord_cp.core.scaling.step import recomputed, step
from supervisord_cp.errors import UsageError
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.scaling import ScaleLimits, ScaleProposal, ScaleRecord, ScaleState, ScaleView
from supervisord_cp.policy import PolicyKind, declared, policy
from tests.core.scaling_kit import BUSY, FREE, KNOWN, at, scaler, signal, view


@dataclass(frozen=True)
class CountParams:
    by: int = 1


@dataclass(frozen=True)
class CountMemory:
    asked: int = 0


@policy(PolicyKind.SCALER, "count", params=CountParams, memory=CountMemory)
def count(view: ScaleView, params: CountParams, memory: CountMemory) -> tuple[ScaleProposal, CountMemory]:
    """Proposes how often it was asked."""
    asked = memory.asked + params.by
    return ScaleProposal(policy="count", replicas=asked), CountMemory(asked=asked)


@policy(PolicyKind.SCALER, "bare")
def bare(view: ScaleView) -> ScaleProposal:
    """Proposes a parameter as written."""
    replicas = view.params.get("replicas")
    return ScaleProposal(policy="bare", replicas=replicas if isinstance(replicas, int) else None)


@policy(PolicyKind.SCALER, "broken", params=CountParams, memory=CountMemory)
def broken(view: ScaleView, params: CountParams, memory: CountMemory) -> object:
    """Does what a scaler must not do."""
    match params.by:
        case 0:
            raise RuntimeError("out of ideas")
        case 1:
            return ScaleProposal(policy="broken", replicas=1)
        case 2:
            return 7, memory
        case 3:
            return ScaleProposal(policy="broken", replicas=1), object()
        case _:
            return ScaleProposal(policy="other", replicas=math.nan), memory


@policy(PolicyKind.PLACER, "nowhere")
def nowhere(view: ScaleView) -> None:
    """No scaler at all."""


MINE = {**KNOWN, **{s.name: s for f in (count, bare, broken, nowhere) if (s := declared(f))}}


def mine(name: str, **params: object) -> Scaler:
    return bind(PolicyUse(use=name, params=params), MINE)


def test_a_memory_is_passed_in_and_returned() -> None:
    first = ask(mine("count", by=2), view())
    assert (first.proposal.replicas, first.memory) == (2, {"asked": 2})
    assert ask(mine("count", by=2), view(), first.memory).proposal.replicas == 4
    assert ask(mine("count", by=2), view()).proposal.replicas == 2


@pytest.mark.parametrize("memory", [{"asked": "many"}, [], 3])
def test_a_memory_that_does_not_fit_is_as_good_as_none(memory: object) -> None:
    assert ask(mine("count"), view(), memory).proposal.replicas == 1


def test_without_a_type_parameters_come_as_they_are_written() -> None:
    assert ask(mine("bare", replicas=3, more="x"), view()).proposal.replicas == 3


@pytest.mark.parametrize(
    ("by", "says"),
    [(0, "RuntimeError: out of ideas"), (1, "TypeError"), (2, "TypeError"), (3, "TypeError")],
)
def test_a_scaler_that_fails_does_not_know(by: int, says: str) -> None:
    answer = ask(mine("broken", by=by), view(), {"asked": 5})
    assert answer.failed.startswith(says)
    assert (answer.proposal.policy, answer.proposal.replicas) == ("broken", None)
    assert answer.proposal.reason.code is ReasonCode.SCALER_FAILED
    assert says in render(answer.proposal.reason)
    assert answer.memory == {"asked": 5}


def test_one_that_fails_takes_nothing_away() -> None:
    seen = view(wanted=4, ready=4, signals=BUSY)
    limits = ScaleLimits(behavior=FREE)
    for by in range(5):
        record, _ = step(seen, [mine("broken", by=by), mine("count")], limits, ScaleState())
        assert (record.decision.wanted, record.decision.held) == (4, True)
        assert "broken" in render(record.decision.reason)


def test_a_proposal_carries_the_name_it_is_configured_by() -> None:
    assert ask(mine("broken", by=4), view()).proposal.policy == "broken"


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("hpx", {}, 'did you mean "hpa"?'),
        ("nowhere", {}, "known: "),
        ("count", {"by": "two"}, "by"),
        ("count", {"bye": 2}, 'did you mean "by"?'),
        ("fixed", {"replicas": -1}, "replicas"),
        ("fixed", {"replicas": "many"}, "replicas"),
    ],
)
def test_names_and_parameters_are_checked(name: str, params: dict, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        mine(name, **params)
    assert says in str(caught.value)


def test_fixed_proposes_what_is_given_or_configured() -> None:
    assert ask(scaler("fixed"), view(low=2)).proposal.replicas == 2
    assert ask(scaler("fixed", replicas=5), view(low=2)).proposal.replicas == 5
    assert ask(scaler("fixed", replicas=0), view(low=2)).proposal.replicas == 0


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_built_in_scalers_say_what_they_do(name: str) -> None:
    assert KNOWN[name].kind is PolicyKind.SCALER
    assert KNOWN[name].summary.endswith(".")
    assert KNOWN[name].params is not None


def test_two_uses_of_one_scaler_have_a_memory_each() -> None:
    scalers = [mine("count", by=1), mine("count", by=5)]
    _, state = step(view(), scalers, ScaleLimits(behavior=FREE), ScaleState())
    record, state = step(view(), scalers, ScaleLimits(behavior=FREE), state)
    assert state.memories == {"0:count": {"asked": 2}, "1:count": {"asked": 10}}
    assert [call.memory for call in record.calls] == [{"asked": 1}, {"asked": 5}]


def test_a_record_is_json_and_leads_to_the_same_decision() -> None:
    scalers = [
        mine("count"),
        scaler("kpa", target=10),
        scaler("hpa", query="q", target_average_value=4),
        mine("broken", by=4),
    ]
    state = ScaleState()
    for n, load in enumerate([5.0, 40.0, math.nan, 80.0, None, 3.0]):
        seen = at(
            view(
                wanted=2, ready=2, signals={**BUSY, "concurrency": signal(load)}, queries={"q": signal(load)}
            ),
            n,
        )
        record, state = step(seen, scalers, ScaleLimits(behavior=FREE), state)
        text = msgspec.json.encode(record)
        assert "NaN" not in text.decode()
        stored = msgspec.json.decode(text, type=ScaleRecord)
        assert stored == record
        assert recomputed(stored, MINE) == record.decision
        state = msgspec.json.decode(msgspec.json.encode(state), type=ScaleState)
    assert json.loads(msgspec.json.encode(state))["memories"]["0:count"] == {"asked": 6}


def test_a_record_of_a_scaler_that_is_gone_cannot_be_played() -> None:
    record, _ = step(view(), [mine("count")], ScaleLimits(behavior=FREE), ScaleState())
    with pytest.raises(UsageError, match="count"):
        recomputed(record, KNOWN)
