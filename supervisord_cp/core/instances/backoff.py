"""How long to wait before the next start: by cause, growing, capped, jittered."""

from collections.abc import Mapping
from typing import Final

from supervisord_cp.model.base import Value
from supervisord_cp.model.instance import ExitCause


class Retry(Value, frozen=True, kw_only=True):
    """How starts are tried again after one cause: `first_s`, times `growth` with each further failure, at
    most `cap_s`."""

    first_s: float
    cap_s: float
    growth: float = 2.0
    at_once: bool = False
    """What has served is not made to wait after its first failure."""
    mendable: bool = False
    """Waiting changes little, another program, model or configuration of the node does: that ends the
    wait, and what failed before no longer counts."""


HOUR_S: Final = 3600.0
USUAL: Final = Retry(first_s=1.0, cap_s=300.0, at_once=True)
RETRIES: Final[Mapping[ExitCause, Retry]] = {
    # Tried once more, for causes are read from texts; then it fails the same way until somebody mends it.
    ExitCause.CONFIGURATION: Retry(first_s=10.0, cap_s=HOUR_S, growth=HOUR_S, mendable=True),
    ExitCause.PORT_TAKEN: Retry(first_s=0.2, cap_s=30.0),  # the next try gets another port
    ExitCause.KV_CACHE: Retry(first_s=10.0, cap_s=HOUR_S, mendable=True),
    # Hubs come back; loops get clients banned.
    ExitCause.MODEL_ACCESS: Retry(first_s=10.0, cap_s=600.0, mendable=True),
    ExitCause.GPU_MEMORY: Retry(first_s=5.0, cap_s=300.0),  # and then the gate waits until it is free
    ExitCause.GPU_FAULT: Retry(first_s=10.0, cap_s=300.0),
    ExitCause.COLLECTIVE_HANG: Retry(first_s=5.0, cap_s=300.0, at_once=True),
    ExitCause.HOST_MEMORY: Retry(first_s=10.0, cap_s=300.0),
    ExitCause.SPAWN_FAILED: Retry(first_s=2.0, cap_s=300.0, mendable=True),
}


def retry_of(cause: ExitCause) -> Retry:
    """How starts are tried again after this cause."""
    return RETRIES.get(cause, USUAL)


def backoff_s(cause: ExitCause, failures: int, chance: float, *, served: bool = False) -> float:
    """Seconds to wait after the `failures`-th failure in a row (1 is the first).

    `served`: it was ready before it failed. `chance` (0 to 1) is the jitter: instances that failed
    together do not start together.
    """
    retry = retry_of(cause)
    if served and failures <= 1 and retry.at_once:
        return 0.0
    steps = min(max(failures, 1) - 1, 32)
    longest = min(retry.cap_s, retry.first_s * retry.growth**steps)
    return longest * (0.5 + 0.5 * chance)
