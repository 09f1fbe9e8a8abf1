"""Server side of a websocket that echoes (RFC 6455): `/v1/realtime`."""

import base64
import hashlib
from typing import Final

from supervisord_cp.engines.fake.bodies import ApiError, dumps
from supervisord_cp.engines.fake.generate import new_id, now
from supervisord_cp.engines.fake.http1 import Request, response_head

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT: Final = 1
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10
_FINAL: Final = 0x80


class EchoSocket:
    """Greets with `session.created`, then sends every message back."""

    def __init__(self, request: Request) -> None:
        key = request.headers.get("sec-websocket-key")
        if key is None:
            raise ApiError(400, "Missing Sec-WebSocket-Key header", "Bad Request")
        accept = base64.b64encode(
            hashlib.sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest()
        ).decode()
        head = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": accept}
        created = dumps({"type": "session.created", "id": f"sess-{new_id()}", "created": now()})
        self.greeting = response_head(101, head) + frame(_TEXT, created.encode())
        self._buffer = bytearray()
        self._kind = 0
        self._message = bytearray()

    def receive(self, data: bytes) -> tuple[bytes, bool]:
        """Frames to answer with, and whether to close after them."""
        self._buffer += data
        answers: list[bytes] = []
        while (taken := self._take_frame()) is not None:
            final, code, payload = taken
            if code == _CLOSE:
                return b"".join((*answers, frame(_CLOSE, payload))), True
            if code == _PING:
                answers.append(frame(_PONG, payload))
            elif code != _PONG:
                self._kind = code or self._kind
                self._message += payload
                if final:
                    answers.append(frame(self._kind, bytes(self._message)))
                    self._message.clear()
        return b"".join(answers), False

    def _take_frame(self) -> tuple[bool, int, bytes] | None:
        """Whether it is a message's last, its code and its unmasked payload."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 0x7F, 2
        if length >= 126:
            width = 2 if length == 126 else 8
            start += width
            length = int.from_bytes(buffer[2:start], "big")
        masked = bool(buffer[1] & _FINAL)
        end = start + (4 if masked else 0) + length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[end - length : end])
        if masked:
            payload = _unmask(payload, bytes(buffer[start : start + 4]))
        final, code = bool(buffer[0] & _FINAL), buffer[0] & 0x0F
        del buffer[:end]
        return final, code, payload


def frame(code: int, payload: bytes) -> bytes:
    """An unmasked frame that is a whole message."""
    if len(payload) < 126:
        size = bytes((len(payload),))
    elif len(payload) < 1 << 16:
        size = b"\x7e" + len(payload).to_bytes(2, "big")
    else:
        size = b"\x7f" + len(payload).to_bytes(8, "big")
    return bytes((_FINAL | code,)) + size + payload


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
