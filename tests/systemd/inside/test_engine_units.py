"""What is different when each engine is a unit of another user."""

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from supervisord_cp.adapters.systemd import SystemdBackend
from supervisord_cp.adapters.systemd_unit import LINKS, show, unit_of
from supervisord_cp.ports.process import ExitStatus, ProcessRecord, SpawnFailed, instance_directory
from tests.keeper import programs
from tests.keeper.host import Host, ends, is_alive
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.process, pytest.mark.asyncio]

ENGINES: Final = "supervisord-cp-engine"

TRIES: Final = programs.python(
    """
import json, os, sys
def can(do):
    try:
        do()
    except OSError as error:
        return error.strerror
    return "yes"
def touch(path):
    os.close(os.open(path + "/probe", os.O_CREAT))
print(json.dumps({
    **{f"read {path}": can(lambda: os.listdir(path)) for path in sys.argv[1].split(":")},
    **{f"write {path}": can(lambda: touch(path)) for path in sys.argv[2].split(":")},
    "write and execute": can(lambda: __import__("mmap").mmap(-1, 4096, prot=7)),
    "affinity": can(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd")],
}))
"""
)
"""Tells what it may do. Arguments: folders to read, folders to write to."""


def active_state(record: ProcessRecord) -> str:
    return show(unit_of(record.instance), "ActiveState")["ActiveState"]


