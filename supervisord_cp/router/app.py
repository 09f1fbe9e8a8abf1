"""The router process: puts the parts together, runs until told to end, then finishes what is open."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from random import Random
from typing import Final

from supervisord_cp.adapters.sd_notify import Notifier
from supervisord_cp.config.schema import Config
from supervisord_cp.core.routing.lane_policies import Here
from supervisord_cp.core.routing.leases import Account
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.router.auth import ApiKeys
from supervisord_cp.router.build import described
from supervisord_cp.router.dispatch import Dispatcher
from supervisord_cp.router.follower import Follower
from supervisord_cp.router.health import HealthChecks
from supervisord_cp.router.listener import Listener
from supervisord_cp.router.memory import Memory
from supervisord_cp.router.observers import REQUESTS, Observer, RequestLog
from supervisord_cp.router.policies import DESCRIBE_S, RouterPolicies
from supervisord_cp.router.seat import Seat
from supervisord_cp.router.tracing import make_tracing

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
KNOWN_S: Final = 2.0
"""How long a new process may take to learn of the fleet before it serves."""
GRACE_S: Final = 1.0
"""How long idle connections are kept after others serve in our place: a request may be on its way."""
FILES_EVERY_S: Final = 1.0
_GC_THRESHOLD: Final = 50_000


async def run_router(
    config: Config,
    *,
    router_id: str = "",
    on_ready: Callable[[str], None] = lambda url: None,
    seat: Seat | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    The first signal lets open requests finish for up to `router.drain_timeout_s`, a second one ends them;
    SIGHUP reads the clients' keys and the certificate again.
    `on_ready` is given the address that clients use, once they can connect. `seat`: we are one of several
    processes of an address.

    Raises:
        UsageError: the configuration asks for what cannot be (address taken, certificate unreadable, …).
    """
    return await _Router(config, router_id, seat).run(on_ready)


