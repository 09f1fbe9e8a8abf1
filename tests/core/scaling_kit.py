"""Views, signals and replicas for tests of scaling."""

from msgspec.structs import replace

from supervisord_cp.builtin.scalers.fixed import fixed
from supervisord_cp.builtin.scalers.hpa import hpa
from supervisord_cp.builtin.scalers.kpa import kpa
from supervisord_cp.builtin.scalers.queue_slo import queue_slo
from supervisord_cp.builtin.scalers.schedule import schedule
from supervisord_cp.core.scaling.scalers import Scaler, bind
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.scaling import (
    Behavior,
    DirectionRules,
    RateKind,
    RatePolicy,
    ScaleBounds,
    ScaleProposal,
    ScaleView,
)
from supervisord_cp.model.signal import (
    ReplicaPhase,
    ReplicaView,
    Signal,
    SignalName,
    SignalSource,
    measured,
)
from supervisord_cp.policy import PolicySpec, declared

START = 1000.0

KNOWN: dict[str, PolicySpec] = {
    spec.name: spec for f in (fixed, hpa, kpa, queue_slo, schedule) if (spec := declared(f)) is not None
}

PHASES = {
    "R": ReplicaPhase.READY,
    "U": ReplicaPhase.UNREADY,
    "S": ReplicaPhase.STARTING,
    "F": ReplicaPhase.FAILED,
    "D": ReplicaPhase.DRAINING,
}


def scaler(use: str, **params: object) -> Scaler:
    """A built-in scaler as a configuration names it."""
    return bind(PolicyUse(use=use, params=params), KNOWN)


def signal(value: float | None, age: float = 0.0, **fields: object) -> Signal:
    return measured(value, age_s=age, source=SignalSource.ROUTER, **fields)


def demand(
    queued: float | None = 0,
    inflight: float | None = 0,
    rps: float | None = 0,
    tokens: float | None = 0,
    queued_tokens: float | None = 0,
    generated: float | None = 0,
) -> dict[str, Signal]:
    """What routers count, and the tokens that engines make."""
    return {
        SignalName.QUEUED: signal(queued),
        SignalName.INFLIGHT: signal(inflight),
        SignalName.REQUESTS_PER_S: signal(rps),
        SignalName.PROMPT_TOKENS_PER_S: signal(tokens),
        SignalName.QUEUED_TOKENS: signal(queued_tokens),
        SignalName.GENERATION_TOKENS_PER_S: signal(generated),
    }


IDLE = demand()
BUSY = demand(inflight=20, rps=5, tokens=5000, generated=900)


def view(*, low: int = 1, high: int = 10, **fields: object) -> ScaleView:
    """A view of "chat" between `low` and `high` replicas."""
    given: dict = {"now_s": START, **fields}
    return ScaleView(deployment="chat", configured=low, bounds=ScaleBounds(min=low, max=high), **given)


def replicas(phases: str, values: list[float | None], name: str, **fields: object) -> tuple[ReplicaView, ...]:
    """One replica for each letter of `phases` with its value of a built-in signal.

    All are old, and became what they are long ago.
    """
    given: dict = {"age_s": 3600.0, "changed_s": 3500.0, **fields}
    return tuple(
        ReplicaView(
            id=f"chat-{n}",
            phase=PHASES[letter],
            signals={} if value is None else {name: signal(value)},
            **given,
        )
        for n, (letter, value) in enumerate(zip(phases, values, strict=True))
    )


def proposal(number: float | None, **fields: object) -> ScaleProposal:
    return ScaleProposal(policy="p", replicas=number, **fields)


def pods(value: int, period: float = 60.0) -> RatePolicy:
    return RatePolicy(type=RateKind.PODS, value=value, period_s=period)


def percent(value: int, period: float = 60.0) -> RatePolicy:
    return RatePolicy(type=RateKind.PERCENT, value=value, period_s=period)


def behavior(up: DirectionRules | None = None, down: DirectionRules | None = None) -> Behavior:
    """Behaviour; a direction that is not given neither waits nor is limited."""
    free = DirectionRules(stabilization_window_s=0.0, policies=(pods(1000),))
    return Behavior(scale_up=up or free, scale_down=down or free)


FREE = behavior()
HPA_DEFAULTS = Behavior()


def at(view_: ScaleView, seconds: float, **fields: object) -> ScaleView:
    """The view some seconds after the start."""
    return replace(view_, now_s=START + seconds, **fields)
