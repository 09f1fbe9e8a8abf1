"""The Python API: registered instances, submitted requests, and the router's core between them."""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any, Final, Self

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.errors import UsageError
from supervisord_cp.router.exchange import MemoryExchange
from supervisord_cp.sdk.embedded import EmbeddedRouter
from supervisord_cp.sdk.errors import RequestFailed, UnknownRequest
from supervisord_cp.sdk.figures import Figures
from supervisord_cp.sdk.messages import body_of, completion_of, head_of
from supervisord_cp.sdk.policies import RoutingUse, SchedulingUse, choose
from supervisord_cp.sdk.scheduling import Adapter, SchedulingPolicy
from supervisord_cp.sdk.submitted import Book, Submitted
from supervisord_cp.sdk.types import (
    Completion,
    ExecutionInstance,
    PerformanceMetrics,
    RequestMetadata,
    RequestStatus,
)

log = logging.getLogger(__name__)

MOST_RESULTS: Final = 10_000
DRAIN_S: Final = 30.0
_STOPPED: Final = ("stopped", "the control plane was stopped")
_CANCELLED: Final = ("cancelled", "it was cancelled")


class ControlPlaneManager:
    """Routes requests to running vLLM servers; it starts and stops none.

    All of it happens on the event loop that `start` is called on, so no method may be called from another
    thread. `async with ControlPlaneManager() as cp:` starts and stops it; an exception breaks requests off.
    """

    def __init__(
        self,
        scheduling_policy: SchedulingUse = "adaptive",
        routing_strategy: RoutingUse = "load_balanced",
        *,
        queue_requests: int = 1000,
        queue_timeout_s: float = 60.0,
        hold_timeout_s: float = 600.0,
        max_results: int = MOST_RESULTS,
        zone: str = "",
    ) -> None:
        """`scheduling_policy` orders the requests that wait, `routing_strategy` chooses their instances.

        At most `queue_requests` wait per model: for `queue_timeout_s` while all its instances are busy, for
        `hold_timeout_s` while none is healthy. The results of the last `max_results` requests are kept.
        `zone` says where this process runs, for `locality`.

        Raises:
            UsageError: no such policy, or parameters that it does not take.
        """
        self._instances: dict[str, ExecutionInstance] = {}
        self._book = Book(most_over=max_results)
        self._figures = Figures(time.monotonic())
        self._router: EmbeddedRouter | None = None
        self._zone = zone
        self._config = RouterConfig(
            queue_requests=queue_requests,
            queue_timeout_s=queue_timeout_s,
            hold_timeout_s=hold_timeout_s,
            warmup_s=0.0,  # engines that are registered have been started by somebody else, and not just now
        )
        self._wanted = scheduling_policy, routing_strategy
        self._policies = choose(scheduling_policy, routing_strategy, self._adapt)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, error: type[BaseException] | None, *more: object) -> None:
        await self.stop(drain_timeout_s=DRAIN_S if error is None else 0.0)

    # --- instances

    def register_instance(self, instance: ExecutionInstance) -> None:
        """Send requests there, before or after `start`. One of the same id is replaced."""
        self._instances[instance.instance_id] = instance
        self._instances_changed()

    def unregister_instance(self, instance_id: str) -> bool:
        """Send no more requests there; what it works on is finished. False: there is no such instance."""
        if self._instances.pop(instance_id, None) is None:
            return False
        self._instances_changed()
        return True

    def get_instances(self) -> list[ExecutionInstance]:
        """All registered instances, with `is_healthy` and `active_requests` as they are now."""
        if self._router is None:
            return list(self._instances.values())
        healthy, active = self._router.healthy(), self._router.active()
        return [
            replace(instance, is_healthy=name in healthy, active_requests=active.get(name, 0))
            for name, instance in self._instances.items()
        ]

    # --- life

    async def start(self) -> None:
        """Begin to work, with what was submitted before. Nothing happens when it has been started."""
        if self._router is not None:
            return
        self._router = router = EmbeddedRouter(self._config, self._policies, zone=self._zone)
        router.use(self._instances)
        for request in self._book:
            self._send(request, router)

    async def stop(self, drain_timeout_s: float = DRAIN_S) -> None:
        """Stop working. Requests that wait fail at once, those that instances work on may finish for so
        many seconds. It can be started again, which what is submitted meanwhile waits for."""
        router, self._router = self._router, None
        if router is None:
            return
        sent = [request for request in self._book if request.exchange is not None]
        try:
            for request in sent:
                if request.exchange is not None and router.queued(request.exchange):
                    self._break_off(request, *_STOPPED)
            running = [request.over() for request in sent if request.exchange is not None]
            if running:
                async with asyncio.timeout(drain_timeout_s):
                    await asyncio.gather(*running)
        except TimeoutError:
            log.info("stopping: requests that were not finished within %g s break off", drain_timeout_s)
        finally:
            for request in sent:
                if request.exchange is not None:
                    self._break_off(request, *_STOPPED)
            await router.close()

    # --- requests

    async def submit_request(self, request: RequestMetadata) -> str:
        """Hand over a request and return its id; nobody has to ask for its result.

        Raises:
            UsageError: a request of the same id is not over yet.
            TypeError: `extra` or `messages` have something that cannot be JSON.
        """
        metadata = replace(request, submitted_at=time.monotonic())
        submitted = Submitted(metadata, body_of(metadata))
        if not self._book.add(submitted):
            raise UsageError(f"a request {request.request_id!r} is not over yet")
        if self._router is not None:
            self._send(submitted, self._router)
        return request.request_id

    async def get_request_status(self, request_id: str) -> RequestStatus | None:
        """How far it is; None when it is not known (any more)."""
        request = self._book.get(request_id)
        if request is None:
            return None
        return RequestStatus.QUEUED if self._waits(request) else request.status

    async def get_result(self, request_id: str, timeout: float | None = None) -> Completion:
        """Wait for the answer, for `timeout` seconds at most.

        Raises:
            RequestFailed: there is none.
            UnknownRequest: no such request, or it was over long ago.
            TimeoutError: not in time; the request goes on.
        """
        request = self._book.get(request_id)
        if request is None:
            raise UnknownRequest(request_id)
        async with asyncio.timeout(timeout):
            return await request.result()

    async def cancel_request(self, request_id: str) -> bool:
        """End a request; an engine that works on it is told to stop. False when it is over or not known."""
        request = self._book.open(request_id)
        if request is None:
            return False
        self._break_off(request, *_CANCELLED)
        return True

    # --- what is going on

    def get_metrics(self) -> PerformanceMetrics:
        """Figures of all requests so far."""
        queued = len(self._book) if self._router is None else self._router.count_queued()
        instances = self.get_instances()
        metrics = self._figures.metrics(time.monotonic(), queued=queued, active=len(self._book) - queued)
        return replace(
            metrics,
            total_instances=len(instances),
            healthy_instances=sum(instance.is_healthy for instance in instances),
            total_gpus=sum(instance.gpus for instance in instances),
        )

    def get_status(self) -> dict[str, Any]:
        """What it does now, as plain values."""
        metrics = self.get_metrics()
        return {
            "running": self._router is not None,
            "scheduling_policy": self._policies.scheduler_name,
            "routing_strategy": self._policies.router_name,
            "pending_requests": metrics.queued_requests,
            "running_requests": metrics.active_requests,
            "registered_instances": metrics.total_instances,
            "healthy_instances": metrics.healthy_instances,
            "models": sorted({instance.model_name for instance in self._instances.values()}),
        }

    def update_policy(
        self, scheduling_policy: SchedulingUse | None = None, routing_strategy: RoutingUse | None = None
    ) -> None:
        """Decide by another scheduling policy or routing strategy from now on; what waits is put in the new
        order. None leaves one as it is.

        Raises:
            UsageError: no such policy, or parameters that it does not take; nothing has changed.
        """
        scheduling, routing = self._wanted
        wanted = (
            scheduling if scheduling_policy is None else scheduling_policy,
            routing if routing_strategy is None else routing_strategy,
        )
        self._policies = choose(*wanted, self._adapt)
        self._wanted = wanted
        if self._router is not None:
            self._router.use_policies(self._policies)

    # --- inside

    def _instances_changed(self) -> None:
        if self._router is not None:
            self._router.use(self._instances)

    def _adapt(self, policy: SchedulingPolicy) -> Adapter:
        return Adapter(policy, self._book.metadata, self._waiting, self._instances)

    def _waiting(self, model_name: str) -> list[RequestMetadata]:
        """Requests that wait for a model's instances, in the order of submission."""
        if self._router is None:
            return []
        found = [self._book.metadata(name) for name in self._router.waiting(model_name)]
        return sorted((one for one in found if one is not None), key=lambda one: one.submitted_at or 0.0)

    def _send(self, request: Submitted, router: EmbeddedRouter) -> None:
        head = head_of(request.metadata, time.monotonic())
        exchange = MemoryExchange(head, request.body, on_end=lambda complete: self._ended(request))
        request.exchange, request.body = exchange, b""
        router.serve(exchange)

    def _waits(self, request: Submitted) -> bool:
        """Whether it waits for an instance."""
        return (
            self._router is not None
            and request.exchange is not None
            and self._router.queued(request.exchange)
        )

    def _ended(self, request: Submitted) -> None:
        """The exchange is over."""
        exchange = request.exchange
        assert exchange is not None
        try:
            outcome: Completion | RequestFailed = completion_of(
                request.metadata, exchange, self._latency_ms(request)
            )
        except RequestFailed as error:
            outcome = error
        self._settle(request, outcome)

    def _break_off(self, request: Submitted, reason: str, message: str) -> None:
        exchange = request.exchange
        self._settle(request, RequestFailed(request.metadata.request_id, reason, message))
        if exchange is not None:
            exchange.cancel()

    def _settle(self, request: Submitted, outcome: Completion | RequestFailed) -> None:
        self._book.settle(request, outcome)
        self._figures.over(
            request.status,
            time.monotonic(),
            latency_ms=self._latency_ms(request),
            completion_tokens=outcome.completion_tokens if isinstance(outcome, Completion) else 0,
            slo_deadline_ms=request.metadata.slo_deadline_ms,
        )

    def _latency_ms(self, request: Submitted) -> float:
        assert request.metadata.submitted_at is not None
        return (time.monotonic() - request.metadata.submitted_at) * 1000
