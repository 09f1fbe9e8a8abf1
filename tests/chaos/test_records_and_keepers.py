"""What the agent works with is gone too: its engines' keepers, or its records of them."""

import os
import shutil
import signal

import pytest

from supervisord_cp.model.instance import InstanceState
from tests.agent.daemon import all_gone, members
from tests.agent.fake_central import FakeCentral
from tests.chaos.host import FAKE, Bystander, DyingHost
from tests.chaos.streams import streaming
from tests.core.instances_kit import desired

pytestmark = [pytest.mark.process, pytest.mark.asyncio, pytest.mark.timeout(120)]


async def test_killed_keepers_cost_neither_engine_nor_stream(
    host: DyingHost, central: FakeCentral, bystander: Bystander
) -> None:
    """With the agent, and then under it."""
    await host.connect()
    await central.desire(desired(FAKE, args={"fake-itl-ms": 20}))
    await central.reached(InstanceState.READY, FAKE)
    (engine,) = host.engines()[FAKE]
    async with streaming(central.instances[FAKE].url) as streams:
        for with_agent in (True, False):
            if with_agent:
                await host.end(signal.SIGKILL)
            killed = host.keeper(FAKE)
            os.kill(killed, signal.SIGKILL)
            if with_agent:
                await host.connect()
            await central.sees(lambda _: host.keeper(FAKE) != killed)  # noqa: B023
            await streams.go_on()
    status = central.instances[FAKE]
    assert (host.engines()[FAKE], status.restarts, status.state) == ([engine], 0, InstanceState.READY)
    assert bystander.unharmed()


async def test_an_engine_whose_records_are_lost_is_ended_and_started_again(
    host: DyingHost, central: FakeCentral, bystander: Bystander
) -> None:
    await host.connect()
    await central.desire(desired(FAKE))
    await central.reached(InstanceState.READY, FAKE)
    tree = members(central.instances[FAKE].pid or 0)
    await host.end(signal.SIGKILL)
    shutil.rmtree(host.record(FAKE).parents[2])
    await host.connect()
    await all_gone(tree)
    await central.sees(lambda c: c.instances[FAKE].pid not in {None, *tree})
    await central.reached(InstanceState.READY, FAKE)
    assert len(host.engines()[FAKE]) == 1
    assert bystander.unharmed()
