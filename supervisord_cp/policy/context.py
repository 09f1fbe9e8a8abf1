"""What is known besides the request and the instances."""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from supervisord_cp.model.base import Value
from supervisord_cp.model.request import Candidate
from supervisord_cp.model.signal import MISSING, NamedResult, Signal

Params = TypeVar("Params")


class QueryResults(Value, frozen=True, kw_only=True):
    """The named PromQL results of `[prometheus.queries]` as they last came."""

    at: float = 0.0
    """When, on the clock of `Context.now`."""
    results: Mapping[str, NamedResult] = MappingProxyType({})


NO_RESULTS: Final = QueryResults()


class Pace(Value, frozen=True, kw_only=True):
    """How fast a deployment's instances are, as its streams have shown; None: none has yet."""

    prompt_token_s: float | None = None
    """Seconds for each token of a prompt, from dispatch to the first token of the answer."""
    answer_token_s: float | None = None
    """Seconds for each further token of the answer."""


UNKNOWN_PACE: Final = Pace()


class Context(Value, Generic[Params], frozen=True, kw_only=True):
    """What every policy of the request path is given."""

    now: float
    """Monotonic seconds; only differences mean anything."""
    random: Random
    """The only source of chance."""
    params: Params
    """The policy's parameters, None when it declares none."""
    request_tokens: float = 384.0
    """Tokens, prompt and answer, of the deployment's mean request."""
    request_s: float = 1.0
    """Seconds that an instance spends on a mean request, as learned."""
    node: str = ""
    """Where the router runs."""
    zone: str = ""
    pace: Pace = UNKNOWN_PACE
    """To be used with `first_token_s` and `answer_s`."""
    queries: QueryResults = NO_RESULTS
    """To be read with `query`."""

    def expected_s(self, tokens: float) -> float:
        """How long an instance will take for a request of so many tokens, whatever they are."""
        return self.request_s * tokens / max(1.0, self.request_tokens)

    def first_token_s(self, prompt_tokens: float) -> float:
        """How long an instance will take from dispatch to the first token."""
        each = self.pace.prompt_token_s
        return self.expected_s(prompt_tokens) if each is None else each * prompt_tokens

    def answer_s(self, prompt_tokens: float, decode_tokens: float) -> float:
        """How long an instance will take from dispatch to the last token."""
        each = self.pace.answer_token_s
        if each is None:
            return self.expected_s(prompt_tokens + decode_tokens)
        return self.first_token_s(prompt_tokens) + each * decode_tokens

    def query(self, name: str, candidate: Candidate | None = None) -> Signal:
        """A named PromQL result with its age: all series summed, or those with the candidate's `instance_id`.

        It may be missing (no such query, no series, no answer yet), stale or NaN: only a signal that is
        `known` has a value, and none of these is zero.
        """
        found = self.queries.results.get(name)
        if found is None:
            return MISSING
        signal = found.total if candidate is None else found.instances.get(candidate.instance.id, MISSING)
        return signal.older(self.now - self.queries.at)


class QueueContext(Context[Params], Generic[Params], frozen=True, kw_only=True):
    """What a scheduler is given: the deployment as it stands, too."""

    queued: int = 0
    """Requests that wait."""
    queued_tokens: int = 0
    """Their prompts."""
    inflight: int = 0
    """Requests of this router that instances work on."""
    slots: int = 0
    """Requests that all usable instances may have at once; 0: no limit is known."""
    slo_ttft_s: float | None = None
    """Time to first token that the deployment's requests should see."""
