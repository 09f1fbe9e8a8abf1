"""At which load a scaler would ask for more or fewer replicas: found by asking it, not by knowing it."""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from supervisord_cp.core.scaling.scalers import Scaler, ask, bind
from supervisord_cp.errors import UsageError
from supervisord_cp.model.explanation import Threshold
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.scaling import ScaleProposal, ScalerCall, ScaleRecord, ScaleView
from supervisord_cp.model.signal import ReplicaView, Signal, SignalName
from supervisord_cp.policy.declare import PolicySpec
from supervisord_cp.policy.scaling import whole_replicas

LASTING_S: Final = 180.0
"""A scaler with windows is told the same load for this long."""
EVERY_S: Final = 5.0
_DOUBLINGS: Final = 12
_HALVINGS: Final = 14
_NO_LOAD: Final = frozenset({SignalName.PREFILL_CAPACITY})
"""What a replica can do, not what it has to do."""

Asked = Callable[[float], int | None]
"""The number for a load, as a multiple of the present one, or absolute where that is zero."""


def thresholds(record: ScaleRecord, known: Mapping[str, PolicySpec]) -> tuple[Threshold, ...]:
    """For each scaler that knows: the load above and below which it would propose another number.

    Only numbers within the bounds count: beyond them nothing comes of a proposal.
    """
    found = []
    for call, proposal in zip(record.calls, record.decision.proposals, strict=True):
        if proposal.replicas is None:
            continue
        try:
            scaler = bind(PolicyUse(use=call.use, params=call.params), known)
        except UsageError:
            continue
        if (one := _threshold(scaler, call, proposal, record.view)) is not None:
            found.append(one)
    return tuple(found)


def _threshold(
    scaler: Scaler, call: ScalerCall, proposal: ScaleProposal, view: ScaleView
) -> Threshold | None:
    low, high = view.bounds.min, view.bounds.max
    now = min(max(whole_replicas(proposal.replicas or 0.0), low), high)
    name = str(proposal.reason.params.get("signal", ""))
    value = proposal.reason.params.get("value", 0.0)
    shown = float(value) if name and isinstance(value, int | float) else 1.0
    absolute = bool(name) and shown == 0.0

    def asked(load: float) -> int | None:
        number = _asked(scaler, call.memory, _loaded(view, name, load, absolute=absolute))
        return None if number is None else min(max(number, low), high)

    unit = 1.0 if absolute else shown
    more = _first_above(asked, now, 0.0 if absolute else 1.0)
    less = None if absolute else _last_below(asked, now)
    if more is None and less is None:
        return None
    return Threshold(
        policy=proposal.policy,
        replicas=whole_replicas(proposal.replicas or 0.0),
        signal=name,
        value=shown,
        more_above=None if more is None else more[0] * unit,
        more=None if more is None else more[1],
        less_below=None if less is None else less[0] * unit,
        less=None if less is None else less[1],
    )


def _asked(scaler: Scaler, memory: object, view: ScaleView) -> int | None:
    """What a scaler proposes for a view; one that remembers, when the view has lasted."""
    answer = ask(scaler, view, memory)
    if scaler.spec.memory is not None:
        for n in range(1, int(LASTING_S / EVERY_S) + 1):
            answer = ask(scaler, replace(view, now_s=view.now_s + n * EVERY_S), answer.memory)
    replicas = answer.proposal.replicas
    return None if replicas is None else whole_replicas(replicas)


def _loaded(view: ScaleView, name: str, load: float, *, absolute: bool) -> ScaleView:
    """The view with another load: of one signal or query, or of all where no name is given."""

    def other(signal: Signal) -> Signal:
        return replace(signal, value=load if absolute else signal.value * load) if signal.known else signal

    def others(signals: dict[str, Signal]) -> dict[str, Signal]:
        names = {name} if name else set(signals) - _NO_LOAD
        return {key: other(signal) if key in names else signal for key, signal in signals.items()}

    signals = view.signals
    if name and name not in view.queries and name not in signals:
        signals = {**signals, name: view.signal(name)}
    return replace(
        view,
        signals=others(signals),
        queries=others(view.queries),
        replicas=tuple(_loaded_replica(replica, others) for replica in view.replicas),
    )


def _loaded_replica(
    replica: ReplicaView, others: Callable[[dict[str, Signal]], dict[str, Signal]]
) -> ReplicaView:
    return replace(replica, signals=others(replica.signals), queries=others(replica.queries))


def _first_above(asked: Asked, now: int, start: float) -> tuple[float, int] | None:
    """The smallest load, to one part in ten thousand, for which more is asked for than now."""
    low, high, number = start, max(1.0, start * 2), now
    for _ in range(_DOUBLINGS):
        number = asked(high) or now
        if number > now:
            break
        low, high = high, high * 2
    else:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = asked(middle)
        if tried is not None and tried > now:
            high, number = middle, tried
        else:
            low = middle
    return high, number


def _last_below(asked: Asked, now: int) -> tuple[float, int] | None:
    """The largest load for which fewer are asked for than now."""
    number = asked(0.0)
    if number is None or number >= now:
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = asked(middle)
        if tried is not None and tried < now:
            low, number = middle, tried
        else:
            high = middle
    return high, number
