"""Policies that misbehave in a running router: no request fails, it is told, and it heals."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisord_cp.model.event import Event
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.router import PolicyHealth
from supervisord_cp.router.policies import RouterPolicies
from tests.plugins.files import HEAD, likes, scorer, write
from tests.router.kit import Rig, deployment, instance, rig, says, waits
from tests.waiting import until

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("tried")]

GOOD, BAD = {"model": "chat", "user": "good"}, {"model": "chat", "user": "bad"}
FAULTS = {
    "raises": "raise RuntimeError('broken')",
    "returns nothing": "return None",
    "returns nonsense": "return ['x'] * len(candidates)",
    "returns no numbers": "return [float('nan')] * len(candidates)",
    "changes the candidates": "candidates.pop()",
    "changes the request": "request.id = 'x'",
    "recurses": "return score(request, candidates, context)",
    "ends the process": "raise SystemExit(1)",
}
HANGS = {"sleeps": "time.sleep(60)", "loops": "while True: pass"}


class Stand:
    """A router with two engines and a folder of policies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.policies = RouterPolicies([folder], self.events.append, timer=lambda: 0.0)
        self.router: Rig

    def file(self, text: str) -> Path:
        return write(self.folder, "mine.py", text)

    def health(self, name: str = "mine") -> PolicyHealth:
        return next(one for one in self.policies.health() if one.policy == name)

    def told(self) -> list[str]:
        return [event.kind for event in self.events if event.subject == "mine"]

    async def serve(self, *, concurrency: int = 0, **named: Any) -> None:
        engines = [await self.router.engine() for _ in range(2)]
        self.router.serve(
            *(instance(engine, n, max_concurrency=concurrency) for n, engine in enumerate(engines)),
            deployments=(deployment("chat", **named),),
        )
        await self.load()

    async def load(self) -> None:
        self.policies.tick()
        await self.policies.refresh()

    async def statuses(self, body: dict[str, str], count: int = 10) -> set[int]:
        return {
            answer.status for answer in await asyncio.gather(*(self.router.ask(body) for _ in range(count)))
        }

    async def answered_by(self, body: dict[str, str]) -> set[str]:
        answers = [await self.router.ask(body) for _ in range(10)]
        return {answer.headers["x-supervisord-cp-instance"] for answer in answers}


@asynccontextmanager
async def stand(folder: Path) -> AsyncIterator[Stand]:
    made = Stand(folder)
    async with rig(policies=made.policies) as made.router:
        try:
            yield made
        finally:
            made.policies._watch.disarm()


MINE = {"router": (PolicyUse(use="mine"),)}


def turns_bad(fault: str) -> str:
    """A scorer that likes instance 1 and misbehaves for one user."""
    good = "return [float(c.instance.id.endswith('-1')) for c in candidates]"
    return scorer("mine", f"if request.user == 'bad':\n        {fault}\n    {good}", before="import time\n")


@pytest.mark.parametrize("what", FAULTS | HANGS)
async def test_a_routing_policy_that_misbehaves_fails_no_request(tmp_path: Path, what: str) -> None:
    async with stand(tmp_path) as there:
        path = there.file(turns_bad((FAULTS | HANGS)[what]))
        await there.serve(**MINE)
        assert await there.answered_by(GOOD) == {"chat-1"}
        assert await there.statuses(BAD, 8) == {200}
        health = there.health()
        assert (health.open, health.deployments) == (True, ("chat",))
        assert health.failures > 0
        assert health.problem
        assert there.told() == ["policy.loaded", "policy.breaker_open"]
        assert await there.answered_by(GOOD) == {"chat-0", "chat-1"}, "load decides in its place"

        path.unlink()
        await there.load()
        assert there.health().open is False
        assert there.health().problem == "there is no policy of this name"
        assert await there.statuses(BAD) == {200}

        there.file(likes("mine", 0))
        await there.load()
        assert await there.answered_by(BAD) == {"chat-0"}
        assert (there.health().open, there.health().problem) == (False, "")
        assert there.told()[2:] == ["policy.gone", "policy.loaded"]


