"""What a deployment's requests cost, learned from the `usage` of finished ones."""

from typing import Final

from supervisord_cp.core.routing.usage import Usage
from supervisord_cp.policy.context import UNKNOWN_PACE, Pace

_WEIGHT: Final = 0.05
_LEAST_RATIO: Final = 0.001
_MOST_RATIO: Final = 1.0


class WorkEstimate:
    """Running means of one deployment. Starting values are those of English chat."""

    __slots__ = (
        "_answer",
        "_first",
        "completion_tokens",
        "pace",
        "prompt_tokens",
        "seconds",
        "tokens_per_byte",
    )

    def __init__(self) -> None:
        self.tokens_per_byte = 0.2
        self.prompt_tokens = 256.0
        self.completion_tokens = 128.0
        self.seconds = 1.0
        self.pace = UNKNOWN_PACE
        self._first = _Ratio()
        self._answer = _Ratio()

    def prefill(self, body_bytes: int) -> int:
        """Prompt tokens to expect of a body."""
        return int(body_bytes * self.tokens_per_byte)

    def decode(self, max_tokens: int | None, choices: int) -> int:
        """Tokens to expect as the answer: the mean, cut by the request's own limit."""
        expected = self.completion_tokens
        if max_tokens is not None and max_tokens < expected:
            expected = float(max_tokens)
        return int(expected * choices)

    @property
    def request_tokens(self) -> float:
        """The work of a mean request."""
        return self.prompt_tokens + self.completion_tokens

    def learn(self, body_bytes: int, usage: Usage, choices: int) -> None:
        """Take a finished request into account."""
        prompt: float = usage.prompt_tokens
        answer: float = usage.completion_tokens
        if body_bytes > 0:
            if prompt > 0:
                ratio = min(_MOST_RATIO, max(_LEAST_RATIO, prompt / body_bytes))
                self.tokens_per_byte += _WEIGHT * (ratio - self.tokens_per_byte)
            else:  # what the engine did not count is as much as was expected of it
                prompt = self.prefill(body_bytes)
            self.prompt_tokens += _WEIGHT * (prompt - self.prompt_tokens)
        if answer > 0:
            each = answer / max(1, choices)
            self.completion_tokens += _WEIGHT * (each - self.completion_tokens)

    def learn_duration(self, seconds: float) -> None:
        """Take the time that an instance spent on a request into account."""
        self.seconds += _WEIGHT * (seconds - self.seconds)

    def learn_pace(self, *, prompt_tokens: int, first_s: float, answer_tokens: int, rest_s: float) -> None:
        """Take the times of a stream into account: until its first token, and from there to its end."""
        self._first.see(first_s, prompt_tokens)
        self._answer.see(rest_s, answer_tokens - 1)
        self.pace = Pace(prompt_token_s=self._first.value, answer_token_s=self._answer.value)


class _Ratio:
    """Seconds for each token: the quotient of two running means, so that long ones count for more."""

    __slots__ = ("_seconds", "_tokens")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._tokens = 0.0

    def see(self, seconds: float, tokens: float) -> None:
        if tokens < 1:
            return
        weight = _WEIGHT if self._tokens else 1.0
        self._seconds += weight * (seconds - self._seconds)
        self._tokens += weight * (tokens - self._tokens)

    @property
    def value(self) -> float | None:
        return self._seconds / self._tokens if self._tokens else None
