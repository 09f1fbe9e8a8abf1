"""What every policy must keep to, tried out on canned fleets and requests.

It answers whatever it is asked: nobody, one or a hundred instances, without reports, with old ones, full
ones. Its answers are ones (`supervisord_cp.policy.answers`), it changes nothing that it is given, and
with the same chance it answers the same again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from random import Random
from typing import Any, Final

import msgspec

from supervisord_cp.model.base import Value
from supervisord_cp.model.request import Candidate, RequestPriority, RoutingRequest
from supervisord_cp.model.signal import Signal, SignalName, SignalState
from supervisord_cp.policy import samples
from supervisord_cp.policy.answers import (
    REQUEST_BUDGET_S,
    STEP_BUDGET_S,
    Nonsense,
    chosen_node,
    finite_rank,
    finite_scores,
    index_of_candidate,
    kept_candidates,
    one_line,
    proposal,
    yes_or_no,
)
from supervisord_cp.policy.declare import PolicyKind, PolicySpec
from supervisord_cp.policy.params import read_params
from supervisord_cp.policy.routing import Outcome
from supervisord_cp.policy.scheduling import WaitingRequest

_ROUNDS: Final = 2
_TIMED_ROUNDS: Final = 3
_LARGE_FLEET: Final = 100


class Failure(Value, frozen=True, kw_only=True):
    """Something that a policy does not keep to."""

    case: str
    """What it was asked."""
    what: str
    """What it did; goes on after the policy's name."""
    error: BaseException | None = None
    """What it raised."""


class Call(Value, frozen=True, kw_only=True, gc=True):
    """One question."""

    case: str
    ask: Callable[..., Any]
    check: Callable[..., Any]
    args: tuple[Any, ...]


