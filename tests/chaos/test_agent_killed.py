"""`kill -9` of the agent at every point where it persists something, while an engine streams.

No engine changes its pid, no stream breaks, no engine runs twice, and nobody else's process gets a signal.
"""

import contextlib
import json
import os
import signal
from typing import Any

import pytest

from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import DesiredInstance
from tests.agent.daemon import all_gone, members
from tests.agent.fake_central import FakeCentral
from tests.chaos.host import FAKE, Bystander, Dead, DyingHost
from tests.chaos.streams import streaming
from tests.core.instances_kit import desired

pytestmark = [pytest.mark.process, pytest.mark.asyncio, pytest.mark.timeout(300)]

SOME = {
    "os.rename .desired.json.new",
    "sync",
    "os.rename histories/.*.json.new",
    "open instances/*/*/launch.json",
    "write instances/*/*/launch.json",
    "start keeper instances/*/*",
    "seen instances/*/*/keeper.lock",
    "seen instances/*/*/record.json",
    "os.rmdir instances/*",
}
"""Points that there must be, or points are not recognised any more."""

TRIES = 3


class Story:
    """What agents go through, one after the other: each adopts, starts an engine, sees it end, and removes
    the one that the agent before has started."""

    def __init__(self, host: DyingHost, central: FakeCentral) -> None:
        self._host, self._central = host, central
        self._number = 0
        self._chat = desired(FAKE, args={"fake-itl-ms": 20})

    @property
    def newest(self) -> str:
        """The engine that the latest agent has started."""
        return f"work-{self._number}"

    async def begin(self) -> str:
        """The engine that streams; its url."""
        await self._host.connect()
        await self._central.desire(self._chat, self._work())
        await self._central.reached(InstanceState.READY, FAKE, "work-0")
        return self._central.instances[FAKE].url

    async def agent(self, point: str = "") -> list[str]:
        """One more agent, up to its death at `point` or to the end of the story; the points it has passed."""
        host, central = self._host, self._central
        hellos = len(central.hellos)
        self._number += 1
        new, earlier = self.newest, [f"work-{number}" for number in range(self._number)]
        await host.end(signal.SIGKILL)
        await host.start(point)
        with contextlib.suppress(Dead):
            await host.unless_dead(lambda: len(central.hellos) > hellos and central.reports, "connected")
            await self._desire(*earlier[:-1])
            await host.unless_dead(lambda: self._state(new) is InstanceState.READY, "started")
            await self._desire(*earlier)
            await host.unless_dead(lambda: not set(earlier) & set(central.instances), "forgotten")
            pid = central.instances[new].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await host.unless_dead(lambda: central.instances[new].restarts, "restarted")
            await host.unless_dead(lambda: self._state(new) is InstanceState.READY, "ready again")
        return host.points()

    async def killed_at(self, point: str) -> None:
        """The next agent dies there. What is removed depends on how far the ones before have come with it,
        so it may take more than one to get there."""
        for _ in range(TRIES):
            if point in await self.agent(point):
                return
        raise AssertionError(f"no agent has come to {point}")

    async def _desire(self, *removals: str) -> None:
        """Say what is wanted; the agent may die meanwhile."""
        if self._central.connected:
            with contextlib.suppress(ConnectionError):
                await self._central.desire(self._chat, self._work(), removals=removals)

    def _work(self) -> DesiredInstance:
        """On another device than the one before, which may be ending."""
        return self._host.engine(self.newest, 2 + self._number % 6)

    def _state(self, name: str) -> InstanceState | None:
        status = self._central.instances.get(name)
        return None if status is None else status.state


async def test_wherever_the_agent_is_killed_engines_and_streams_go_on(
    host: DyingHost, central: FakeCentral, bystander: Bystander
) -> None:
    story = Story(host, central)
    async with streaming(await story.begin()) as streams:
        (engine,) = host.engines()[FAKE]
        points = await story.agent()
        assert set(points) >= SOME
        for point in points:
            await story.killed_at(point)
            engines = host.engines()
            assert engines.pop(FAKE) == [engine], f"another engine after {point}"
            twice = {name: pids for name, pids in engines.items() if len(pids) > 1}
            assert not twice, point
            assert bystander.unharmed(), point
            await streams.go_on()
        await story.agent()
        await streams.go_on()
    assert {name: len(pids) for name, pids in host.engines().items()} == {FAKE: 1, story.newest: 1}
    status = central.instances[FAKE]
    assert (status.pid, status.restarts, status.state) == (engine, 0, InstanceState.READY)
    assert bystander.unharmed()


@pytest.mark.parametrize("changed", ["pid", "boot"])
async def test_a_record_that_names_somebody_elses_process_harms_nobody(
    host: DyingHost, central: FakeCentral, bystander: Bystander, changed: str
) -> None:
    """The engine and its keeper have ended unseen, and its pid is another process's now: in this boot, or
    in the next one, where even the start times agree."""
    await host.connect()
    await central.desire(desired(FAKE, args={"fake-itl-ms": 20}), host.engine("work-0", 1))
    await central.reached(InstanceState.READY, FAKE, "work-0")
    (engine,) = host.engines()[FAKE]
    async with streaming(central.instances[FAKE].url) as streams:
        await host.end(signal.SIGKILL)
        path = host.record("work-0")
        record: dict[str, Any] = json.loads(path.read_text())
        tree = members(record["keeper_pid"])
        os.kill(record["keeper_pid"], signal.SIGKILL)
        for pid in tree - {record["keeper_pid"]}:
            os.kill(pid, signal.SIGKILL)
        await all_gone(tree)
        record |= {"pid": bystander.process.pid, "keeper_pid": bystander.process.pid}
        if changed == "boot":
            ticks = bystander.start_ticks()
            record |= {"boot_id": "another", "start_ticks": ticks, "keeper_start_ticks": ticks}
        path.write_text(json.dumps(record))
        await host.connect()
        await central.reached(InstanceState.READY, FAKE, "work-0")
        await streams.go_on()
    found = host.engines()
    assert (found[FAKE], len(found["work-0"])) == ([engine], 1)
    assert central.instances["work-0"].pid == found["work-0"][0] != bystander.process.pid
    assert bystander.unharmed()
