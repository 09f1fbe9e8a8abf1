"""The central daemon, put together."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from supervisord_cp.adapters.prometheus import PrometheusClient
from supervisord_cp.adapters.sd_notify import Notifier
from supervisord_cp.adapters.sqlite import SqliteStore
from supervisord_cp.central.admitted import Admitted
from supervisord_cp.central.api import Api, errors
from supervisord_cp.central.audit import audit
from supervisord_cp.central.auth import guard, tokens_of
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.events import EventLog
from supervisord_cp.central.links import Links
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.metrics import Metrics
from supervisord_cp.central.page.feed import Feed
from supervisord_cp.central.page.page_api import PageApi
from supervisord_cp.central.page.sessions import Sessions
from supervisord_cp.central.policies import CentralPolicies
from supervisord_cp.central.queries import Queries
from supervisord_cp.central.router_child import RouterChild
from supervisord_cp.central.routers import Routers
from supervisord_cp.clock import SystemClock
from supervisord_cp.config.plan import diff_configs
from supervisord_cp.config.schema import Config, StaticInstanceConfig
from supervisord_cp.engines.registry import all_engines
from supervisord_cp.errors import ConfigErrors, UsageError
from supervisord_cp.model.base import NodeName
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.fleet import FleetPart
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.plugin_host.checks import load_for_daemon
from supervisord_cp.prober.prober import Probe, Prober
from supervisord_cp.prober.silent import SilentNodes

log = logging.getLogger(__name__)

STEP_S: Final = 0.5
"""The control loop runs at least this often, and at once when something has happened."""
BODY_LIMIT: Final = 64 * 1024


async def run_central(
    config_path: Path, config: Config, *, stop_router: bool, start_router: bool = True
) -> int:
    """Run central in the foreground until SIGTERM or SIGINT; the exit status.

    SIGTERM leaves the router serving unless `stop_router`; SIGINT (Ctrl-C) stops it. SIGHUP reads the
    configuration again.
    """
    with _only_one(config.central.state_dir):
        return await _Central(config_path, config).run(
            stop_router=stop_router, start_router=start_router and config.central.start_router
        )


@contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(
            f"[central] state_dir = {state_dir} cannot be used: {error.strerror}; "
            "name a folder that this user may write"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another central runs with the state directory {state_dir}") from None
        yield
    finally:
        os.close(lock)


class _Central:
    def __init__(self, config_path: Path, config: Config) -> None:
        self._path = config_path
        clock = SystemClock()
        self._tokens = tokens_of(config)
        self._store = SqliteStore(config.central.state_dir / "central.db")
        self._memory = Memory(self._store)
        self._routers = Routers(clock)
        self._controller = Controller(
            config, self._memory, EventLog(self._store, time.time), self._routers, clock, time.time
        )
        for node, keys in self._memory.keys.items():
            self._routers.update_keys(node, keys)
        self._links = Links(self._controller, None if self._tokens is None else self._tokens.role_of)
        self._metrics = Metrics(self._controller)
        self._policies = CentralPolicies(
            config.plugins.paths,
            use=self._controller.use_policies,
            tell=self._controller.events.add,
            clock=clock.now,
        )
        self._feed = Feed(self._controller)
        self._sessions = None if self._tokens is None else Sessions(clock.now, self._tokens.role_of)
        self._admitted = Admitted()
        page = PageApi(self._feed, self._sessions)
        self._api = Api(self._controller, self._links, self._metrics, self._policies, page, time.time)
        self._woken = asyncio.Event()
        self._controller.wake = self._woken.set
        self._prober = Prober(all_engines()["vllm"], clock, self._static_changed, self._static_state)
        self._silent = SilentNodes(clock, self._controller.silent_engines)
        self._controller.dead_for = self._silent.dead_for
        self._queries = Queries(
            lambda: self._controller.config.prometheus,
            lambda config: PrometheusClient(config.url, config.timeout_s),
            clock,
            tell=self._routers.update_queries,
        )
        self._controller.query_results = lambda: self._queries.results
        self._metrics.watch(self._queries)
        self._controller.probe_error = self._prober.error
        self._stopping = asyncio.Event()
        self._interrupted = False

    async def run(self, *, stop_router: bool, start_router: bool) -> int:
        config = self._controller.config.central
        notifier = Notifier(os.environ)
        runner = await self._listen()
        self._signals()
        self._prober.update(self._controller.config.static_instances)
        router = self._controller.config.router
        child = RouterChild(self._path, config.state_dir, router.api_listen, self._routers.serving)
        tasks = [
            asyncio.create_task(self._loop(notifier)),
            asyncio.create_task(self._silent.run()),
            asyncio.create_task(self._policies.run(lambda: self._controller.config)),
            asyncio.create_task(self._queries.run()),
            asyncio.create_task(self._feed.run()),
            asyncio.create_task(self._links.watch_tokens()),
            asyncio.create_task(self._admitted.watch()),
        ]
        if start_router:
            tasks.append(asyncio.create_task(child.run()))
        stopped = asyncio.create_task(self._stopping.wait())
        notifier.ready(f"control on {config.control_listen}")
        log.info("central is ready: control on http://%s", config.control_listen)
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        notifier.stopping()
        failed = [task for task in done if task is not stopped]
        for task in [stopped, *tasks]:
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
        if stop_router or self._interrupted:
            self._stopping.clear()
            await child.stop(router.drain_timeout_s, self._stopping)
        child.close()
        await self._prober.close()
        await self._links.close()
        await runner.cleanup()
        self._store.close()
        for task in failed:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("central stops: %s", error, exc_info=error)
        return 1 if failed else 0

    async def _listen(self) -> web.AppRunner:
        listen = self._controller.config.central.control_listen
        app = web.Application(
            middlewares=[
                errors,
                guard(self._tokens, self._metrics.refused, self._sessions, self._admitted),
                audit(self._controller.events.add),
            ],
            client_max_size=BODY_LIMIT,
        )
        for method, path, handler, _ in self._api.routes():
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, listen.host, listen.port).start()
        except OSError as error:
            await runner.cleanup()
            raise UsageError(
                f"[central] control_listen = {listen} cannot be bound: {error.strerror or error}; "
                "end what holds it, or choose another address"
            ) from error
        return runner

    def _signals(self) -> None:
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self._interrupted = True
            self._stopping.set()

        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    async def _loop(self, notifier: Notifier) -> None:
        while True:
            self._woken.clear()
            self._controller.step()
            notifier.watchdog()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STEP_S):
                    await self._woken.wait()

    def reload(self) -> None:
        """Take over a changed configuration if it is valid; else keep the old one and say what is wrong."""
        try:
            new = load_for_daemon(self._path)
        except ConfigErrors as error:
            log.error("the configuration stays as it was:\n%s", error)
            self._note("config.rejected", str(error), Severity.ERROR)
            return
        changes = diff_configs(self._controller.config, new)
        self._controller.config = new
        self._prober.update(new.static_instances)
        for change in changes:
            log.info("configuration: %s", change)
        self._note("config.reloaded", "; ".join(str(c) for c in changes) or "nothing has changed")
        self._woken.set()

    def _note(self, kind: str, message: str, severity: Severity = Severity.INFO) -> None:
        self._controller.events.add(
            Event(kind=kind, subject=str(self._path), message=message, severity=severity)
        )

    def _static_changed(self, part: FleetPart) -> None:
        self._routers.update_part(part)
        self._routers.update_keys(NodeName(""), self._prober.keys())
        self._woken.set()

    def _static_state(self, config: StaticInstanceConfig, probe: Probe) -> None:
        severity = Severity.INFO if probe.state is InstanceState.READY else Severity.WARNING
        self._controller.events.add(
            Event(
                kind="instance.state",
                subject=config.id,
                message=f"{probe.state} {probe.error}".strip(),
                severity=severity,
            )
        )