def conformance(
    spec: PolicySpec,
    params: Any = None,
    *,
    timer: Callable[[], float] | None = None,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[Failure]:
    """Everything that a policy does not keep to, once for each case.

    `params` are of the type that it declares; None: its defaults. With a `timer` (seconds), its calls are
    measured as well. `around` is entered for each call.
    """
    try:
        params = params if params is not None or spec.params is None else read_params({}, spec.params)
        calls = list(_calls(spec, params))
    except Exception as error:
        return [Failure(case="making it", what=f"raised {type(error).__name__}: {error}", error=error)]
    failures: list[Failure] = []
    answers: list[list[Any]] = []
    for round_ in range(_ROUNDS):
        calls = calls if round_ == 0 else list(_calls(spec, params))
        answers.append([_answer(call, failures if round_ == 0 else [], around) for call in calls])
    for call, first, second in zip(calls, *answers, strict=True):
        if first != second:
            what = f"answered {first!r:.60}, and asked the same again {second!r:.60}"
            failures.append(Failure(case=call.case, what=what))
    if timer is not None and not failures:
        failures += _slow(spec, params, timer)
    return failures


def made(spec: PolicySpec, params: Any) -> Callable[..., Any]:
    """What is called: the function, or an instance of the class."""
    if not isinstance(spec.target, type):
        return spec.target
    instance: Callable[..., Any] = spec.target() if spec.params is None else spec.target(params)
    return instance


def number_of_cases(spec: PolicySpec, params: Any) -> int:
    """How many questions a policy is asked."""
    return sum(1 for _ in _calls(spec, params))


def _answer(call: Call, failures: list[Failure], around: Callable[[], AbstractContextManager[None]]) -> Any:
    """The answer as it counts, None when there is none."""
    before = deepcopy([arg for arg in call.args if not _has_chance(arg)])
    try:
        with around():
            answer = call.ask(*call.args)
        answer = call.check(answer, *call.args)
    except Nonsense as error:
        failures.append(Failure(case=call.case, what=str(error)))
        return None
    except Exception as error:
        what = f"raised {type(error).__name__}: {error}"
        failures.append(Failure(case=call.case, what=what, error=error))
        return None
    if before != [arg for arg in call.args if not _has_chance(arg)]:
        failures.append(Failure(case=call.case, what="changed what it was given"))
    return answer


def _has_chance(arg: object) -> bool:
    return isinstance(getattr(arg, "random", None), Random)


def _calls(spec: PolicySpec, params: Any) -> Iterator[Call]:
    match spec.kind:
        case PolicyKind.SCALER:
            yield from _scaler_calls(spec, params)
        case PolicyKind.PLACER:
            yield from _placer_calls(spec, params)
        case PolicyKind.SCHEDULER:
            yield from _scheduler_calls(made(spec, params), params)
        case _:
            yield from _routing_calls(spec.kind, made(spec, params), params)


def _routing_calls(kind: PolicyKind, policy: Callable[..., Any], params: Any) -> Iterator[Call]:
    number = 0
    for fleet_name, fleet in _fleets():
        for request_name, request in _requests():
            number += 1
            case = f"{request_name}, {fleet_name}"
            context = samples.context(params, seed=number, now=samples.NOW + number)
            if kind is PolicyKind.PICKER:
                scores = tuple(float(index % 3) for index in range(len(fleet)))
                args: tuple[Any, ...] = (request, fleet, scores, context)
                yield Call(case=case, ask=policy, check=index_of_candidate, args=args)
            else:
                check = kept_candidates if kind is PolicyKind.FILTER else finite_scores
                yield Call(case=case, ask=policy, check=check, args=(request, fleet, context))
            yield from _told(policy, request, fleet[number % len(fleet)], context)
    yield from _told_of_the_end(policy)


def _told(
    policy: Callable[..., Any], request: RoutingRequest, candidate: Candidate, context: Any
) -> Iterator[Call]:
    outcome = Outcome(ok=True, seconds=1.5, prompt_tokens=90, completion_tokens=30)
    args: dict[str, tuple[Any, ...]] = {
        "on_dispatch": (request, candidate, context),
        "on_first_byte": (request, candidate, context),
        "on_complete": (request, candidate, outcome, context),
    }
    for name, given in args.items():
        if (hook := getattr(policy, name, None)) is not None:
            yield Call(case=name, ask=hook, check=_anything, args=given)


def _told_of_the_end(policy: Callable[..., Any]) -> Iterator[Call]:
    if (hook := getattr(policy, "on_instance_reset", None)) is not None:
        for candidate in (samples.candidate(0), samples.candidate(9999)):
            incarnation = candidate.instance.incarnation
            yield Call(case="on_instance_reset", ask=hook, check=_anything, args=(incarnation,))
    if (hook := getattr(policy, "describe", None)) is not None:
        yield Call(case="describe", ask=hook, check=one_line, args=())


def _scheduler_calls(policy: Callable[..., Any], params: Any) -> Iterator[Call]:
    for number, (name, request) in enumerate(_requests()):
        context = samples.queue_context(params, seed=number, now=samples.NOW + number, **_QUEUES[number % 3])
        waiting = WaitingRequest(request=request, arrived=samples.NOW - number, decode_tokens=200)
        if (hook := getattr(policy, "on_arrival", None)) is not None:
            yield Call(case=f"on_arrival: {name}", ask=hook, check=_anything, args=(waiting, context))
        yield Call(case=name, ask=policy, check=finite_rank, args=(waiting, context))
        if (hook := getattr(policy, "hopeless", None)) is not None:
            yield Call(case=f"hopeless: {name}", ask=hook, check=yes_or_no, args=(waiting, context))
        if (hook := getattr(policy, "instances", None)) is not None:
            for fleet_name, fleet in _fleets():
                args = (waiting, fleet, context)
                case = f"instances: {name}, {fleet_name}"
                yield Call(case=case, ask=hook, check=kept_candidates, args=args)
    yield from _told_of_the_end(policy)


def _scaler_calls(spec: PolicySpec, params: Any) -> Iterator[Call]:
    given: dict[str, Any] = {} if spec.params is None else {"params": params}
    memory: list[Any] = [] if spec.memory is None else [spec.memory()]

    def ask(view: Any) -> Any:
        if spec.memory is None:
            return spec.target(view, **given)
        answer, memory[0] = spec.target(view, memory=memory[0], **given)
        msgspec.convert(msgspec.json.decode(msgspec.json.encode(memory[0])), spec.memory)
        return answer

    for name, view in _views():
        yield Call(case=name, ask=ask, check=proposal, args=(view,))


def _placer_calls(spec: PolicySpec, params: Any) -> Iterator[Call]:
    ask = spec.target if spec.params is None else partial(spec.target, params=params)
    for free in ((1,), (4, 4), (1, 8, 2), tuple(range(1, _LARGE_FLEET))):
        view = samples.place_view(*free)
        yield Call(case=f"{len(free)} nodes", ask=ask, check=chosen_node, args=(view,))


def _slow(spec: PolicySpec, params: Any, timer: Callable[[], float]) -> Iterator[Failure]:
    budget_s = STEP_BUDGET_S if spec.kind in (PolicyKind.SCALER, PolicyKind.PLACER) else REQUEST_BUDGET_S
    calls = list(_calls(spec, params))
    fastest: dict[str, float] = {}
    for call in calls * _TIMED_ROUNDS:
        began = timer()
        call.ask(*call.args)
        fastest[call.case] = min(fastest.get(call.case, budget_s * 1e6), timer() - began)
    for case, took in fastest.items():
        if took > budget_s:
            yield Failure(case=case, what=f"took {took * 1000:.1f} ms, more than {budget_s * 1000:g} ms")


def _anything(answer: object, *args: object) -> None:
    return None


_QUEUES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"queued": 50, "queued_tokens": 5000, "inflight": 8, "slots": 8, "slo_ttft_s": 2.0},
    {"queued": 1, "queued_tokens": 10, "inflight": 1, "slots": 64, "request_s": 0.0},
)


