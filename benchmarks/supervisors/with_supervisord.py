"""supervisord, configured with care: restart always, signals to the whole process group."""

import contextlib
import re
import xmlrpc.client
from pathlib import Path
from typing import Any

from supervisors.base import GRACE_S, Daemon, Engine, View
from supervisors.install import SUPERVISOR, program
from supervisors.observe import free_port

_PROGRAM = """
[program:{name}]
command={command}
environment={environment}
autorestart=true
stopasgroup=true
killasgroup=true
stopwaitsecs={grace}
stdout_logfile={name}.log
redirect_stderr=true
"""


class Supervisord:
    """See `base.Supervisor`."""

    name = "supervisord"
    version = SUPERVISOR

    def __init__(self, folder: Path, engines: list[Engine]) -> None:
        port = free_port()
        text = f"[supervisord]\nnodaemon=true\n[inet_http_server]\nport=127.0.0.1:{port}\n"
        text += "[rpcinterface:supervisor]\n"
        text += "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        for engine in engines:
            text += _PROGRAM.format(
                name=engine.name,
                command=" ".join(engine.argv),
                environment=",".join(f'{name}="{value}"' for name, value in engine.env.items()),
                grace=GRACE_S,
            )
        (folder / "supervisord.conf").write_text(text)
        self._daemon = Daemon([program("supervisord"), "-c", "supervisord.conf"], folder, "daemon.log")
        self._url = f"http://127.0.0.1:{port}/RPC2"

    def start(self) -> None:
        self._daemon.start()

    def look(self, engine: Engine) -> View:
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            info = self._call("getProcessInfo", engine.name)
            return View(info["statename"] == "RUNNING", info["pid"] or None, info["statename"])
        return View(False, None, "no answer")

    def url(self, engine: Engine) -> str:
        return f"http://127.0.0.1:{engine.port}"

    def stop_engine(self, engine: Engine) -> None:
        self._call("stopProcess", engine.name, False)

    def told(self, engine: Engine) -> str:
        said = [
            line for line in self._daemon.lines() if re.search(rf"(exited|gave up): {engine.name}\b", line)
        ]
        return re.sub(r"^\S+ \S+ \w+ ", "", said[-1]) if said else ""

    def ends_told(self, engine: Engine) -> int:
        return self._daemon.count(rf"(exited|gave up|stopped): {engine.name}\b")

    def upgrade(self) -> None:
        self._daemon.terminate()
        self._daemon.start()

    def kill(self, *, everything: bool) -> None:
        self._daemon.kill()

    def close(self) -> None:
        self._daemon.kill()

    def _call(self, method: str, *arguments: Any) -> Any:
        with xmlrpc.client.ServerProxy(self._url) as server:
            return getattr(server.supervisor, method)(*arguments)
