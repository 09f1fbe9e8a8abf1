"""Asking Prometheus: answers, failures that say why, and a Prometheus that hangs."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from aiohttp import web

from supervisord_cp.adapters.prometheus import PrometheusClient
from supervisord_cp.central.queries import Queries, Result, named, total
from supervisord_cp.clock import ManualClock
from supervisord_cp.config.schema import PrometheusConfig
from supervisord_cp.model.signal import MISSING, NamedResult, SignalSource, SignalState
from supervisord_cp.ports.prometheus import PromFailed, PromSample


class Server:
    """Answers as Prometheus does, or badly."""

    def __init__(self) -> None:
        self.url = ""
        self.result: object = []
        self.status = 200
        self.hang: asyncio.Event | None = None
        self.asked: list[str] = []

    async def query(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.asked.append(str(form.get("query") or request.query["query"]))
        if self.hang is not None:
            await self.hang.wait()
        if self.status != 200:
            body = {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end"}
            return web.json_response(body, status=self.status)
        return web.json_response(
            {"status": "success", "data": {"resultType": "vector", "result": self.result}}
        )


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_post("/api/v1/query", made.query)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    if made.hang is not None:
        made.hang.set()
    await runner.cleanup()


@pytest.mark.asyncio
async def test_an_answer(server: Server) -> None:
    server.result = [
        {"metric": {"instance_id": "chat-0"}, "value": [1.0, "2.5"]},
        {"metric": {}, "value": [1.0, "NaN"]},
    ]
    client = PrometheusClient(server.url, 2.0)
    first, second = await client.query("up")
    client.close()
    assert first == PromSample(labels={"instance_id": "chat-0"}, value=2.5)
    assert math.isnan(second.value)
    assert server.asked == ["up"]


@pytest.mark.asyncio
async def test_a_bad_query_says_what_prometheus_says(server: Server) -> None:
    server.status = 400
    client = PrometheusClient(server.url, 2.0)
    with pytest.raises(PromFailed, match="parse error"):
        await client.query("sum(")
    client.close()


@pytest.mark.asyncio
async def test_nobody_there() -> None:
    client = PrometheusClient("http://127.0.0.1:9", 2.0)
    with pytest.raises(PromFailed):
        await client.query("up")
    client.close()


@pytest.mark.asyncio
async def test_one_that_hangs_is_given_up_and_not_asked_without_end(server: Server) -> None:
    server.hang = asyncio.Event()
    client = PrometheusClient(server.url, 0.2)
    answers = await asyncio.gather(*(client.query("up") for _ in range(5)), return_exceptions=True)
    client.close()
    assert all(isinstance(answer, PromFailed) for answer in answers)
    assert sum("earlier queries" in str(answer) for answer in answers) == 3


class Scripted:
    """A `PrometheusPort` that says what a test wants."""

    def __init__(self) -> None:
        self.answer: tuple[PromSample, ...] | PromFailed = ()

    async def query(self, expression: str) -> tuple[PromSample, ...]:
        if isinstance(self.answer, PromFailed):
            raise self.answer
        return self.answer

    def close(self) -> None:
        return None


@pytest.mark.asyncio
async def test_missing_nan_zero_and_stale_are_four_things() -> None:
    clock, port = ManualClock(), Scripted()
    config = PrometheusConfig(url="http://p", queries={"q": "x"})
    queries = Queries(lambda: config, lambda config: port, clock)

    async def ask(answer: tuple[PromSample, ...] | PromFailed) -> SignalState:
        port.answer = answer
        await queries.round()
        return total(queries.results["q"], clock.now()).state

    assert await ask(PromFailed("down")) is SignalState.MISSING
    assert await ask(()) is SignalState.MISSING
    assert await ask((PromSample(value=math.nan),)) is SignalState.NAN
    assert await ask((PromSample(value=0.0),)) is SignalState.VALUE
    assert await ask((PromSample(value=2.0), PromSample(value=3.0))) is SignalState.VALUE
    assert total(queries.results["q"], clock.now()).value == 5.0
    clock.advance(10)
    assert await ask(PromFailed("down")) is SignalState.VALUE
    clock.advance(10)
    assert await ask(PromFailed("down")) is SignalState.STALE
    assert queries.failures == 3


def test_a_series_with_an_instance_belongs_to_it() -> None:
    result = Result(samples=(PromSample(labels={"instance_id": "chat-0"}, value=4.0),), at=0.0)
    found = named(result, 1.0).instances
    assert (found["chat-0"].value, found["chat-0"].age_s) == (4.0, 1.0)
    assert "chat-1" not in found


def test_routers_are_told_the_sum_and_the_parts_of_instances() -> None:
    series = [({"instance_id": "chat-0"}, 4.0), ({"instance_id": "chat-0", "le": "1"}, 1.0), ({}, 2.0)]
    result = Result(samples=tuple(PromSample(labels=labels, value=value) for labels, value in series), at=0.0)
    told = named(result, 3.0)
    assert (told.total.value, told.total.age_s, told.total.source) == (7.0, 3.0, SignalSource.PROMETHEUS)
    assert {name: signal.value for name, signal in told.instances.items()} == {"chat-0": 5.0}
    assert named(Result(error="down"), 3.0).total.state is SignalState.MISSING


@pytest.mark.asyncio
async def test_a_reload_is_taken_up_by_the_next_round() -> None:
    configs = [PrometheusConfig(), PrometheusConfig(url="http://p", queries={"a": "x", "b": "y"})]
    ports: list[str] = []
    told: list[Mapping[str, NamedResult]] = []
    scripted = Scripted()
    scripted.answer = (PromSample(value=1.0),)

    def connect(config: PrometheusConfig) -> Scripted:
        ports.append(config.url)
        return scripted

    queries = Queries(lambda: configs[-1], connect, ManualClock(), tell=told.append)
    second = configs.pop()
    await queries.round()
    assert (ports, told) == ([], []), "there is nobody to ask"
    configs.append(second)
    await queries.round()
    assert {name: result.total.value for name, result in told[-1].items()} == {"a": 1.0, "b": 1.0}
    scripted.answer = PromFailed("down")
    configs.append(PrometheusConfig(url="http://p", queries={"a": "x", "b": "z"}))
    await queries.round()
    assert ports == ["http://p"]
    assert told[-1]["a"].total.value == 1.0
    assert told[-1]["b"].total.state is SignalState.MISSING, "another expression knows nothing yet"
    configs.append(PrometheusConfig(url="http://other", queries={"a": "x"}))
    await queries.round()
    assert ports == ["http://p", "http://other"]
    assert told[-1]["a"].total == MISSING.__class__(source=SignalSource.PROMETHEUS, detail="down")
    configs.append(PrometheusConfig())
    await queries.round()
    assert told[-1] == {}, "they are gone"
