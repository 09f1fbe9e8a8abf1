"""The control plane in front of engines: instances, requests, life."""

import asyncio
import enum

import pytest

from supervisord_cp.errors import UsageError
from supervisord_cp.sdk import (
    ControlPlaneManager,
    ExecutionInstance,
    RequestFailed,
    RequestMetadata,
    RequestPriority,
    RequestStatus,
    UnknownRequest,
)
from tests.sdk.kit import MODEL, cluster
from tests.waiting import until

pytestmark = pytest.mark.asyncio


async def test_a_request_is_answered() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        name = await c.submit("r-1", max_tokens=4, user_id="someone", priority=RequestPriority.HIGH)
        assert name == "r-1"
        completion = await c.plane.get_result(name, timeout=10)
        assert (completion.request_id, completion.instance_id, completion.model_name) == ("r-1", "a", MODEL)
        assert (completion.text, completion.prompt_tokens, completion.completion_tokens) == (
            "an answer",
            3,
            2,
        )
        assert engine.seen == [{"prompt": "Hello", "max_tokens": 4, "user": "someone"}]
        assert await c.plane.get_request_status(name) is RequestStatus.COMPLETED
        assert await c.plane.get_result(name) is completion


async def test_nobody_has_to_ask_for_a_result() -> None:
    async with cluster() as c:
        await c.add("a")
        for _ in range(20):
            await c.submit()
        await until(lambda: c.plane.get_metrics().completed_requests == 20)
        assert c.active("a") == 0


async def test_instances_before_and_after_the_start() -> None:
    async with cluster(routing_strategy="round_robin") as c:
        await c.plane.stop()
        await c.add("a")
        assert not c.plane.get_status()["running"]
        await c.plane.start()
        await c.plane.start()
        await c.add("b")
        assert {await c.ask() for _ in range(4)} == {"a", "b"}


async def test_requests_before_the_start_are_sent_at_the_start() -> None:
    async with cluster() as c:
        await c.plane.stop()
        await c.add("a")
        await c.submit("early")
        assert await c.plane.get_request_status("early") is RequestStatus.PENDING
        assert c.plane.get_metrics().queued_requests == 1
        await c.plane.start()
        assert (await c.plane.get_result("early", timeout=10)).instance_id == "a"


async def test_it_is_a_context_manager() -> None:
    async with ControlPlaneManager("fifo") as plane:
        assert plane.get_status()["running"]
    assert not plane.get_status()["running"]


class Model(enum.StrEnum):
    ONE = "one"


async def test_models_by_name() -> None:
    async with cluster() as c:
        await c.add("e", model=Model.ONE)
        assert await c.ask(model_name=Model.ONE) == "e"
    async with cluster() as c:
        await c.add("a", model="one")
        await c.add("b", model="two")
        assert await c.ask(model_name="one") == "a"
        assert await c.ask(model_name="two") == "b"
        assert c.plane.get_status()["models"] == ["one", "two"]


@pytest.mark.parametrize(("model", "reason"), [(None, "model_missing"), ("three", "model_unknown")])
async def test_models_that_are_not_there(model: str | None, reason: str) -> None:
    async with cluster() as c:
        await c.add("a", model="one")
        await c.add("b", model="two")
        name = await c.submit(model_name=model)
        with pytest.raises(RequestFailed) as raised:
            await c.plane.get_result(name, timeout=10)
        assert raised.value.reason == reason
        assert await c.plane.get_request_status(name) is RequestStatus.FAILED


async def test_an_engines_error_is_told() -> None:
    async with cluster() as c:
        (await c.add("a")).error = 400, "temperature must be at least 0"
        name = await c.submit(temperature=-1.0)
        with pytest.raises(RequestFailed, match="temperature must") as raised:
            await c.plane.get_result(name, timeout=10)
        assert (raised.value.reason, raised.value.status) == ("engine_error", 400)


async def test_an_api_key_reaches_its_engine() -> None:
    async with cluster() as c:
        engine = await c.add("a", api_key="geheim")
        await c.ask()
        c.plane.register_instance(ExecutionInstance("a", "127.0.0.1", engine.port, MODEL))
        await c.ask()
        assert engine.keys == ["Bearer geheim", ""]


async def test_an_instance_registered_again_is_replaced() -> None:
    async with cluster() as c:
        first = await c.add("a")
        await c.ask()
        second = await c.add("a")
        assert await c.ask() == "a"
        assert (len(first.seen), len(second.seen)) == (1, 1)
        await first.stop()


async def test_an_unregistered_instance_finishes_what_it_has_and_gets_nothing_more() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        name = await c.fill("a")
        await c.add("b")
        assert c.plane.unregister_instance("a")
        assert not c.plane.unregister_instance("a")
        assert {await c.ask() for _ in range(4)} == {"b"}
        engine.gate.set()
        assert (await c.plane.get_result(name, timeout=10)).instance_id == "a"


