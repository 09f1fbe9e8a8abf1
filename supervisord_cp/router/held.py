"""An answer that may be a dying engine's last word: kept back until it is known whether it lives.

vLLM answers 500, and streams an error event under status 200, when its engine process is gone, for some
seconds before it exits itself. An error of its own looks the same; then the answer is passed on as it is.
"""

import re
from typing import Final

MOST_HELD: Final = 64 * 1024
_ERROR_EVENT: Final = re.compile(rb'(?:[0-9A-Fa-f]+\r\n)?data: ?\{"error"')


def begins_with_error(data: bytes) -> bool:
    """Whether an event stream begins with an error (with its chunked framing or without)."""
    return not data.startswith(b"{") and _ERROR_EVENT.match(data) is not None


class Held:
    """What has come of the answer."""

    __slots__ = ("_pieces", "_size", "whole")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self.whole = False

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self._pieces)

    def add(self, data: bytes) -> bool:
        """Keep a piece. False: it is more than a last word."""
        self._pieces.append(data)
        self._size += len(data)
        return self._size <= MOST_HELD