def control_group(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip()


@pytest.fixture
def unknown_user() -> Iterator[None]:
    """The unit of chat-0 cannot be started."""
    drop_in = Path("/run/systemd/system/supervisord-cp-engine@chat-0.service.d/broken.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nUser=nobody-knows\n")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    yield
    shutil.rmtree(drop_in.parent)
    subprocess.run(["systemctl", "daemon-reload"], check=True)


async def test_agent_and_keeper_share_the_records_and_nobody_else_does(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    folder = host.directory(engine.record)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"keeper.lock": 0o660, "record.json": 0o640, "keeper.sock": 0o660}
    assert {path.group() for path in (folder, *folder.iterdir())} == {ENGINES}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o770
    assert (folder / "record.json").owner() == ENGINES
    await engine.stop(grace_s=PATIENCE_S)
    await engine.gone()
    assert stat.S_IMODE((folder / "exit.json").stat().st_mode) == 0o640
    assert stat.S_IMODE(host.log.stat().st_mode) == 0o640


async def test_an_engine_is_a_unit_of_its_own_user(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    record = engine.record
    for pid in (record.pid, record.keeper_pid):
        assert psutil.Process(pid).username() == ENGINES
        assert control_group(pid).endswith(f"/supervisord-cp-engines.slice/{unit_of('chat-0')}")
    assert psutil.Process(record.keeper_pid).ppid() == 1
    assert active_state(record) == "active"
    await engine.stop(grace_s=0)
    await engine.gone()
    assert active_state(record) == "inactive"


@pytest.mark.parametrize("environment", ["keep", "clean"])
async def test_with_a_killed_keeper_its_whole_tree_ends(host: Host, environment: str) -> None:
    """Whatever a process does, it stays in the unit's control group."""
    engine = await host.spawn((*programs.ESCAPEES, environment))
    daemons = host.numbers_said()
    os.kill(engine.record.keeper_pid, signal.SIGKILL)
    for pid in (engine.record.pid, *daemons):
        await ends(pid)
    assert await engine.exited == ExitStatus(keeper_lost=True)
    await engine.gone()
    assert list(engine.survivors()) == []
    found = await host.find()
    status = await found.exited
    assert status.keeper_lost
    await found.gone()
    await host.spawn(programs.SLEEPER)


async def test_an_exit_while_no_agent_lived_is_told_to_the_next_one(host: Host) -> None:
    engine = await host.spawn(programs.EXITS_ON_USR1)
    host.close()
    os.kill(engine.record.pid, signal.SIGUSR1)
    await ends(engine.record.keeper_pid)
    found = await host.find()
    status = await found.exited
    assert (status.code, status.requested, status.keeper_lost) == (7, False, False)
    await found.gone()


async def test_the_unit_of_a_stuck_keeper_is_killed(host: Host) -> None:
    engine = await host.spawn(programs.DEAF)
    os.kill(engine.record.keeper_pid, signal.SIGSTOP)
    await engine.stop(grace_s=0)
    await engine.gone()
    assert (await engine.exited).keeper_lost
    assert not is_alive(engine.record.pid)
    assert not is_alive(engine.record.keeper_pid)


async def test_a_unit_that_nothing_is_recorded_of_makes_room(host: Host) -> None:
    first = await host.spawn(programs.POLITE)
    host.close()
    shutil.rmtree(host.state_dir)
    second = await host.spawn(programs.POLITE)
    assert not is_alive(first.record.pid)
    assert is_alive(second.record.pid)


async def test_a_start_that_did_not_reach_the_unit_is_an_end(host: Host) -> None:
    folder = instance_directory(host.state_dir, host.request(programs.SLEEPER).instance) / "chat-0.1"
    folder.mkdir(parents=True)
    request = host.request(programs.SLEEPER)
    launch = {"instance": "chat-0", "incarnation": "chat-0.1", "nonce": request.nonce}
    (folder / "launch.json").write_text(
        json.dumps({**launch, "argv": [], "env": {}, "cwd": "", "log_path": ""})
    )
    found = await host.find()
    assert (found.record.pid, (await found.exited).keeper_lost) == (0, True)
    await found.gone()
    await host.spawn(programs.SLEEPER)


@pytest.mark.usefixtures("unknown_user")
async def test_a_unit_that_systemd_cannot_start_is_a_failed_start(host: Host) -> None:
    with pytest.raises(SpawnFailed, match=r"See `journalctl -u supervisord-cp-engine@chat-0\.service`"):
        await host.agent().spawn(host.request(programs.SLEEPER))


async def test_a_name_that_no_unit_can_have_is_refused(host: Host) -> None:
    with pytest.raises(SpawnFailed, match="cannot be part of the name of a unit"):
        await host.agent().spawn(host.request(programs.SLEEPER, instance="chat 0"))


async def test_forgetting_removes_the_link(host: Host) -> None:
    agent = host.agent()
    engine = await host.spawn(programs.POLITE, by=agent)
    assert (LINKS / "chat-0").readlink() == host.directory(engine.record)
    await engine.stop(grace_s=PATIENCE_S)
    await engine.gone()
    agent.forget(engine.record.instance)
    assert not (LINKS / "chat-0").is_symlink()


async def test_an_engine_gets_no_further_than_it_has_to(host: Host) -> None:
    """As the units are installed, with the folders that they know."""
    home = pwd.getpwnam(ENGINES).pw_dir
    closed = "/etc/supervisord-cp:/var/lib/supervisord-cp/agent:/var/lib/supervisord-cp/central"
    request = host.request(
        (*TRIES, f"{closed}:{home}", f"{home}:/var/log/supervisord-cp:/tmp:/etc:/opt:/home")
    )
    engine = host.keep(await host.agent().spawn(request))
    await engine.gone()
    seen: dict[str, Any] = json.loads(host.text())
    assert {seen[f"read {path}"] for path in closed.split(":")} == {"Permission denied"}
    assert {seen[f"write {path}"] for path in ("/etc", "/opt", "/home")} == {"Read-only file system"}
    assert {seen[f"write {path}"] for path in (home, "/var/log/supervisord-cp", "/tmp")} == {"yes"}
    assert (seen[f"read {home}"], seen["write and execute"], seen["affinity"]) == ("yes", "yes", "yes")
    assert int(seen["capabilities"][0], 16) == 0


async def test_engines_start_and_end_beside_each_other(host: Host) -> None:
    agent = SystemdBackend(host.state_dir, overdue_s=PATIENCE_S)
    first = host.keep(await agent.spawn(host.request(programs.DEAF, instance="chat-0")))
    second = host.keep(await agent.spawn(host.request(programs.POLITE, instance="chat-1")))
    await first.stop(grace_s=PATIENCE_S)
    await second.stop(grace_s=0)
    await second.gone()
    assert is_alive(first.record.pid)
    await until(lambda: not is_alive(second.record.keeper_pid))
    await first.stop(grace_s=0)
    await first.gone()
    agent.close()
