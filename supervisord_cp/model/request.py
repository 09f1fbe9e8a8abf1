"""A request as routing policies see it, what they may choose from, and what was decided."""

from enum import IntEnum

from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, Value
from supervisord_cp.model.fleet import RoutedInstance


class RequestPriority(IntEnum):
    """Lower is sooner."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3
    BACKGROUND = 4


class RoutingRequest(Value, frozen=True, kw_only=True):
    """What is known of a request before it is forwarded. Work is measured in tokens."""

    id: str
    deployment: DeploymentName
    model: str = ""
    """The name the client asked for: a served name, an alias or an adapter."""
    path: str = ""
    """Of the URL: `/v1/chat/completions`."""
    prompt_tokens: int = 0
    """Estimated from the body's bytes and a learned ratio."""
    max_tokens: int | None = None
    """As the client limits the answer."""
    stream: bool = False
    session: str = ""
    """`x-session-id` of the client."""
    key: str = ""
    """The name of the client's API key, "" without keys."""
    user: str = ""
    """Whom the client says that it asks for: `user` of the body."""
    priority: RequestPriority = RequestPriority.NORMAL
    """`x-priority` of the client."""
    deadline_ms: int | None = None
    """What is left of the client's deadline on arrival."""
    cost_budget: float | None = None
    """What the answer may cost, in the currency of `cost_per_gpu_hour`."""
    prefix: tuple[int, ...] = ()
    """One key for each whole block of the prompt from its beginning, each standing for all before it too.
    Empty unless a policy of the deployment asks for it."""


class Candidate(Value, frozen=True, kw_only=True, gc=False):
    """One instance that a request may go to, with the work that this router has booked on it."""

    instance: RoutedInstance
    """Who it is, where it is, and what its engine reports (`instance.load`)."""
    inflight: int = 0
    """Open leases of this router."""
    booked_prefill: int = 0
    """Tokens of prompts dispatched whose first byte has not come yet."""
    booked_decode: int = 0
    """Tokens still expected from the open leases."""
    foreign: int = 0
    """Requests that the engine reports and this router did not send."""
    limit: int = 0
    """Requests that it may have at once; 0 is no limit."""

    @property
    def booked(self) -> int:
        """Both kinds of tokens."""
        return self.booked_prefill + self.booked_decode

    @property
    def full(self) -> bool:
        """Whether it has all the requests that it may have."""
        return 0 < self.limit <= self.inflight + self.foreign

    def work(self, request_tokens: float) -> float:
        """Tokens to be worked through, by weight; what others sent counts as mean requests."""
        tokens = self.booked_prefill + self.booked_decode + self.foreign * request_tokens
        return tokens / (self.instance.weight or 1.0)


class RouteDecision(Value, frozen=True, kw_only=True):
    """Where a request went, and what was considered."""

    request: str
    pick: InstanceId
    incarnation: Incarnation
    alternates: tuple[InstanceId, ...] = ()
    """Others that the filters left."""
    left_out: tuple[InstanceId, ...] = ()
    """Others that had room and were left out by a filter."""
    scores: dict[str, float] = {}
    booked: dict[str, int] = {}
    """Tokens that the router had booked on each."""
    inflight: dict[str, int] = {}
    """Requests that each had, ours and others'."""
    policy: str = ""
    """The steps that were asked; "" when there was one instance only."""
    snapshot_version: int = 0
    age_s: float = 0.0
    """Since it was decided."""
