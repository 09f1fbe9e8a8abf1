"""Rendezvous: the same instance for the same session, as long as it is there."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Final

from msgspec import Meta

from supervisord_cp.policy import Candidate, Context, RoutingRequest, Value, scorer

_MOST_HASH: Final = float(1 << 64)
_SOURCES: Final = ("session", "user", "key")

Source = Annotated[str, Meta(pattern=f"^({'|'.join(_SOURCES)})$")]


class RendezvousParams(Value, frozen=True, kw_only=True):
    """Parameters of `rendezvous`."""

    by: tuple[Source, ...] = ("session", "user")
    """What keeps requests together, the first of these that a request has: `session` (header
    x-session-id), `user` (of the body), `key` (the name of the API key)."""


@scorer("rendezvous", params=RendezvousParams)
def rendezvous(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[RendezvousParams]
) -> list[float]:
    """A number from the session and the instance's id alone, larger on average for a larger weight.

    The highest one stays the highest when other instances come or go, so that only the sessions of an
    instance that is gone move; every router finds the same. Without a session: the least work.
    """
    name = _affinity(request, context.params.by)
    if not name:
        return [-candidate.work(context.request_tokens) for candidate in candidates]
    key = blake2b(name.encode(), digest_size=16).digest()
    return [_weight(key, candidate) for candidate in candidates]


def _affinity(request: RoutingRequest, by: Sequence[str]) -> str:
    for source in by:
        value: str = getattr(request, source)
        if value:
            return f"{source}:{value}"
    return ""


def _weight(key: bytes, candidate: Candidate) -> float:
    digest = blake2b(candidate.instance.id.encode(), digest_size=8, key=key).digest()
    uniform = (int.from_bytes(digest) + 1) / (_MOST_HASH + 2)
    return (candidate.instance.weight or 1.0) / -math.log(uniform)
