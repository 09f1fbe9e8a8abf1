"""Central, router and agent as units, as an operator runs them, with engines in units of their own."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.load import Outcome, load
from tests.systemd.booted.fleet import AGENT, CENTRAL, DAEMONS, MODEL, ROUTER, Fleet
from tests.systemd.booted.machine import PROGRAM, Machine

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


def test_engines_are_units_of_their_own_user(machine: Machine, fleet: Fleet) -> None:
    for name, pid in fleet.ready().items():
        unit = f"supervisord-cp-engine@{name}.service"
        assert pid in machine.pids(unit)
        assert machine.do("ps", "-o", "user:32=", "-p", str(pid)).strip() == "supervisord-cp-engine"
        assert machine.show(unit, "Slice") == "supervisord-cp-engines.slice"
    assert machine.pids(AGENT) == [fleet.main_pid(AGENT)]
    assert machine.do("ps", "-o", "user:32=", "-p", str(fleet.main_pid(AGENT))).strip() == "supervisord-cp"


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


@pytest.fixture
def impatient(machine: Machine, fleet: Fleet) -> Iterator[None]:
    """Daemons of which systemd wants to hear often."""
    drop_ins = [machine.root / f"etc/systemd/system/{unit}.service.d/watchdog.conf" for unit in DAEMONS]
    for drop_in in drop_ins:
        drop_in.parent.mkdir()
        drop_in.write_text("[Service]\nWatchdogSec=3\n")
    machine.do("systemctl", "daemon-reload")
    fleet.systemctl("restart", *DAEMONS)
    yield
    for drop_in in drop_ins:
        shutil.rmtree(drop_in.parent)
    machine.do("systemctl", "daemon-reload")
    fleet.systemctl("restart", *DAEMONS)
    fleet.ready()


@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_hangs_is_restarted_and_one_that_works_is_not(machine: Machine, fleet: Fleet) -> None:
    before = fleet.ready()
    working = {unit: fleet.main_pid(unit) for unit in DAEMONS}

    def heard() -> list[int]:
        return [int(machine.show(unit, "WatchdogTimestampMonotonic")) for unit in DAEMONS]

    first = heard()
    longer = [stamp + 5_000_000 for stamp in first]
    machine.until(lambda: all(now > then for now, then in zip(heard(), longer, strict=True)), "they are fed")
    assert {unit: fleet.main_pid(unit) for unit in DAEMONS} == working
    machine.do("kill", "-STOP", *map(str, working.values()))
    for unit, pid in working.items():
        fleet.replaced(unit, pid)
    assert fleet.ready() == before


def test_a_stopped_instance_has_no_unit_until_it_is_started(machine: Machine, fleet: Fleet) -> None:
    before = fleet.ready()
    unit = "supervisord-cp-engine@chat-0.service"
    fleet.ask("stop", "instance/chat-0")
    machine.until(lambda: machine.show(unit, "ActiveState") == "inactive", "its unit ends")
    assert machine.run("ps", "-p", str(before["chat-0"])).returncode == 1
    fleet.ask("start", "instance/chat-0")
    after = fleet.ready()
    assert after["chat-1"] == before["chat-1"]
    assert after["chat-0"] != before["chat-0"]


def test_an_engine_whose_unit_is_stopped_by_hand_is_started_again(machine: Machine, fleet: Fleet) -> None:
    before = fleet.ready()
    fleet.systemctl("stop", "supervisord-cp-engine@chat-0.service")
    machine.until(lambda: fleet.pids().get("chat-0", before["chat-0"]) != before["chat-0"], "a new life")
    assert fleet.ready()["chat-1"] == before["chat-1"]


def test_with_a_killed_keeper_the_engine_ends_and_is_started_again(machine: Machine, fleet: Fleet) -> None:
    before = fleet.ready()
    unit = "supervisord-cp-engine@chat-0.service"
    tree = machine.pids(unit)
    assert len(tree) >= 4  # keeper, API server, engine core, worker
    machine.do("kill", "-KILL", str(fleet.main_pid(unit)))
    machine.until(lambda: fleet.pids().get("chat-0", before["chat-0"]) != before["chat-0"], "a new life")
    assert set(tree) & set(machine.pids(unit)) == set()
    assert fleet.instances()["chat-0"]["last_exit"]["cause"] == "keeper_lost"
    assert fleet.ready()["chat-1"] == before["chat-1"]


def test_nothing_is_started_beside_what_systemd_cannot_kill(machine: Machine, fleet: Fleet) -> None:
    """A process of another pid namespace stands for one in state D: systemd gives up and forgets the unit."""
    before = fleet.ready()
    unit = "supervisord-cp-engine@chat-0.service"
    tree = machine.pids(unit)
    path = machine.show(unit, "ControlGroup")
    keeper = fleet.main_pid(unit)
    with subprocess.Popen(["sleep", "600"]) as unkillable:
        try:
            machine.put_into(path, unkillable.pid)
            machine.do("kill", "-KILL", str(keeper))
            machine.until(lambda: machine.show(unit, "ActiveState") in ("inactive", "failed"), "it gives up")
            machine.run("kill", "-KILL", *map(str, tree))  # whom systemd had not come to
            machine.until(lambda: "unkillable" in str(fleet.instances()["chat-0"]["reason"]), "it is said")
            assert fleet.instances()["chat-0"]["state"] == "stopping"
            assert fleet.pids() == {"chat-1": before["chat-1"]}
        finally:
            unkillable.kill()
    machine.until(lambda: len(fleet.pids()) == len(before), "it is started when nobody is left")
    assert fleet.instances()["chat-0"]["last_exit"]["cause"] == "keeper_lost"
    assert fleet.ready()["chat-1"] == before["chat-1"]


def test_logs_of_engines_are_read_through_central(fleet: Fleet) -> None:
    fleet.ready()
    assert "Application startup complete" in fleet.ask("logs", "chat-0")


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


SERVE = """#!/usr/bin/python3
import http.server, os, sys
with open(os.environ["HF_HOME"] + "/downloaded", "w") as file:
    file.write(os.environ["HOME"])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
