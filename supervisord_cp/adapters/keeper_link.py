"""The connection to a keeper's socket."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import msgspec

from supervisord_cp.adapters.keeper_directory import SOCKET, StatusDocument

log = logging.getLogger(__name__)

BUSY_PAUSE_S: Final = 0.1

_STATUS: Final = msgspec.json.Decoder(StatusDocument)


class KeeperLink(asyncio.Protocol):
    """Tells of every status that the keeper sends; `lost` is done when the connection is."""

    def __init__(self, on_status: Callable[[StatusDocument], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_status = on_status
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def stop(self, grace_s: float) -> None:
        self._request({"op": "stop", "grace_s": grace_s})

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            try:
                status = _STATUS.decode(line)
            except msgspec.MsgspecError as error:
                log.warning("message from a keeper skipped: %s", error)
                continue
            self._on_status(status)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def _request(self, request: dict[str, str | float]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(msgspec.json.encode(request) + b"\n")


async def connect(directory: Path, on_status: Callable[[StatusDocument], None]) -> KeeperLink | None:
    """A connection to the keeper of an incarnation; None when no keeper is there.

    Raises:
        OSError: it cannot be told, for lack of descriptors for instance.
    """
    while True:
        try:
            connection = _connected(directory)
        except BlockingIOError:
            await asyncio.sleep(BUSY_PAUSE_S)  # a stuck keeper lets no more connections wait: it is there
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        else:
            loop = asyncio.get_running_loop()
            _, link = await loop.create_unix_connection(lambda: KeeperLink(on_status), sock=connection)
            return link


def _connected(directory: Path) -> socket.socket:
    # Through the descriptor, because the whole path may be longer than the 107 bytes of an address.
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(f"/proc/self/fd/{parent}/{SOCKET}")
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(parent)
