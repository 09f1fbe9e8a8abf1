"""The end of an answer: enough of it is kept to read what the engine counted, once, when it is over."""

import re
from typing import Final

import msgspec

from supervisord_cp.core.routing.estimate import Usage

_MOST: Final = 6 * 1024
_KEPT: Final = 3 * 1024
_USAGE: Final = re.compile(rb'"usage"\s*+:\s*+(\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\})')
_ERROR_EVENT: Final = re.compile(rb'(?:^|\n)data: ?\{\s*"error"')


class _Counts(msgspec.Struct):
    """OpenAI's names and Anthropic's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


_decoder: Final = msgspec.json.Decoder(_Counts)


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
            found = _USAGE.match(text, at)
            if found is not None:
                return _usage(found[1])
        return None

    def failed(self) -> bool:
        """Whether the stream ended with an error event: vLLM says so with status 200, before `[DONE]`."""
        return _ERROR_EVENT.search(b"".join(self._pieces)) is not None


def _usage(text: bytes) -> Usage | None:
    try:
        counts = _decoder.decode(text)
    except msgspec.DecodeError:
        return None
    return Usage(
        prompt_tokens=max(0, counts.prompt_tokens or counts.input_tokens or 0),
        completion_tokens=max(0, counts.completion_tokens or counts.output_tokens or 0),
    )
