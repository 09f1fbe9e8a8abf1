"""A tokenizer and a language model that need no weights.

Tokens are word pieces of at most six bytes; a token's id *is* its bytes, so every replica reads ids alike.
The next token is a function of all bytes before it: the same prompt gives the same text everywhere, and a
prompt that holds the beginning of an answer goes on as the answer did, as greedy sampling does.
"""

import re
import zlib
from collections.abc import Iterable
from typing import Final

_WORDS: Final = """
the of to and a in is it that was for on are with as be at one have this from or had by but some what
there we can out other were all your when up use word how said an each she which do their time if will
way about many then them would write like so these her long make thing see him two has look more day
could go come did sound no most who over know water than call first may down side been now find any new
work part take get place made live where after back only round man year came show every good me give our
name very just form much great think say help low line turn cause same mean move right boy old too does
tell set three want air well also play small end put home read hand port large spell add even land here
must big high such act why ask men went light kind off need house try us again point world near build
self earth
"""
_SUFFIXES: Final = (
    "ing",
    "ed",
    "er",
    "ly",
    "s",
    ".",
    ",",
    ";",
    ":",
    " -",
    " (",
    ")",
    "\n",
    "0",
    "1",
    "7",
    "42",
)
_BEYOND_ASCII: Final = ("é", "ü", "ß", " né", "模", "型", " ✓", "😀")
VOCABULARY: Final = tuple(
    piece.encode() for piece in (*(f" {word}" for word in _WORDS.split()), *_SUFFIXES, *_BEYOND_ASCII)
)
"""What answers are made of: whole characters, at most six bytes each."""
_PIECE: Final = re.compile(rb" ?\S{1,5}|\s{1,6}")
_MARK: Final = b"\x01"
"""Put before a token's bytes to make its id, so that leading zero bytes count."""


def tokenize(text: str) -> list[int]:
    """Token ids of a text."""
    return [token_id(piece) for piece in _PIECE.findall(text.encode(errors="surrogatepass"))]


def count_tokens(text: str) -> int:
    """How many tokens a text has."""
    return len(_PIECE.findall(text.encode(errors="surrogatepass")))


def token_id(piece: bytes) -> int:
    """The id of a token's bytes."""
    return int.from_bytes(_MARK + piece, "big")


def token_bytes(token: int) -> bytes:
    """The bytes of a token; ids that no tokenizer made get some bytes, too."""
    raw = token.to_bytes(max(1, (token.bit_length() + 7) // 8), "big")
    return raw[1:] if raw.startswith(_MARK) and len(raw) > 1 else raw


def detokenize(tokens: Iterable[int]) -> str:
    """The text of token ids; broken characters become U+FFFD."""
    return b"".join(map(token_bytes, tokens)).decode(errors="replace")


def chat_prompt(turns: Iterable[tuple[str, str]]) -> str:
    """The chat template: (role, content) turns, then the assistant's turn opened."""
    return "".join(f"<|{role}|>{content}</s>" for role, content in turns) + "<|assistant|>"


class Continuation:
    """The text that follows a prompt, one token at a time."""

    def __init__(self, prompt: str, choice: int = 0) -> None:
        self._state = zlib.crc32(prompt.encode(errors="surrogatepass"))
        if choice:
            self._state = zlib.crc32(b"choice %d" % choice, self._state)

    def next(self) -> bytes:
        """The next token's bytes: whole characters."""
        mixed = (self._state * 0x9E3779B1 & 0xFFFFFFFF) >> 16
        piece = VOCABULARY[mixed % len(VOCABULARY)]
        self._state = zlib.crc32(piece, self._state)
        return piece
