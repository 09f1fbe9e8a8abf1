"""What a router tells central."""

import math
from typing import ClassVar

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
    inflight_s_total: float | None = None
    """How long its requests have been in flight, all together, in seconds; None: the router does not say."""
    arrivals_total: int = 0
    prompt_tokens_total: int = 0
    completed_total: int = 0
    failed_total: int = 0


class OutOfRotation(Value, frozen=True, kw_only=True):
    """An incarnation to which a router sends nothing, or single requests on trial."""

    incarnation: Incarnation
    cause: str
    """`connection`, `failures` or `latency`."""
    why: str = ""
    for_s: float = 0.0
    """Since it went out."""
    times: int = 1
    """How often, without a calm time in between."""
    on_trial: bool = False
    trials_left: int = 1
    """Requests that must go well before it is in rotation again."""


class Outcomes(Value, frozen=True, kw_only=True):
    """How one incarnation has answered, since the router sent the first request to it."""

    BUCKETS_PER_DOUBLING: ClassVar[int] = 8

    incarnation: Incarnation = Incarnation("")
    answered: int = 0
    failed: int = 0
    """Broken off, or ended in an error of the engine's own."""
    first_token: dict[int, int] = {}
    """Times to the first token of streams, from the dispatch: how many by bucket (`bucket_of`)."""

    @property
    def total(self) -> int:
        return self.answered + self.failed

    @classmethod
    def bucket_of(cls, seconds: float) -> int:
        """Buckets grow by a twelfth each; the one of 1 ms is 0."""
        return max(0, round(cls.BUCKETS_PER_DOUBLING * math.log2(max(seconds, 1e-3) / 1e-3)))

    @classmethod
    def seconds(cls, bucket: int) -> float:
        """About what falls into a bucket."""
        return float(1e-3 * 2.0 ** (bucket / cls.BUCKETS_PER_DOUBLING))


class PolicyHealth(Value, frozen=True, kw_only=True):
    """One policy as a router uses it. Totals count since the router started."""

    policy: str
    deployments: tuple[DeploymentName, ...] = ()
    """Those that use it now."""
    version: str = ""
    """The beginning of its file's digest; "" for a built-in one."""
    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Spent in its calls."""
    open: bool = False
    """Whether its breaker is open somewhere: then others decide in its place."""
    problem: str = ""
    """Why it, or its newest version, is not used."""
    state: str = ""
    """What it says of itself."""


class ShadowCount(Value, frozen=True, kw_only=True):
    """How often a policy that is asked beside the one in use decides as that one does."""

    deployment: DeploymentName
    policy: str
    decisions: int = 0
    agreed: int = 0


class RouterReport(Value, frozen=True, kw_only=True):
    """One report of a router."""

    router: str
    epoch: str = ""
    version: int = 0
    """The snapshot that it has applied."""
    leases: tuple[LeaseCount, ...] = ()
    demand: tuple[DeploymentDemand, ...] = ()
    ejected: tuple[Incarnation, ...] = ()
    """Incarnations that it has put out of rotation by itself."""
    rotation: tuple[OutOfRotation, ...] = ()
    """The same, and why."""
    pid: int = 0
    """Of the process to signal; several routers with one pid are processes of one address."""
    ended: bool = False
    """Whether this is the last one: its process ends, and holds nothing any more."""
    api_url: str = ""
    policies: tuple[PolicyHealth, ...] = ()
    shadows: tuple[ShadowCount, ...] = ()
    outcomes: tuple[Outcomes, ...] = ()
    """Of the deployments whose revisions are compared."""
