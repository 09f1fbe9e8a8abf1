"""supervisord_cp: an agent, and a central that is asked as operators ask it."""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from supervisord_cp.version import __version__
from supervisors.base import GRACE_S, STALL_S, Daemon, Engine, View
from supervisors.observe import MARK, free_port, get, post, title

_CONFIG = """
[central]
control_listen = "127.0.0.1:{control}"
state_dir = "central"
start_router = false
settle_s = 0.5
[agent]
name = "here"
central = "http://127.0.0.1:{control}"
state_dir = "agent"
log_dir = "log"
listen = ""
device = "cpu"
slots = {slots}
max_parallel_starts = {slots}
ports = "{first}-{last}"
[agent.allow]
env = ["FAULTS_*", "FAKE_*"]
"""
_DEPLOYMENT = """
[deployments.{name}]
engine = "fake"
model = "{name}"
args = {{ {args} }}
env = {{ {env} }}
stop_grace_s = {grace}
stall_s = {stall}
"""


class Ours:
    """See `base.Supervisor`."""

    name = "supervisord_cp"
    version = __version__

    def __init__(self, folder: Path, engines: list[Engine]) -> None:
        control = free_port()
        first = engines[0].port
        text = _CONFIG.format(control=control, slots=len(engines), first=first, last=first + len(engines))
        for engine in engines:
            text += _DEPLOYMENT.format(
                name=engine.name,
                args=", ".join(f"fake-{name} = {_toml(value)}" for name, value in engine.knobs.items()),
                env=", ".join(f'{name} = "{value}"' for name, value in engine.env.items()),
                grace=GRACE_S,
                stall=STALL_S,
            )
        (folder / "config.toml").write_text(text)
        program = [sys.executable, "-m", "supervisord_cp"]
        self._folder = folder
        self._central = Daemon([*program, "central", "-c", "config.toml"], folder, "central.log")
        self._agent = Daemon([*program, "agent", "-c", "config.toml"], folder, "agent.log")
        self._api = f"http://127.0.0.1:{control}/api/v1"

    def start(self) -> None:
        self._central.start()
        self._agent.start()

    def look(self, engine: Engine) -> View:
        found = self._instance(engine)
        state = str(found.get("state", "no answer"))
        return View(state in ("ready", "draining"), found.get("pid"), state)

    def url(self, engine: Engine) -> str:
        return str(self._instance(engine).get("url") or "")

    def stop_engine(self, engine: Engine) -> None:
        post(f"{self._api}/instances/{engine.name}-0/stop", {})

    def told(self, engine: Engine) -> str:
        last = self._instance(engine).get("last_exit") or {}
        said = (f"{name} {last[name]}" for name in ("cause", "signal", "code", "detail") if last.get(name))
        return ", ".join(said)

    def ends_told(self, engine: Engine) -> int:
        return self._agent.count(rf"instance.state {engine.name}-0: (crashed|degraded|stopping)")

    def upgrade(self) -> None:
        self._agent.terminate()
        self._central.terminate()
        self.start()

    def kill(self, *, everything: bool) -> None:
        self._central.kill()
        self._agent.kill()
        if everything:
            self._kill_keepers()

    def close(self) -> None:
        self._agent.kill()
        self._central.kill()
        self._kill_keepers()

    def _kill_keepers(self) -> None:
        for folder in Path("/proc").glob("[1-9]*"):
            words = title(int(folder.name))
            if re.search(r"keeper/__main__\.py", words) and str(self._folder) in words:
                os.kill(int(folder.name), signal.SIGKILL)

    def _instance(self, engine: Engine) -> dict[str, Any]:
        _, answer = get(f"{self._api}/instances")
        return next((one for one in answer or [] if one["id"] == f"{engine.name}-0"), {})


def _toml(value: str | float | bool) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


assert MARK.startswith("FAULTS_")
