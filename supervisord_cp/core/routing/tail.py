"""The end of an answer: enough of it is kept to read what the engine counted, once, when it is over."""

import re
from typing import Final

from supervisord_cp.core.routing.usage import Usage, read_usage

_MOST: Final = 6 * 1024
_KEPT: Final = 3 * 1024
_USAGE: Final = re.compile(rb'"usage"\s*+:\s*+(\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\})')
_ERROR_EVENT: Final = re.compile(rb'(?:^|\n)data: ?\{\s*"error"')


class Tail:
    """The last kilobytes of an answer, at a constant cost per piece."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """The next piece."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MOST:
            kept = b"".join(self._pieces)[-_KEPT:]
            self._pieces = [kept]
            self._size = len(kept)

    def usage(self) -> Usage | None:
        """The last `usage` object in it, if there is a whole one."""
        text = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        at = len(text)
        while (at := text.rfind(b'"usage"', 0, at)) >= 0:
            end = text.find(b"}", at)
            if text.startswith(b":{", at + 7) and text.find(b"{", at + 9, end) < 0 < end:  # as a rule
                return read_usage(text[at + 8 : end + 1])
            found = _USAGE.match(text, at)
            if found is not None:
                return read_usage(found[1])
        return None

    def failed(self) -> bool:
        """Whether the stream ended with an error event: vLLM says so with status 200, before `[DONE]`."""
        return _ERROR_EVENT.search(b"".join(self._pieces)) is not None
