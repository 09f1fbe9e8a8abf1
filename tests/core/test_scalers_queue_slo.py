"""queue_slo: from tokens that wait and arrive to replicas."""

import math

import pytest

from supervisord_cp.core.scaling.scalers import ask
from supervisord_cp.errors import UsageError
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.scaling import ScaleProposal, ScaleView
from supervisord_cp.model.signal import ReplicaPhase, ReplicaView, Signal
from tests.core.scaling_kit import demand, scaler, signal, view


def seen(
    *,
    queued: float | None = 0,
    arriving: float | None = 0,
    capacity: float | None = 1000,
    current: int = 1,
    requests: float | None = 0,
    slo: float | None = 2.0,
    **fields: object,
) -> ScaleView:
    signals = {
        **demand(queued=requests, tokens=arriving, queued_tokens=queued),
        "prefill_capacity": signal(capacity),
    }
    return view(low=0, high=50, wanted=current, ready=current, signals=signals, slo_ttft_s=slo, **fields)


def ask_for(view_: ScaleView, **params: object) -> ScaleProposal:
    made = ask(scaler("queue_slo", **params), view_).proposal
    assert "?" not in render(made.reason)
    return made


def test_idleness_needs_no_capacity() -> None:
    made = ask_for(seen(capacity=None))
    assert (made.replicas, made.reason.code) == (0.0, ReasonCode.NO_TRAFFIC)
    assert ask_for(seen(capacity=None, requests=1)).replicas is None
    assert ask_for(seen(capacity=None, requests=None)).replicas is None
    assert ask_for(seen(capacity=None, queued=None)).replicas is None
    assert ask_for(seen(slo=None)).reason.code is ReasonCode.NO_SLO


@pytest.mark.parametrize(
    ("given", "params", "number"),
    [
        ({}, {}, 0),
        ({"arriving": 800}, {}, 1),  # exactly 80 %
        ({"arriving": 1600, "current": 2}, {}, 2),
        ({"arriving": 1700, "current": 2}, {}, 2),  # inside the tolerance
        ({"arriving": 1800, "current": 2}, {}, 3),
        ({"arriving": 1000}, {"utilization_percent": 100}, 1),
        ({"queued": 2000}, {}, 1),  # one replica clears them in two seconds
        ({"queued": 10_000}, {}, 5),
        ({"queued": 10_000}, {"ttft_ms": 1000}, 10),
        ({"queued": 10_000, "slo": 0.5}, {}, 20),
        ({"queued": 10_000, "slo": 0.5}, {"ttft_ms": 2000}, 5),
        ({"queued": 10_000, "arriving": 1000}, {}, 6),
        ({"queued": 10_000, "capacity": 2500}, {}, 2),
        ({"queued": 10_000}, {"prefill_tokens_per_s": 5000}, 1),
        ({"queued": 10_000, "capacity": None}, {"prefill_tokens_per_s": 2500}, 2),
        ({"requests": 90, "max_concurrency": 16}, {}, 6),  # 5.6 replicas hold them
        ({"requests": 90}, {}, 0),  # tokens are what counts where there is no limit on requests
        ({"queued": 100, "current": 5}, {}, 1),
        ({"queued": 1e12, "capacity": 0.001}, {}, 2**31 - 1),
    ],
)
def test_replicas_that_keep_the_first_token_in_time(given: dict, params: dict, number: int) -> None:
    made = ask_for(seen(**given), **params)
    assert (made.replicas, made.reason.code) == (number, ReasonCode.QUEUE)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"slo": None}, ReasonCode.NO_SLO),
        ({"queued": None}, ReasonCode.SIGNAL_MISSING),
        ({"arriving": None}, ReasonCode.SIGNAL_MISSING),
        ({"arriving": math.nan}, ReasonCode.SIGNAL_NAN),
        ({"capacity": None, "requests": 1}, ReasonCode.SIGNAL_MISSING),
        ({"capacity": 0, "requests": 1}, ReasonCode.SIGNAL_MISSING),  # nothing was measured yet
        ({"capacity": math.nan, "requests": 1}, ReasonCode.SIGNAL_NAN),
        ({"requests": None, "max_concurrency": 8}, ReasonCode.SIGNAL_MISSING),
    ],
)
def test_what_is_not_known_holds(given: dict, code: ReasonCode) -> None:
    made = ask_for(seen(**given))
    assert (made.replicas, made.reason.code) == (None, code)


def test_old_numbers_hold() -> None:
    old: dict[str, Signal] = {**seen().signals, "prompt_tokens_per_s": signal(9.0, age=30)}
    made = ask_for(view(signals=old, slo_ttft_s=1.0))
    assert (made.replicas, made.reason.code) == (None, ReasonCode.SIGNAL_STALE)


@pytest.mark.parametrize(
    ("queued", "arriving", "start", "number", "code"),
    [
        (10_000, 0, 1.0, 4, ReasonCode.QUEUE),  # 8000 are left when a new one comes
        (10_000, 0, 3.0, 2, ReasonCode.QUEUE),  # 4000, which the two of now clear in time
        (10_000, 0, 5.0, 2, ReasonCode.QUEUE_CLEARS),
        (10_000, 0, 60.0, 2, ReasonCode.QUEUE_CLEARS),
        (10_000, 1900, 200.0, 3, ReasonCode.QUEUE_CLEARS),  # still enough for what arrives
        (100_000, 1990, 60.0, 4, ReasonCode.QUEUE),  # in the minute that a start takes, not in 2 s
        (10_000, 2500, 600.0, 4, ReasonCode.QUEUE),  # never cleared
        (10_000, 0, None, 5, ReasonCode.QUEUE),  # unknown: no reason to wait
    ],
)
def test_what_a_new_replica_comes_too_late_for_needs_none(
    queued: float, arriving: float, start: float | None, number: int, code: ReasonCode
) -> None:
    made = ask_for(seen(queued=queued, arriving=arriving, current=2, start_s=start))
    assert (made.replicas, made.reason.code) == (number, code)


def test_replicas_that_start_will_clear_too() -> None:
    starting = ReplicaView(id="chat-1", phase=ReplicaPhase.STARTING, age_s=10)
    ready = ReplicaView(id="chat-0")
    given = seen(queued=10_000, arriving=900, start_s=30.0)
    alone = view(low=0, high=50, wanted=1, ready=1, signals=given.signals, slo_ttft_s=2.0, start_s=30.0)
    helped = view(
        low=0,
        high=50,
        wanted=2,
        ready=1,
        starting=1,
        replicas=(ready, starting),
        signals=given.signals,
        slo_ttft_s=2.0,
        start_s=30.0,
    )
    assert ask_for(alone).reason.code is ReasonCode.QUEUE
    assert ask_for(helped).reason.code is ReasonCode.QUEUE_CLEARS


@pytest.mark.parametrize(("queued", "number"), [(10_000, 5), (3000, 3), (0, 2)])
def test_none_of_the_present_ones_goes_while_the_queue_needs_it(queued: float, number: int) -> None:
    assert ask_for(seen(queued=queued, arriving=1000, current=5, start_s=60.0)).replicas == number


@pytest.mark.parametrize(
    "params", [{"ttft_ms": 0}, {"utilization_percent": 0}, {"prefill_tokens_per_s": -1}, {"ttft": 5}]
)
def test_parameters_are_checked(params: dict) -> None:
    with pytest.raises(UsageError, match="queue_slo"):
        scaler("queue_slo", **params)