SCHEDULER = f"""\
{HEAD}import time
@scheduler("mine")
class Mine:
    def __call__(self, waiting, context):
        return self.answer("rank", waiting, waiting.arrived)

    def instances(self, waiting, candidates, context):
        return self.answer("instances", waiting, candidates)

    def hopeless(self, waiting, context):
        return self.answer("hopeless", waiting, False)

    def on_arrival(self, waiting, context):
        self.answer("on_arrival", waiting, None)

    def answer(self, method, waiting, good):
        if waiting.request.user == "bad" and method == "METHOD":
            FAULT
        return good
"""


@pytest.mark.parametrize("method", ["rank", "instances", "hopeless", "on_arrival"])
@pytest.mark.parametrize("fault", ["raise RuntimeError", "return 'nonsense'", "while True: pass"])
async def test_a_scheduler_that_misbehaves_fails_no_request(tmp_path: Path, method: str, fault: str) -> None:
    async with stand(tmp_path) as there:
        there.file(SCHEDULER.replace("METHOD", method).replace("FAULT", fault))
        await there.serve(concurrency=1, scheduler=PolicyUse(use="mine"))
        assert await there.statuses(GOOD) == {200}
        assert there.health().failures == 0
        assert await there.statuses(BAD, 20) == {200}
        harmless = (method, fault) == ("on_arrival", "return 'nonsense'")
        assert (there.health().failures == 0) is harmless
        assert await there.statuses(GOOD) == {200}


@pytest.mark.parametrize(
    "text", ["def f(:\n", "x = 1\n", scorer("mine", "return 1 / 0"), "raise SystemExit\n"]
)
async def test_a_file_that_cannot_be_used_from_the_beginning(tmp_path: Path, text: str) -> None:
    async with stand(tmp_path) as there:
        there.file(text)
        await there.serve(**MINE)
        assert await there.statuses(BAD) == {200}
        assert there.health().problem
        assert any(event.kind == "policy.rejected" for event in there.events)
        there.file(likes("mine", 0))
        await there.load()
        assert await there.answered_by(BAD) == {"chat-0"}
        assert there.health().problem == ""


async def test_a_bad_new_version_changes_nothing_and_is_told(tmp_path: Path) -> None:
    async with stand(tmp_path) as there:
        there.file(likes("mine", 1))
        await there.serve(**MINE)
        version = there.health().version
        there.file(scorer("mine", "return 1 / 0"))
        await there.load()
        assert await there.answered_by(GOOD) == {"chat-1"}
        assert there.health().version == version
        assert "ZeroDivisionError" in there.health().problem
        assert there.told() == ["policy.loaded", "policy.rejected"]


