"""How long to wait before the next start: by cause, growing, capped, jittered."""

from collections.abc import Mapping
from typing import Final

from supervisord_cp.model.base import Value
from supervisord_cp.model.instance import ExitCause


class Retry(Value, frozen=True, kw_only=True):
    """The waits for one cause: `first_s`, doubled with each further failure, at most `cap_s`."""

    first_s: float
    cap_s: float


USUAL: Final = Retry(first_s=1.0, cap_s=300.0)
RETRIES: Final[Mapping[ExitCause, Retry]] = {
    ExitCause.CONFIGURATION: Retry(first_s=10.0, cap_s=3600.0),  # will fail again until somebody mends it
    ExitCause.PORT_TAKEN: Retry(first_s=0.2, cap_s=30.0),  # the next try gets another port
    ExitCause.KV_CACHE: Retry(first_s=10.0, cap_s=3600.0),
    ExitCause.MODEL_ACCESS: Retry(first_s=10.0, cap_s=600.0),  # hubs come back; loops get clients banned
    ExitCause.GPU_MEMORY: Retry(first_s=5.0, cap_s=300.0),
    ExitCause.GPU_FAULT: Retry(first_s=10.0, cap_s=300.0),
    ExitCause.HOST_MEMORY: Retry(first_s=10.0, cap_s=300.0),
    ExitCause.SPAWN_FAILED: Retry(first_s=2.0, cap_s=300.0),
}


def backoff_s(cause: ExitCause, failures: int, chance: float) -> float:
    """Seconds to wait after the `failures`-th failure in a row (1 is the first).

    `chance` (0 to 1) is the jitter: instances that failed together do not start together.
    """
    retry = RETRIES.get(cause, USUAL)
    doublings = min(max(failures, 1) - 1, 32)
    longest = min(retry.cap_s, retry.first_s * 2.0**doublings)
    return longest * (0.5 + 0.5 * chance)
