"""Within load: leaves out instances that have much more work than the others."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from supervisord_cp.policy import Candidate, Context, RoutingRequest, Value, filter  # noqa: A004

Bound = Annotated[float, Meta(ge=1)]
Slack = Annotated[float, Meta(ge=0)]


class LoadBound(Value, frozen=True, kw_only=True):
    """How much more work than the mean an instance may have."""

    bound: Bound = 1.25
    """Times the mean."""
    slack: Slack = 2.0
    """Mean requests on top, so that an idle fleet does not count as uneven."""

    def leaves(self, candidates: Sequence[Candidate], request_tokens: float) -> list[Candidate]:
        """The candidates within the bound; those with the least work are always among them."""
        work = [candidate.work(request_tokens) for candidate in candidates]
        most = self.bound * sum(work) / len(work) + self.slack * request_tokens
        return [candidate for candidate, mine in zip(candidates, work, strict=True) if mine <= most]


@filter("within_load", params=LoadBound)
def within_load(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[LoadBound]
) -> list[Candidate]:
    """Instances with at most `bound` times the mean work, and `slack` mean requests more.

    What stands after it may be as partial as it likes: it cannot pile work up on one instance.
    """
    return context.params.leaves(candidates, context.request_tokens)
