"""Weighted round robin: one after the other, the heavier ones more often."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, InstanceId, RoutingRequest, picker


@picker("weighted_round_robin")
class WeightedRoundRobin:
    """Each instance in proportion to its weight, evenly interleaved.

    Every turn each instance earns its weight; the one that has earned most is chosen and pays what all
    have earned together.
    """

    def __init__(self) -> None:
        self._earned: dict[InstanceId, float] = {}

    def __call__(
        self,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
        context: Context[None],
    ) -> int:
        before, earned = self._earned, {}
        total = 0.0
        for candidate in candidates:
            instance = candidate.instance
            earned[instance.id] = before.get(instance.id, 0.0) + instance.weight
            total += instance.weight
        chosen = max(earned, key=lambda name: (earned[name], name))
        earned[chosen] -= total
        self._earned = earned  # those that are not here any more are forgotten with what they had
        return next(i for i, candidate in enumerate(candidates) if candidate.instance.id == chosen)
