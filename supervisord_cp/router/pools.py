"""Connections to engines, kept per incarnation."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from supervisord_cp.core.routing.leases import Account
from supervisord_cp.model.base import Incarnation
from supervisord_cp.router.endpoint import Endpoint, endpoint_of
from supervisord_cp.router.http1.head import ResponseHead, parse_response
from supervisord_cp.router.http1.recurring import RecurringHeads
from supervisord_cp.router.upstream import UpstreamConnection

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 3.0
IDLE_S: Final = 4.0
"""Less than the 5 s after which vLLM closes an idle connection by default."""
MOST_IDLE: Final = 512
_OUR_LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""A host that is gone without a word is noticed after half a minute."""


class Dialler(Protocol):
    """Who waits for a connection."""

    def connected(self, connection: UpstreamConnection) -> None: ...

    def unreachable(self, why: str) -> None: ...

    def exhausted(self, why: str) -> None:
        """This host has no file or port left for a connection: the engine is not to blame."""
        ...


class _Pool:
    """One incarnation's."""

    __slots__ = ("endpoint", "idle")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.idle: list[UpstreamConnection] = []


class Pools:
    """Makes connections, keeps them while they are idle, and knows all that are open."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pools: dict[Incarnation, _Pool] = {}
        self._open: set[UpstreamConnection] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._heads: RecurringHeads[ResponseHead] = RecurringHeads(parse_response)

    @property
    def connections(self) -> Sequence[UpstreamConnection]:
        """All that are open, in use or idle."""
        return tuple(self._open)

    @property
    def idle(self) -> int:
        """How many of them are idle."""
        return sum(len(pool.idle) for pool in self._pools.values())

    def endpoint(self, account: Account) -> Endpoint:
        """Where an incarnation listens."""
        return self._pool(account).endpoint

    def take(self, account: Account, now: float) -> UpstreamConnection | None:
        """The idle connection that was used last, if there is one."""
        idle = self._pool(account).idle
        oldest = now - IDLE_S
        while idle:
            connection = idle.pop()
            if connection.idle_since > oldest and not connection.transport.is_closing():
                return connection
            connection.transport.close()
        return None

    def dial(self, account: Account, dialler: Dialler) -> None:
        """Make a new connection, and tell how that went."""
        task = asyncio.get_running_loop().create_task(
            self._dial(self._pool(account).endpoint, account.incarnation, dialler)
        )
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def keep(self, connection: UpstreamConnection) -> None:
        """A connection is idle."""
        pool = self._pools.get(connection.incarnation)
        if pool is None or len(pool.idle) >= MOST_IDLE or connection.transport.is_closing():
            connection.transport.close()
            return
        connection.idle_since = self._clock()
        pool.idle.append(connection)

    def drop(self, incarnation: Incarnation) -> None:
        """Close an incarnation's idle connections."""
        pool = self._pools.get(incarnation)
        if pool is not None:
            self._close_idle(pool)

    def retain(self, present: Collection[Incarnation]) -> None:
        """Forget incarnations that the fleet no longer has. Connections in use stay."""
        for incarnation in [i for i in self._pools if i not in present]:
            self._close_idle(self._pools.pop(incarnation))

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest = self._clock() - IDLE_S
        for pool in self._pools.values():
            while pool.idle and pool.idle[0].idle_since <= oldest:
                pool.idle.pop(0).transport.close()

    async def close(self) -> None:
        """Close everything, in use or not."""
        for task in tuple(self._dials):
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for connection in tuple(self._open):
            connection.transport.abort()

    def _pool(self, account: Account) -> _Pool:
        pool = self._pools.get(account.incarnation)
        if pool is None:
            try:
                endpoint = endpoint_of(account.instance.url, account.instance.id)
            except ValueError as error:  # nothing will be reached there, which is what happens next
                log.warning("%s: %s", account.instance.id, error)
                endpoint = Endpoint(host="", port=0)
            pool = self._pools[account.incarnation] = _Pool(endpoint)
        return pool

    def _close_idle(self, pool: _Pool) -> None:
        idle, pool.idle = pool.idle, []
        for connection in idle:
            connection.transport.close()

    def _gone(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        pool = self._pools.get(connection.incarnation)
        if pool is not None and connection in pool.idle:
            pool.idle.remove(connection)

    async def _dial(self, endpoint: Endpoint, incarnation: Incarnation, dialler: Dialler) -> None:
        def protocol() -> UpstreamConnection:
            return UpstreamConnection(
                incarnation, endpoint, self._heads, idle=self.keep, gone=self._gone, clock=self._clock
            )

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    protocol,
                    endpoint.host,
                    endpoint.port,
                    ssl=ssl.create_default_context() if endpoint.tls else None,
                )
        except TimeoutError:
            dialler.unreachable(f"no connection within {CONNECT_TIMEOUT_S:.0f} s")
            return
        except OSError as error:
            if error.errno in _OUR_LIMITS:
                dialler.exhausted(error.strerror or str(error))
            else:
                dialler.unreachable(error.strerror or str(error))
            return
        except asyncio.CancelledError:
            dialler.unreachable("the router is ending")
            raise
        self._open.add(connection)
        _watch_peer(connection.transport)
        dialler.connected(connection)


def _watch_peer(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
