"""The behaviour rules of Kubernetes' HPA v2: stabilisation windows and rate limits, exactly."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from supervisord_cp.model.scaling import (
    Behavior,
    DirectionRules,
    RateKind,
    RatePolicy,
    Recommendation,
    ScaleEvent,
    SelectPolicy,
)

UP_WINDOW_S: Final = 0.0
DOWN_WINDOW_S: Final = 300.0
UP_POLICIES: Final = (
    RatePolicy(type=RateKind.PODS, value=4, period_s=15.0),
    RatePolicy(type=RateKind.PERCENT, value=100, period_s=15.0),
)
DOWN_POLICIES: Final = (RatePolicy(type=RateKind.PERCENT, value=100, period_s=15.0),)

UNLIMITED: Final = (RatePolicy(type=RateKind.PODS, value=10**6, period_s=15.0),)


def up_window_s(behavior: Behavior) -> float:
    """How long the smallest recommendation holds an increase back."""
    given = behavior.scale_up.stabilization_window_s
    return UP_WINDOW_S if given is None else given


def down_window_s(behavior: Behavior) -> float:
    """How long the largest recommendation holds a decrease back."""
    given = behavior.scale_down.stabilization_window_s
    return DOWN_WINDOW_S if given is None else given


def longest_window_s(behavior: Behavior) -> float:
    """How long a recommendation can matter."""
    return max(up_window_s(behavior), down_window_s(behavior))


def longest_period_s(behavior: Behavior) -> float:
    """How long a change can matter."""
    policies = (*_up_policies(behavior.scale_up), *_down_policies(behavior.scale_down))
    return max(policy.period_s for policy in policies)


def stabilized(
    current: int,
    desired: int,
    recommendations: Iterable[Recommendation],
    behavior: Behavior,
    now: float,
) -> int:
    """The present number, moved only as far as every recommendation of the window agrees to."""
    at_most, at_least = desired, desired
    up_s, down_s = up_window_s(behavior), down_window_s(behavior)
    for recommendation in recommendations:
        age = now - recommendation.at_s
        if age < up_s:
            at_most = min(at_most, recommendation.replicas)
        if age < down_s:
            at_least = max(at_least, recommendation.replicas)
    if current < at_most:
        return at_most
    return min(current, at_least)


def up_limit(current: int, events: Sequence[ScaleEvent], rules: DirectionRules, now: float) -> int:
    """The most replicas that the rate limits allow now; never fewer than there are."""
    if rules.select_policy is SelectPolicy.DISABLED:
        return current
    limits = [
        start + policy.value if policy.type is RateKind.PODS else math.ceil(start * (1 + policy.value / 100))
        for policy in _up_policies(rules)
        for start in (_period_start(current, events, policy, now),)
    ]
    select = min if rules.select_policy is SelectPolicy.MIN else max
    return max(current, select(limits))


def down_limit(current: int, events: Sequence[ScaleEvent], rules: DirectionRules, now: float) -> int:
    """The fewest replicas that the rate limits allow now; never more than there are."""
    if rules.select_policy is SelectPolicy.DISABLED:
        return current
    limits = [
        start - policy.value if policy.type is RateKind.PODS else int(start * (1 - policy.value / 100))
        for policy in _down_policies(rules)
        for start in (_period_start(current, events, policy, now),)
    ]
    select = max if rules.select_policy is SelectPolicy.MIN else min
    return max(0, min(current, select(limits)))


def relief_s(events: Sequence[ScaleEvent], rules: DirectionRules, now: float, *, up: bool) -> list[float]:
    """In how many seconds changes of the past stop to count for a policy, the nearest first."""
    policies = _up_policies(rules) if up else _down_policies(rules)
    ends = {event.at_s + policy.period_s - now for event in events for policy in policies}
    return sorted(end for end in ends if end > 0)


def _period_start(current: int, events: Sequence[ScaleEvent], policy: RatePolicy, now: float) -> int:
    """Replicas at the start of the policy's period, with the changes since taken back."""
    return current - sum(event.change for event in events if now - event.at_s < policy.period_s)


def _up_policies(rules: DirectionRules) -> tuple[RatePolicy, ...]:
    return rules.policies or UP_POLICIES


def _down_policies(rules: DirectionRules) -> tuple[RatePolicy, ...]:
    return rules.policies or DOWN_POLICIES
