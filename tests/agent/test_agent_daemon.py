"""The agent as a process: it starts, watches, restarts, stops, and takes over what it finds."""

import asyncio
import os
import signal

import pytest

from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.launch import RunState
from supervisord_cp.model.reason import ReasonCode
from tests.agent.daemon import AgentHost, alive, all_gone, members
from tests.agent.fake_central import FakeCentral
from tests.core.instances_kit import desired
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.process, pytest.mark.asyncio]


async def running(host: AgentHost, central: FakeCentral, *names: str) -> dict[str, int]:
    """Start engines and wait until they are ready; their pids."""
    await host.connect()
    await central.desire(*(host.engine(name, slot) for slot, name in enumerate(names)))
    await central.reached(InstanceState.READY, *names)
    return pids(central, *names)


def pids(central: FakeCentral, *names: str) -> dict[str, int]:
    found = {name: central.instances[name].pid for name in names}
    assert all(found.values())
    return found  # type: ignore[return-value]


async def test_a_killed_engine_is_reported_cleared_away_and_restarted(
    host: AgentHost, central: FakeCentral
) -> None:
    before = await running(host, central, "chat-0", "chat-1")
    victim, other = central.instances["chat-0"], central.instances["chat-1"]
    tree = members(before["chat-0"])
    assert len(tree) == 2
    os.kill(before["chat-0"], signal.SIGKILL)
    await central.sees(lambda c: c.instances["chat-0"].state is not InstanceState.READY, 2.0)
    await all_gone(tree)
    await central.reached(InstanceState.READY, "chat-0")
    after = central.instances["chat-0"]
    assert after.incarnation != victim.incarnation
    assert after.pid != victim.pid
    assert after.url == victim.url, "a router that has not heard of it still finds it"
    assert after.restarts == 1
    assert after.last_exit is not None
    assert (after.last_exit.signal, after.last_exit.cause) == (9, ExitCause.KILLED)
    assert central.instances["chat-1"].incarnation == other.incarnation
    transitions = [event.data["to"] for event in central.events if event.kind == "instance.state"]
    assert transitions[-3:] == ["ready", "starting", "ready"], "the first time at once"
    failed = [event for event in central.events if event.kind == "instance.failed"]
    assert [(event.subject, event.data["cause"]) for event in failed] == [("chat-0", "killed")]
    assert {event.node for event in central.events} == {"node-a"}


async def test_a_killed_agent_leaves_its_engines_to_the_next(host: AgentHost, central: FakeCentral) -> None:
    before = await running(host, central, "chat-0", "chat-1")
    was = dict(central.instances)
    await host.end(signal.SIGKILL)
    assert all(map(alive, before.values()))
    await host.connect()
    await central.reached(InstanceState.READY, "chat-0", "chat-1")
    assert pids(central, "chat-0", "chat-1") == before
    for name, status in was.items():
        now = central.instances[name]
        assert (now.incarnation, now.url, now.restarts) == (status.incarnation, status.url, 0)
    first = central.reports[0]
    assert first.full
    assert {one.state for one in first.instances} == {InstanceState.READY}, "asked before central is told"
    assert first.generation is not None


async def test_what_ended_while_no_agent_ran_is_known_and_started_again(
    host: AgentHost, central: FakeCentral
) -> None:
    before = await running(host, central, "chat-0")
    await host.end(signal.SIGTERM)
    assert alive(before["chat-0"])
    os.kill(before["chat-0"], signal.SIGKILL)
    await all_gone({before["chat-0"]})
    await host.connect()
    await central.reached(InstanceState.READY, "chat-0")
    after = central.instances["chat-0"]
    assert after.restarts == 1
    assert after.last_exit is not None
    assert after.last_exit.signal == 9
    await host.end(signal.SIGKILL)
    await host.connect()
    await central.reached(InstanceState.READY, "chat-0")
    assert central.instances["chat-0"].restarts == 1, "the same end is not counted twice"


async def test_without_central_engines_are_kept_restarted_and_started(
    host: AgentHost, central: FakeCentral
) -> None:
    before = await running(host, central, "chat-0")
    await central.stop()
    os.kill(before["chat-0"], signal.SIGKILL)
    await until(lambda: host.log().count("instance.state chat-0: ready") == 2, what="restarted")
    await central.start()
    await central.reached(InstanceState.READY, "chat-0")
    assert central.instances["chat-0"].restarts == 1


