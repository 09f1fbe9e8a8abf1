"""Short requests first: a scheduler. Long ones wait for longer, but never for ever.

scheduler = { use = "short_first", params = { tokens_per_s = 500.0 } }
"""

from supervisord_cp.policy import QueueContext, Value, WaitingRequest, scheduler


class Params(Value, frozen=True, kw_only=True):
    """What the configuration may say in `params`."""

    tokens_per_s: float = 500.0
    """A request of so many tokens goes before one that came a second earlier and has none to speak of: the
    larger the number, the less length counts."""

    def __post_init__(self) -> None:
        if self.tokens_per_s <= 0:
            raise ValueError("tokens_per_s must be more than 0")


@scheduler("short_first", params=Params)
def short_first(waiting: WaitingRequest, context: QueueContext[Params]) -> float:
    """By arrival, with each token of work counting as so much later.

    The smallest rank goes first. A rank that begins with the time of arrival lets nobody starve: whoever
    waits is overtaken only by requests that came a bounded time later.
    """
    return waiting.arrived + waiting.tokens / context.params.tokens_per_s
