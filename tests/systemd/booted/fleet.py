"""Central, an agent and fake engines as units of the machine, and a router that is on another host.

The other host is a network namespace: nothing but a cable leads from it to the engines.
"""

import json
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import Any, Final

from tests.systemd.booted.machine import PROGRAM, Machine

AGENT: Final = "supervisord-cp-agent"
CENTRAL: Final = "supervisord-cp-central"
ROUTER: Final = "supervisord-cp-router"
DAEMONS: Final = (AGENT, CENTRAL, ROUTER)
MODEL: Final = "fake-model"
TOKENS: Final = {"agent": "agent-token-1234567890", "operator": "operator-token-1234567890"}
OPERATOR: Final = "/root/operator-token"
REPLICAS: Final = 2
HOST: Final = "192.0.2.1"
ELSEWHERE: Final = "192.0.2.2"
"""The router's host."""
UNITS: Final = "etc/systemd/system"
NETWORK: Final = "tests-network.service"
CABLE: Final = f"""
[Unit]
Before=network.target network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip netns add elsewhere
ExecStart=ip link add here type veth peer name there netns elsewhere
ExecStart=ip address add {HOST}/30 dev here
ExecStart=ip link set here up
ExecStart=ip -n elsewhere address add {ELSEWHERE}/30 dev there
ExecStart=ip -n elsewhere link set lo up
ExecStart=ip -n elsewhere link set there up
[Install]
WantedBy=network-online.target
"""
IS_ELSEWHERE: Final = f"""
[Unit]
Requires={NETWORK}
After={NETWORK}
[Service]
NetworkNamespacePath=/run/netns/elsewhere
"""


class Fleet:
    """What an operator of one host has."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        with ExitStack() as held:
            free = [held.enter_context(socket.socket()) for _ in range(4)]
            for one in free:
                one.bind(("127.0.0.1", 0))
            self._control, self._api, self._agent, self.hub = (one.getsockname()[1] for one in free)
            self._engines = self._range(held)
        self.api = ""

    @staticmethod
    def _range(held: ExitStack) -> int:
        """The first of ten ports in a row that are free."""
        for first in range(21000, 29000, 10):
            try:
                for port in range(first, first + 10):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
        raise AssertionError("no free ports")

    def lay_cable(self) -> None:
        """Make the other host, and let the router be on it; after each boot it is."""
        self.write(f"{UNITS}/{NETWORK}", CABLE)
        self.write(f"{UNITS}/{ROUTER}.service.d/elsewhere.conf", IS_ELSEWHERE)
        self.machine.do("systemctl", "daemon-reload")
        self.machine.do("systemctl", "enable", "--now", NETWORK)

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine, and the folder that it is in."""
        file = self.machine.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def hand_out_tokens(self) -> None:
        """Put tokens where systemd looks for the units' credentials."""
        store = self.machine.root / "etc/credstore"
        store.mkdir(exist_ok=True)
        tokens = "".join(f"{role}: {token}\n" for role, token in TOKENS.items())
        for path, text in (
            (store / "supervisord-cp.tokens", tokens),
            (store / "supervisord-cp.agent-token", TOKENS["agent"]),
            (self.machine.root / OPERATOR.lstrip("/"), TOKENS["operator"]),
        ):
            path.touch(mode=0o600)
            path.write_text(text)

    def configure(self, *, start_router: bool = False, agent: str = "", more: str = "") -> None:
        """Write the configuration; `agent` is more of its table, `more` are more tables."""
        router = HOST if start_router else ELSEWHERE
        self.api = f"http://{router}:{self._api}"
        (self.machine.root / "etc/supervisord-cp/config.toml").write_text(
            f"""
[central]
control_listen = "{HOST}:{self._control}"
tokens_file = "/run/credentials/{CENTRAL}.service/supervisord-cp.tokens"
start_router = {str(start_router).lower()}
settle_s = 1.0
[router]
api_listen = "{router}:{self._api}"
central = "http://{HOST}:{self._control}"
token_file = "/run/credentials/{ROUTER}.service/supervisord-cp.agent-token"
[agent]
name = "node-a"
central = "http://{HOST}:{self._control}"
token_file = "/run/credentials/{AGENT}.service/supervisord-cp.agent-token"
listen = "{HOST}:{self._agent}"
tokens_file = "/run/credentials/{AGENT}.service/supervisord-cp.tokens"
advertise = "{HOST}"
backend = "systemd"
device = "cpu"
slots = {REPLICAS + 1}
ports = "{self._engines}-{self._engines + 9}"
max_parallel_starts = {REPLICAS}
{agent}
[deployments.chat]
engine = "fake"
model = "{MODEL}"
replicas = {REPLICAS}
args = {{ fake-itl-ms = 20.0 }}
{more}
"""
        )

    def systemctl(self, verb: str, *units: str) -> None:
        """Do something to units that has to succeed."""
        ended = self.machine.run("systemctl", verb, *units)
        assert ended.returncode == 0, f"{ended.stderr}\n{self.machine.journal()}"

    def ask(self, *words: str) -> str:
        """A command of ours inside; its output."""
        return self.machine.do(PROGRAM, "--token-file", OPERATOR, *words)

    def versions(self) -> dict[str, str]:
        """What central, agent and router say that they are."""
        try:
            status, nodes = self._told("status"), self._told("nodes")
        except (OSError, urllib.error.URLError):
            return {}
        versions = {one["name"]: one["version"] for one in nodes}
        versions |= {one["id"]: one["release"] for one in status["routers"] if one["connected"]}
        return {"central": status["central"]["version"], **versions}

    def routers(self) -> set[str]:
        """Processes that serve the API."""
        return {one["id"] for one in self._told("status")["routers"] if one["connected"]}

    def instances(self) -> dict[str, dict[str, Any]]:
        """As central sees them, none while it cannot be asked."""
        try:
            return {one["id"]: one for one in self._told("instances")}
        except (OSError, urllib.error.URLError):
            return {}

    def _told(self, what: str) -> Any:
        """What central answers to an operator."""
        request = urllib.request.Request(
            f"http://{HOST}:{self._control}/api/v1/{what}",
            headers={"Authorization": f"Bearer {TOKENS['operator']}"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def pids(self) -> dict[str, int]:
        """Main processes of the ready engines."""
        return {name: one["pid"] for name, one in self.instances().items() if one["ready"]}

    def ready(self) -> dict[str, int]:
        """Wait until all engines are ready, and routed to; their main processes."""
        self.machine.until(lambda: len(self.pids()) == REPLICAS, f"{REPLICAS} engines are ready")
        return self.pids()

    def served(self) -> None:
        """Wait until clients of the API find the model."""
        self.ready()
        self.machine.until(lambda: MODEL in self._models(), "the model is served")

    def _models(self) -> str:
        try:
            with urllib.request.urlopen(f"{self.api}/v1/models", timeout=5) as answer:
                return str(answer.read())
        except (OSError, urllib.error.URLError):
            return ""

    def main_pid(self, unit: str) -> int:
        """The main process of a unit."""
        return int(self.machine.show(unit, "MainPID"))

    def replaced(self, unit: str, pid: int) -> None:
        """Wait until a unit has another main process than this one."""
        self.machine.until(lambda: self.main_pid(unit) not in (0, pid), f"{unit} is restarted")
