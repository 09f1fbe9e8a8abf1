"""The keeper's socket: any number of clients, none of which can make it wait."""

import json
import os
import selectors
import socket
from collections.abc import Callable
from typing import Any, Final

from supervisord_cp.keeper.directory import complain, remove
from supervisord_cp.keeper.protocol import SOCKET, StatusDocument

MAX_CLIENTS: Final = 32
MAX_LINE_BYTES: Final = 64 * 1024
MAX_UNSENT_BYTES: Final = 1024 * 1024
"""A client that is this far behind is let go; it may connect again."""

Handler = Callable[[dict[str, Any]], None]
"""What to do with a request. A ValueError in it means that the request makes no sense."""


class Client:
    """One connection: bytes that are not a line yet, bytes that are not sent yet."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._received = b""
        self._unsent = b""

    @property
    def wants_to_send(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> list[bytes] | None:
        """Whole lines that have come; None when the client is gone or talks nonsense."""
        try:
            data = self.connection.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return lines if data and len(self._received) <= MAX_LINE_BYTES else None

    def send(self, data: bytes = b"") -> bool:
        """Send as much as goes, keep the rest. False when the client is gone or too far behind."""
        self._unsent += data
        try:
            while self._unsent:
                self._unsent = self._unsent[self.connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return len(self._unsent) <= MAX_UNSENT_BYTES


class Control:
    """Listens in the current directory; only the owner of the files may connect."""

    def __init__(
        self, selector: selectors.BaseSelector, *, status: Callable[[], StatusDocument], handle: Handler
    ) -> None:
        """Raises OSError when the socket cannot be made."""
        self._selector = selector
        self._status = status
        self._handle = handle
        self._clients: set[Client] = set()
        remove(SOCKET)  # of a keeper that was killed: this one holds the lock
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        umask = os.umask(0o177)
        try:
            self._listener.bind(SOCKET)  # relative: a path from the root may be too long for an address
        finally:
            os.umask(umask)
        self._listener.listen(MAX_CLIENTS)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def publish(self) -> None:
        """Tell every client how things are now."""
        line = self._line()
        for client in tuple(self._clients):
            self._send(client, line)

    def close(self) -> None:
        """Stop. What clients were sent stays theirs to read."""
        for client in tuple(self._clients):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        remove(SOCKET)

    def _line(self) -> bytes:
        return json.dumps(self._status()).encode() + b"\n"

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        client = Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda mask: self._on_ready(client, mask))
        self._send(client, self._line())

    def _on_ready(self, client: Client, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and not self._send(client, b""):
            return
        if mask & selectors.EVENT_READ:
            lines = client.receive()
            if lines is None:
                self._drop(client)
                return
            for line in lines:
                self._obey(client, line)

    def _obey(self, client: Client, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
            if request.get("op") == "status":
                self._send(client, self._line())
            else:
                self._handle(request)
        except ValueError as error:
            complain(f"request ignored: {error}")

    def _send(self, client: Client, data: bytes) -> bool:
        if client not in self._clients:
            return False
        if not client.send(data):
            self._drop(client)
            return False
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.wants_to_send else 0)
        key = self._selector.get_key(client.connection)
        if key.events != events:
            self._selector.modify(client.connection, events, key.data)
        return True

    def _drop(self, client: Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()