async def test_an_unhealthy_instance_is_taken_out_and_comes_back_by_itself() -> None:
    async with cluster(routing_strategy="round_robin") as c:
        await c.add("a")
        engine = await c.add("b")
        engine.health = 503
        await until(lambda: c.healthy() == {"a"}, "b is out")
        assert {await c.ask() for _ in range(4)} == {"a"}
        engine.health = 200
        await until(lambda: c.healthy() == {"a", "b"}, "b is back")
        assert {await c.ask() for _ in range(4)} == {"a", "b"}


async def test_a_dead_instance_costs_no_request_and_comes_back_by_itself() -> None:
    async with cluster(routing_strategy="round_robin") as c:
        await c.add("a")
        engine = await c.add("b")
        assert {await c.ask() for _ in range(4)} == {"a", "b"}
        await engine.stop()
        assert {await c.ask() for _ in range(4)} == {"a"}
        assert c.healthy() == {"a"}
        assert c.plane.get_metrics().healthy_instances == 1
        await engine.start(engine.port)
        await until(lambda: c.healthy() == {"a", "b"}, "b is back")


async def test_requests_wait_while_no_instance_is_there() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        await c.ask()
        await engine.stop()
        name = await c.submit()
        await until(lambda: c.plane.get_metrics().queued_requests == 1)
        await engine.start(engine.port)
        assert (await c.plane.get_result(name, timeout=10)).instance_id == "a"


async def test_statuses_on_the_way() -> None:
    async with cluster() as c:
        engine = await c.add("a", max_concurrent_requests=1)
        running, waiting = await c.fill("a"), await c.submit()
        assert await c.plane.get_request_status(running) is RequestStatus.RUNNING
        assert await c.plane.get_request_status(waiting) is RequestStatus.QUEUED
        assert await c.plane.get_request_status("nobody") is None
        status, metrics = c.plane.get_status(), c.plane.get_metrics()
        assert (status["pending_requests"], status["running_requests"]) == (1, 1)
        assert (metrics.queued_requests, metrics.active_requests, metrics.total_requests) == (1, 1, 2)
        assert (c.active("a"), c.plane.get_instances()[0].free_slots) == (1, 0)
        engine.gate.set()
        await c.plane.get_result(waiting, timeout=10)
        assert len(engine.seen) == 2


async def test_cancelling_what_runs_tells_the_engine() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        name = await c.fill("a")
        assert await c.plane.cancel_request(name)
        assert await c.plane.get_request_status(name) is RequestStatus.CANCELLED
        await until(lambda: engine.abandoned == 1, "the engine is told")
        assert c.active("a") == 0
        with pytest.raises(RequestFailed, match="cancelled"):
            await c.plane.get_result(name)
        assert not await c.plane.cancel_request(name)
        assert not await c.plane.cancel_request("nobody")
        assert c.plane.get_metrics().cancelled_requests == 1


async def test_cancelling_what_waits() -> None:
    async with cluster() as c:
        engine = await c.add("a", max_concurrent_requests=1)
        running, waiting = await c.fill("a"), await c.submit()
        assert await c.plane.cancel_request(waiting)
        assert c.plane.get_metrics().queued_requests == 0
        engine.gate.set()
        await c.plane.get_result(running, timeout=10)
        assert len(engine.seen) == 1


async def test_waiting_for_a_result_ends_with_its_timeout_and_the_request_goes_on() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        name = await c.fill("a")
        with pytest.raises(TimeoutError):
            await c.plane.get_result(name, timeout=0.01)
        engine.gate.set()
        assert (await c.plane.get_result(name, timeout=10)).text == "an answer"


async def test_several_may_wait_for_a_result() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        name = await c.fill("a")
        asking = asyncio.gather(*(c.plane.get_result(name, timeout=10) for _ in range(3)))
        engine.gate.set()
        assert len({completion.latency_ms for completion in await asking}) == 1


async def test_a_deadline_ends_a_request() -> None:
    async with cluster() as c:
        await c.add("a")
        c.engines["a"].gate.clear()
        name = await c.submit(slo_deadline_ms=50)
        with pytest.raises(RequestFailed) as raised:
            await c.plane.get_result(name, timeout=10)
        assert (raised.value.reason, raised.value.status) == ("deadline_exceeded", 504)
        metrics = c.plane.get_metrics()
        assert (metrics.slo_violations, metrics.slo_compliance_rate) == (1, 0.0)


