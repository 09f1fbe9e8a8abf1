"""The daemons of one host: started, watched, told about, and stopped in the right order."""

import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from supervisord_cp.cli.client import DEFAULT_ADDRESS, ControlClient
from supervisord_cp.cli.connect import person_token, reachable
from supervisord_cp.cli.up_children import USAGE_EXIT, Child
from supervisord_cp.cli.up_plan import curl_line
from supervisord_cp.cli.up_progress import Progress, all_ready, first_ready, ready_line, routed
from supervisord_cp.cli.up_signals import Signals, caught
from supervisord_cp.config.schema import Config
from supervisord_cp.errors import SupervisordError
from supervisord_cp.model.launch import EngineKind

TICK_S: Final = 0.1
LOOK_S: Final = 1.0
"""How often central is asked once an engine is ready."""
ANSWER_S: Final = 2.0
"""How long central may take to answer; it is on this host."""
AGENT_UP_S: Final = 10.0
DAEMON_END_S: Final = 20.0
ENGINES_END_S: Final = 30.0
"""How long an agent may take to stop engines, beyond the grace that they have."""


def say(line: str) -> None:
    """One line for the person in front of it, who may have closed the terminal."""
    with contextlib.suppress(OSError):
        click.echo(line)


def roles_of(config: Config) -> tuple[str, ...]:
    """The daemons to run: an agent where there are engines to start. The router is ours, whatever
    `start_router` says: at the end it finishes its requests before the engines are stopped."""
    engines = any(item.engine != EngineKind.NONE for item in config.deployments)
    roles = ["central"]
    if engines or "agent" in config.tables:
        roles.append("agent")
    roles.append("router")
    return tuple(roles)


def api_url(config: Config) -> str:
    """Where clients of this host reach the API."""
    url = reachable(config.router.api_listen.host, config.router.api_listen.port)
    return url if config.router.tls_cert is None else url.replace("http:", "https:", 1)


class LocalFleet:
    """Runs until a signal asks for the end, or a daemon cannot be run as it is configured."""

    def __init__(self, path: Path, config: Config, state_dir: Path, lock: int) -> None:
        """`lock` is a descriptor that every daemon inherits: it is held as long as one of them lives."""
        arguments = {"central": ["--without-router"], "agent": ["--stop-engines"], "router": []}
        self._path, self._config = path, config
        self._logs = state_dir / "logs"
        self._children = {
            role: Child(role, ["-c", str(path), *arguments[role]], self._logs / f"{role}.log", lock)
            for role in roles_of(config)
        }
        control = config.central.control_listen
        tokens = config.central.tokens_file
        self._address = reachable(control.host, control.port)
        self._client = ControlClient(
            self._address, person_token(tokens) if tokens else "", timeout_s=ANSWER_S
        )
        self._progress = Progress()
        self._answered = self._served = self._complete = False
        self._next_look = 0.0
        self._hurry = 0

    def run(self) -> int:
        """Run to the end; the exit status.

        Raises:
            SupervisordError: a daemon cannot be run as it is configured.
        """
        with caught() as signals:
            try:
                for child in self._children.values():
                    child.start(time.monotonic())
                while not signals.asked_to_stop(TICK_S):
                    self._watch(time.monotonic())
                drain_s = self._config.router.drain_timeout_s
                say(f"Stopping: open requests finish, for {drain_s:g} s at most, then engines end.")
                say("Once more to hurry.")
            finally:
                self._stop(signals)
        say("Stopped.")
        return 0

    def _watch(self, now: float) -> None:
        for child in self._children.values():
            if child.watch(now, say) == USAGE_EXIT and child.starts == 1:
                raise SupervisordError(f"{child.name} cannot run:\n{child.last_words()}")
        if now < self._next_look:
            return
        self._next_look = now + (LOOK_S if self._served else TICK_S)
        with contextlib.suppress(SupervisordError):  # central is starting, or being started again
            self._tell(self._client.get("status"), self._client.get("instances"))

    def _tell(self, status: Any, instances: Sequence[Any]) -> None:
        if not self._answered:
            self._answered = True
            self._tell_addresses()
        lines = self._progress.news(instances, status.get("deployments") or ())
        if self._served:
            lines += self._progress.complaints(status.get("problems") or (), time.monotonic())
        for line in lines:
            say(f"  {line}")
        ready = first_ready(instances)
        if not self._served and ready is not None and routed(status):
            self._served = True
            self._tell_curl(str(ready["deployment"]))
        complete = self._served and (bool(status.get("healthy")) or all_ready(status))
        if complete and not self._complete:
            say(f"{ready_line(status)} Ctrl-C stops everything.")
        self._complete = complete

    def _tell_addresses(self) -> None:
        where = "" if self._address == DEFAULT_ADDRESS else f" --address {self._address}"
        if self._config.central.tokens_file:
            where = f" -c {self._path}"  # which names the tokens, too
        say(f"API      {api_url(self._config)}/v1")
        say(f"Control  {self._address}")
        say(f"Status   supervisord-cp status{where}")
        say(f"Logs     {self._logs}")

    def _tell_curl(self, deployment: str) -> None:
        names = {item.name: item.names[0] for item in self._config.deployments}
        line = curl_line(api_url(self._config), names.get(deployment, deployment))
        if keys := self._config.router.api_keys_file:
            line += f" -H 'Authorization: Bearer '$KEY  # one of the keys in {keys}"
        say(f"Try it:\n{line}")

    def _stop(self, signals: Signals) -> None:
        """Requests first, in the router; then engines, by their agent; then the rest. Nothing of ours is left
        when it returns."""
        router = self._children["router"]
        self._end([router], self._config.router.drain_timeout_s + DAEMON_END_S, signals)
        if "agent" in self._children:
            self._stop_engines(self._children["agent"], signals)
        rest = [child for role, child in self._children.items() if role not in ("agent", "router")]
        self._end(rest, DAEMON_END_S, signals)

    def _stop_engines(self, agent: Child, signals: Signals) -> None:
        """An agent that was not running, or was asked before it could listen, is run again for this."""
        grace = max((item.stop_grace_s for item in self._config.deployments), default=0.0)
        for _ in range(2):
            if not agent.running:
                agent.start(time.monotonic())
                self._await_agent(agent, signals)
            self._end([agent], ENGINES_END_S + grace, signals)
            if agent.status == 0:
                return
        say(f"The agent did not stop its engines in good order; see {agent.log_path}")

    def _await_agent(self, agent: Child, signals: Signals) -> None:
        """Until it has connected: then it listens to signals and knows its engines."""
        deadline = time.monotonic() + AGENT_UP_S
        while agent.running and time.monotonic() < deadline and not self._hurry:
            self._hurry += signals.asked_to_stop(TICK_S)
            with contextlib.suppress(SupervisordError):
                if any(node.get("state") == "connected" for node in self._client.get("nodes")):
                    return

    def _end(self, children: Sequence[Child], patience_s: float, signals: Signals) -> None:
        """SIGTERM, SIGINT each time that somebody hurries, SIGKILL when out of patience.

        The kernel delivers two signals of one kind as one while the first is pending, of two kinds as two.
        """
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        hurried = bool(self._hurry)  # before: those who end now have not heard of it
        while living := [child for child in children if child.running]:
            asked = signals.asked_to_stop(TICK_S)
            self._hurry += asked
            asked, hurried = asked or hurried, False
            number = signal.SIGKILL if time.monotonic() > deadline else signal.SIGINT
            if asked or number is signal.SIGKILL:
                for child in living:
                    child.signal(number)
