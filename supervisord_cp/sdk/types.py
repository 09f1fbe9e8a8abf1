"""What goes into the Python API and what comes out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

from supervisord_cp.model.request import RequestPriority

MOST_ID: Final = 128
ENGINE_CONCURRENCY: Final = 256
"""vLLM's own `--max-num-seqs`: what it is sent beyond that waits there, first come first served."""
_OWN_FIELDS: Final = ("model", "prompt", "messages", "max_tokens", "temperature", "top_p", "user", "stream")


@dataclass(frozen=True)
class ExecutionInstance:
    """A running vLLM server: where it listens, what it serves, how large it is.

    Raises:
        ValueError: a value that cannot be.
    """

    instance_id: str
    host: str
    port: int
    model_name: str
    """What clients call the model: the server's `--served-model-name`, or `--model` without one."""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    gpu_count: int | None = None
    """GPUs that it uses; None: the product of the three sizes."""
    gpu_memory_gb: float | None = None
    """Of each GPU; for policies of your own."""
    max_concurrent_requests: int = ENGINE_CONCURRENCY
    """Requests that it is sent at once, 0 for no limit. Further ones wait here, where the scheduling
    policy orders them."""
    weight: float = 1.0
    """Its share of the work next to others; 2.0 takes twice as much."""
    cost_per_gpu_hour: float | None = None
    """For `cost_optimized` and for `RequestMetadata.cost_budget`, in any one currency."""
    zone: str = ""
    """Rack, room or region, for `locality`."""
    scheme: str = "http"
    api_key: str = field(default="", repr=False)
    """The server's `--api-key`."""
    is_healthy: bool = True
    """As `get_instances` and policies see it; what you set is ignored."""
    active_requests: int = 0
    """Likewise: requests of this control plane that it works on."""

    def __post_init__(self) -> None:
        _check_label("instance_id", self.instance_id)
        if not self.host or not self.host.isprintable() or any(c in self.host for c in "/@?# "):
            raise ValueError(f"host is a name or an address, not {self.host!r}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port is a number from 1 to 65535, not {self.port!r}")
        if not self.model_name:
            raise ValueError("model_name is missing")
        if self.scheme not in ("http", "https"):
            raise ValueError(f"scheme is http or https, not {self.scheme!r}")
        sizes = (self.tensor_parallel_size, self.pipeline_parallel_size, self.data_parallel_size, self.gpus)
        if min(sizes) < 1:
            raise ValueError("parallel sizes and gpu_count are at least 1")
        if self.max_concurrent_requests < 0:
            raise ValueError("max_concurrent_requests is at least 0")
        if not self.weight > 0:
            raise ValueError("weight is more than 0")

    @property
    def gpus(self) -> int:
        """GPUs that it uses."""
        if self.gpu_count is not None:
            return self.gpu_count
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size

    @property
    def url(self) -> str:
        """Its base address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def free_slots(self) -> int | None:
        """Requests that it may have besides those it has; None: no limit."""
        if not self.max_concurrent_requests:
            return None
        return max(0, self.max_concurrent_requests - self.active_requests)


@dataclass(frozen=True)
class RequestMetadata:
    """A request. With `messages` it is a chat, with `prompt` a completion.

    Raises:
        ValueError: a value that cannot be.
    """

    request_id: str = field(default_factory=lambda: uuid4().hex)
    """Up to 128 printable ASCII characters; also sent to the engine as `x-request-id`."""
    prompt: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    max_tokens: int | None = None
    """None: the engine's default."""
    model_name: str | None = None
    """None: the only model that is registered."""
    priority: RequestPriority = RequestPriority.NORMAL
    slo_deadline_ms: int | None = None
    """The answer is of no use later than that after submission: the request ends with `deadline_exceeded`."""
    user_id: str = ""
    """On whose behalf; `affinity` keeps a user on an instance."""
    session_id: str = ""
    """`affinity` keeps a session on an instance, before it looks at the user."""
    cost_budget: float | None = None
    """What the answer may cost, in the currency of `ExecutionInstance.cost_per_gpu_hour`."""
    temperature: float | None = None
    top_p: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request's body, such as `stop` or `seed`."""
    submitted_at: float | None = None
    """When it was submitted, in seconds of `time.monotonic()`; what you set is replaced."""

    def __post_init__(self) -> None:
        _check_label("request_id", self.request_id)
        if self.session_id:
            _check_label("session_id", self.session_id)
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("a request has either a prompt or messages")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise ValueError("max_tokens is at least 0")
        if self.slo_deadline_ms is not None and self.slo_deadline_ms < 0:
            raise ValueError("slo_deadline_ms is at least 0")
        if self.cost_budget is not None and not self.cost_budget >= 0:
            raise ValueError("cost_budget is at least 0")
        taken = [name for name in _OWN_FIELDS if name in self.extra]
        if taken:
            raise ValueError(f"extra has {', '.join(taken)}, which the control plane sets itself")

    @property
    def deadline(self) -> float | None:
        """When its answer is of no use any more, in seconds of `time.monotonic()`; None: never."""
        if self.slo_deadline_ms is None or self.submitted_at is None:
            return None
        return self.submitted_at + self.slo_deadline_ms / 1000


class RequestStatus(StrEnum):
    """How far a request is."""

    PENDING = "pending"
    """The control plane has not been started."""
    QUEUED = "queued"
    """It waits for an instance."""
    RUNNING = "running"
    """An instance works on it."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether it does not change any more."""
        return self in (RequestStatus.COMPLETED, RequestStatus.FAILED, RequestStatus.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The answer to a request."""

    request_id: str
    text: str
    """Of the first choice."""
    finish_reason: str | None
    model_name: str
    instance_id: str
    """Who made it."""
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    """From submission to the end of the answer."""
    response: Mapping[str, Any] = field(repr=False)
    """The engine's whole answer."""


@dataclass(frozen=True, kw_only=True)
class SchedulingDecision:
    """Where a scheduling policy of yours wants a request to go."""

    request_id: str
    target_instance_id: str


@dataclass(frozen=True, kw_only=True)
class PerformanceMetrics:
    """Figures since the control plane was made; rates and latencies are those of the last minutes."""

    total_requests: int = 0
    completed_requests: int = 0
    failed_requests: int = 0
    cancelled_requests: int = 0
    active_requests: int = 0
    """Instances work on them."""
    queued_requests: int = 0
    avg_latency_ms: float = 0.0
    p50_latency_ms: float = 0.0
    p95_latency_ms: float = 0.0
    p99_latency_ms: float = 0.0
    requests_per_second: float = 0.0
    """Completed ones, over the last minute."""
    tokens_per_second: float = 0.0
    """Tokens of their answers."""
    slo_requests: int = 0
    """Requests with a deadline that have ended (cancelled ones left out)."""
    slo_violations: int = 0
    """Those of them that did not complete in time."""
    total_instances: int = 0
    healthy_instances: int = 0
    total_gpus: int = 0

    @property
    def slo_compliance_rate(self) -> float:
        """Share of the requests with a deadline that kept it, 1.0 when there were none."""
        return 1.0 - self.slo_violations / self.slo_requests if self.slo_requests else 1.0


def _check_label(name: str, value: str) -> None:
    """It is going to be a header field."""
    if not (0 < len(value) <= MOST_ID and value.isascii() and value.isprintable() and value.strip() == value):
        raise ValueError(f"{name} has up to {MOST_ID} printable ASCII characters, no space at either end")
