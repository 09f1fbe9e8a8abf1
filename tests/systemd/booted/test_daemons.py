"""Central, router and agent as units, as an operator runs them, with engines in units of their own."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.e2e.load import Outcome, load
from tests.systemd.booted.fleet import AGENT, CENTRAL, DAEMONS, MODEL, ROUTER, UNITS, Fleet
from tests.systemd.booted.machine import NEXT, PROGRAM, Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(180)]

AS_AGENT = ("setpriv", "--reuid=supervisord-cp", "--regid=supervisord-cp", "--clear-groups")
REQUESTS = 80
CONCURRENCY = 8


async def under_load(fleet: Fleet, disturb: Callable[[], Awaitable[None]]) -> list[Outcome]:
    """What became of requests, half of them streams, that were made before, while and after it happened."""
    started = asyncio.Event()

    async def disturb_when_started() -> None:
        await started.wait()
        await disturb()

    disturbing = asyncio.create_task(disturb_when_started())
    outcomes: list[Outcome] = []
    while not disturbing.done():
        outcomes += await load(fleet.api, MODEL, REQUESTS, CONCURRENCY, started)
    await disturbing
    return outcomes


def failures(outcomes: list[Outcome]) -> list[str]:
    assert len(outcomes) >= REQUESTS
    return [outcome.failure for outcome in outcomes if outcome.failure]


def test_installing_again_changes_nothing(machine: Machine, fleet: Fleet) -> None:
    told = machine.do(PROGRAM, "install", "systemd").split("\n\n")[0].splitlines()
    assert {line.split()[0] for line in told} == {"same", "keep", "run"}


@pytest.mark.asyncio
async def test_a_restart_of_the_agent_under_load_touches_no_engine(machine: Machine, fleet: Fleet) -> None:
    before, agent = fleet.ready(), fleet.main_pid(AGENT)

    async def restart() -> None:
        await asyncio.to_thread(fleet.systemctl, "restart", AGENT)

    outcomes = await under_load(fleet, restart)
    assert failures(outcomes) == []
    assert {outcome.instance for outcome in outcomes} == set(before)
    assert fleet.ready() == before
    assert fleet.main_pid(AGENT) != agent
    assert {one["restarts"] for one in fleet.instances().values()} == {0}


@pytest.mark.asyncio
async def test_a_killed_agent_comes_back_and_touches_no_engine(machine: Machine, fleet: Fleet) -> None:
    before, agent = fleet.ready(), fleet.main_pid(AGENT)

    def back() -> bool:
        return machine.show(AGENT, "ActiveState") == "active" and fleet.main_pid(AGENT) not in (0, agent)

    async def kill() -> None:
        await asyncio.to_thread(fleet.systemctl, "kill", "--signal=SIGKILL", AGENT)
        await asyncio.to_thread(machine.until, back, "another agent is ready")

    assert failures(await under_load(fleet, kill)) == []
    assert fleet.ready() == before


@pytest.mark.asyncio
async def test_a_restart_of_central_under_load_loses_no_request(machine: Machine, fleet: Fleet) -> None:
    before, router = fleet.ready(), fleet.main_pid(ROUTER)

    async def restart() -> None:
        await asyncio.to_thread(fleet.systemctl, "restart", CENTRAL)

    assert failures(await under_load(fleet, restart)) == []
    assert fleet.ready() == before
    assert fleet.main_pid(ROUTER) == router


@pytest.mark.asyncio
async def test_a_reload_of_the_router_under_load_loses_no_request(machine: Machine, fleet: Fleet) -> None:
    holder, serving = fleet.main_pid(ROUTER), fleet.routers()

    def replaced() -> bool:
        return bool(fleet.routers()) and not fleet.routers() & serving

    async def reload() -> None:
        await asyncio.to_thread(fleet.systemctl, "reload", ROUTER)
        await asyncio.to_thread(machine.until, replaced, "other processes serve")

    assert failures(await under_load(fleet, reload)) == []
    assert fleet.main_pid(ROUTER) == holder


def test_a_killed_router_comes_back_with_its_sockets(machine: Machine, fleet: Fleet) -> None:
    router = fleet.main_pid(ROUTER)
    held = machine.show(ROUTER, "NFileDescriptorStore")
    assert int(held) > 0
    fleet.systemctl("kill", "--signal=SIGKILL", ROUTER)
    fleet.served()  # a connection that is made meanwhile is not refused
    assert fleet.main_pid(ROUTER) != router
    assert machine.show(ROUTER, "NFileDescriptorStore") == held


@pytest.fixture
def child(machine: Machine, fleet: Fleet) -> Iterator[Callable[[], int]]:
    """Gives the pid of the router, which central has started this time."""
    record = machine.root / "var/lib/supervisord-cp/central/router.json"

    def pid() -> int:
        return int(json.loads(record.read_text())["pid"])

    fleet.systemctl("stop", ROUTER)
    fleet.configure(start_router=True)
    fleet.systemctl("restart", CENTRAL)
    machine.until(record.exists, "a router is started")
    fleet.served()
    yield pid
    router = pid()
    fleet.configure()
    fleet.systemctl("restart", CENTRAL)
    machine.do("kill", "-KILL", str(router))
    machine.until(lambda: machine.run("ps", "-p", str(router)).returncode == 1, "it is gone")
    fleet.systemctl("start", ROUTER)
    fleet.served()


@pytest.mark.asyncio
async def test_a_router_that_central_started_outlives_its_restart(
    fleet: Fleet, child: Callable[[], int]
) -> None:
    router = child()

    async def restart() -> None:
        await asyncio.to_thread(fleet.systemctl, "restart", CENTRAL)

    assert failures(await under_load(fleet, restart)) == []
    assert child() == router


WATCHDOG_S = 4
BLOCKABLE = """
import signal, time
def block(*_):
    time.sleep(3600)
