"""Every row of the table of errors."""

import asyncio
import json
import os
import resource
from pathlib import Path

import pytest

from supervisord_cp.core.routing.rejection import RejectReason
from supervisord_cp.model.instance import InstanceState
from tests.router.kit import Answer, Rig, breaks, deployment, instance, raw, rig, says, waits
from tests.waiting import until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat"}
NOWHERE = "http://127.0.0.1:9"


def check(answer: Answer, status: int, reason: RejectReason, *, retry_after: bool = False) -> None:
    """The promised shape."""
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == reason
    assert error["message"]
    assert ("retry-after" in answer.headers) is retry_after
    if retry_after:
        assert int(answer.headers["retry-after"]) >= 1


async def test_invalid_json(router: Rig) -> None:
    router.serve(instance(NOWHERE))
    for body in (b"{", b"[1]", b'"text"', b'{"model": }', b"\xff\xfe", b"[" * 100_000):
        check(await router.ask(body), 400, RejectReason.INVALID_JSON)


async def test_model_missing(router: Rig) -> None:
    router.serve(instance(NOWHERE), instance(NOWHERE, deployment="other"))
    for body in ({"messages": []}, {"model": None}, {"model": 7}):
        answer = await router.ask(body)
        check(answer, 400, RejectReason.MODEL_MISSING)
        assert json.loads(answer.body)["error"]["param"] == "model"


@pytest.mark.parametrize(
    "header",
    [
        "x-deadline-ms: soon",
        "x-deadline-ms: -1",
        "x-priority: urgent",
        "x-cost-budget: nan",
        "x-cost-budget: -1",
    ],
)
async def test_bad_request(router: Rig, header: str) -> None:
    router.serve(instance(NOWHERE))
    check(await router.ask(CHAT, headers=f"{header}\r\n"), 400, RejectReason.BAD_REQUEST)


async def test_bad_api_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# people\n\nalice: sk-alice\n")
    async with rig(keys=keys) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        for header in (
            "",
            "authorization: Bearer nope\r\n",
            "authorization: Basic sk-alice\r\n",
            "x-api-key: x\r\n",
        ):
            answer = await router.ask(CHAT, headers=header)
            assert (answer.status, answer.reason) == (401, "bad_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-request-id"]
        assert engine.asked == []


async def test_a_key_that_is_taken_away_is_refused_on_connections_that_used_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: sk-alice\n")
    async with rig(keys=keys) as router:
        router.serve(instance(await router.engine()))
        client = await router.client()
        for line, status in (("alice: sk-alice\n", 200), ("bob: sk-bob-is-new\n", 401)):
            keys.write_text(line)
            router.dispatcher.refresh_keys()
            client.post(CHAT, headers="authorization: Bearer sk-alice\r\n")
            assert (await client.answer()).status == status


async def test_a_path_that_is_closed_is_denied_on_connections_that_used_it(router: Rig) -> None:
    engine = await router.engine()
    client = await router.client()
    for allowed, status in (("/pause",), 200), ((), 403):
        router.serve(instance(engine), deployments=(deployment(allow_paths=allowed),))
        client.post(CHAT, path="/pause")
        assert (await client.answer()).status == status


async def test_engine_route_denied(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    answer = await router.ask(b"", path="/sleep?level=1")
    assert (answer.status, answer.reason) == (403, "engine_route_denied")
    assert engine.asked == []


async def test_model_unknown(router: Rig) -> None:
    router.serve(instance(NOWHERE))
    answer = await router.ask({"model": "other"})
    check(answer, 404, RejectReason.MODEL_UNKNOWN)
    assert json.loads(answer.body)["error"]["param"] == "model"


async def test_queue_full() -> None:
    gate = asyncio.Event()
    async with rig(queue_requests=1) as router:
        engine = await router.engine(waits(gate, says({})))
        router.serve(instance(engine, max_concurrency=1))
        running, waiting = await router.client(), await router.client()
        running.post(CHAT)
        await until(lambda: engine.asked)
        waiting.post(CHAT)
        await until(lambda: len(router.lane().line) == 1)
        check(await router.ask(CHAT), 429, RejectReason.QUEUE_FULL, retry_after=True)
        gate.set()
        assert [(await c.answer()).status for c in (running, waiting)] == [200, 200]


async def test_rate_limited() -> None:
    async with rig(rate_limit_rps=2.0) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        answers = [await router.ask(CHAT) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].reason == "rate_limited"
        assert int(answers[2].headers["retry-after"]) >= 1


async def test_deadline_hopeless(router: Rig) -> None:
    asleep = deployment("chat", wanted=1, start_estimate_s=60.0)
    router.serve(instance(NOWHERE, state=InstanceState.STARTING), deployments=(asleep,))
    answer = await router.ask(CHAT, headers="x-deadline-ms: 5000\r\n")
    check(answer, 429, RejectReason.DEADLINE_HOPELESS, retry_after=True)


async def test_upstream_lost(router: Rig) -> None:
    first, second = await router.engine(breaks()), await router.engine(breaks())
    router.serve(instance(first), instance(second, 1))
    check(await router.ask(CHAT), 502, RejectReason.UPSTREAM_LOST)
    assert len(first.asked) + len(second.asked) == 2  # tried again once, then given up


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 100_000,
    ],
)
async def test_upstream_invalid(router: Rig, nonsense: bytes) -> None:
    engine = await router.engine(raw(nonsense, keep=True))
    router.serve(instance(engine))
    check(await router.ask(CHAT), 502, RejectReason.UPSTREAM_INVALID)


