"""Fixed: as many replicas as the configuration says."""

from typing import Annotated

from msgspec import Meta

from supervisord_cp.policy import PolicyKind, Reason, ReasonCode, ScaleProposal, ScaleView, Value, policy


class FixedParams(Value, frozen=True, kw_only=True):
    """Parameters of `fixed`."""

    replicas: Annotated[int, Meta(ge=0)] | None = None
    """How many; default: the deployment's `replicas`, or the minimum of its autoscale table."""


@policy(PolicyKind.SCALER, "fixed", params=FixedParams)
def fixed(view: ScaleView, params: FixedParams) -> ScaleProposal:
    """`replicas` of the parameters, else of the deployment."""
    replicas = view.configured if params.replicas is None else params.replicas
    return ScaleProposal(
        policy="fixed",
        replicas=float(replicas),
        reason=Reason(code=ReasonCode.FIXED, params={"replicas": replicas}),
    )
