"""The agent daemon, put together."""

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Final

from supervisord_cp.adapters.central_link import CentralLink
from supervisord_cp.adapters.host import HostReader
from supervisord_cp.adapters.listeners import bind_error
from supervisord_cp.adapters.nvml import NvmlReader
from supervisord_cp.adapters.oom import KernelLog, OomWatch
from supervisord_cp.adapters.sd_notify import Notifier
from supervisord_cp.adapters.tokens import TokenFile, read_token
from supervisord_cp.agent.backend import EngineSide, engine_side
from supervisord_cp.agent.capsules import Capsules, read_capsule
from supervisord_cp.agent.devices import NoGpus, identify
from supervisord_cp.agent.engine_http import EngineHttp
from supervisord_cp.agent.gate import Gate
from supervisord_cp.agent.gpu_timeline import GpuTimeline
from supervisord_cp.agent.gpu_watch import GpuWatch
from supervisord_cp.agent.incarnation import Watcher
from supervisord_cp.agent.instance import Tools
from supervisord_cp.agent.inventory import inventory_of, on_loopback
from supervisord_cp.agent.launch import Launcher
from supervisord_cp.agent.listener import Listener, tokens_of
from supervisord_cp.agent.logs import LINES, read_log
from supervisord_cp.agent.metrics import AgentCollector, page
from supervisord_cp.agent.node import Node
from supervisord_cp.agent.post_mortem import Coroner
from supervisord_cp.agent.release import MemoryReturn
from supervisord_cp.agent.report import Reporter
from supervisord_cp.agent.roster import Identity, Roster
from supervisord_cp.agent.starts import Starts
from supervisord_cp.agent.state import StateDir, boot_id
from supervisord_cp.clock import Clock, SystemClock
from supervisord_cp.config.load import load
from supervisord_cp.config.schema import Config
from supervisord_cp.core.instances.life import Stage
from supervisord_cp.engines.registry import all_engines
from supervisord_cp.errors import SupervisordError, UsageError
from supervisord_cp.model.base import InstanceId
from supervisord_cp.ports.gpu import GpuPort
from supervisord_cp.wire import messages as m

log = logging.getLogger(__name__)

SETTLE_S: Final = 2.0
"""How long adopted engines may take to answer before central is told of them."""
THREADS: Final = 64
FLUSH_S: Final = 2.0
"""How long the last reports may take."""


async def run_agent(config: Config, *, stop_engines: bool) -> int:
    """Run the agent in the foreground until SIGTERM or SIGINT; the exit status.

    Engines are left running for the next agent, unless `stop_engines`; then a second signal ends them
    without grace. SIGHUP reads `[agent.allow]` again.

    Raises:
        UsageError: the configuration asks for something that cannot be.
    """
    agent = config.agent
    loopback = on_loopback(agent)
    tokens = tokens_of(agent)
    read_token(agent.token_file, "agent")
    if (error := bind_error(agent.advertise, 0)) is not None:
        raise UsageError(
            f"[agent] advertise = {agent.advertise} cannot be bound: {error.strerror or error}; "
            "name an address of this host"
        )
    engines = engine_side(agent, os.environ, stop_engines=stop_engines)
    boot = boot_id()
    state = StateDir(agent.state_dir, boot_id=boot)
    lock = state.lock()
    stops = _stops_by_signals()
    # A thread may wait for a disk or a program; engines on other disks do not.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "agent"))
    http = EngineHttp()
    clock = SystemClock()
    reader: GpuPort = NoGpus() if agent.device == "cpu" else NvmlReader(clock=clock)
    gpu = GpuWatch(reader, clock=clock, state=state)
    try:
        _make_log_dir(agent.log_dir)
        await gpu.start()
        identity = await identify(agent, gpu)
        outside = _Outside(
            state=state,
            identity=identity,
            engines=engines,
            gpu=gpu,
            http=http,
            clock=clock,
            boot_id=boot,
        )
        return await _Agent(config, outside, stops, tokens=tokens, loopback=loopback).run(
            stop_engines=stop_engines
        )
    finally:
        await gpu.stop()
        await http.close()
        lock.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outside:
    """What the agent touches."""

    state: StateDir
    identity: Identity
    engines: EngineSide
    gpu: GpuWatch
    http: EngineHttp
    clock: Clock
    boot_id: str


