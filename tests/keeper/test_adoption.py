"""Agent, keeper or machine end: what the next agent finds, and what it leaves alone."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from supervisord_cp.adapters import keeper_link, kept_engine, proctree
from supervisord_cp.adapters.keeper_directory import IncarnationDirectory
from supervisord_cp.adapters.keeper_link import KeeperLink
from supervisord_cp.adapters.keeper_start import start_keeper
from supervisord_cp.ports.process import ExitStatus, ProcessRecord
from tests.keeper import programs
from tests.keeper.host import Host, ends, is_alive, start_ticks
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.process, pytest.mark.asyncio]

AGENT = """
import asyncio, os, sys
from pathlib import Path
import msgspec
from supervisord_cp.adapters.direct import DirectBackend
from supervisord_cp.ports.process import SpawnRequest

async def main():
    backend = DirectBackend(Path(sys.argv[1]))
    request = msgspec.json.decode(sys.argv[2], type=SpawnRequest)
    if sys.argv[3:]:
        asyncio.get_running_loop().call_later(float(sys.argv[3]), os._exit, 1)
    engine = await backend.spawn(request)
    print(engine.record.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def innocent() -> Iterator[int]:
    """A process of somebody else."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def start_agent(host: Host, argv: programs.Argv, *arguments: str) -> subprocess.Popen[bytes]:
    request = msgspec.json.encode(host.request(argv)).decode()
    return subprocess.Popen(
        [sys.executable, "-c", AGENT, str(host.state_dir), request, *arguments], stdout=subprocess.PIPE
    )


async def killed_agent(host: Host, argv: programs.Argv) -> int:
    """The pid of the engine that an agent started before it was killed."""
    with start_agent(host, argv) as agent:
        assert agent.stdout is not None
        pid = int(await asyncio.to_thread(agent.stdout.readline))
        await until(lambda: "ready" in host.text())
        agent.kill()
    return pid


async def lost(host: Host, argv: programs.Argv = programs.SLEEPER) -> ProcessRecord:
    """The record of an engine that runs on without its keeper, and without an agent."""
    engine = await host.spawn(argv)
    engine.close()
    os.kill(engine.record.keeper_pid, signal.SIGKILL)
    await ends(engine.record.keeper_pid)
    return engine.record


async def end_for_good(record: ProcessRecord) -> None:
    os.kill(record.pid, signal.SIGKILL)
    await ends(record.pid)


async def test_the_next_agent_takes_over_from_one_that_was_killed(host: Host) -> None:
    pid = await killed_agent(host, programs.POLITE)
    engine = await host.find()
    assert (engine.record.pid, engine.record.meta["port"]) == (pid, 8000)
    assert not engine.exited.done()
    await engine.stop(grace_s=PATIENCE_S)
    assert (await engine.exited).code == 3
    await engine.gone()


async def test_an_exit_while_no_agent_lived_is_told_to_the_next_one(host: Host) -> None:
    pid = await killed_agent(host, programs.EXITS_ON_USR1)
    os.kill(pid, signal.SIGUSR1)
    await ends(pid)
    engine = await host.find()
    status = await engine.exited
    assert (status.code, status.requested, status.keeper_lost) == (7, False, False)
    await engine.gone()


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.02, 0.03])
async def test_an_agent_that_dies_while_it_spawns_leaves_nothing_unknown(host: Host, after_s: float) -> None:
    with start_agent(host, programs.SLEEPER, str(after_s)) as agent:
        await asyncio.to_thread(agent.wait)
    agents = host.agent()
    for engine in await agents.find():
        host.keep(engine)
        await engine.stop(grace_s=0)
        await engine.gone()
        agents.forget(engine.record.instance)
    assert host.living() == []
    assert await host.agent().find() == []


async def test_the_age_of_an_exit_counts_from_its_end(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    await engine.stop(grace_s=0)
    await engine.gone()
    host.edit(engine.record, "exit.json", boottime_s=lambda then: then - 1000)
    assert 1000 <= (await (await host.find()).exited).age_s < 1000 + PATIENCE_S
    host.edit(engine.record, "exit.json", boot_id=lambda _: "other", time_s=lambda then: then - 5000)
    assert 5000 <= (await (await host.find()).exited).age_s < 5000 + PATIENCE_S


async def test_a_killed_keeper_gets_a_successor_and_its_engine_notices_nothing(host: Host) -> None:
    engine = await host.spawn(programs.COUNTS)
    for _ in range(3):
        killed = engine.record.keeper_pid
        os.kill(killed, signal.SIGKILL)
        await until(lambda: engine.record.keeper_pid != killed)  # noqa: B023
        seen = len(host.text())
        await until(lambda: len(host.text()) > seen + 100)  # noqa: B023
    assert not engine.exited.done()
    await engine.stop(grace_s=0)
    await engine.gone()
    assert host.living() == []
    numbers = [int(line) for line in host.text().splitlines() if line.isdigit()]
    assert len(numbers) > 10
    assert "Broken pipe" not in host.text()


async def test_a_killed_keeper_is_replaced_and_ends_the_whole_tree_when_asked(host: Host) -> None:
    engine = await host.spawn((*programs.ESCAPEES, "keep"))
    killed = engine.record.keeper_pid
    os.kill(killed, signal.SIGKILL)
    await until(lambda: engine.record.keeper_pid != killed)
    assert set(engine.survivors()) >= {engine.record.pid}
    await engine.stop(grace_s=PATIENCE_S)
    assert (await engine.exited).requested
    await engine.gone()
    assert host.living() == []


async def test_a_tree_without_a_keeper_is_taken_over(host: Host) -> None:
    record = await lost(host, (*programs.ESCAPEES, "keep"))
    engine = await host.find()
    assert not engine.exited.done()
    assert engine.record.pid == record.pid
    await until(lambda: engine.record.keeper_pid != record.keeper_pid)
    await engine.stop(grace_s=0)
    await engine.gone()
    assert host.living() == []


async def test_an_end_is_seen_although_the_successor_of_a_keeper_is_stuck(host: Host) -> None:
    record = await lost(host)
    engine = await host.find()
    os.kill(engine.record.keeper_pid, signal.SIGSTOP)
    await end_for_good(record)
    assert await engine.exited == ExitStatus(keeper_lost=True)
    os.kill(engine.record.keeper_pid, signal.SIGCONT)
    await engine.gone()


async def test_a_successor_goes_on_with_the_stop_of_a_killed_keeper(host: Host) -> None:
    engine = await host.spawn(programs.DEAF)
    await engine.stop(grace_s=1.0)
    killed = engine.record.keeper_pid
    os.kill(killed, signal.SIGKILL)
    status = await engine.exited
    assert engine.record.keeper_pid != killed
    assert status.requested
    await engine.gone()
    assert host.living() == []


async def test_a_record_of_an_older_keeper_has_no_successor(host: Host) -> None:
    record = await lost(host, (*programs.ESCAPEES, "keep"))
    document = json.loads((host.directory(record) / "record.json").read_text())
    del document["log"]
    host.write(record, "record.json", document)
    engine = await host.find()
    assert await engine.exited == ExitStatus(keeper_lost=True)
    assert is_alive(record.pid)
    await engine.gone()
    assert host.living() == []


async def test_a_tree_that_forks_on_without_a_keeper_is_ended(host: Host) -> None:
    await lost(host, programs.FORK_CHAIN)
    engine = await host.find()
    await engine.stop(grace_s=0)
    await engine.gone()
    assert host.living() == []


async def test_a_keeper_that_cannot_be_asked_is_not_taken_for_dead(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await host.spawn(programs.POLITE)
    failures = iter([OSError(errno.EMFILE, "Too many open files")] * 3)

    async def connect(*arguments: Any) -> KeeperLink | None:
        for failure in failures:
            raise failure
        return await keeper_link.connect(*arguments)

    monkeypatch.setattr(kept_engine, "connect", connect)
    found = await host.find()
    assert not found.exited.done()
    await found.stop(grace_s=PATIENCE_S)
    assert (await engine.exited).code == 3
    await found.gone()


async def test_leftovers_are_ended_although_nothing_could_be_looked_at_for_a_while(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, boot_id = await lost(host), proctree.running_boot_id
    failures = iter([OSError(errno.EMFILE, "Too many open files")] * 3)

    def running_boot_id() -> str:
        for failure in failures:
            raise failure
        return boot_id()

    monkeypatch.setattr(proctree, "running_boot_id", running_boot_id)
    engine = await host.find()
    await engine.stop(grace_s=0)
    async with asyncio.timeout(PATIENCE_S):
        await engine.gone()
    assert not is_alive(record.pid)


async def test_a_stop_of_a_tree_without_a_keeper_ends_it(host: Host) -> None:
    record = await lost(host)
    engine = await host.find()
    await engine.stop(grace_s=PATIENCE_S)
    await engine.gone()
    assert not is_alive(record.pid)


async def test_daemons_with_another_environment_are_ended_by_their_session(host: Host) -> None:
    """Its keeper is dead: it is known by the session that it shares with one that has the nonce."""
    record = await lost(host, programs.SESSION_MATES)
    named, unnamed = host.numbers_said()
    await end_for_good(record)
    assert host.living() == [named]
    await (await host.find()).gone()
    assert not is_alive(named)
    assert not is_alive(unnamed)


async def test_what_a_killed_keeper_wrote_of_the_end_counts(host: Host) -> None:
    record = await lost(host)
    host.write(record, "exit.json", {"code": 9, "boot_id": record.boot_id})
    engine = await host.find()
    status = await engine.exited
    assert (status.code, status.keeper_lost) == (9, False)
    await engine.gone()
    assert not is_alive(record.pid)
    assert (await (await host.find()).exited).code == 9


async def test_a_recycled_pid_is_left_alone(host: Host, innocent: int) -> None:
    record = await lost(host)
    await end_for_good(record)
    host.edit(record, "record.json", pid=lambda _: innocent)
    engine = await host.find()
    assert await engine.exited == ExitStatus(keeper_lost=True)
    assert list(engine.survivors()) == []
    await engine.stop(grace_s=0)
    await engine.gone()
    assert is_alive(innocent)


async def test_a_process_with_another_nonce_is_left_alone(host: Host, innocent: int) -> None:
    record = await lost(host)
    await end_for_good(record)
    ticks = start_ticks(innocent)
    host.edit(record, "record.json", pid=lambda _: innocent, start_ticks=lambda _: ticks)
    engine = await host.find()
    assert await engine.exited == ExitStatus(keeper_lost=True)
    assert list(engine.survivors()) == []
    await engine.gone()
    assert is_alive(innocent)


async def test_after_a_reboot_everything_has_ended(host: Host, innocent: int) -> None:
    record = await lost(host)
    await end_for_good(record)
    ticks = start_ticks(innocent)
    host.edit(
        record, "record.json", boot_id=lambda _: "other", pid=lambda _: innocent, start_ticks=lambda _: ticks
    )
    engine = await host.find()
    assert (await engine.exited).keeper_lost
    assert list(engine.survivors()) == []
    await engine.gone()
    assert not (host.directory(record) / "exit.json").exists()  # nobody had to be sent to look
    host.agent().forget(record.instance)
    assert is_alive(innocent)


async def test_an_end_is_seen_although_the_keeper_is_stuck(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    os.kill(engine.record.keeper_pid, signal.SIGSTOP)
    os.kill(engine.record.pid, signal.SIGKILL)
    assert (await engine.exited).keeper_lost
    os.kill(engine.record.keeper_pid, signal.SIGCONT)
    await engine.gone()


@pytest.mark.parametrize("engine_runs", [True, False])
async def test_a_start_that_was_cut_short_is_an_end(host: Host, engine_runs: bool) -> None:
    """The keeper died between the start of the engine and the record of it."""
    request = host.request(programs.SLEEPER)
    engine = host.keep(await host.agent().spawn(request))
    engine.close()
    os.kill(engine.record.keeper_pid, signal.SIGKILL)
    await ends(engine.record.keeper_pid)
    if not engine_runs:
        await end_for_good(engine.record)
    host.write(engine.record, "launch.json", msgspec.to_builtins(request))
    (host.directory(engine.record) / "record.json").unlink()

    agent = host.agent()
    [found] = await agent.find()
    host.keep(found)
    assert (found.record.instance, found.record.incarnation) == (request.instance, request.incarnation)
    assert (found.record.pid, found.record.meta) == (0, request.meta)
    assert (await found.exited).keeper_lost
    with pytest.raises(ValueError, match="not gone yet"):
        agent.forget(request.instance)
    await found.gone()
    assert host.living() == []
    agent.forget(request.instance)


async def test_a_start_that_was_taken_for_cut_short_is_ended(host: Host) -> None:
    """The keeper that the last agent had started was so late that nobody waited for it."""
    request = host.request(programs.SLEEPER)
    directory = IncarnationDirectory(host.state_dir / "instances" / request.instance / request.incarnation)
    directory.create(request)
    engine = await host.find()
    assert (await engine.exited).keeper_lost
    pidfds: list[int] = []
    answer = await asyncio.to_thread(start_keeper, directory, sys.executable, (), pidfds.append)
    assert answer is not None
    assert answer.answer == "spawned"
    await engine.gone()
    assert host.living() == []
    for pidfd in pidfds:
        await asyncio.to_thread(os.waitid, os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


async def test_sigterm_to_the_keeper_is_a_stop(host: Host) -> None:
    engine = await host.spawn(programs.POLITE)
    os.kill(engine.record.keeper_pid, signal.SIGTERM)
    status = await engine.exited
    assert (status.code, status.requested) == (3, True)
    await engine.gone()


async def test_two_agents_may_watch_one_engine(host: Host) -> None:
    first = await host.spawn(programs.POLITE)
    second = await host.find()
    await second.stop(grace_s=PATIENCE_S)
    assert (await first.exited).code == (await second.exited).code == 3
    await asyncio.gather(first.gone(), second.gone())


async def test_many_at_once(host: Host) -> None:
    agent = host.agent()
    requests = [host.request(programs.SLEEPER, instance=f"chat-{number}") for number in range(8)]
    engines = await asyncio.gather(*(agent.spawn(request) for request in requests))
    for engine in engines:
        host.keep(engine)
    found = await host.agent().find()
    for engine in found:
        host.keep(engine)
    assert {engine.record.pid for engine in found} == {engine.record.pid for engine in engines}
    for engine in found:
        await engine.stop(grace_s=0)
    await asyncio.gather(*(engine.gone() for engine in engines))
    assert host.living() == []
