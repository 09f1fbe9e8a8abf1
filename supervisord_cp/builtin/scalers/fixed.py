"""Fixed: as many replicas as the configuration says."""

from supervisord_cp.policy import PolicyKind, Reason, ReasonCode, ScaleProposal, ScaleView, policy


@policy(PolicyKind.SCALER, "fixed")
def fixed(view: ScaleView) -> ScaleProposal:
    """`replicas` of the parameters, else of the deployment."""
    given = view.params.get("replicas", view.configured)
    replicas = given if isinstance(given, int) and given >= 0 else view.configured
    return ScaleProposal(
        policy="fixed",
        replicas=float(replicas),
        reason=Reason(code=ReasonCode.FIXED, params={"replicas": replicas}),
    )
