"""Asking instances whether they are there: those that were ejected, and those that are in doubt."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Final

from supervisord_cp.core.routing.leases import Account
from supervisord_cp.model.base import Incarnation
from supervisord_cp.router.dispatch import Dispatcher
from supervisord_cp.router.endpoint import Endpoint
from supervisord_cp.router.http1.head import MOST_HEAD_BYTES

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 2.0
MOST_AT_ONCE: Final = 32
_REQUEST: Final = b"GET %b/health HTTP/1.1\r\n%bconnection: close\r\n\r\n"


class HealthChecks:
    """Probes run beside the requests; each incarnation has one at a time."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._running: dict[Incarnation, asyncio.Task[None]] = {}
        self._waiting: dict[Incarnation, list[Callable[[str], None]]] = {}

    def tick(self, now: float) -> None:
        """Probe those ejected ones whose time has come."""
        for account in self._dispatcher.fleet.to_probe(now):
            if len(self._running) < MOST_AT_ONCE:
                self._start(account)

    def ask_about(self, account: Account, told: Callable[[str], None]) -> None:
        """Take it out if it is not healthy, and tell why ("": it is)."""
        self._waiting.setdefault(account.incarnation, []).append(told)
        self._start(account)

    async def close(self) -> None:
        """End all probes."""
        tasks = tuple(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, account: Account) -> None:
        incarnation = account.incarnation
        if incarnation in self._running:
            return
        self._running[incarnation] = asyncio.get_running_loop().create_task(self._probe(account))

    async def _probe(self, account: Account) -> None:
        try:
            why = await ask(self._dispatcher.pools.endpoint(account))
        finally:
            del self._running[account.incarnation]
        if why:
            self._dispatcher.eject(account, why)
        else:
            self._dispatcher.try_out(account.incarnation)
        for told in self._waiting.pop(account.incarnation, ()):
            told(why)


async def ask(endpoint: Endpoint) -> str:
    """Why an engine is not healthy; "" when it answers `/health` with anything but an error of its own."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                endpoint.host,
                endpoint.port,
                ssl=ssl.create_default_context() if endpoint.tls else None,
                limit=MOST_HEAD_BYTES,
            )
            writer.write(_REQUEST % (endpoint.prefix, endpoint.host_line))
            line = await reader.readline()
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:.0f} s"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    finally:
        if writer is not None:
            writer.transport.abort()
    version, _, rest = line.partition(b" ")
    status = rest[:3].decode("latin-1")
    if not version.startswith(b"HTTP/1.") or not status.isdigit():
        return "its answer is not HTTP"
    return f"its health check answers {status}" if status >= "500" else ""
