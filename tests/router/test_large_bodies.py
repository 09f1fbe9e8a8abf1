"""Large bodies: held once, and never copied as a whole."""

import asyncio
import tracemalloc
from typing import Any, cast

import pytest

from supervisord_cp.core.routing.prefix_keys import BLOCK_BYTES, MOST_BLOCKS, prefix_keys
from supervisord_cp.core.routing.rejection import Rejection
from supervisord_cp.router.connection import ClientConnection
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.http1.head import RequestHead, parse_request
from supervisord_cp.router.http1.recurring import RecurringHeads
from supervisord_cp.router.limits import Limits
from tests.router.kit import Rig, instance

PIECE = 64 * 1024
SIZE = 16 * 1024 * 1024


class Kept:
    """A core that keeps the exchanges."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def admit(self, head: RequestHead, peer: str) -> str:
        return ""

    def serve(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def refuse(self, exchange: Exchange, rejection: Rejection) -> None:
        raise AssertionError(rejection)


class Silent:
    """A transport on which nothing happens."""

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        pass


def connected(core: Kept) -> ClientConnection:
    limits = Limits(max_body=2 * SIZE, header_timeout_s=10, idle_timeout_s=10, max_connections=10)
    connection = ClientConnection(core, limits, RecurringHeads(parse_request), set(), lambda: 0.0)
    connection.connection_made(cast("Any", Silent()))
    return connection


def pieces(chunked: bool) -> list[bytes]:
    if not chunked:
        return [b"x" * PIECE] * (SIZE // PIECE)
    return [b"%x\r\n%b\r\n" % (PIECE, b"x" * PIECE)] * (SIZE // PIECE) + [b"0\r\n\r\n"]


@pytest.mark.parametrize("framing", [b"content-length: %d" % SIZE, b"transfer-encoding: chunked"])
def test_a_body_that_comes_in_pieces_is_in_memory_once(framing: bytes) -> None:
    core = Kept()
    connection = connected(core)
    data = pieces(framing.startswith(b"transfer"))
    tracemalloc.start()
    try:
        connection.data_received(b"POST /v1/x HTTP/1.1\r\nhost: t\r\n" + framing + b"\r\n\r\n")
        for piece in data:
            connection.data_received(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert core.exchanges[0].body == b"x" * SIZE
    assert most < 1.3 * SIZE


@pytest.mark.asyncio
async def test_a_body_in_pieces_arrives_as_it_is(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    body = b'{"model": "chat", "prompt": "%b"}' % (b"0123456789" * 30_000)
    client.send(b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), PIECE):
        client.send(body[at : at + PIECE])
        await asyncio.sleep(0)
    assert (await client.answer()).status == 200
    assert engine.asked[0].body == body


def test_the_keys_of_a_huge_prompt_cost_no_copy_of_it() -> None:
    body = b'{"model": "m", "prompt": "%b"}' % (b"x" * SIZE)
    tracemalloc.start()
    try:
        keys = prefix_keys(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(keys) == MOST_BLOCKS
    assert most < 4 * MOST_BLOCKS * BLOCK_BYTES
