"""Asking scalers: each is given what it declares, and none can break a control step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import msgspec
from msgspec.structs import replace

from supervisord_cp.errors import UsageError
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.scaling import ScaleProposal, ScaleView
from supervisord_cp.policy.declare import PolicyKind, PolicySpec
from supervisord_cp.policy.scaling import cannot_tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """A scaling policy with the parameters that a deployment gives it."""

    use: PolicyUse
    spec: PolicySpec
    params: object = None


def bind(use: PolicyUse, known: Mapping[str, PolicySpec]) -> Scaler:
    """The scaler that a configuration names.

    Raises:
        UsageError: an unknown policy, or parameters that it does not take.
    """
    scalers = {name: spec for name, spec in known.items() if spec.kind is PolicyKind.SCALER}
    spec = scalers.get(use.use)
    if spec is None:
        raise UsageError(f'no scaling policy is called "{use.use}"; {_hint(use.use, scalers)}')
    if spec.params is None:
        return Scaler(use=use, spec=spec)
    allowed = _parameters(spec.params)
    for name in use.params:
        if name not in allowed:
            raise UsageError(f'scaling policy "{use.use}" has no parameter "{name}"; {_hint(name, allowed)}')
    try:
        params: object = msgspec.convert(use.params, spec.params)
    except msgspec.ValidationError as error:
        raise UsageError(f'parameters of scaling policy "{use.use}": {error}') from error
    return Scaler(use=use, spec=spec, params=params)


def _parameters(type_: type) -> list[str]:
    """The names of the fields of a struct or dataclass."""
    return [field.encode_name for field in getattr(msgspec.inspect.type_info(type_), "fields", ())]


def _hint(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    return f'did you mean "{near[0]}"?' if near else "known: " + ", ".join(known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a scaler says."""

    proposal: ScaleProposal
    memory: object = None
    """What it wants to remember, as JSON values; None: nothing."""
    failed: str = ""
    """The error that stands in for its proposal."""


def ask(scaler: Scaler, view: ScaleView, memory: object = None) -> Answer:
    """The answer of one scaler, given what it remembered.

    An exception or an answer that is none counts as not knowing, and leaves its memory as it was. A
    memory that does not fit (another release wrote it) is as good as none.
    """
    spec = scaler.spec
    given: dict[str, object] = {}
    if spec.params is None:
        view = replace(view, params=scaler.use.params)
    else:
        given["params"] = scaler.params
    if spec.memory is not None:
        given["memory"] = _remembered(memory, spec.memory)
    try:
        answer = spec.target(view, **given)
        proposal, after = answer if spec.memory is not None else (answer, None)
        kept = None if spec.memory is None else msgspec.json.decode(msgspec.json.encode(after))
        if not isinstance(proposal, ScaleProposal):
            raise TypeError(f"it answers {type(proposal).__name__}, not a ScaleProposal")
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        reason = Reason(code=ReasonCode.SCALER_FAILED, params={"policy": scaler.use.use, "error": told})
        return Answer(proposal=cannot_tell(scaler.use.use, reason), memory=memory, failed=told)
    return Answer(proposal=replace(proposal, policy=scaler.use.use), memory=kept)


def _remembered(memory: object, type_: type) -> object:
    if memory is None:
        return type_()
    try:
        return msgspec.convert(memory, type_)
    except msgspec.ValidationError:
        return type_()
