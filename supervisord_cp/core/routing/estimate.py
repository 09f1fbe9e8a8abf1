"""What a deployment's requests cost, learned from the `usage` of finished ones."""

from typing import Final

from supervisord_cp.model.base import Value

_WEIGHT: Final = 0.05
_LEAST_RATIO: Final = 0.001
_MOST_RATIO: Final = 1.0


class Usage(Value, frozen=True, kw_only=True):
    """What an engine counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class WorkEstimate:
    """Running means of one deployment. Starting values are those of English chat."""

    __slots__ = ("completion_tokens", "prompt_tokens", "seconds", "tokens_per_byte")

    def __init__(self) -> None:
        self.tokens_per_byte = 0.2
        self.prompt_tokens = 256.0
        self.completion_tokens = 128.0
        self.seconds = 1.0

    def prefill(self, body_bytes: int) -> int:
        """Prompt tokens to expect of a body."""
        return int(body_bytes * self.tokens_per_byte)

    def decode(self, max_tokens: int | None, choices: int) -> int:
        """Tokens to expect as the answer: the mean, cut by the request's own limit."""
        expected = self.completion_tokens
        if max_tokens is not None and max_tokens < expected:
            expected = max_tokens
        return int(expected * choices)

    @property
    def request_tokens(self) -> float:
        """The work of a mean request."""
        return self.prompt_tokens + self.completion_tokens

    def learn(self, *, body_bytes: int, usage: Usage, choices: int) -> None:
        """Take a finished request into account."""
        if usage.prompt_tokens > 0 and body_bytes > 0:
            ratio = min(_MOST_RATIO, max(_LEAST_RATIO, usage.prompt_tokens / body_bytes))
            self.tokens_per_byte += _WEIGHT * (ratio - self.tokens_per_byte)
            self.prompt_tokens += _WEIGHT * (usage.prompt_tokens - self.prompt_tokens)
        if usage.completion_tokens > 0:
            each = usage.completion_tokens / max(1, choices)
            self.completion_tokens += _WEIGHT * (each - self.completion_tokens)

    def learn_duration(self, seconds: float) -> None:
        """Take the time that an instance spent on a request into account."""
        self.seconds += _WEIGHT * (seconds - self.seconds)
