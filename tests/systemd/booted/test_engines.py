"""Engines as units of the machine: their users, their ends, and where their models come from."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import pytest

from tests.systemd.booted.fleet import AGENT, CENTRAL, ELSEWHERE, IS_ELSEWHERE, UNITS, Fleet
from tests.systemd.booted.machine import PROGRAM, Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(180)]


def test_engines_are_units_of_their_own_user(machine: Machine, fleet: Fleet) -> None:
    for name, pid in fleet.ready().items():
        unit = f"supervisord-cp-engine@{name}.service"
        assert pid in machine.pids(unit)
        assert machine.do("ps", "-o", "user:32=", "-p", str(pid)).strip() == "supervisord-cp-engine"
        assert machine.show(unit, "Slice") == "supervisord-cp-engines.slice"
    assert machine.pids(AGENT) == [fleet.main_pid(AGENT)]
    assert machine.do("ps", "-o", "user:32=", "-p", str(fleet.main_pid(AGENT))).strip() == "supervisord-cp"


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


SERVE = """#!/usr/bin/python3
import http.server, os, sys, urllib.request
cache = os.environ.get("HF_HOME", os.path.expanduser("~/.cache/huggingface"))
os.makedirs(cache, exist_ok=True)
if os.environ.get("HF_HUB_OFFLINE") != "1":
    urllib.request.urlretrieve(os.environ["HF_ENDPOINT"] + "/weights", cache + "/weights")
open(cache + "/weights").close()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
"""
"""An engine that downloads its model before it serves."""
OWN = "own-0"
LINK = f"/run/supervisord-cp/engines/{OWN}"
HUB = "tests-hub.service"


class More(TypedDict):
    """What is added to the configuration."""

    agent: str
    more: str


def own(executable: str, *, engine_user: str = "", **env: str) -> More:
    """One more deployment, which runs that program."""
    variables = ", ".join(f'{name} = "{value}"' for name, value in env.items())
    return More(
        agent=f"""
engine_user = "{engine_user}"
[agent.allow]
executables = ["{executable}"]
env = ["HF_*", "HF_ENDPOINT"]
""",
        more=f"""
[deployments.own]
engine = "command"
model = "own-model"
command = ["{executable}", "{{host}}", "{{port}}"]
env = {{ {variables} }}
replicas = 1
""",
    )


@pytest.fixture
def hub(fleet: Fleet) -> Iterator[str]:
    """Where models are downloaded from, on the other host."""
    command = f"python3 -m http.server --directory=/srv/hub --bind={ELSEWHERE} {fleet.hub}"
    fleet.write("srv/hub/weights", "from the hub")
    fleet.write(f"{UNITS}/{HUB}", f"{IS_ELSEWHERE}ExecStart={command}\n")
    fleet.machine.do("systemctl", "daemon-reload")
    fleet.systemctl("start", HUB)
    yield f"http://{ELSEWHERE}:{fleet.hub}"
    fleet.systemctl("stop", HUB)


@pytest.fixture
def back_to_normal(machine: Machine, fleet: Fleet) -> Iterator[None]:
    """With the one deployment and the one user that other tests want."""
    yield
    fleet.configure()
    fleet.systemctl("reload", CENTRAL)
    machine.until(lambda: machine.run("test", "-L", LINK).returncode != 0, "the engine is forgotten")
    machine.do(PROGRAM, "install", "systemd")
    fleet.systemctl("restart", AGENT)
    fleet.ready()


@pytest.mark.usefixtures("back_to_normal")
def test_a_model_is_downloaded_once_and_needs_no_hub_afterwards(
    machine: Machine, fleet: Fleet, hub: str
) -> None:
    fleet.write("opt/engines/serve", SERVE)
    (machine.root / "opt/engines/serve").chmod(0o755)
    fleet.configure(**own("/opt/engines/serve", HF_ENDPOINT=hub))
    fleet.systemctl("restart", AGENT)
    fleet.systemctl("reload", CENTRAL)
    machine.until(lambda: OWN in fleet.pids(), "the engine is ready")
    online = fleet.pids()[OWN]
    weights = "var/lib/supervisord-cp/engine/.cache/huggingface/weights"
    assert (machine.root / weights).read_text() == "from the hub"
    assert machine.do("stat", "--format=%U", f"/{weights}").strip() == "supervisord-cp-engine"

    fleet.systemctl("stop", HUB)
    fleet.configure(**own("/opt/engines/serve", HF_HUB_OFFLINE="1"))
    fleet.systemctl("reload", CENTRAL)
    machine.until(lambda: fleet.pids().get(OWN, online) != online, "it serves what it has")


@pytest.fixture
def alice(machine: Machine, fleet: Fleet, back_to_normal: None) -> Path:
    """The home of a user, with her engine and her models in it."""
    machine.do("useradd", "--create-home", "alice")
    home = machine.root / "home/alice"
    home.chmod(0o711)
    fleet.write("home/alice/bin/serve", SERVE)
    (home / "bin/serve").chmod(0o755)
    (home / "models").mkdir()
    machine.do("chown", "--recursive", "alice:", "/home/alice/models")
    return home


def test_an_engine_and_its_models_may_be_in_a_home(
    machine: Machine, fleet: Fleet, hub: str, alice: Path
) -> None:
    before = fleet.ready()
    models = {"HF_HOME": "/home/alice/models", "HF_ENDPOINT": hub}
    fleet.configure(**own("/home/alice/bin/serve", engine_user="alice", **models))
    assert machine.run("systemctl", "restart", AGENT).returncode != 0
    assert "install systemd" in machine.journal()
    machine.do(PROGRAM, "install", "systemd")
    fleet.systemctl("restart", AGENT)
    fleet.systemctl("reload", CENTRAL)
    machine.until(lambda: OWN in fleet.pids(), "her engine is ready")
    pids = fleet.pids()
    assert machine.do("ps", "-o", "user:32=", "-p", str(pids[OWN])).strip() == "alice"
    assert (alice / "models/weights").read_text() == "from the hub"
    assert machine.do("stat", "--format=%U", "/home/alice/models/weights").strip() == "alice"
    assert {name: pids[name] for name in before} == before
