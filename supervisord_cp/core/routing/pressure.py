"""What an engine's 503 teaches: how many requests at once it takes for the time being."""

from typing import Final

from supervisord_cp.model.base import Value

GROWTH_S: Final = 1.0
FORGET_S: Final = 30.0


class Ceiling(Value, frozen=True, kw_only=True):
    """A refusal: with `base` requests of ours open, the engine took no more at the moment `at`.

    Each second one more is tried (and one in eight of the base on top), and each success allows one
    more at once, so that room is found again quickly, without a whole queue running against a full
    engine. This is also what bounds retries after a 503: no budget is needed beside it.
    """

    base: int
    at: float

    def limit(self, now: float) -> int:
        """Requests at once that may be tried now."""
        steps = int(max(0.0, now - self.at) / GROWTH_S)
        return self.base + steps * (1 + self.base // 8)

    def after_success(self, now: float) -> "Ceiling | None":
        """What is left of the refusal when the engine has taken a request; None: nothing."""
        if now - self.at > FORGET_S:
            return None
        return Ceiling(base=self.base + 1, at=self.at)
