"""What is measured: the router as it is shipped, and what it is compared with. One process each."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from relays.tools import (
    COMPILED,
    MEASURED_CORE,
    OTHER_CORE,
    REPOSITORY,
    TOOLS,
    answers,
    compile_package,
    free_port,
    start,
    wait_until,
)
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, NodeName
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot, RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.router.memory import Remembered

BACKENDS = 2
CHUNKS = 64
CHUNK_MS = 20
DIRECT, BARE, OURS, PLAIN = "direct", "bare relay", "supervisord-cp", "plain aiohttp"
INTERPRETED = "supervisord-cp (interpreted)"
"""The same where there is no C compiler."""
NGINX, HAPROXY = "nginx", "HAProxy"
VLLM_ROUTER, SGLANG_ROUTER = "vllm-router", "sglang-router"
"""Gateways in Rust, from PyPI; they cannot share an environment with what else is tested here."""
OPTIONAL = {NGINX: "nginx", HAPROXY: "haproxy", VLLM_ROUTER: "vllm-router", SGLANG_ROUTER: "sglang-router"}
"""Programs that are compared where they are installed."""


@dataclass
class Target:
    """Something that requests are sent to, and what was measured of it, by the column's name."""

    name: str
    port: int
    pid: int
    backends: tuple[int, ...]
    """Ports of the engines behind it."""
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, column: str, value: float) -> None:
        self.figures.setdefault(column, []).append(value)


Command = Callable[[Path, int, list[int]], list[str]]
"""Writes its files into a folder and says how it is started: folder, port, ports of the backends."""


def urls(backends: list[int]) -> list[str]:
    return [f"http://127.0.0.1:{port}" for port in backends]


def ours(folder: Path, port: int, backends: list[int], package: Path = REPOSITORY) -> list[str]:
    """The fleet is given as what an earlier router left, so that no central is needed."""
    instances = tuple(
        RoutedInstance(
            id=InstanceId(f"bench-{number}"),
            deployment=DeploymentName("bench"),
            incarnation=Incarnation(f"bench-{number}.a"),
            url=url,
            state=InstanceState.READY,
        )
        for number, url in enumerate(urls(backends))
    )
    fleet = FleetSnapshot(
        epoch="bench",
        version=1,
        deployments=(RoutedDeployment(name=DeploymentName("bench"), names=("bench",), wanted=len(backends)),),
        parts=(FleetPart(node=NodeName("here"), instances=instances),),
    )
    (folder / "state" / "router").mkdir(parents=True)
    (folder / "state" / "router" / "fleet.json").write_bytes(msgspec.json.encode(Remembered(snapshot=fleet)))
    (folder / "keys").write_text("bench: sk-bench\n")
    config = folder / "config.toml"
    config.write_text(
        f'[central]\nstate_dir = "state"\n'
        f'[router]\napi_listen = "127.0.0.1:{port}"\ncentral = "http://127.0.0.1:9"\napi_keys_file = "keys"\n'
    )
    python = ["env", f"PYTHONPATH={package}", sys.executable, "-P"]
    return [*python, "-m", "supervisord_cp", "router", "-c", str(config)]


def bare(folder: Path, port: int, backends: list[int]) -> list[str]:
    return [sys.executable, str(TOOLS / "naive_protocol.py"), str(port), *urls(backends)]


def plain(folder: Path, port: int, backends: list[int]) -> list[str]:
    return [sys.executable, str(TOOLS / "naive_aiohttp.py"), str(port), *urls(backends)]


def nginx(folder: Path, port: int, backends: list[int]) -> list[str]:
    """Connections to engines kept, answers passed on as they come, no log."""
    config = folder / "nginx.conf"
    servers = "".join(f"server 127.0.0.1:{backend};" for backend in backends)
    config.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;\n"
        "error_log stderr crit;\n"
        "events { worker_connections 16384; }\n"
        "http { access_log off; client_max_body_size 64m; client_body_buffer_size 256k;\n"
        f"client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"upstream engines {{ least_conn; {servers} keepalive 4096; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; keepalive_requests 100000000;\n"
        "location / { proxy_pass http://engines; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s; } } }\n'
    )
    return [found(NGINX), "-p", str(folder), "-c", str(config)]


def haproxy(folder: Path, port: int, backends: list[int]) -> list[str]:
    """Connections to engines kept and shared, one thread, no log."""
    config = folder / "haproxy.cfg"
    servers = "".join(f"  server s{n} 127.0.0.1:{backend}\n" for n, backend in enumerate(backends))
    config.write_text(
        "global\n  nbthread 1\n  maxconn 8000\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n"
        f"frontend api\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend engines\n"
        f"backend engines\n  balance leastconn\n  http-reuse always\n{servers}"
    )
    return [found(HAPROXY), "-db", "-f", str(config)]


def rust_gateway(name: str, folder: Path, port: int, backends: list[int]) -> list[str]:
    """Its cheapest policy that looks at load; errors are logged only."""
    argv = [
        found(name),
        *(["launch"] if name == SGLANG_ROUTER else []),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    argv += ["--policy", "power_of_two", "--log-level", "error"]
    argv += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    return [*argv, "--worker-urls", *urls(backends)]


def found(name: str) -> str:
    """Where a program is, also where only root looks; "" when it is not installed."""
    places = (os.environ.get("SUPERVISORD_CP_PEERS", ""), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
    return shutil.which(OPTIONAL[name], path=":".join(filter(None, places))) or ""


def is_there(name: str) -> bool:
    """Whether a relay can be measured here."""
    if name == OURS:
        return compile_package()
    return name not in OPTIONAL or bool(found(name))


RELAYS: dict[str, Command] = {
    BARE: bare,
    OURS: partial(ours, package=COMPILED),
    INTERPRETED: ours,
    PLAIN: plain,
    NGINX: nginx,
    HAPROXY: haproxy,
    VLLM_ROUTER: partial(rust_gateway, VLLM_ROUTER),
    SGLANG_ROUTER: partial(rust_gateway, SGLANG_ROUTER),
}


@contextlib.contextmanager
def running(only: set[str], mock: Path) -> Iterator[list[Target]]:
    """All targets, up and answering; the optional ones where they are installed."""
    wanted = {
        name: command for name, command in RELAYS.items() if (not only or name in only) and is_there(name)
    }
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="router-bench-") as temporary:
        folder = Path(temporary)
        try:
            targets = []
            backends = [free_port() for _ in range(BACKENDS)]
            for port in backends:
                argv = [str(mock), "-p", str(port), "-n", str(CHUNKS), "-i", str(CHUNK_MS)]
                processes.append(start(argv, OTHER_CORE, folder / "log"))
            targets.append(Target(DIRECT, backends[0], processes[0].pid, (backends[0],)))
            for name, command in wanted.items():
                own = folder / name.replace(" ", "-")
                own.mkdir()
                port = free_port()
                process = start(command(own, port, backends), MEASURED_CORE, own / "log")
                processes.append(process)
                targets.append(Target(name, port, process.pid, tuple(backends)))
            for target in targets:
                wait_until(partial(answers, target.port), f"the start of {target.name}")
            yield targets
        finally:
            for process in processes:
                process.kill()
                process.wait()
