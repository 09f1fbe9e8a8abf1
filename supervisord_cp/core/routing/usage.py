"""What an engine counted for an answer, in OpenAI's and in Anthropic's words."""

from typing import Final

import msgspec

from supervisord_cp.model.base import Value


class Usage(Value, frozen=True, kw_only=True):
    """What an engine counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Counts(msgspec.Struct, gc=False):
    """OpenAI's names and Anthropic's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


_MOST: Final = 1 << 40
"""No answer has more tokens: an engine that says so is not to be believed."""
_decoder: Final = msgspec.json.Decoder(_Counts)


def read_usage(text: bytes) -> Usage | None:
    """That of a `usage` object, None when it is none."""
    try:
        counts = _decoder.decode(text)
    except msgspec.DecodeError:
        return None
    return Usage(
        prompt_tokens=min(_MOST, max(0, counts.prompt_tokens or counts.input_tokens or 0)),
        completion_tokens=min(_MOST, max(0, counts.completion_tokens or counts.output_tokens or 0)),
    )