async def test_a_node_whose_engines_are_gone_starts_what_it_last_had_without_central(
    host: AgentHost, central: FakeCentral
) -> None:
    await running(host, central, "chat-0")
    await host.clean()
    await central.stop()
    await host.start()
    await until(lambda: host.log().count("instance.state chat-0: ready") == 2, what="started again")


async def test_a_central_that_has_forgotten_everything_stops_nothing(
    host: AgentHost, central: FakeCentral
) -> None:
    before = await running(host, central, "chat-0")
    central.epoch, central.counter = "e2", 0
    await central.stop()
    await central.start()
    await central.sees(lambda c: c.connected and c.reports)
    await central.taken(await central.desire())
    await central.sees(lambda c: not c.instances["chat-0"].listed)
    assert central.instances["chat-0"].state is InstanceState.READY
    await central.taken(await central.desire(removals=("chat-0",), acknowledged=0))
    await central.sees(lambda c: any(event.kind == "removal.refused" for event in c.events))
    assert pids(central, "chat-0") == before
    await central.taken(await central.desire(host.engine("chat-0")))
    await central.sees(lambda c: c.instances["chat-0"].listed)
    assert pids(central, "chat-0") == before


async def test_removal_stop_restart_and_replacement(host: AgentHost, central: FakeCentral) -> None:
    first = await running(host, central, "chat-0", "chat-1")
    tree = members(first["chat-1"])
    await central.desire(host.engine("chat-0", run=RunState.STOPPED), removals=("chat-1",))
    await central.sees(lambda c: "chat-1" not in c.instances)
    assert not any(map(alive, tree))
    await central.reached(InstanceState.STOPPED, "chat-0")
    assert central.instances["chat-0"].reason.code is ReasonCode.HELD
    assert not alive(first["chat-0"])
    assert central.instances["chat-0"].restarts == 0
    await central.desire(host.engine("chat-0", restart=3))
    await central.reached(InstanceState.READY, "chat-0")
    assert central.instances["chat-0"].restart == 3
    second = pids(central, "chat-0")
    await central.desire(host.engine("chat-0", restart=4))
    await central.sees(lambda c: c.instances["chat-0"].restart == 4 and c.instances["chat-0"].pid)
    await central.reached(InstanceState.READY, "chat-0")
    third = pids(central, "chat-0")
    replacement = host.engine("chat-0", restart=4, model="other")
    await central.desire(replacement)
    await central.sees(lambda c: c.instances["chat-0"].revision == replacement.revision)
    await central.reached(InstanceState.READY, "chat-0")
    fourth = pids(central, "chat-0")
    assert len({*first.values(), *second.values(), *third.values(), *fourth.values()}) == 5
    assert not any(map(alive, {*second.values(), *third.values()}))


async def test_stop_engines_leaves_nothing(host: AgentHost, central: FakeCentral) -> None:
    await host.connect("--stop-engines")
    host.steer("chat-1", "deaf")
    deaf = host.engine("chat-1", 1, stop_grace_s=0.3)
    host.steer("chat-1", "deaf")
    await central.desire(host.engine("chat-0"), deaf)
    await central.reached(InstanceState.READY, "chat-0", "chat-1")
    trees = {pid for one in pids(central, "chat-0", "chat-1").values() for pid in members(one)}
    assert len(trees) == 4
    assert await host.end(signal.SIGTERM) == 0
    assert not any(map(alive, trees))
    assert {status.state for status in central.instances.values()} == {InstanceState.STOPPED}, "said at last"
    await host.connect()
    await central.reached(InstanceState.READY, "chat-0", "chat-1")


async def test_a_second_signal_ends_engines_without_grace(host: AgentHost, central: FakeCentral) -> None:
    await host.connect("--stop-engines")
    engine = host.engine("chat-0", stop_grace_s=600.0)
    host.steer("chat-0", "deaf")
    await central.desire(engine)
    await central.reached(InstanceState.READY, "chat-0")
    tree = members(pids(central, "chat-0")["chat-0"])
    assert host.process is not None
    host.process.send_signal(signal.SIGINT)
    await central.reached(InstanceState.STOPPING, "chat-0")
    assert await host.end(signal.SIGINT) == 0
    assert not any(map(alive, tree))


