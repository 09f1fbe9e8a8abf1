"""Rendezvous: the same instance for the same session, as long as it is there."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Final

from msgspec import Meta

from supervisord_cp.builtin.routers.prefix_index import PrefixIndex
from supervisord_cp.policy import Affinity, Candidate, Context, Incarnation, RoutingRequest, Value, scorer

_BITS: Final = (1 << 64) - 1
_ODD: Final = 0x9E3779B97F4A7C15
_MEMORY_BYTES: Final = 8 << 20
"""65,536 sessions of a deployment."""
_SOURCES: Final = ("session", "user", "key")

Source = Annotated[str, Meta(pattern=f"^({'|'.join(_SOURCES)})$")]


class RendezvousParams(Value, frozen=True, kw_only=True):
    """Parameters of `rendezvous`."""

    by: tuple[Source, ...] = ("session", "user")
    """What keeps requests together, the first of these that a request has: `session` (header
    x-session-id), `user` (of the body), `key` (the name of the API key)."""


@scorer("rendezvous", params=RendezvousParams)
class Rendezvous:
    """A number from the session and the instance's id alone, larger on average for a larger weight.

    The highest one stays the highest when other instances come or go, so that only the sessions of an
    instance that is gone move; every router finds the same. Without a session: the least work.
    Where sessions were is remembered for the count of hits alone.
    """

    def __init__(self, params: RendezvousParams) -> None:
        self._by = params.by
        self._hashes: dict[str, int] = {}
        """Of instances' ids."""
        self._seen = PrefixIndex(_MEMORY_BYTES)
        """A session is a prompt of one block here."""

    def __call__(
        self, request: RoutingRequest, candidates: Sequence[Candidate], context: Context[RendezvousParams]
    ) -> list[float]:
        name = self._tie(request)
        if not name:
            return [-candidate.work(context.request_tokens) for candidate in candidates]
        if len(self._hashes) > 4 * len(candidates):
            self._hashes.clear()
        key = _hash(name)
        return [self._weight(key, candidate) for candidate in candidates]

    def on_dispatch(
        self, request: RoutingRequest, candidate: Candidate, context: Context[RendezvousParams]
    ) -> Affinity | None:
        name = self._tie(request)
        if not name:
            return None
        there, session = candidate.instance.incarnation, (_hash(name),)
        affinity = self._seen.affinity(there, session)
        self._seen.add(there, session)
        return affinity

    def on_instance_reset(self, incarnation: Incarnation) -> None:
        self._seen.forget(incarnation)

    def _tie(self, request: RoutingRequest) -> str:
        for source in self._by:
            value: str = getattr(request, source)
            if value:
                return f"{source}:{value}"
        return ""

    def _weight(self, key: int, candidate: Candidate) -> float:
        name = candidate.instance.id
        own = self._hashes.get(name)
        if own is None:
            own = self._hashes[name] = _hash(name)
        mixed = (key ^ own) * _ODD & _BITS
        mixed = (mixed ^ mixed >> 29) * _ODD & _BITS
        uniform = ((mixed ^ mixed >> 32) + 1) / (_BITS + 2)
        return (candidate.instance.weight or 1.0) / -math.log(uniform)


def _hash(text: str) -> int:
    """The same in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
