"""The same core without a socket in front of it."""

import asyncio

import pytest

from supervisord_cp.core.routing.rejection import Rejected
from supervisord_cp.router.exchange import MemoryExchange, request_head
from tests.router.kit import Rig, breaks, event, instance, says, streams, waits
from tests.waiting import until

pytestmark = pytest.mark.asyncio

HEAD = request_head("POST", "/v1/chat/completions", {"content-type": "application/json"})
BODY = b'{"model": "chat"}'


async def test_a_whole_answer(router: Rig) -> None:
    engine = await router.engine(says({"a": 1}))
    router.serve(instance(engine))
    exchange = MemoryExchange(HEAD, BODY)
    router.dispatcher.serve(exchange)
    await until(lambda: exchange.over)
    assert (exchange.status, bytes(exchange.answer), exchange.complete) == (200, b'{"a": 1}', True)
    assert exchange.headers["x-supervisord-cp-instance"] == "chat-0"


async def test_a_stream_without_its_framing(router: Rig) -> None:
    engine = await router.engine(streams("one", "two"))
    router.serve(instance(engine))
    pieces: list[bytes] = []
    ended: list[bool] = []
    exchange = MemoryExchange(HEAD, BODY, on_data=pieces.append, on_end=ended.append)
    router.dispatcher.serve(exchange)
    await until(lambda: ended)
    assert ended == [True]
    expected = [event(text).split(b"\r\n", 1)[1][:-2] for text in ("one", "two")]
    assert b"".join(pieces) == b"".join(expected) + b"data: [DONE]\n\n"


async def test_errors(router: Rig) -> None:
    exchange = MemoryExchange(HEAD, BODY)
    router.dispatcher.serve(exchange)
    assert (exchange.status, exchange.over) == (503, True)
    assert exchange.headers["x-supervisord-cp-reason"] == "no_capacity"


async def test_a_stream_that_breaks_is_not_complete(router: Rig) -> None:
    engine = await router.engine(breaks(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"))
    router.serve(instance(engine))
    exchange = MemoryExchange(HEAD, BODY)
    router.dispatcher.serve(exchange)
    await until(lambda: exchange.over)
    assert (exchange.status, exchange.complete) == (200, False)


async def test_cancelling(router: Rig) -> None:
    engine = await router.engine(waits(asyncio.Event(), says({})))
    router.serve(instance(engine))
    exchange = MemoryExchange(HEAD, BODY)
    router.dispatcher.serve(exchange)
    await until(lambda: engine.asked)
    exchange.cancel()
    await until(lambda: not engine.open)
    exchange.cancel()
    assert router.inflight == 0


async def test_a_head_that_is_not_http_cannot_be_made() -> None:
    with pytest.raises(Rejected):
        request_head("GET", "/", {"x-evil": "a\r\ntransfer-encoding: chunked"})
    with pytest.raises(Rejected):
        request_head("GET", "/ HTTP/1.1\r\nx: y")