async def test_more_requests_than_may_wait_are_refused() -> None:
    async with cluster(queue_requests=1) as c:
        await c.add("a", max_concurrent_requests=1)
        await c.fill("a")
        await c.submit()
        with pytest.raises(RequestFailed) as raised:
            await c.plane.get_result(await c.submit(), timeout=10)
        assert raised.value.reason == "queue_full"


async def test_an_id_is_used_once_at_a_time() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        assert await c.ask("r") == "a"
        engine.gate.clear()
        await c.submit("r")
        assert await c.plane.get_request_status("r") is RequestStatus.RUNNING
        with pytest.raises(UsageError, match="not over"):
            await c.submit("r")
        assert c.plane.get_metrics().total_requests == 2


async def test_old_results_are_forgotten() -> None:
    async with cluster(max_results=2) as c:
        await c.add("a")
        for name in ("r-1", "r-2", "r-3"):
            await c.ask(name)
        assert await c.plane.get_request_status("r-1") is None
        with pytest.raises(UnknownRequest):
            await c.plane.get_result("r-1")
        assert (await c.plane.get_result("r-2")).text == "an answer"


async def test_stopping_lets_what_runs_finish_and_gives_up_what_waits() -> None:
    async with cluster() as c:
        engine = await c.add("a", max_concurrent_requests=1)
        running, waiting = await c.fill("a"), await c.submit()
        stopping = asyncio.create_task(c.plane.stop())
        with pytest.raises(RequestFailed, match="stopped") as raised:
            await c.plane.get_result(waiting, timeout=10)
        assert raised.value.reason == "stopped"
        engine.gate.set()
        await stopping
        assert (await c.plane.get_result(running)).text == "an answer"


async def test_stopping_breaks_off_what_does_not_finish() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        name = await c.fill("a")
        await c.plane.stop(drain_timeout_s=0)
        with pytest.raises(RequestFailed, match="stopped"):
            await c.plane.get_result(name)
        await until(lambda: engine.abandoned == 1, "the engine is told")


async def test_what_is_submitted_while_it_stops_waits_for_the_next_start() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        running = await c.fill("a")
        stopping = asyncio.create_task(c.plane.stop())
        await until(lambda: not c.plane.get_status()["running"])
        late = await c.submit()
        assert await c.plane.get_request_status(running) is RequestStatus.RUNNING
        assert await c.plane.get_request_status(late) is RequestStatus.PENDING
        await c.plane.stop()
        engine.gate.set()
        await stopping
        assert (await c.plane.get_result(running)).text == "an answer"
        await c.plane.start()
        assert (await c.plane.get_result(late, timeout=10)).text == "an answer"


async def test_a_stop_that_is_cancelled_still_stops() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        name = await c.fill("a")
        stopping = asyncio.create_task(c.plane.stop())
        await until(lambda: not c.plane.get_status()["running"])
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert await c.plane.get_request_status(name) is RequestStatus.FAILED
        await until(lambda: engine.abandoned == 1, "the engine is told")


async def test_an_exception_breaks_requests_off() -> None:
    async with cluster() as c:
        engine = await c.add("a")
        plane = ControlPlaneManager("fifo")
        plane.register_instance(c.plane.get_instances()[0])
        engine.gate.clear()
        with pytest.raises(KeyError):
            async with plane:
                name = await plane.submit_request(RequestMetadata(prompt="p"))
                await until(lambda: engine.seen)
                raise KeyError
        assert await plane.get_request_status(name) is RequestStatus.FAILED


async def test_a_deadline_runs_before_the_start() -> None:
    async with cluster() as c:
        await c.plane.stop()
        await c.add("a")
        name = await c.submit(slo_deadline_ms=1)
        await asyncio.sleep(0.002)
        await c.plane.start()
        with pytest.raises(RequestFailed, match="deadline"):
            await c.plane.get_result(name, timeout=10)


async def test_what_cannot_be_json_is_refused_at_once() -> None:
    async with cluster() as c:
        with pytest.raises(TypeError):
            await c.plane.submit_request(RequestMetadata(prompt="p", extra={"x": object()}))
        assert c.plane.get_metrics().total_requests == 0


async def test_figures_of_completed_requests() -> None:
    async with cluster() as c:
        await c.add("a", tensor_parallel_size=4)
        await c.ask(slo_deadline_ms=60_000)
        metrics = c.plane.get_metrics()
        assert (metrics.completed_requests, metrics.slo_requests, metrics.slo_violations) == (1, 1, 0)
        assert metrics.avg_latency_ms == metrics.p99_latency_ms > 0
        assert metrics.tokens_per_second == 2 * metrics.requests_per_second > 0
        assert (metrics.total_instances, metrics.total_gpus) == (1, 4)


async def test_policies_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="load_balanced"):
        ControlPlaneManager("fifo", routing_strategy="load_balenced")
