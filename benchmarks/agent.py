"""What one agent with many engines costs, and how quickly it reacts.

    python benchmarks/agent.py [--engines 64] [--seconds 30] [--exits 20]

The agent runs as it is shipped, with fake engines whose metrics pages are as large as vLLM's, and reports
once a second to a central that does nothing but read. An exit is a `kill -9` of an engine; the reaction is
over when central has been told that the engine is not ready any more. Ends with 1 when a bound is not kept.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from aiohttp import WSMsgType, web

from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import (
    DesiredInstance,
    DesiredNode,
    EngineKind,
    Generation,
    LaunchSpec,
    revision_of,
)
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import decode, encode

TICKS = os.sysconf("SC_CLK_TCK")
STARTS = 4
PATIENCE_S = 300.0
SETTLE_S = 10.0
CONFIG = """
[agent]
name = "bench"
central = "http://127.0.0.1:{central}"
state_dir = "state"
log_dir = "log"
listen = ""
device = "cpu"
slots = {engines}
max_parallel_starts = {starts}
ports = "{first}-{last}"
"""


class Bound(NamedTuple):
    """A figure and what it must stay under."""

    what: str
    value: float
    limit: float
    unit: str


class Central:
    """Wants engines, reads reports."""

    def __init__(self, engines: int) -> None:
        self.instances: dict[str, InstanceStatus] = {}
        self.reports = 0
        self._engines = engines
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Listen; the port."""
        app = web.Application()
        app.router.add_get(m.AGENT_PATH, self._agent)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        try:
            yield listener.getsockname()[1]
        finally:
            await runner.cleanup()

    async def sees(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait for a report that makes it true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def ready(self) -> list[InstanceStatus]:
        """Instances that serve."""
        return [one for one in self.instances.values() if one.state is InstanceState.READY]

    async def _agent(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for frame in ws:
            if frame.type is not WSMsgType.TEXT:
                continue
            message = decode(frame.data)
            if isinstance(message, m.Hello):
                await ws.send_str(encode(m.Welcome(epoch="bench")))
                await ws.send_str(encode(m.Desired(desired=self._desired())))
            elif isinstance(message, m.Report):
                self.reports += 1
                self.instances |= {one.id: one for one in message.report.instances}
                self._changed.set()
        return ws

    def _desired(self) -> DesiredNode:
        spec = LaunchSpec(engine=EngineKind.FAKE, model="m", served_names=("m",))
        instances = tuple(
            DesiredInstance(
                id=InstanceId(f"chat-{number}"),
                deployment=DeploymentName("chat"),
                revision=revision_of(spec),
                spec=spec,
                devices=(DeviceId(f"slot-{number}"),),
            )
            for number in range(self._engines)
        )
        return DesiredNode(
            node="bench",
            generation=Generation(epoch="bench", counter=1),
            acknowledged=0,
            instances=instances,
            removals=(),
        )


def free_ports(number: int) -> int:
    """The first of some ports in a row that are free now."""
    for first in range(20000, 60000, number):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + number):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise SystemExit("no free ports")


def cpu_s(pid: int) -> float:
    """utime + stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """VmRSS."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def keepers(folder: Path) -> list[int]:
    """Keepers of this run."""
    found = []
    for process in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            if any(word.endswith("keeper/__main__.py") for word in words) and any(
                word.startswith(str(folder)) for word in words
            ):
                found.append(int(process.name))
    return found


async def reactions(central: Central, exits: int) -> list[float]:
    """Milliseconds from the end of an engine to central's knowledge of it."""
    found = []
    for number in range(exits):
        victim = central.ready()[number % len(central.ready())]
        assert victim.pid is not None
        began = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        await central.sees(
            lambda v=victim: (
                central.instances[v.id].state is not InstanceState.READY  # type: ignore[misc]
                or central.instances[v.id].incarnation != v.incarnation
            ),
            30.0,
        )
        found.append((time.monotonic() - began) * 1000)
        await asyncio.sleep(0.37)
    return found


async def measure(folder: Path, engines: int, seconds: float, exits: int) -> list[Bound]:
    """Start everything, measure, end everything."""
    central = Central(engines)
    async with central.serving() as port:
        first = free_ports(engines)
        config = folder / "config.toml"
        config.write_text(
            CONFIG.format(central=port, engines=engines, starts=STARTS, first=first, last=first + engines - 1)
        )
        with (folder / "agent.log").open("wb") as log:
            agent = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "supervisord_cp", "agent", "-c", str(config), "--stop-engines"),
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            await central.sees(lambda: len(central.ready()) == engines)
            await asyncio.sleep(SETTLE_S)
            before, reports, began = cpu_s(agent.pid), central.reports, time.monotonic()
            await asyncio.sleep(seconds)
            past = time.monotonic() - began
            cpu = (cpu_s(agent.pid) - before) / past * 100
            rate = (central.reports - reports) / past
            print(f"{len(central.ready())} engines ready, {rate:.1f} reports/s", file=sys.stderr)
            memory, kept = resident_mb(agent.pid), [resident_mb(pid) for pid in keepers(folder)]
            times = await reactions(central, exits)
        finally:
            agent.terminate()
            try:
                await asyncio.wait_for(agent.wait(), 90)
            except TimeoutError:
                agent.kill()
                await agent.wait()
    return [
        Bound("CPU of the agent", cpu, 15.0, "% of a core"),
        Bound("memory of the agent", memory, 150.0, "MB"),
        Bound("memory of a keeper, the largest", max(kept), 15.0, "MB"),
        Bound("reaction to an exit, median", statistics.median(times), 100.0, "ms"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30.0, help="over which CPU time is measured")
    parser.add_argument("--exits", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agent-bench-") as name:
        bounds = asyncio.run(measure(Path(name), given.engines, given.seconds, given.exits))
    print(f"\n{datetime.now(UTC).date()} · {os.cpu_count()} cores · Linux {platform.release()}", end="")
    print(f" · Python {platform.python_version()} · {given.engines} engines\n")
    print("| | measured | bound | |\n|---|---:|---:|---|")
    for what, value, limit, unit in bounds:
        print(f"| {what} | {value:.1f} | {limit:.0f} | {unit} {'' if value < limit else '**over**'} |")
    return int(any(bound.value >= bound.limit for bound in bounds))


if __name__ == "__main__":
    sys.exit(main())
