"""What clients ask: conversations over shared prompts, with keys, priorities, deadlines; from one seed."""

import json
from dataclasses import dataclass
from random import Random
from typing import Final

KEYS: Final = ("alpha", "beta", "gamma")
SHARES: Final = (0.6, 0.2, 0.2)
"""Of the requests, by key: one of the three asks for three times as much as each of the others."""
PRIORITIES: Final = ("high", "normal", "low")
SYSTEM_PROMPTS: Final = 18
SYSTEM_BYTES: Final = 4000
SESSIONS: Final = 36
TURN_BYTES: Final = 300
SHORT_TOKENS: Final = 16
LONG_TOKENS: Final = 96
SLO_TTFT_S: Final = 2.0
"""Of requests without a deadline."""
_WORDS: Final = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    at: float
    """Seconds since the run began."""
    key: str
    session: str
    priority: str
    deadline_s: float | None
    max_tokens: int
    messages: tuple[dict[str, str], ...]

    def body(self, model: str) -> bytes:
        return json.dumps(
            {
                "model": model,
                "messages": self.messages,
                "max_tokens": self.max_tokens,
                "ignore_eos": True,
                "stream": True,
            }
        ).encode()

    def headers(self, *, one_key: bool) -> dict[str, str]:
        headers = {
            "authorization": f"Bearer sk-{'everyone' if one_key else self.key}",
            "content-type": "application/json",
            "x-session-id": self.session,
            "x-priority": self.priority,
        }
        if self.deadline_s is not None:
            headers["x-deadline-ms"] = str(int(self.deadline_s * 1000))
        return headers


def arrivals(rate: float, seconds: float, seed: int = 7) -> list[Ask]:
    """Requests at random moments, so many a second; each continues one of a few conversations."""
    rng = Random(seed)
    systems = [_text(rng, SYSTEM_BYTES) for _ in range(SYSTEM_PROMPTS)]
    history: dict[str, list[dict[str, str]]] = {}
    owner: dict[str, str] = {}
    for number in range(SESSIONS):
        session = f"session-{number}"
        history[session] = [{"role": "system", "content": systems[number % SYSTEM_PROMPTS]}]
        owner[session] = KEYS[number % len(KEYS)]
    asks: list[Ask] = []
    at = rng.expovariate(rate)
    while at < seconds:
        key = rng.choices(KEYS, SHARES)[0]
        session = rng.choice([name for name, whose in owner.items() if whose == key])
        turns = history[session]
        turns.append({"role": "user", "content": _text(rng, TURN_BYTES)})
        asks.append(_ask(rng, at, key, session, tuple(turns)))
        turns.append({"role": "assistant", "content": _text(rng, TURN_BYTES)})
        if len(turns) > 9:  # a new conversation of the same user
            del turns[1:]
        at += rng.expovariate(rate)
    return asks


def _ask(rng: Random, at: float, key: str, session: str, messages: tuple[dict[str, str], ...]) -> Ask:
    long = rng.random() < 0.3
    deadline_s = None
    if rng.random() < 0.5:  # those who wait beside those who wait for a while
        deadline_s = rng.uniform(2.0, 4.0) if rng.random() < 0.5 else rng.uniform(8.0, 12.0)
        deadline_s += LONG_TOKENS * 0.03 if long else 0.0
    return Ask(
        at=at,
        key=key,
        session=session,
        priority=rng.choices(PRIORITIES, (0.2, 0.6, 0.2))[0],
        deadline_s=deadline_s,
        max_tokens=LONG_TOKENS if long else SHORT_TOKENS,
        messages=messages,
    )


def _text(rng: Random, size: int) -> str:
    words: list[str] = []
    length = 0
    while length < size:
        words.append(rng.choice(_WORDS) + str(rng.randrange(100)))
        length += len(words[-1]) + 1
    return " ".join(words)