"""


LINK = "/run/supervisord-cp/engines/own-0"


@pytest.fixture
def alice(machine: Machine, fleet: Fleet) -> Iterator[Path]:
    """A user whose engine and models are in her home, which is where engines run meanwhile."""
    machine.do("useradd", "--create-home", "alice")
    home = machine.root / "home/alice"
    home.chmod(0o711)
    (home / "bin").mkdir()
    (home / "bin/serve").write_text(SERVE)
    (home / "bin/serve").chmod(0o755)
    (home / "models").mkdir()
    machine.do("chown", "--recursive", "alice:", "/home/alice/models")
    fleet.configure(
        agent="""
engine_user = "alice"
[agent.allow]
executables = ["/home/alice/bin/serve"]
""",
        more="""
[deployments.own]
engine = "command"
model = "alices-model"
command = ["/home/alice/bin/serve", "{host}", "{port}"]
env = { HF_HOME = "/home/alice/models" }
replicas = 1
""",
    )
    yield home
    fleet.configure()
    machine.do(PROGRAM, "install", "systemd")
    fleet.systemctl("restart", AGENT)
    fleet.systemctl("reload", CENTRAL)
    machine.until(lambda: machine.run("test", "-L", LINK).returncode != 0, "her engine is forgotten")


def test_an_engine_and_its_models_may_be_in_a_home(machine: Machine, fleet: Fleet, alice: Path) -> None:
    before = fleet.ready()
    assert machine.run("systemctl", "restart", AGENT).returncode != 0
    assert "install systemd" in machine.journal()
    machine.do(PROGRAM, "install", "systemd")
    fleet.systemctl("restart", AGENT)
    fleet.systemctl("reload", CENTRAL)
    machine.until(lambda: "own-0" in fleet.pids(), "her engine is ready")
    pids = fleet.pids()
    assert machine.do("ps", "-o", "user:32=", "-p", str(pids["own-0"])).strip() == "alice"
    assert (alice / "models/downloaded").read_text() == "/home/alice"
    assert {name: pids[name] for name in before} == before


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