class _Router:
    """The parts of one router process, and what they tell each other."""

    def __init__(self, config: Config, router_id: str, seat: Seat | None) -> None:
        self._config = config
        self._id = router_id
        self._seat = seat
        self._loop = asyncio.get_running_loop()
        self._tracing = make_tracing(config.router, _id_of(str(config.router.api_listen), seat))
        self._policies = RouterPolicies(config.plugins.paths, self._event)
        self._dispatcher = Dispatcher(
            config.router,
            keys=ApiKeys(config.router.api_keys_file),
            clock=time.monotonic,
            call_later=lambda delay, call: self._loop.call_later(delay, call).cancel,
            created=int(time.time()),
            rng=Random(),
            watcher=self,
            binder=self._policies.binder,
            here=Here(node=config.agent.name or socket.gethostname(), zone=config.agent.zone),
            shared=None if seat is None else seat.shared(config.router.rate_limit_rps),
            observers=self._observers(),
        )
        self._policies.attach(self._dispatcher)
        self._listener = Listener(self._dispatcher, config.router)
        self._health = HealthChecks(self._dispatcher)
        self._memory = Memory(config.central.state_dir / "router" / "fleet.json")
        self._follower: Follower | None = None
        self._stop = asyncio.Event()
        self._ends = 0
        """How often we were asked to end; not counted: that others serve in our place."""

    async def run(self, on_ready: Callable[[str], None]) -> int:
        _raise_file_limit()
        await self._policies.load(self._config.deployments)
        seat = self._seat
        self._listener.bind(() if seat is None else seat.sockets)
        self._id = self._id or _id_of(self._listener.url, seat)
        self._follower = follower = Follower(
            self._dispatcher,
            router_id=self._id,
            pid=os.getpid() if seat is None else seat.holder,
            restart=None if seat is None else seat.restart,
            central=self._config.router.central,
            token_file=self._config.router.token_file,
            api_url=self._listener.url,
            metrics=self._metrics,
            on_change=self._memory.changed,
            policies=self._policies,
        )
        if (remembered := self._memory.recall()) is not None:
            follower.recall(remembered)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)
        self._loop.add_signal_handler(signal.SIGHUP, self._refresh)
        _calm_collector()
        notifier = Notifier(os.environ)
        tasks = [
            self._loop.create_task(follower.run()),
            self._loop.create_task(self._memory.run(follower.remembered)),
            self._loop.create_task(self._policies.run()),
            self._loop.create_task(self._tick_for_ever(notifier)),
        ]
        if seat is not None:
            seat.open(leave=self._stop.set, wake=self._dispatcher.pump_all)
        try:
            await self._accept()
            log.info("router %s serves at %s, %s", self._id, self._listener.url, described())
            on_ready(self._listener.url)
            notifier.ready(f"serving at {self._listener.url}")
            if seat is not None:
                seat.tick()
                seat.ready()
            await self._stop.wait()
            notifier.stopping()
            if seat is not None:
                seat.column.take_none()
            await self._drain()
            self._dispatcher.cut_all()
            await follower.leave()
        finally:
            if seat is not None:
                seat.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._health.close()
            self._dispatcher.cut_all()
            await self._dispatcher.pools.close()
            await self._listener.close()
            if self._tracing is not None:
                await self._tracing.close()
        return 0

    async def _accept(self) -> None:
        """Let clients in; as one of several processes not before we know the fleet, as others may, or as
        clients can wait in the listener's queue for a moment."""
        seat = self._seat
        if seat is None:
            await self._listener.start()
            return
        deadline = time.monotonic() + KNOWN_S
        while not (self._dispatcher.fleet.known or self._stop.is_set()) and time.monotonic() < deadline:
            await asyncio.sleep(TICK_S / 10)
        seat.tick()
        await self._listener.start(seat.column.connections if self._config.router.processes > 1 else None)

    # --- what the dispatcher tells

    def ejected(self, account: Account, why: str, request: str) -> None:
        told = {"request_id": request} if request else None
        log.warning("%s is out of rotation: %s", account.instance.id, why, extra=told)
        self._tell("router.ejected", account, f"taken out of rotation: {why}", Severity.WARNING)

    def doubted(self, account: Account, told: Callable[[str], None]) -> None:
        self._health.ask_about(account, told)

    def missed(self) -> None:
        if self._follower is not None:
            self._follower.report_soon()

    def released(self, account: Account) -> None:
        if self._follower is not None:
            self._follower.report_soon()

    def restored(self, account: Account) -> None:
        log.info("%s is in rotation again", account.instance.id)
        self._tell("router.restored", account, "in rotation again", Severity.INFO)

    def _tell(self, kind: str, account: Account, message: str, severity: Severity) -> None:
        instance = account.instance
        self._event(
            Event(kind=kind, subject=instance.id, node=instance.node, message=message, severity=severity)
        )

    def _event(self, event: Event) -> None:
        if self._follower is not None:
            self._follower.tell(event)
            self._follower.report_soon()

    # --- the process

    def _observers(self) -> list[Observer]:
        made: list[Observer] = [] if self._tracing is None else [self._tracing]
        if REQUESTS.isEnabledFor(logging.DEBUG):
            made.append(RequestLog())
        return made

    def _metrics(self) -> str:
        self._dispatcher.metrics.connections = self._listener.connections
        return self._dispatcher.metrics.render(self._dispatcher.fleet)

    def _refresh(self) -> None:
        """Read keys and certificate again if their files have changed."""
        self._dispatcher.refresh_keys()
        self._listener.refresh()

    def _signalled(self) -> None:
        self._ends += 1
        if self._stop.is_set():  # we are draining
            self._dispatcher.end()
        self._stop.set()

    async def _drain(self) -> None:
        """Let open requests finish. When others serve in our place, what waits goes on waiting here."""
        now = time.monotonic()
        deadline = now + self._config.router.drain_timeout_s
        least = now
        if self._ends:
            self._listener.drain()
            self._dispatcher.end()
        else:
            self._listener.drain(GRACE_S)
            least += GRACE_S
        if self._listener.connections:
            log.info("ending: %d connections finish what they asked for", self._listener.connections)
        while (self._listener.connections or now < least) and self._ends <= 1 and now < deadline:
            await asyncio.sleep(TICK_S / 2)
            now = time.monotonic()
        self._dispatcher.end()

    async def _tick_for_ever(self, notifier: Notifier) -> None:
        next_files = next_watchdog = next_description = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if self._seat is not None:
                self._seat.tick()
            try:
                self._dispatcher.tick()
                self._health.tick(now)
                self._policies.tick()
                if now >= next_description:
                    next_description = now + DESCRIBE_S
                    self._policies.describe(now)
                if now >= next_files:
                    next_files = now + FILES_EVERY_S
                    self._refresh()
            except Exception:
                log.exception("a tick failed; requests go on")
                continue
            if notifier.watchdog_s is not None and now >= next_watchdog:
                next_watchdog = now + notifier.watchdog_s / 2
                notifier.watchdog()


def _id_of(url: str, seat: Seat | None) -> str:
    """`HOST:PORT`, and the number of the process where there may be several."""
    name = f"{socket.gethostname()}:{url.rpartition(':')[2]}"
    return name if seat is None else f"{name}/{seat.number}"


def _raise_file_limit() -> None:
    """A connection is two files: take all that we may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _calm_collector() -> None:
    """Requests leave no reference cycles behind: what is alive now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 50, 50)
