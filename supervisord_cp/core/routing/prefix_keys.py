"""The prompt's blocks as numbers: two requests whose prompts begin alike have the same first ones.

The text is what stands in the body, in about the order in which it is put before the model: system prompt,
tools, then what was said. A key stands for a block and everything before it, the model's name and the cache
salt. Keys are compared within one process only.
"""

from typing import Any, Final

import msgspec

BLOCK_BYTES: Final = 256
"""About four of vLLM's blocks of 16 tokens, in English."""
MOST_BLOCKS: Final = 4096
"""What comes after the first megabyte makes no difference."""

_NONE: Final = msgspec.Raw()


class _Prompt(msgspec.Struct, gc=False):
    """What is part of the prompt: of chat and plain completions, of responses, of messages."""

    model: Any = None
    cache_salt: Any = None
    system: msgspec.Raw = _NONE
    instructions: msgspec.Raw = _NONE
    tools: msgspec.Raw = _NONE
    messages: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE
    input: msgspec.Raw = _NONE


_decoder: Final = msgspec.json.Decoder(_Prompt)


def prefix_keys(body: bytes | bytearray) -> tuple[int, ...]:
    """The keys of the whole blocks of a prompt; none for a body that is no JSON object.

    An unfinished last block has none: it is not the same as one that goes on.
    """
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ()
    parts = (
        found.system,
        found.instructions,
        found.tools,
        found.messages,
        found.prompt,
        found.input,
    )
    text = bytearray()
    for part in parts:
        text += memoryview(part)[: MOST_BLOCKS * BLOCK_BYTES - len(text)]
    key = hash((str(found.model), str(found.cache_salt)))
    keys: list[int] = []
    for start in range(0, len(text) // BLOCK_BYTES * BLOCK_BYTES, BLOCK_BYTES):
        key = hash((key, bytes(text[start : start + BLOCK_BYTES])))
        keys.append(key)
    return tuple(keys)
