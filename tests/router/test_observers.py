"""Log lines of requests: none by default, one each at level debug, all with the request's id."""

import asyncio
import logging

import pytest

from supervisord_cp.router.observers import RequestLog
from tests.router.kit import breaks, instance, rig, says, streams

pytestmark = pytest.mark.asyncio

ASK = {"model": "chat", "prompt": "x"}
MINE = "x-request-id: mine\r\n"


def fields(record: logging.LogRecord, *names: str) -> tuple[object, ...]:
    return tuple(vars(record).get(name) for name in names)


async def test_nothing_is_logged_for_requests_and_chunks(caplog: pytest.LogCaptureFixture) -> None:
    """Not at any level, unless somebody observes."""
    caplog.set_level(logging.DEBUG, logger="supervisord_cp")
    async with rig() as router:
        engine = await router.engine(streams("a", "b", "c"), says({"ok": 1}))
        router.serve(instance(engine))
        for _ in range(5):
            assert (await router.ask(ASK)).status == 200
        assert (await router.ask({**ASK, "model": "none"})).status == 404
    assert caplog.records == []


async def test_at_level_debug_each_request_has_one_line_however_many_chunks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="supervisord_cp")
    async with rig(observers=[RequestLog()]) as router:
        usage = '{"prompt_tokens": 7, "completion_tokens": 9}'
        engine = await router.engine(streams(*"abcdefgh", usage=usage))
        router.serve(instance(engine))
        await router.ask({**ASK, "stream": True}, headers=MINE)
        assert engine.asked[0].headers["x-request-id"] == "mine"
    (line,) = caplog.records
    assert line.getMessage() == "answered"
    assert fields(line, "request_id", "deployment", "instance", "status") == ("mine", "chat", "chat-0", 200)
    assert fields(line, "prompt_tokens", "completion_tokens") == (7, 9)


async def test_what_was_tried_elsewhere_and_what_was_refused_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="supervisord_cp")
    async with rig(observers=[RequestLog()]) as router:
        bad, good = await router.engine(breaks()), await router.engine(says({"ok": 1}))
        router.serve(instance(bad, 0), instance(good, 1))
        while not bad.asked:
            assert (await router.ask(ASK, headers=MINE)).status == 200
        assert (await router.ask({"model": "none"}, headers=MINE)).status == 404
    missed = next(one for one in caplog.records if one.getMessage().startswith("missed"))
    assert fields(missed, "request_id", "instance", "miss") == ("mine", "chat-0", "lost")
    refused = caplog.records[-1]
    assert fields(refused, "request_id", "status", "reason") == ("mine", 404, "model_unknown")
    assert {one.__dict__.get("request_id") for one in caplog.records} == {"mine"}


async def test_the_watcher_learns_which_request_showed_that_an_instance_is_gone() -> None:
    async with rig() as router:
        bad, good = await router.engine(breaks()), await router.engine(says({"ok": 1}))
        router.serve(instance(bad, 0), instance(good, 1))
        while not bad.asked:
            await router.ask(ASK, headers=MINE)
        assert router.ejected_by == ["mine"]


async def test_a_client_that_leaves_is_one_line_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="supervisord_cp")
    async with rig(observers=[RequestLog()]) as router:
        engine = await router.engine(streams("a", "b", gate=asyncio.Event()))
        router.serve(instance(engine))
        client = await router.client()
        client.post({**ASK, "stream": True})
        await client.head()
        client.abort()
    assert [fields(one, "status") for one in caplog.records] == [(499,)]
