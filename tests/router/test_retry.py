"""Instances that do not answer: another one does, before the first byte; nothing is sent twice after it."""

import asyncio

import pytest

from supervisord_cp.model.instance import InstanceState
from tests.router.kit import (
    DONE,
    SSE_HEAD,
    Engine,
    Rig,
    breaks,
    deployment,
    event,
    instance,
    raw,
    rig,
    says,
    streams,
    waits,
)
from tests.waiting import until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat"}


async def closed_port() -> str:
    """An address where nobody listens."""
    engine = Engine()
    await engine.start()
    url = engine.url
    await engine.stop()
    return url


async def test_an_instance_that_refuses_connections_is_out_at_once(router: Rig) -> None:
    good = await router.engine()
    router.serve(instance(await closed_port()), instance(good, 1))
    for _ in range(10):
        assert (await router.ask(CHAT)).status == 200
    assert router.ejected_log == ["chat-0.a"]
    assert len(good.asked) == 10


async def test_a_connection_lost_before_the_answer_moves_the_request(router: Rig) -> None:
    bad, good = await router.engine(breaks()), await router.engine()
    router.serve(instance(bad), instance(good, 1))
    for _ in range(10):
        answer = await router.ask(CHAT)
        assert (answer.status, answer.headers["x-supervisord-cp-instance"]) == (200, "chat-1")


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n",
        SSE_HEAD,
    ],
)
async def test_nothing_is_lost_as_long_as_no_content_has_come(router: Rig, begun: bytes) -> None:
    bad, good = await router.engine(breaks(begun)), await router.engine(says({"from": "good"}))
    router.serve(instance(bad), instance(good, 1))
    for _ in range(4):
        answer = await router.ask(CHAT)
        assert (answer.status, answer.json()) == (200, {"from": "good"})


async def test_all_that_wait_on_a_dying_engine_move(router: Rig) -> None:
    dying = await router.engine(waits(asyncio.Event(), says({})))
    router.serve(instance(dying))
    clients = [await router.client() for _ in range(100)]
    for client in clients:
        client.post(CHAT)
    await until(lambda: len(dying.asked) == 100)
    good = await router.engine()
    router.serve(instance(dying), instance(good, 1))
    await dying.stop()
    assert {(await client.answer()).status for client in clients} == {200}
    assert len(good.asked) == 100


async def test_a_stream_that_is_cut_is_not_ended_properly(router: Rig) -> None:
    bad = await router.engine(breaks(SSE_HEAD + event("one")))
    other = await router.engine()
    router.serve(instance(bad))
    client = await router.client()
    client.post(CHAT)
    await client.head()
    router.serve(instance(bad), instance(other, 1))
    assert b"one" in await client.chunk()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.chunk()
    assert other.asked == []
    await until(lambda: not router.inflight)


