"""What is known besides the request and the instances."""

from random import Random
from typing import Generic, TypeVar

from supervisord_cp.model.base import Value

Params = TypeVar("Params")


class Context(Value, Generic[Params], frozen=True, kw_only=True):
    """What every policy of the request path is given."""

    now: float
    """Monotonic seconds; only differences mean anything."""
    random: Random
    """The only source of chance."""
    params: Params
    """The policy's parameters, None when it declares none."""
    request_tokens: float = 384.0
    """Tokens, prompt and answer, of the deployment's mean request."""
    request_s: float = 1.0
    """Seconds that an instance spends on a mean request, as learned."""
    node: str = ""
    """Where the router runs."""
    zone: str = ""

    def expected_s(self, tokens: float) -> float:
        """How long an instance will take for a request of so many tokens."""
        return self.request_s * tokens / max(1.0, self.request_tokens)


class QueueContext(Context[Params], Generic[Params], frozen=True, kw_only=True):
    """What a scheduler is given: the deployment as it stands, too."""

    queued: int = 0
    """Requests that wait."""
    queued_tokens: int = 0
    """Their prompts."""
    inflight: int = 0
    """Requests of this router that instances work on."""
    slots: int = 0
    """Requests that all usable instances may have at once; 0: no limit is known."""
    slo_ttft_s: float | None = None
    """Time to first token that the deployment's requests should see."""
