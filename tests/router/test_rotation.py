"""Instances that answer badly go out of rotation, and real requests bring them back."""

import asyncio

import pytest

from supervisord_cp.core.routing.outliers import LEAST_SAMPLES
from tests.router.kit import (
    DONE,
    SSE_HEAD,
    Asked,
    Behaviour,
    Rig,
    breaks,
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

CHAT = {"model": "chat", "messages": []}
STREAM = CHAT | {"stream": True}
HALF = breaks(SSE_HEAD + event("half"))


async def cut(router: Rig) -> str:
    """One request whose stream may be cut; who answered."""
    client = await router.client()
    client.post(STREAM)
    _, headers = await client.head()
    try:
        while await client.chunk():
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    await client.close()
    return headers["x-supervisord-cp-instance"]


async def test_streams_that_break_in_a_row_put_an_instance_out() -> None:
    async with rig(eject_failures=3, eject_s=600.0) as router:
        bad, good = await router.engine(HALF), await router.engine(streams("a", "b"))
        router.serve(instance(bad), instance(good, 1))
        while len(bad.asked) < 3:
            assert router.ejected_log == []
            await cut(router)
        await until(lambda: router.ejected_log == ["chat-0.a"])
        assert [await cut(router) for _ in range(5)] == ["chat-1"] * 5
        metrics = router.dispatcher.metrics.render(router.dispatcher.fleet)
        assert 'supervisord_cp_ejections_total{deployment="chat",cause="failures"} 1' in metrics
        assert (
            'supervisord_cp_instance_ejected{deployment="chat",instance_id="chat-0",cause="failures"} 1'
            in metrics
        )


@pytest.mark.parametrize(
    "failure",
    [
        says({"error": "x"}, status=500),
        raw(SSE_HEAD + b'14\r\ndata: {"error": 1}\n\n\r\n' + DONE, keep=True),
    ],
)
async def test_errors_in_a_row_count_as_well(failure: Behaviour) -> None:
    async with rig(eject_failures=3, eject_s=600.0) as router:
        bad, good = await router.engine(failure), await router.engine(streams("a"))
        router.serve(instance(bad), instance(good, 1))
        while len(bad.asked) < 3:
            await router.ask(STREAM)
        await until(lambda: router.ejected_log == ["chat-0.a"])


async def test_a_good_answer_in_between_begins_the_count_anew() -> None:
    async with rig(eject_failures=2) as router:
        engine = await router.engine(*[HALF, streams("a")] * 4, streams("a"))
        router.serve(instance(engine), instance(await router.engine(streams("b")), 1))
        while len(engine.asked) < 8:
            await cut(router)
        assert router.ejected_log == []


async def test_what_a_client_does_is_no_failure_of_the_engine() -> None:
    async with rig(eject_failures=1) as router:
        gate = asyncio.Event()
        engine = await router.engine(streams("a", "b", gate=gate))
        router.serve(instance(engine), instance(engine, 1))
        for number in range(4):
            client = await router.client()
            client.post(STREAM, headers="x-deadline-ms: 100\r\n" if number % 2 else "")
            await client.head()
            if number % 2:
                await until(lambda: not router.inflight, "the deadline")
            client.abort()
            await until(lambda: not router.inflight)
        assert router.ejected_log == []


async def test_never_more_than_half_of_a_deployment() -> None:
    async with rig(eject_failures=1, eject_s=600.0) as router:
        bad = [await router.engine(HALF) for _ in range(4)]
        router.serve(*(instance(engine, number) for number, engine in enumerate(bad)))
        for _ in range(20):
            await cut(router)
        assert len(router.ejected_log) == 2
        assert all(engine.asked for engine in bad)


async def test_a_broken_stream_has_the_engine_asked_whether_it_lives() -> None:
    async with rig(eject_failures=0) as router:
        bad, good = await router.engine(HALF), await router.engine(streams("a"))
        bad.health = 503
        router.serve(instance(bad), instance(good, 1))
        while not bad.asked:
            await cut(router)
        await until(lambda: router.ejected_log == ["chat-0.a"])


async def test_one_request_at_a_time_brings_an_instance_back() -> None:
    async with rig(eject_failures=1, eject_s=0.1) as router:
        gate = asyncio.Event()
        bad = await router.engine(HALF, waits(gate, streams("a")), streams("a"))
        good = await router.engine(streams("b"))
        router.serve(instance(bad), instance(good, 1))
        while not bad.asked:
            await cut(router)
        await until(lambda: router.ejected_log == ["chat-0.a"])
        ejections = router.dispatcher.fleet.ejections
        await until(lambda: all(out.on_trial for out in ejections.all()), "it is tried")
        clients = [await router.client() for _ in range(5)]
        for client in clients:
            client.post(STREAM)
        await until(lambda: len(bad.asked) == 2)
        await until(lambda: router.inflight == 1)
        assert len(good.asked) >= 4
        assert len(bad.asked) == 2
        gate.set()
        await until(lambda: not router.inflight)
        for _ in range(2):
            assert router.restored_log == []
            assert await cut(router) == "chat-0"
        await until(lambda: router.restored_log == ["chat-0.a"])
        assert len(ejections) == 0


async def test_a_trial_that_fails_sends_it_out_for_longer() -> None:
    async with rig(eject_failures=1, eject_s=0.1) as router:
        bad, good = await router.engine(HALF), await router.engine(streams("b"))
        router.serve(instance(bad), instance(good, 1))
        ejections = router.dispatcher.fleet.ejections
        for times in (1, 2, 3):
            while len(bad.asked) < times:
                await cut(router)
            await until(lambda times=times: len(router.ejected_log) == times)
            (out,) = ejections.all()
            assert (out.times, out.on_trial) == (times, False)
            await until(lambda: ejections.all()[0].on_trial)


async def test_a_request_that_was_lost_once_is_no_trial() -> None:
    async with rig(eject_failures=1, eject_s=0.1) as router:
        bad, good = await router.engine(HALF, breaks()), await router.engine(streams("b"))
        third = await router.engine(streams("b"))
        router.serve(instance(bad), instance(good, 1), instance(third, 2))
        while not bad.asked:
            await cut(router)
        await until(lambda: all(out.on_trial for out in router.dispatcher.fleet.ejections.all()))
        good.script = [breaks()]
        answers = [await cut(router) for _ in range(3)]
        assert set(answers) <= {"chat-1", "chat-2"}


def paced(first_s: float) -> Behaviour:
    """A stream whose first token takes so long."""

    async def behave(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(first_s)
        writer.write(SSE_HEAD + event("a") + DONE)
        await writer.drain()
        return True

    return behave


async def test_an_instance_that_is_far_slower_than_its_peers_goes_out_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisord_cp.router.judge.LOOK_EVERY_S", 0.05)
    async with rig(eject_s=0.1) as router:
        slow, *others = [await router.engine(paced(0.0)) for _ in range(3)]
        slow.script = [paced(0.4)]
        router.serve(*(instance(engine, number) for number, engine in enumerate((slow, *others))))

        async def ask_for_ever() -> None:
            while not done.is_set():
                await cut(router)

        done = asyncio.Event()
        tasks = [asyncio.create_task(ask_for_ever()) for _ in range(24)]
        await until(lambda: len(slow.asked) >= LEAST_SAMPLES)
        await until(lambda: router.ejected_log == ["chat-0.a"])
        (out,) = router.dispatcher.fleet.ejections.all()
        assert (out.cause, "first tokens took more than 0.4" in out.why) == ("latency", True)
        await until(lambda: len(router.ejected_log) >= 2, "it was as slow when it was tried")
        slow.script = [paced(0.0)]
        await until(lambda: router.restored_log == ["chat-0.a"])
        done.set()
        await asyncio.gather(*tasks)


async def test_a_new_instance_gets_little_at_first() -> None:
    async with rig(warmup_s=600.0) as router:
        gate = asyncio.Event()
        old, new = await router.engine(waits(gate, says({}))), await router.engine(waits(gate, says({})))
        router.serve(instance(old))
        router.serve(instance(old), instance(new, 1))
        clients = [await router.client() for _ in range(30)]
        for client in clients:
            client.post(CHAT)
        await until(lambda: len(old.asked) + len(new.asked) == 30)
        assert len(new.asked) == 2
        gate.set()
        for client in clients:
            assert (await client.answer()).status == 200
