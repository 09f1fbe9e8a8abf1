"""One control step of a deployment: ask, decide, and keep on record what it was made from."""

from collections.abc import Mapping, Sequence

from supervisord_cp.core.scaling.envelope import decide
from supervisord_cp.core.scaling.scalers import Scaler, ask, bind
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.scaling import (
    ScaleDecision,
    ScaleLimits,
    ScaleProposal,
    ScalerCall,
    ScaleRecord,
    ScaleState,
    ScaleView,
)
from supervisord_cp.policy.declare import PolicySpec


def step(
    view: ScaleView, scalers: Sequence[Scaler], limits: ScaleLimits, state: ScaleState
) -> tuple[ScaleRecord, ScaleState]:
    """One control step of a deployment: every scaler is asked, the envelope decides."""
    proposals: list[ScaleProposal] = []
    calls: list[ScalerCall] = []
    memories: dict[str, object] = {}
    for place, scaler in enumerate(scalers):
        key = f"{place}:{scaler.use.use}"
        before = state.memories.get(key)
        answer = ask(scaler, view, before)
        proposals.append(answer.proposal)
        calls.append(
            ScalerCall(use=scaler.use.use, params=scaler.use.params, memory=before, failed=answer.failed)
        )
        if answer.memory is not None:
            memories[key] = answer.memory
    decision, history = decide(view, proposals, limits, state.history)
    record = ScaleRecord(
        view=view, limits=limits, history=state.history, calls=tuple(calls), decision=decision
    )
    return record, ScaleState(history=history, memories=memories)


def answers(record: ScaleRecord, known: Mapping[str, PolicySpec]) -> list[ScaleProposal]:
    """What the scalers of a record say to its view, asked once more with what they remembered.

    Raises:
        UsageError: a scaler of the record is not known here.
    """
    return [
        ask(bind(PolicyUse(use=call.use, params=call.params), known), record.view, call.memory).proposal
        for call in record.calls
    ]


def recomputed(record: ScaleRecord, known: Mapping[str, PolicySpec]) -> ScaleDecision:
    """The decision that a record's inputs lead to, asked and decided once more.

    Raises:
        UsageError: a scaler of the record is not known here.
    """
    decision, _ = decide(record.view, answers(record, known), record.limits, record.history)
    return decision