async def test_two_signals_at_once_are_two(host: AgentHost, central: FakeCentral) -> None:
    await host.connect("--stop-engines")
    engine = host.engine("chat-0", stop_grace_s=600.0)
    host.steer("chat-0", "deaf")
    await central.desire(engine)
    await central.reached(InstanceState.READY, "chat-0")
    tree = members(pids(central, "chat-0")["chat-0"])
    assert host.process is not None
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT):
        host.process.send_signal(number)
    assert await host.end(signal.SIGCONT) == 0
    assert not any(map(alive, tree))


async def test_one_stuck_instance_delays_no_other(host: AgentHost, central: FakeCentral) -> None:
    await host.connect()
    stuck = host.engine("slow-0")
    host.steer("slow-0", "slow")
    refused = host.engine("bad-0", 1, env={"LD_PRELOAD": "x"})
    crashing = host.engine("crash-0", 2)
    host.steer("crash-0", "crash")
    await central.desire(stuck, refused, crashing, host.engine("chat-0", 3))
    await central.reached(InstanceState.READY, "chat-0")
    await central.reached(InstanceState.STARTING, "slow-0")
    await central.reached(InstanceState.GATED, "bad-0")
    assert central.instances["bad-0"].reason.code is ReasonCode.REFUSED_BY_POLICY
    await central.reached(InstanceState.BACKOFF, "crash-0")
    last = central.instances["crash-0"].last_exit
    assert last is not None
    assert (last.code, last.detail) == (3, "RuntimeError: told to crash")
    host.steer("slow-0")
    host.steer("crash-0")
    await central.reached(InstanceState.READY, "slow-0", "crash-0")


async def test_the_fake_engine_with_its_processes_and_metrics(host: AgentHost, central: FakeCentral) -> None:
    await host.connect()
    await central.desire(desired("fake-0"))
    await central.reached(InstanceState.READY, "fake-0")
    await central.sees(lambda c: c.instances["fake-0"].load is not None)
    load = central.instances["fake-0"].load
    assert load is not None
    assert (load.running, load.waiting, load.kv_cache_usage) == (0, 0, 0.0)
    api = pids(central, "fake-0")["fake-0"]
    tree = members(api)
    assert len(tree) > 1
    os.kill(api, signal.SIGKILL)
    await all_gone(tree)
    await central.sees(lambda c: c.instances["fake-0"].restarts == 1)
    await central.reached(InstanceState.READY, "fake-0")


async def test_logs_through_central(host: AgentHost, central: FakeCentral) -> None:
    before = await running(host, central, "chat-0")
    assert await central.answer("logs", instance="chat-0", lines=1) == "serving\n"
    assert (await central.answer("logs", instance="chat-0")).startswith(f"tiny engine {before['chat-0']} on")
    assert await central.answer("logs", instance="chat-9") == "[no instance chat-9 on this node]"
    assert "there is no log" in await central.answer("logs", instance="chat-0", previous=True)
    assert await central.answer("doctor") == "[agents know no method doctor]"
    following = await central.call("logs", instance="chat-0", lines=1, follow=True)
    assert (await following.get()).data == "serving\n"
    os.kill(before["chat-0"], signal.SIGKILL)
    await central.sees(lambda c: c.instances["chat-0"].restarts == 1)
    await central.reached(InstanceState.READY, "chat-0")
    after = pids(central, "chat-0")["chat-0"]
    text = ""
    while "serving" not in text:
        async with asyncio.timeout(PATIENCE_S):
            text += (await following.get()).data
    assert text.startswith(f"tiny engine {after} on"), "a follower goes on to the next incarnation"
    previous = await central.answer("logs", instance="chat-0", previous=True)
    assert previous.startswith(f"tiny engine {before['chat-0']} on")


async def test_a_second_agent_on_the_same_state_directory_is_refused(
    host: AgentHost, central: FakeCentral
) -> None:
    await running(host, central, "chat-0")
    first = host.process
    await host.start()
    assert host.process is not None
    assert await asyncio.wait_for(host.process.wait(), PATIENCE_S) == 2
    assert first is not None
    assert f"another agent (pid {first.pid}) runs on the state directory {host.state_dir}" in host.log()
    host.process = first