async def test_a_cut_answer_of_known_length_is_cut_for_the_client(router: Rig) -> None:
    bad = await router.engine(breaks(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf", reset=False))
    router.serve(instance(bad))
    client = await router.client()
    client.post(CHAT)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.answer()


async def test_a_kept_connection_that_was_closed_is_no_illness(router: Rig) -> None:
    engine = await router.engine(says({}))
    router.serve(instance(engine))
    assert (await router.ask(CHAT)).status == 200

    async def closes_unread(*_: object) -> bool:
        return False

    for _ in range(5):  # the engine closes the idle connection just as the next request is on its way
        engine.script = [closes_unread, says({"again": True})]
        answer = await router.ask(CHAT)
        assert (answer.status, answer.json()) == (200, {"again": True})
    assert router.ejected_log == []


async def test_a_full_engine_is_not_ill_and_another_one_answers(router: Rig) -> None:
    full, good = await router.engine(says({"full": 1}, status=503)), await router.engine()
    router.serve(instance(full), instance(good, 1))
    for _ in range(10):
        assert (await router.ask(CHAT)).status == 200
    assert router.ejected_log == []
    assert len(full.asked) <= 2


async def test_full_everywhere_waits_for_room(router: Rig) -> None:
    gate = asyncio.Event()
    engine = await router.engine(waits(gate, says({"n": 1})), says({}, status=503), says({"n": 2}))
    router.serve(instance(engine))
    first, second = await router.client(), await router.client()
    first.post(CHAT)
    await until(lambda: len(engine.asked) == 1)
    second.post(CHAT)
    await until(lambda: len(engine.asked) == 2)
    await until(lambda: len(router.lane().line) == 1)
    gate.set()
    assert (await first.answer()).json() == {"n": 1}
    assert (await second.answer()).json() == {"n": 2}


async def test_an_engine_that_always_says_503_is_passed_on_in_the_end(
    router: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisord_cp.core.routing.pressure.GROWTH_S", 0.01)
    engine = await router.engine(says({"detail": "never"}, status=503))
    router.serve(instance(engine))
    answer = await router.ask(CHAT)
    assert (answer.status, answer.json(), answer.reason) == (503, {"detail": "never"}, "")
    assert len(engine.asked) == 8


async def test_an_ejected_instance_comes_back_when_it_answers(router: Rig) -> None:
    engine = await router.engine()
    port = engine.port
    router.serve(instance(engine))
    await engine.stop()
    client = await router.client()
    client.post(CHAT)  # held: it is the only one, and it is gone
    await until(lambda: router.ejected_log)
    await engine.start(port)
    assert (await client.answer()).status == 200
    assert not router.dispatcher.fleet.ejections.incarnations


async def test_a_new_incarnation_is_another_thing(router: Rig) -> None:
    router.serve(instance(await closed_port()))
    client = await router.client()
    client.post(CHAT)
    await until(lambda: router.ejected_log)
    engine = await router.engine()
    router.serve(instance(engine, life="b"))
    assert (await client.answer()).status == 200
    assert router.dispatcher.fleet.ejections.incarnations == ()


ERROR_EVENT = b'data: {"error": {"message": "EngineCore died"}}\n\n'
LAST_WORDS = {
    "500": says({"error": "EngineDeadError"}, status=500),
    "an error event": raw(SSE_HEAD + b"%x\r\n%b\r\n" % (len(ERROR_EVENT), ERROR_EVENT) + DONE, keep=True),
}


@pytest.mark.parametrize("last_words", LAST_WORDS)
async def test_the_last_words_of_a_dying_engine_are_not_the_answer(router: Rig, last_words: str) -> None:
    dying, good = await router.engine(LAST_WORDS[last_words]), await router.engine(says({"from": "good"}))
    dying.health = 503
    router.serve(instance(dying), instance(good, 1))
    clients = [await router.client() for _ in range(20)]
    for client in clients:
        client.post(CHAT)
    assert [(await client.answer()).json() for client in clients] == [{"from": "good"}] * 20
    assert router.ejected_log == ["chat-0.a"]
    assert 0 < len(dying.asked) <= 10


@pytest.mark.parametrize("last_words", LAST_WORDS)
async def test_an_error_of_a_healthy_engine_is_the_answer(router: Rig, last_words: str) -> None:
    engine = await router.engine(LAST_WORDS[last_words])
    router.serve(instance(engine))
    client = await router.client()
    for number in range(3):
        client.post(CHAT)
        answer = await client.answer()
        assert answer.status == (500 if last_words == "500" else 200)
        assert answer.body in (b'{"error": "EngineDeadError"}', ERROR_EVENT + b"data: [DONE]\n\n")
        assert len(engine.asked) == number + 1
    assert router.ejected_log == []
    await until(lambda: router.lane().failed == 3)


async def test_a_large_error_is_passed_on_without_a_doubt(router: Rig) -> None:
    engine = await router.engine(says({"error": "x" * 200_000}, status=500))
    engine.health = 503
    router.serve(instance(engine))
    answer = await router.ask(CHAT)
    assert (answer.status, len(answer.body)) == (500, 200_013)


async def test_a_client_may_leave_while_its_answer_is_in_doubt(router: Rig) -> None:
    engine = await router.engine(says({}, status=500))
    router.serve(instance(engine))
    told: list[object] = []
    router.doubted = lambda account, tell: told.append(tell)  # type: ignore[method-assign]
    client = await router.client()
    client.post(CHAT)
    await until(lambda: told)
    client.abort()
    await until(lambda: not router.inflight)
    told[0]("")  # type: ignore[operator]
    client = await router.client()
    client.post(CHAT)
    await until(lambda: len(told) == 2)
    client.abort()
    await until(lambda: not router.inflight)
    told[1]("dead")  # type: ignore[operator]


async def test_draining_instances_get_nothing_new_and_finish_what_they_have(router: Rig) -> None:
    gate = asyncio.Event()
    old, new = await router.engine(streams("a", "b", gate=gate)), await router.engine()
    router.serve(instance(old))
    client = await router.client()
    client.post(CHAT)
    await client.head()
    router.serve(instance(old, draining=True), instance(new, 1))
    for _ in range(5):
        assert (await router.ask(CHAT)).headers["x-supervisord-cp-instance"] == "chat-1"
    assert router.released_log == []
    gate.set()
    while await client.chunk():
        pass
    await until(lambda: router.released_log == ["chat-0.a"])
    assert len(old.asked) == 1


async def test_an_instance_that_left_the_fleet_finishes_its_streams(router: Rig) -> None:
    gate = asyncio.Event()
    old, new = await router.engine(streams("a", "b", gate=gate)), await router.engine()
    router.serve(instance(old))
    client = await router.client()
    client.post(CHAT)
    await client.head()
    router.serve(instance(new, 1))
    assert router.inflight == 1
    assert [count.incarnation for count in router.dispatcher.fleet.leases()] == ["chat-0.a"]
    gate.set()
    while await client.chunk():
        pass
    await until(lambda: router.dispatcher.fleet.leases() == ())


async def test_a_bad_address_is_an_instance_that_cannot_be_reached(router: Rig) -> None:
    good = await router.engine()
    router.serve(instance("gopher://nowhere"), instance(good, 1))
    for _ in range(3):
        assert (await router.ask(CHAT)).status == 200


async def test_all_out_is_our_own_mistake_first() -> None:
    """With every instance ejected a new request tries all the same; what was refused waits."""
    async with rig(hold_timeout_s=0.3) as router:
        router.serve(
            instance(await closed_port()),
            deployments=(deployment("chat", wanted=1),),
        )
        answers = [await router.ask(CHAT) for _ in range(2)]
        assert {(answer.status, answer.reason) for answer in answers} == {(503, "waking")}


async def test_states_that_are_not_ready_get_nothing(router: Rig) -> None:
    good, bad = await router.engine(), await router.engine()
    states = [
        s
        for s in InstanceState
        if s not in (InstanceState.READY, InstanceState.UNLISTED, InstanceState.UNKNOWN)
    ]
    router.serve(instance(good), *(instance(bad, 1 + n, state=state) for n, state in enumerate(states)))
    for _ in range(20):
        assert (await router.ask(CHAT)).status == 200
    assert bad.asked == []
