"""Prefix: the instance that has most of the prompt in its cache, with its work taken into account."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from supervisord_cp.builtin.routers.prefix_index import PrefixIndex
from supervisord_cp.policy import Affinity, Candidate, Context, Incarnation, RoutingRequest, Value, scorer

Mebibytes = Annotated[float, Meta(gt=0, le=65536)]
Share = Annotated[float, Meta(ge=0, le=1)]


class PrefixMatchParams(Value, frozen=True, kw_only=True):
    """Parameters of `prefix_match`."""

    memory_mib: Mebibytes = 64.0
    """What the index of a deployment may take; when it is full, what was not asked for lately is dropped."""
    credit: Share = 1.0
    """What a token that is cached saves, of the work of one that is not."""


@scorer("prefix_match", params=PrefixMatchParams, needs_prefix=True)
class PrefixMatch:
    """Least work until the first token: what is booked, and what of the prompt is not cached there.

    Every instance that was sent a prompt with the same beginning counts, each with the length that it has.
    An incarnation that is gone is forgotten at once: the next one starts with an empty cache.
    """

    def __init__(self, params: PrefixMatchParams) -> None:
        self._index = PrefixIndex(int(params.memory_mib * 1024 * 1024))
        self._credit = params.credit

    def __call__(
        self,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        context: Context[PrefixMatchParams],
    ) -> list[float]:
        prefix, mean, own = request.prefix, context.request_tokens, request.prompt_tokens
        saved = self._credit * own / len(prefix) if prefix else 0.0
        return [
            -(c.work(mean) + own - saved * self._index.match(c.instance.incarnation, prefix))
            for c in candidates
        ]

    def on_dispatch(
        self, request: RoutingRequest, candidate: Candidate, context: Context[PrefixMatchParams]
    ) -> Affinity | None:
        there = candidate.instance.incarnation
        affinity = self._index.affinity(there, request.prefix)
        self._index.add(there, request.prefix)
        return affinity

    def on_instance_reset(self, incarnation: Incarnation) -> None:
        self._index.forget(incarnation)
