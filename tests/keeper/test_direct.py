"""What is particular to the direct back end: its keepers are children of the agent."""

import os
import platform
import shutil
import signal
import sys
from pathlib import Path

import pytest

from supervisord_cp.adapters.direct import DirectBackend
from supervisord_cp.ports.process import SpawnFailed
from tests.keeper import programs
from tests.keeper.host import Host
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.process, pytest.mark.asyncio]

TOLD = tuple(map(int, platform.release().split(".")[:2])) >= (6, 15)
"""Whether this kernel tells how a process ended to others than its parent."""
LARGEST_RSS_KB = 20_000


def broken_python(folder: Path) -> str:
    """A Python that cannot start a keeper; a sweeper it can."""
    program = folder / "python"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *--sweep*) exec {sys.executable} "$@";; esac\necho no memory >&2; exit 3\n'
    )
    program.chmod(0o755)
    return str(program)


async def test_a_keeper_that_dies_before_it_answers_is_a_failed_start(host: Host, tmp_path: Path) -> None:
    agent = DirectBackend(host.state_dir, python=broken_python(tmp_path))
    request = host.request(programs.SLEEPER)
    try:
        with pytest.raises(SpawnFailed, match="no memory"):
            await agent.spawn(request)
        home = host.state_dir / "instances" / request.instance
        await until(lambda: not list(home.iterdir()))  # what it may have left is ended and removed
    finally:
        agent.close()


async def test_a_python_that_is_not_there_is_a_failed_start(host: Host) -> None:
    agent = DirectBackend(host.state_dir, python="/nowhere/python")
    with pytest.raises(SpawnFailed, match="cannot start a keeper"):
        await agent.spawn(host.request(programs.SLEEPER))
    agent.close()


async def test_a_successor_knows_how_the_engine_ended(host: Host) -> None:
    agent = DirectBackend(host.state_dir, report_wait_s=PATIENCE_S)
    try:
        engine = await host.spawn(programs.EXITS_ON_USR1, by=agent)
        killed = engine.record.keeper_pid
        os.kill(killed, signal.SIGKILL)
        await until(lambda: engine.record.keeper_pid != killed)
        os.kill(engine.record.pid, signal.SIGUSR1)
        status = await engine.exited
        assert (status.code, status.keeper_lost) == ((7, False) if TOLD else (None, True))
        await engine.gone()
    finally:
        agent.close()


@pytest.mark.parametrize("kills_keeper", [True, False])
async def test_an_engine_whose_records_are_lost_is_found_by_its_environment(
    host: Host, kills_keeper: bool
) -> None:
    mine, other = (DirectBackend(host.state_dir, owner=f"{host.state_dir}:{n}") for n in "ab")
    elsewhere = DirectBackend(host.state_dir / "other", owner=f"{host.state_dir}:c")
    try:
        engine = host.keep(await mine.spawn(host.request((*programs.ESCAPEES, "keep"))))
        strangers = host.keep(await elsewhere.spawn(host.request(programs.SLEEPER, instance="work-0")))
        await until(lambda: len(host.living()) == 4)
        engine.close()
        shutil.rmtree(host.state_dir / "instances")
        if kills_keeper:
            os.kill(engine.record.keeper_pid, signal.SIGKILL)
        assert await other.find() == []
        [found] = await DirectBackend(host.state_dir, owner=f"{host.state_dir}:a").find()
        host.keep(found)
        assert (found.record.instance, found.record.pid, found.exited.done()) == ("chat-0", 0, True)
        await found.gone()
        assert host.living() == [strangers.record.pid]
        assert not strangers.exited.done()
    finally:
        for backend in (mine, other, elsewhere):
            backend.close()


async def test_the_keeper_is_tied_to_nothing_of_the_agent(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_TOKEN", "canary")
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)  # what a careless library does
    try:
        engine = await host.spawn(programs.SLEEPER)
        keeper = Path("/proc") / str(engine.record.keeper_pid)
        links = [str(link.readlink()) for link in (keeper / "fd").iterdir()]
        assert f"pipe:[{os.fstat(write_end).st_ino}]" not in links
        assert os.getsid(engine.record.keeper_pid) == engine.record.keeper_pid
        assert "canary" not in (keeper / "environ").read_text()
        assert links.count("/dev/null") == 2
    finally:
        os.close(read_end)
        os.close(write_end)


async def test_a_keeper_is_small(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    status = (Path("/proc") / str(engine.record.keeper_pid) / "status").read_text()
    [rss] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    assert rss < LARGEST_RSS_KB
