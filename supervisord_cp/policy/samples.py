"""Builders of what policies are given, with sensible values where a test does not care."""

from collections.abc import Mapping
from random import Random
from typing import Any, Final

from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, InstanceId, NodeName
from supervisord_cp.model.fleet import RoutedInstance
from supervisord_cp.model.instance import EngineLoad, InstanceState
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.model.scaling import ScaleBounds, ScaleView
from supervisord_cp.model.signal import NamedResult, SignalName, SignalSource, measured, together
from supervisord_cp.policy.context import Context, QueryResults, QueueContext
from supervisord_cp.policy.placing import NodeRoom, PlaceView
from supervisord_cp.policy.scheduling import WaitingRequest

CHAT: Final = DeploymentName("chat")
NOW: Final = 1000.0
_BOOKS: Final = frozenset({"inflight", "booked_prefill", "booked_decode", "foreign", "limit"})


def instance(number: int = 0, *, life: str = "a", **fields: Any) -> RoutedInstance:
    """The instance `chat-<number>`, ready; `fields` are those of `RoutedInstance`."""
    given: dict[str, Any] = {
        "id": InstanceId(f"{CHAT}-{number}"),
        "deployment": CHAT,
        "incarnation": Incarnation(f"{CHAT}-{number}.{life}"),
        "url": f"http://127.0.0.1:{8000 + number}",
        "node": NodeName(f"node-{number}"),
        "state": InstanceState.READY,
    }
    return RoutedInstance(**(given | fields))


def candidate(number: int = 0, **fields: Any) -> Candidate:
    """A candidate; `fields` are those of `Candidate`, or of its instance, as in `instance`."""
    books = {name: fields.pop(name) for name in tuple(fields) if name in _BOOKS}
    return Candidate(instance=instance(number, **fields), **books)


def fleet(size: int = 3, **fields: Any) -> tuple[Candidate, ...]:
    """Candidates that differ in their ids only."""
    return tuple(candidate(number, **fields) for number in range(size))


def load(
    *, running: int = 0, waiting: int = 0, kv_cache_usage: float | None = 0.0, age_ms: int = 0
) -> EngineLoad:
    """What an engine reports."""
    return EngineLoad(running=running, waiting=waiting, kv_cache_usage=kv_cache_usage, age_ms=age_ms)


def request(id: str = "r-1", **fields: Any) -> RoutingRequest:  # noqa: A002  # as the field is called
    """A request of 100 prompt tokens; `fields` are those of `RoutingRequest`."""
    given: dict[str, Any] = {"deployment": CHAT, "model": "chat", "prompt_tokens": 100}
    return RoutingRequest(id=id, **(given | fields))


def waiting(
    id: str = "r-1",  # noqa: A002
    *,
    arrived: float = NOW,
    decode_tokens: int = 100,
    **fields: Any,
) -> WaitingRequest:
    """A request that waits; `fields` are those of its `RoutingRequest`."""
    return WaitingRequest(request=request(id, **fields), arrived=arrived, decode_tokens=decode_tokens)


Queries = Mapping[str, float | Mapping[str, float]]
"""What named PromQL results say: a sum, or a value for each instance id."""


def context(
    params: Any = None, *, seed: int = 0, now: float = NOW, queries: Queries | None = None, **fields: Any
) -> Context[Any]:
    """What filters, scorers and pickers are given; `fields` are those of `Context`."""
    results = query_results(queries or {}, at=now)
    return Context(now=now, random=Random(seed), params=params, queries=results, **fields)


def queue_context(
    params: Any = None, *, seed: int = 0, now: float = NOW, queries: Queries | None = None, **fields: Any
) -> QueueContext[Any]:
    """What schedulers are given; `fields` are those of `QueueContext`."""
    results = query_results(queries or {}, at=now)
    return QueueContext(now=now, random=Random(seed), params=params, queries=results, **fields)


def query_results(queries: Queries, *, at: float = NOW) -> QueryResults:
    """Named PromQL results that came at a moment, as old as that."""
    return QueryResults(at=at, results={name: _result(said) for name, said in queries.items()})


def _result(said: float | Mapping[str, float]) -> NamedResult:
    if not isinstance(said, Mapping):
        return NamedResult(total=measured(said, source=SignalSource.PROMETHEUS))
    parts = {InstanceId(name): measured(v, source=SignalSource.PROMETHEUS) for name, v in said.items()}
    return NamedResult(total=together(*parts.values()), instances=parts)


def scale_view(
    *, minimum: int = 0, maximum: int = 8, signals: Mapping[str, float] | None = None, **fields: Any
) -> ScaleView:
    """What scalers are given: one replica, ready; `signals` are fresh values by `SignalName`; `fields` are
    those of `ScaleView`."""
    given: dict[str, Any] = {
        "deployment": CHAT,
        "configured": 1,
        "bounds": ScaleBounds(min=minimum, max=maximum),
        "now_s": NOW,
        "ready": 1,
        "signals": {SignalName(name): measured(value) for name, value in (signals or {}).items()},
    }
    return ScaleView(**(given | fields))


def place_view(*free: int, devices: int = 1) -> PlaceView:
    """What placers are given: nodes `node-0`, `node-1`, … with so many free devices each."""
    nodes = tuple(
        NodeRoom(
            node=NodeName(f"node-{number}"),
            zone=f"zone-{number % 2}",
            free=tuple(DeviceId(f"GPU-{number}-{index}") for index in range(count)),
            total=max(8, count),
        )
        for number, count in enumerate(free or (1,))
    )
    return PlaceView(deployment=CHAT, devices=devices, nodes=nodes)
