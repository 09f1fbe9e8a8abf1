"""Policies propose, the envelope disposes: one place where limits change a number, each one listed."""

import math
from collections.abc import Sequence

from supervisord_cp.model.assignment import Override
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.scaling import Limit, ScaleDecision, ScaleProposal, ScaleView


def decide(
    view: ScaleView,
    proposals: Sequence[ScaleProposal],
    *,
    override: Override | None = None,
    gpus_per_replica: int = 1,
    gpus_left: int | None = None,
) -> ScaleDecision:
    """The number of replicas that a deployment gets.

    The largest valid proposal wins. Without a valid one the present number is held: what is not
    known never shrinks anything. An operator's override takes the place of the proposals and of the
    bounds; the GPU budget (`gpus_left`, None is no limit) binds it too.
    """
    limits: list[Limit] = []

    def limit(before: int, after: int, code: ReasonCode, **params: int) -> int:
        if after != before:
            limits.append(Limit(reason=Reason(code=code, params=dict(params)), before=before, after=after))
        return after

    if override is not None:
        wanted, reason = override.replicas, _override_reason(view, override)
    else:
        wanted, reason = _largest(view, proposals)
        wanted = limit(wanted, max(wanted, view.bounds.min), ReasonCode.BOUND_MIN, limit=view.bounds.min)
        wanted = limit(wanted, min(wanted, view.bounds.max), ReasonCode.BOUND_MAX, limit=view.bounds.max)
    if gpus_left is not None and gpus_per_replica > 0:
        most = max(0, gpus_left) // gpus_per_replica
        wanted = limit(wanted, min(wanted, most), ReasonCode.GPU_BUDGET, replicas=most, limit=gpus_left)
    return ScaleDecision(
        deployment=view.deployment,
        wanted=wanted,
        proposals=tuple(proposals),
        limits=tuple(limits),
        reason=limits[-1].reason if limits else reason,
    )


def _largest(view: ScaleView, proposals: Sequence[ScaleProposal]) -> tuple[int, Reason]:
    valid = [(p.replicas, p) for p in proposals if p.replicas is not None and math.isfinite(p.replicas)]
    if not valid:
        why = next((p.reason.params.get("why") for p in proposals if p.reason.params.get("why")), "no signal")
        return view.ready + view.starting, Reason(code=ReasonCode.HOLD, params={"why": str(why)})
    replicas, best = max(valid, key=lambda pair: pair[0])
    return max(0, math.ceil(replicas)), best.reason


def _override_reason(view: ScaleView, override: Override) -> Reason:
    if override.learned:
        return Reason(
            code=ReasonCode.LEARNED,
            params={
                "replicas": override.replicas,
                "deployment": view.deployment,
                "configured": view.configured,
            },
        )
    return Reason(code=ReasonCode.OVERRIDE, params={"replicas": override.replicas})
