"""The end of an answer: enough of it is kept to read what the engine counted, once, when it is over."""

import re
from typing import Any, Final

import msgspec

from supervisord_cp.core.routing.estimate import Usage

_MOST: Final = 6 * 1024
_KEPT: Final = 3 * 1024
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})')
_ERROR_EVENT: Final = re.compile(rb'(?:^|\n)data: ?\{\s*"error"')


class _Counts(msgspec.Struct):
    """OpenAI's names and Anthropic's."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None


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
        text = b"".join(self._pieces)
        if b'"usage"' not in text:
            return None
        for found in reversed(_USAGE.findall(text)):
            try:
                counts = msgspec.json.decode(found, type=_Counts)
            except msgspec.DecodeError:
                continue
            return Usage(
                prompt_tokens=_count(counts.prompt_tokens, counts.input_tokens),
                completion_tokens=_count(counts.completion_tokens, counts.output_tokens),
            )
        return None

    def failed(self) -> bool:
        """Whether the stream ended with an error event: vLLM says so with status 200, before `[DONE]`."""
        return _ERROR_EVENT.search(b"".join(self._pieces)) is not None


def _count(*values: Any) -> int:
    return next((value for value in values if type(value) is int and value >= 0), 0)