class _Agent:
    def __init__(
        self,
        config: Config,
        outside: _Outside,
        stops: asyncio.Semaphore,
        *,
        tokens: TokenFile | None,
        loopback: bool,
    ) -> None:
        self._path = config.path
        self._config = agent = config.agent
        self._outside = outside
        self._session = secrets.token_hex(8)
        self._stops = stops
        self._notifier = Notifier(os.environ)
        roster = self._roster = Roster(outside.identity, outside.gpu)
        self._launcher = Launcher(
            agent,
            engines=all_engines(),
            loopback=loopback,
            device_kind=outside.identity.device_kind,
            device_indexes=roster.device_indexes,
            environ=outside.engines.environ,
            cwd=outside.engines.cwd,
        )
        self._timeline = GpuTimeline(outside.gpu, outside.clock)
        self._capsules = Capsules(agent.state_dir)
        self._link = CentralLink(
            url=agent.central,
            path=m.AGENT_PATH,
            token=lambda: read_token(agent.token_file, "agent"),
            hello=self._hello,
            on_message=self._on_message,
            on_up=lambda _: self._reporter.begin(),
            on_down=lambda _: self._reporter.end(),
            on_call=self._on_call,
        )
        self._reporter = Reporter(
            roster,
            gpu=outside.gpu,
            host=HostReader(agent.log_dir),
            clock=outside.clock,
            send=self._link.send,
        )
        self._node = Node(roster, self._tools(), self._reporter)
        collector = AgentCollector(roster, self._reporter, outside.gpu, lambda: self._link.connected)
        self._listener = (
            Listener(agent.listen, tokens=tokens, metrics=lambda: page(collector)) if agent.listen else None
        )

    def _tools(self) -> Tools:
        agent, outside = self._config, self._outside
        return Tools(
            clock=outside.clock,
            random=SystemRandom(),
            backend=outside.engines.make_backend(),
            launcher=self._launcher,
            gate=Gate(
                self._roster,
                ports=agent.ports,
                max_loading=agent.max_parallel_starts,
                port_free=lambda port: bind_error(agent.advertise, port) is None,
            ),
            watcher=Watcher(
                http=outside.http,
                clock=outside.clock,
                boot_id=outside.boot_id,
                oom=OomWatch(outside.clock, log=KernelLog(outside.clock)),
                timeline=self._timeline,
                coroner=Coroner(self._capsules, self._launcher.secrets),
                starts=Starts(outside.state),
            ),
            state=outside.state,
            memory=MemoryReturn(outside.gpu, outside.clock),
        )

    async def run(self, *, stop_engines: bool) -> int:
        """Until a signal says stop, or a part of us fails; the exit status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        if self._listener is not None:
            await self._listener.start()
        await self._node.adopt()
        tasks = [
            asyncio.create_task(self._node.keep(), name="keep"),
            asyncio.create_task(self._reporter.run(self._beat()), name="report"),
            asyncio.create_task(self._connect(), name="connect"),
            asyncio.create_task(self._outside.gpu.run(self._node.told), name="gpus"),
        ]
        stopped = asyncio.create_task(self._stops.acquire())
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self._notifier.stopping()
        failed = done - {stopped}
        for task in failed:
            log.error("the agent stops: %s failed: %r", task.get_name(), task.exception())
        stopped.cancel()
        if stop_engines:
            await self._stop_engines()
        self._reporter.flush()
        await self._link.flush(FLUSH_S)
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
        self._reporter.close()
        self._node.close()
        if self._listener is not None:
            await self._listener.close()
        return 1 if failed else 0

    async def _connect(self) -> None:
        """Dial central once it is known how adopted engines are."""
        await self._node.settled(SETTLE_S)
        identity = self._outside.identity
        log.info("agent %s (%s) is ready: %s", identity.name, identity.device_kind, self._summary())
        self._notifier.ready(self._summary())
        await self._link.run()

    async def _stop_engines(self) -> None:
        log.info("stopping engines; a second signal ends them without grace")
        halt = asyncio.create_task(self._node.halt())
        again = asyncio.create_task(self._stops.acquire())
        await asyncio.wait([halt, again], return_when=asyncio.FIRST_COMPLETED)
        if not halt.done():
            await self._node.hurry()
        again.cancel()
        await halt

    def _beat(self) -> Callable[[], None]:
        """Feeds the watchdog from the loop that reports: while that runs, the agent does its work."""
        interval_s = self._notifier.watchdog_s
        last, said = float("-inf"), ""

        def beat() -> None:
            nonlocal last, said
            self._timeline.sample()
            now, summary = self._outside.clock.now(), self._summary()
            if interval_s is not None and now - last >= interval_s / 2:
                last = now
                self._notifier.watchdog()
            if summary != said:
                said = summary
                self._notifier.status(summary)

        return beat

    def _summary(self) -> str:
        instances = self._roster.instances.values()
        ready = sum(one.life.stage is Stage.READY for one in instances)
        central = "connected to" if self._link.connected else "without"
        return f"{ready} of {len(instances)} instances ready, {central} central at {self._config.central}"

    def _reload(self) -> None:
        """The node's own policy may change while engines run; it counts for starts from now on."""
        if self._path is None:
            return
        try:
            self._launcher.allow = load(self._path).agent.allow
        except SupervisordError as error:
            log.error("the configuration stays as it was:\n%s", error)
        else:
            log.info("[agent.allow] read again from %s", self._path)

    def _hello(self) -> m.Hello:
        outside = self._outside
        inventory = inventory_of(
            self._config,
            outside.identity,
            boot_id=outside.boot_id,
            session=self._session,
            executables=self._launcher.allow.executables,
            gpus=outside.gpu.read().gpus or (),
        )
        return m.Hello(
            name=inventory.node, session=self._session, version=inventory.version, inventory=inventory
        )

    def _on_message(self, message: m.Message) -> None:
        match message:
            case m.Desired(desired=desired):
                self._node.take(desired)
            case m.Resync():
                self._reporter.resync()
            case _:
                log.warning(
                    "central sent a message that agents do not understand: %s", type(message).__name__
                )

    def _on_call(self, method: str, params: dict[str, str | int | float | bool | None]) -> AsyncIterator[str]:
        if method not in ("logs", "capsule"):
            raise LookupError(f"agents know no method {method}")
        instance = self._roster.instances.get(InstanceId(str(params.get("instance"))))
        if instance is None:
            raise LookupError(f"no instance {params.get('instance')} on this node")
        if method == "capsule":
            return read_capsule(self._capsules, instance.id)
        lines = params.get("lines")
        return read_log(
            self._launcher.log_path(instance.id),
            lines=int(lines) if isinstance(lines, int | float) else LINES,
            follow=bool(params.get("follow")),
            previous=bool(params.get("previous")),
        )


def _stops_by_signals() -> asyncio.Semaphore:
    """Released by each SIGTERM and SIGINT: two that arrive at once are two."""
    stops = asyncio.Semaphore(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stops.release)
    return stops


def _make_log_dir(path: Path) -> None:
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"[agent] log_dir = {path} cannot be made: {error.strerror}") from error
