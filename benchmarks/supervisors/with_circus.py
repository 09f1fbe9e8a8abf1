"""circus, configured with care: signals to the children too."""

import contextlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from supervisors.base import GRACE_S, Daemon, Engine, View
from supervisors.install import CIRCUS, program
from supervisors.observe import free_port

_WATCHER = """
[watcher:{name}]
cmd = {command}
copy_env = True
numprocesses = 1
graceful_timeout = {grace}
stop_children = True
stdout_stream.class = FileStream
stdout_stream.filename = {folder}/{name}.log
stderr_stream.class = FileStream
stderr_stream.filename = {folder}/{name}.log
[env:{name}]
{environment}
"""
_CLIENT = """
import json, sys
from circus.client import CircusClient
client = CircusClient(endpoint=sys.argv[1], timeout=2.0)
for line in sys.stdin:
    command, properties = json.loads(line)
    try:
        answer = client.call({"command": command, "properties": properties})
    except Exception as error:
        answer = {"status": "error", "reason": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Circus:
    """See `base.Supervisor`. It is asked through its own client."""

    name = "circus"
    version = CIRCUS

    def __init__(self, folder: Path, engines: list[Engine]) -> None:
        self._endpoint = f"tcp://127.0.0.1:{free_port()}"
        text = f"[circus]\nendpoint = {self._endpoint}\npubsub_endpoint = tcp://127.0.0.1:{free_port()}\n"
        for engine in engines:
            text += _WATCHER.format(
                name=engine.name,
                command=" ".join(engine.argv),
                environment="\n".join(f"{name} = {value}" for name, value in engine.env.items()),
                grace=GRACE_S,
                folder=folder,
            )
        (folder / "circus.ini").write_text(text)
        self._daemon = Daemon([program("circusd"), "circus.ini"], folder, "daemon.log")
        self._client: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._daemon.start()

    def look(self, engine: Engine) -> View:
        pids = self._ask("list", name=engine.name).get("pids") or [None]
        state = str(self._ask("status", name=engine.name).get("status"))
        return View(state == "active" and pids[0] is not None, pids[0], state)

    def url(self, engine: Engine) -> str:
        return f"http://127.0.0.1:{engine.port}"

    def stop_engine(self, engine: Engine) -> None:
        self._ask("stop", name=engine.name)

    def told(self, engine: Engine) -> str:
        said = [line for line in self._daemon.lines() if engine.name in line]
        ends = [line for line in said if re.search(r"died|exit|reap|stopped|flapping|max retr", line)]
        return re.sub(r"^\S+ \S+ ", "", ends[-1]) if ends else ""

    def ends_told(self, engine: Engine) -> int:
        return self._daemon.count(rf"{engine.name}.*(died|exit|reap|stopped|flapping|max retr)")

    def upgrade(self) -> None:
        self._daemon.terminate()
        self._daemon.start()

    def kill(self, *, everything: bool) -> None:
        self._daemon.kill()

    def close(self) -> None:
        self._daemon.kill()
        if self._client is not None:
            self._client.kill()
            self._client.communicate()

    def _ask(self, command: str, **properties: Any) -> dict[str, Any]:
        if self._client is None:
            argv = [program("python"), "-c", _CLIENT, self._endpoint]
            pipe = subprocess.PIPE
            self._client = subprocess.Popen(
                argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            self._client.stdin.write(json.dumps([command, properties]) + "\n")
            self._client.stdin.flush()
            answer: dict[str, Any] = json.loads(self._client.stdout.readline())
            return answer
        return {}