def _requests() -> Iterator[tuple[str, RoutingRequest]]:
    yield "an ordinary request", samples.request()
    yield "a request that says nothing", samples.request(prompt_tokens=0, model="")
    yield "a long prompt", samples.request(prompt_tokens=500_000, prefix=tuple(range(1, 2000)))
    yield "a session", samples.request(session="s-1", user="u-1", key="k", prefix=(1, 2, 3))
    yield "no time left", samples.request(deadline_ms=0, priority=RequestPriority.CRITICAL)
    yield "much time left", samples.request(deadline_ms=10**9, priority=RequestPriority.BACKGROUND)
    yield "a small budget", samples.request(cost_budget=0.0, max_tokens=0)


def _fleets() -> Iterator[tuple[str, Sequence[Candidate]]]:
    usual, old = samples.load(running=3, waiting=1, kv_cache_usage=0.4), samples.load(age_ms=3_600_000)
    full = samples.load(running=256, waiting=999, kv_cache_usage=1.0)
    silent = samples.load(kv_cache_usage=None)
    yield "one instance", samples.fleet(1)
    yield "two without reports", samples.fleet(2)
    yield "three with reports", samples.fleet(3, load=usual, zone="zone-0", cost_per_gpu_hour=2.0)
    yield "three with old reports", samples.fleet(3, load=old)
    yield "three whose reports say little", samples.fleet(3, load=silent, node="", zone="")
    yield "three that are full", samples.fleet(3, load=full, inflight=8, limit=8, booked_decode=10**9)
    yield (
        "three of which one is free",
        (*samples.fleet(2, inflight=8, limit=8), samples.candidate(2, limit=8)),
    )
    yield (
        "three that differ",
        (
            samples.candidate(0, gpus=8, weight=0.25, cost_per_gpu_hour=9.0, zone="zone-1", foreign=40),
            samples.candidate(1, weight=100.0, cost_per_gpu_hour=0.0, booked_prefill=10**6),
            samples.candidate(2, static=True, node="", load=usual),
        ),
    )
    yield f"{_LARGE_FLEET} instances", samples.fleet(_LARGE_FLEET, load=usual, booked_decode=700)


def _views() -> Iterator[tuple[str, Any]]:
    quiet = {str(name): 0.0 for name in SignalName}
    busy = {str(name): 100.0 for name in SignalName}
    yield "nothing is known", samples.scale_view()
    yield "nothing is asked for", samples.scale_view(signals=quiet)
    yield "much is asked for", samples.scale_view(signals=busy, ready=3, wanted=3)
    yield "nothing runs", samples.scale_view(ready=0, signals=busy, wanted=0)
    yield "all start", samples.scale_view(ready=0, starting=2, wanted=2, start_s=60.0, signals=busy)
    yield "the calendar is known", samples.scale_view(wall_s=1_760_000_000.0, signals=quiet)
    yield "the calendar is known, on another day", samples.scale_view(wall_s=1_760_200_000.0, signals=busy)
    for state in (SignalState.STALE, SignalState.NAN):
        signals = {str(name): Signal(state=state, age_s=60.0) for name in SignalName}
        view = msgspec.structs.replace(samples.scale_view(), signals=signals)
        yield f"all signals are {state}", view
