"""What a router tells central."""

from supervisord_cp.model.base import DeploymentName, Incarnation, Value


class LeaseCount(Value, frozen=True, kw_only=True):
    """Work that a router has open on one incarnation."""

    incarnation: Incarnation
    requests: int
    tokens: int = 0


class DeploymentDemand(Value, frozen=True, kw_only=True):
    """What a router sees of a deployment's traffic. Totals count since the router started."""

    deployment: DeploymentName
    queued: int = 0
    queued_tokens: int = 0
    inflight: int = 0
    arrivals_total: int = 0
    prompt_tokens_total: int = 0
    completed_total: int = 0
    failed_total: int = 0


class RouterReport(Value, frozen=True, kw_only=True):
    """One report of a router."""

    router: str
    epoch: str = ""
    version: int = 0
    """The snapshot that it has applied."""
    leases: tuple[LeaseCount, ...] = ()
    demand: tuple[DeploymentDemand, ...] = ()
    ejected: tuple[Incarnation, ...] = ()
    """Incarnations it has found dead by itself."""
    pid: int = 0
    api_url: str = ""
