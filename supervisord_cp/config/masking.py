"""Which values may be secrets, and what is shown in their place."""

import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

MASK: Final = "***"

_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_ALWAYS: Final = frozenset(
    {"secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials", "apikey"}
)
_AT_THE_END: Final = frozenset({"token", "auth", "authorization"})
_KINDS_OF_KEY: Final = frozenset({"api", "access", "private", "secret", "signing", "encryption"})


def looks_secret(name: str) -> bool:
    """Whether a variable or flag of this name holds a secret: `HF_TOKEN`, `api-key`, not `max-num-tokens`."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in ("file", "path", "dir"):
        return False
    if words[-1] == "key" and len(words) > 1 and words[-2] in _KINDS_OF_KEY:
        return True
    return words[-1] in _AT_THE_END or not _ALWAYS.isdisjoint(words)


def mask_url(url: str) -> str:
    """An address without its user and password."""
    try:
        netloc = urlsplit(url).netloc
    except ValueError:
        return url
    user, at, _ = netloc.rpartition("@")
    return url.replace(f"{user}@", f"{MASK}@", 1) if at else url


def secret_flags(argv: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Flags of a command line that look like secrets: the index of the value, and the flag's name."""
    for index, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if not flag.startswith("-") or not looks_secret(flag):
            continue
        if equals and value:
            yield index, flag
        elif not equals and index + 1 < len(argv) and not argv[index + 1].startswith("-"):
            yield index + 1, flag


def mask_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """A command line whose secrets are masked."""
    shown = list(argv)
    for index, flag in secret_flags(argv):
        shown[index] = f"{flag}={MASK}" if shown[index].startswith(f"{flag}=") else MASK
    return tuple(shown)