signal.signal(signal.SIGUSR1, block)
"""
"""Python runs this before a program: SIGUSR1 stops the main thread, in which the loop is, and no other."""
IMPATIENT = f"""
[Service]
WatchdogSec={WATCHDOG_S}
Environment=PYTHONPATH=/srv/blockable
"""


@pytest.fixture
def impatient(machine: Machine, fleet: Fleet) -> Iterator[None]:
    """Daemons of which systemd wants to hear often, and whose loops can be blocked."""
    fleet.write("srv/blockable/sitecustomize.py", BLOCKABLE)
    drop_ins = [f"{UNITS}/{unit}.service.d/impatient.conf" for unit in DAEMONS]
    for drop_in in drop_ins:
        fleet.write(drop_in, IMPATIENT)
    machine.do("systemctl", "daemon-reload")
    fleet.systemctl("restart", *DAEMONS)
    yield
    for drop_in in drop_ins:
        (machine.root / drop_in).unlink()
    machine.do("systemctl", "daemon-reload")
    fleet.systemctl("restart", *DAEMONS)
    fleet.served()


@pytest.mark.usefixtures("impatient")
def test_a_daemon_whose_loop_stands_still_is_restarted_and_one_that_works_is_not(
    machine: Machine, fleet: Fleet
) -> None:
    before = fleet.ready()
    working = {unit: fleet.main_pid(unit) for unit in DAEMONS}

    def heard() -> list[int]:
        return [int(machine.show(unit, "WatchdogTimestampMonotonic")) for unit in DAEMONS]

    first = heard()
    longer = [stamp + (WATCHDOG_S + 1) * 1_000_000 for stamp in first]
    machine.until(lambda: all(now > then for now, then in zip(heard(), longer, strict=True)), "they are fed")
    assert {unit: fleet.main_pid(unit) for unit in DAEMONS} == working
    machine.do("kill", "-USR1", *map(str, working.values()))
    for unit, pid in working.items():
        fleet.replaced(unit, pid)
    assert "Watchdog timeout" in machine.journal()
    assert fleet.ready() == before


@pytest.mark.asyncio
async def test_an_upgrade_touches_no_engine_and_loses_no_request(machine: Machine, fleet: Fleet) -> None:
    before = fleet.ready()

    def upgraded() -> bool:
        versions = fleet.versions()
        return len(versions) == len(DAEMONS) and set(versions.values()) == {NEXT}

    async def upgrade() -> None:
        await asyncio.to_thread(machine.upgrade)
        await asyncio.to_thread(machine.do, PROGRAM, "install", "systemd")
        await asyncio.to_thread(fleet.systemctl, "restart", AGENT, CENTRAL)
        await asyncio.to_thread(fleet.systemctl, "reload", ROUTER)
        await asyncio.to_thread(machine.until, upgraded, "all are the new version")

    assert failures(await under_load(fleet, upgrade)) == []
    assert fleet.ready() == before
    assert {one["restarts"] for one in fleet.instances().values()} == {0}


@pytest.mark.parametrize(
    "words",
    [
        ("start", "systemd-tmpfiles-clean.service"),
        ("stop", "supervisord-cp-central.service"),
        ("restart", "supervisord-cp-engine@chat-0.service"),
        ("set-property", "supervisord-cp-engine@chat-0.service", "MemoryMax=1"),
        ("enable", "supervisord-cp-engine@chat-0.service"),
        ("daemon-reload",),
    ],
    ids=" ".join,
)
def test_the_agents_user_may_do_nothing_else(machine: Machine, fleet: Fleet, words: tuple[str, ...]) -> None:
    pids = fleet.ready()
    ended = machine.run(*AS_AGENT, "systemctl", "--no-ask-password", *words)
    assert ended.returncode != 0
    assert any(refusal in ended.stderr for refusal in ("Access denied", "authentication required"))
    assert fleet.ready() == pids


def test_after_a_reboot_engines_start_without_central(machine: Machine, fleet: Fleet) -> None:
    before = fleet.ready()
    restarts = {name: one["restarts"] for name, one in fleet.instances().items()}
    fleet.systemctl("enable", AGENT)
    machine.power_off()
    machine.boot()
    units = [f"supervisord-cp-engine@{name}.service" for name in before]
    machine.until(
        lambda: all(machine.show(unit, "ActiveState") == "active" for unit in units), "engines start"
    )
    assert machine.show(CENTRAL, "ActiveState") == "inactive"
    fleet.systemctl("start", CENTRAL, ROUTER)
    fleet.ready()
    assert {one["state"] for one in fleet.instances().values()} == {"ready"}
    assert {name: one["restarts"] for name, one in fleet.instances().items()} == restarts  # no crash
    fleet.systemctl("disable", AGENT)