async def test_a_new_version_takes_over_while_requests_run_and_wait(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with stand(tmp_path) as there:
        there.file(likes("mine", 1))
        engine = await there.router.engine(waits(gate, says({})), says({}))
        there.router.serve(
            instance(engine, max_concurrency=1),
            deployments=(deployment("chat", scheduler=PolicyUse(use="mine_too"), **MINE),),
        )
        write(there.folder, "too.py", f"{HEAD}@scheduler('mine_too')\ndef f(w, c):\n    return w.arrived\n")
        await there.load()
        asking = [asyncio.create_task(there.router.ask(GOOD | {"n": n})) for n in range(4)]  # type: ignore[dict-item]
        lane: Any = there.router.lane()
        await until(lambda: len(lane.line) == 3)
        write(there.folder, "too.py", f"{HEAD}@scheduler('mine_too')\ndef f(w, c):\n    return -w.arrived\n")
        there.file(likes("mine", 0))
        await there.load()
        assert len(lane.line) == 3
        gate.set()
        assert {(await answer).status for answer in asking} == {200}


async def test_a_running_router_notices_changes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisord_cp.router.policies.POLL_S", 0.02)
    async with stand(tmp_path) as there:
        running = asyncio.create_task(there.policies.run())
        try:
            there.file(likes("mine", 1))
            await there.serve(**MINE)
            there.file(likes("mine", 0))
            await until(lambda: there.told() == ["policy.loaded"] * 2)
            assert await there.answered_by(GOOD) == {"chat-0"}
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_names_that_a_snapshot_brings_are_loaded_at_once(tmp_path: Path) -> None:
    async with stand(tmp_path) as there:
        running = asyncio.create_task(there.policies.run())
        try:
            there.file(likes("mine", 1))
            engine = await there.router.engine()
            there.router.serve(instance(engine), deployments=(deployment("chat", **MINE),))
            there.policies.tick()
            await until(lambda: there.told() == ["policy.loaded"])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_shadow_decides_beside_and_its_differences_are_kept(tmp_path: Path) -> None:
    async with stand(tmp_path) as there:
        there.file(likes("mine", 0))
        write(there.folder, "other.py", likes("other", 1))
        await there.serve(shadow="other", **MINE)
        assert await there.answered_by(GOOD) == {"chat-0"}
        (count,) = there.policies.shadows()
        assert (count.policy, count.decisions, count.agreed) == ("other", 10, 0)
        told = json.loads(await there.policies.call_differences({"deployment": "chat"}))
        assert {(one["live"], one["shadow"]) for one in told} == {("chat-0", "chat-1")}
        assert all(0 <= one["age_s"] < 60 for one in told), "an age, not the reading of a clock"
        assert await there.policies.call_differences({"deployment": "else"}) == "[]"
        page = there.router.dispatcher.metrics.render(there.router.dispatcher.fleet)
        labels = 'deployment="chat",policy="other"'
        assert f'policy_shadow_decisions_total{{{labels},agreed="false"}} 10' in page
        assert 'policy_seconds_count{policy="mine"} 10' in page


async def test_affinity_is_counted_of_the_policy_in_use_alone(tmp_path: Path) -> None:
    async with stand(tmp_path) as there:
        await there.serve(router=(PolicyUse(use="affinity"),), shadow="affinity")
        await there.answered_by(GOOD)
        page = there.router.dispatcher.metrics.render(there.router.dispatcher.fleet)
        counted = [line for line in page.splitlines() if line.startswith("supervisord_cp_affinity")]
        labels = 'deployment="chat",policy="rendezvous",outcome='
        name = "supervisord_cp_affinity_requests_total"
        assert counted == [
            f'{name}{{{labels}"{outcome}"}} {count}'
            for outcome, count in (("hit", 9), ("moved", 0), ("new", 1))
        ]


async def test_what_a_policy_says_of_itself_is_told_when_it_changes(tmp_path: Path) -> None:
    async with stand(tmp_path) as there:
        await there.serve(scheduler=PolicyUse(use="adaptive", params={"hold_s": 0.0}))
        there.policies.describe(0.0)
        assert there.health("adaptive").state == "fifo: no request has come yet"
        await there.statuses(GOOD, 1)
        there.policies.describe(1.0)
        assert there.health("adaptive").state.startswith("cost_optimized: ")
        (event,) = [event for event in there.events if event.kind == "policy.state"]
        assert event.subject == "chat"
        assert event.message.startswith("adaptive: cost_optimized: ")


async def test_prefixes_are_worked_out_only_where_a_policy_asks(tmp_path: Path) -> None:
    async with stand(tmp_path) as there:
        body = "return [float(len(request.prefix) * c.instance.id.endswith('-1')) for c in candidates]"
        there.file(scorer("mine", body))
        await there.serve(**MINE)
        long = GOOD | {"prompt": "x" * 3000}
        lane: Any = there.router.lane()
        assert (lane.needs_prefix, await there.answered_by(long)) == (False, {"chat-0", "chat-1"})
        there.file(scorer("mine", body, arguments="needs_prefix=True"))
        await there.load()
        assert (lane.needs_prefix, await there.answered_by(long)) == (True, {"chat-1"})


async def test_central_can_have_files_looked_at_again(tmp_path: Path) -> None:
    async with stand(tmp_path) as there:
        await there.serve(**MINE)
        there.file(scorer("mine", "return 1 / 0"))
        told = await there.policies.call_reload({})
        assert "mine: " in told
        assert "ZeroDivisionError" in told
        there.file(likes("mine", 1))
        assert await there.policies.call_reload({}) == "[]"
        assert await there.answered_by(GOOD) == {"chat-1"}


async def test_a_scheduler_that_this_router_does_not_know_is_told_once_and_the_rest_applies(
    tmp_path: Path,
) -> None:
    async with stand(tmp_path) as there:
        await there.serve(scheduler=PolicyUse(use="later"))
        for now in range(3):
            there.policies.describe(float(now))
        (event,) = [event for event in there.events if event.kind == "policy.rejected"]
        assert (event.subject, event.severity) == ("chat", "error")
        assert event.message.startswith('no scheduler is called "later"')
        assert event.message.endswith("fifo stands in for it")
        assert await there.statuses(GOOD) == {200}
