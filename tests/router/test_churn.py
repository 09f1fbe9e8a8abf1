"""Streams while instances are drained, replaced and killed."""

import asyncio
import gc

import pytest

from supervisord_cp.core.routing.leases import Lease
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.router.flow import Flow
from tests.router.kit import Client, Rig, instance, streams
from tests.waiting import until

pytestmark = pytest.mark.asyncio
STREAMS = 30


async def whole(client: Client) -> bool:
    data = b""
    try:
        while piece := await client.chunk():
            data += piece
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    return data.endswith(b"data: [DONE]\n\n")


def left() -> int:
    """Requests and leases that are still in memory."""
    gc.collect()
    return sum(isinstance(one, Flow | Lease) for one in gc.get_objects())


async def test_only_the_streams_of_a_killed_instance_are_cut_and_nothing_is_left(router: Rig) -> None:
    gate = asyncio.Event()
    engines = [await router.engine(streams("a", "b", gate=gate)) for _ in range(3)]
    router.serve(*(instance(engine, n) for n, engine in enumerate(engines)))
    before = left()
    clients = [await router.client() for _ in range(STREAMS)]
    by_instance: dict[str, list[Client]] = {}
    for client in clients:
        client.post({"model": "chat"})
        _, headers = await client.head()
        assert await client.chunk()
        by_instance.setdefault(headers["x-supervisord-cp-instance"], []).append(client)
    assert set(by_instance) == {"chat-0", "chat-1", "chat-2"}

    drained = instance(engines[0], 0, draining=True)
    replaced = instance(engines[1], 1, draining=True)
    router.serve(drained, replaced, instance(engines[2], 2))
    await engines[2].stop()
    for client in by_instance["chat-2"]:
        assert not await whole(client)
    successor = await router.engine()
    router.serve(drained, replaced, instance(successor, 2, life="b"))
    assert (await router.ask({"model": "chat"})).headers["x-supervisord-cp-instance"] == "chat-2"
    assert router.released_log == []

    gate.set()
    for name in ("chat-0", "chat-1"):
        assert all([await whole(client) for client in by_instance[name]])
    await until(lambda: set(router.released_log) == {"chat-0.a", "chat-1.a"}, "both are free to end")
    stopped = instance(engines[0], 0, state=InstanceState.STOPPED)
    router.serve(stopped, instance(engines[1], 1, life="b"), instance(successor, 2, life="b"))
    assert router.inflight == 0
    for client in clients:
        await client.close()
    clients.clear()
    by_instance.clear()
    await until(lambda: left() <= before, "nothing is left of them")
