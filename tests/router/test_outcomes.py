"""What a router tells of how incarnations answer while revisions are compared; sleepers get nothing."""

import asyncio

import pytest
from msgspec.structs import replace

from supervisord_cp.model.instance import EngineLoad, InstanceState
from supervisord_cp.model.router import Outcomes
from tests.router.kit import breaks, deployment, instance, rig, says, streams

pytestmark = pytest.mark.asyncio

ASK = {"model": "chat", "prompt": "x"}
BROKEN = says({"error": {"message": "no", "type": "server_error", "code": 500}}, status=500)


async def test_answers_failures_and_first_tokens_are_counted_by_incarnation() -> None:
    async with rig(eject_failures=0) as router:
        yours = says({"error": "yours"}, status=400)
        good = await router.engine(streams("a", "b"), says({"ok": 1}), yours)
        bad = await router.engine(BROKEN, breaks(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"))
        compared = (deployment("chat", compared=True),)
        router.serve(instance(good, 0), instance(bad, 1, draining=True), deployments=compared)
        for stream in (True, False, False):
            await router.ask({**ASK, "stream": stream})
        router.serve(instance(good, 0, draining=True), instance(bad, 1), deployments=compared)
        await router.ask(ASK)
        client = await router.client()
        client.post(ASK)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()
        first, second = sorted(router.dispatcher.fleet.outcomes(), key=lambda o: o.incarnation)
        assert (first.incarnation, first.answered, first.failed) == ("chat-0.a", 3, 0)
        assert sum(first.first_token.values()) == 1, "of streams"
        assert second == Outcomes(incarnation=second.incarnation, failed=2)


async def test_nothing_is_told_of_deployments_that_are_not_compared() -> None:
    async with rig() as router:
        engine = await router.engine(says({"ok": 1}))
        router.serve(instance(engine))
        await router.ask(ASK)
        assert router.dispatcher.fleet.outcomes() == ()


@pytest.mark.parametrize("state", [InstanceState.SLEEPING, InstanceState.READY])
async def test_nothing_is_sent_to_one_that_sleeps(state: InstanceState) -> None:
    """Whatever says so: its agent, or its own metrics."""
    async with rig() as router:
        sleeper, awake = (
            await router.engine(says({"id": "sleeper"})),
            await router.engine(says({"id": "awake"})),
        )
        asleep = replace(instance(sleeper, 0, state=state), load=EngineLoad(asleep=True))
        router.serve(asleep, instance(awake, 1))
        for _ in range(8):
            assert (await router.ask(ASK)).headers["x-supervisord-cp-instance"] == "chat-1"