async def test_no_capacity_before_any_snapshot(router: Rig) -> None:
    check(await router.ask(CHAT), 503, RejectReason.NO_CAPACITY, retry_after=True)


async def test_no_capacity_when_this_host_is_exhausted(router: Rig) -> None:
    """No file is left for another connection: that is not the engine's fault."""
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n")
    await client.answer()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limits[1]))
    try:
        client.post(CHAT)
        answer = await client.answer()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    check(answer, 503, RejectReason.NO_CAPACITY, retry_after=True)
    assert router.ejected_log == []
    client.post(CHAT)
    assert (await client.answer()).status == 200


async def test_no_capacity_when_nothing_will_come(router: Rig) -> None:
    router.serve(deployments=(deployment("chat", wanted=0, wakes=False),))
    check(await router.ask(CHAT), 503, RejectReason.NO_CAPACITY, retry_after=True)


async def test_no_capacity_when_nothing_came() -> None:
    async with rig(hold_timeout_s=0.1) as router:
        router.serve(deployments=(deployment("chat", wanted=0),))
        check(await router.ask(CHAT), 503, RejectReason.NO_CAPACITY, retry_after=True)


async def test_waking() -> None:
    async with rig(hold_timeout_s=0.1) as router:
        starting = instance(NOWHERE, state=InstanceState.STARTING)
        router.serve(starting, deployments=(deployment("chat", wanted=1, start_estimate_s=30.0),))
        answer = await router.ask(CHAT)
        check(answer, 503, RejectReason.WAKING, retry_after=True)
        assert answer.headers["retry-after"] == "30"


async def test_draining() -> None:
    async with rig(hold_timeout_s=0.1) as router:
        router.serve(instance(NOWHERE, draining=True), deployments=(deployment("chat", wanted=0),))
        check(await router.ask(CHAT), 503, RejectReason.DRAINING, retry_after=True)


async def test_nobody_waits_while_the_last_instance_drains_for_good(router: Rig) -> None:
    held = deployment("chat", wanted=0, wakes=False)
    router.serve(instance(NOWHERE, draining=True), deployments=(held,))
    check(await router.ask(CHAT), 503, RejectReason.DRAINING, retry_after=True)


async def test_what_waits_is_turned_away_when_an_operator_stops_the_deployment(router: Rig) -> None:
    router.serve(deployments=(deployment("chat", wanted=1),))
    client = await router.client()
    client.post(CHAT)
    await until(lambda: len(router.lane().line) == 1)
    router.serve(deployments=(deployment("chat", wanted=0, wakes=False),))
    check(await client.answer(), 503, RejectReason.NO_CAPACITY, retry_after=True)


async def test_deadline_exceeded(router: Rig) -> None:
    engine = await router.engine(waits(asyncio.Event(), says({})))
    router.serve(instance(engine))
    check(await router.ask(CHAT, headers="x-deadline-ms: 100\r\n"), 504, RejectReason.DEADLINE_EXCEEDED)
    await until(lambda: not engine.open, "the engine is told to stop")


async def test_queue_timeout() -> None:
    gate = asyncio.Event()
    async with rig(queue_timeout_s=0.1) as router:
        engine = await router.engine(waits(gate, says({})))
        router.serve(instance(engine, max_concurrency=1))
        running = await router.client()
        running.post(CHAT)
        await until(lambda: engine.asked)
        check(await router.ask(CHAT), 504, RejectReason.QUEUE_TIMEOUT)
        gate.set()
        assert (await running.answer()).status == 200


async def test_every_reason_has_a_status() -> None:
    """`request_timeout`, `body_too_large` and `headers_too_large` are shown in test_connection."""
    from supervisord_cp.core.routing.rejection import status_of

    assert all(400 <= status_of(reason) < 600 for reason in RejectReason)


async def test_a_head_request_gets_errors_without_a_body(router: Rig) -> None:
    router.serve(instance(NOWHERE), instance(NOWHERE, deployment="other"))
    client = await router.client()
    for _ in range(2):
        client.send(b"HEAD /v1/x HTTP/1.1\r\nhost: t\r\n\r\n")
        answer = await client.answer(method="HEAD")
        assert (answer.status, answer.reason) == (400, "model_missing")


async def test_a_refusal_before_the_body_keeps_the_connection_when_the_body_is_there(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: sk-alice\n")
    async with rig(keys=keys) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        client = await router.client()
        client.post(CHAT)
        assert (await client.answer()).status == 401
        client.post(CHAT, headers="authorization: Bearer sk-alice\r\n")
        assert (await client.answer()).status == 200


async def test_a_refusal_before_the_body_has_the_id_of_the_request(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one: secret\n")
    async with rig(keys=keys) as router:
        client = await router.client()
        client.send(
            b"POST /v1/messages HTTP/1.1\r\nhost: t\r\nx-request-id: mine\r\ncontent-length: 9\r\n\r\n"
        )
        answer = await client.answer()
        assert (answer.status, answer.headers["x-request-id"]) == (401, "mine")
        assert answer.headers["request-id"] == "mine"
        assert answer.json()["type"] == "error"  # type: ignore[index]
