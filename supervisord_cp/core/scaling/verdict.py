"""Whether a new revision is clearly worse than the one before it: errors, and time to first token. Pure.

Both have to have answered enough, and differ by more than chance and by more than matters. The requests of
both come from the same clients, so neither their mix nor the time of day needs to be known.
"""

import math
from collections.abc import Iterable
from typing import Final

from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.router import Outcomes

LEAST: Final = 50
"""Answers of each that are needed."""
ENOUGH: Final = 2000
"""Answers of the new one after which it is no longer in doubt."""
MORE_ERRORS: Final = 0.05
"""Share of all answers: what fails less often than that besides is no reason to go back."""
SIGMAS: Final = 3.0
TIMES_SLOWER: Final = 2.0
"""Both the median and the 90th percentile, so that a few slow ones do not count, nor a few quick ones."""
SLOWER_S: Final = 0.05


def together(parts: Iterable[Outcomes]) -> Outcomes:
    """The sum over incarnations and routers."""
    answered = failed = 0
    first_token: dict[int, int] = {}
    for part in parts:
        answered += part.answered
        failed += part.failed
        for bucket, count in part.first_token.items():
            first_token[bucket] = first_token.get(bucket, 0) + count
    return Outcomes(answered=answered, failed=failed, first_token=first_token)


def clearly_worse(new: Outcomes, old: Outcomes) -> Reason | None:
    """Why the new revision should go back; None: nothing clear."""
    return _more_errors(new, old) or _slower(new, old)


def _more_errors(new: Outcomes, old: Outcomes) -> Reason | None:
    if min(new.total, old.total) < LEAST:
        return None
    now, before = new.failed / new.total, old.failed / old.total
    both = (new.failed + old.failed) / (new.total + old.total)
    deviation = math.sqrt(both * (1 - both) * (1 / new.total + 1 / old.total))
    if now - before < max(MORE_ERRORS, SIGMAS * deviation):
        return None
    params: dict[str, str | int | float] = {"now": round(100 * now, 1), "before": round(100 * before, 1)}
    return Reason(code=ReasonCode.MORE_ERRORS, params=params)


def _slower(new: Outcomes, old: Outcomes) -> Reason | None:
    if min(sum(new.first_token.values()), sum(old.first_token.values())) < LEAST:
        return None
    pairs = [(_quantile_s(new, share), _quantile_s(old, share)) for share in (0.5, 0.9)]
    if any(now < TIMES_SLOWER * before or now - before < SLOWER_S for now, before in pairs):
        return None
    now, before = pairs[0]
    params: dict[str, str | int | float] = {"now": round(now, 3), "before": round(before, 3)}
    return Reason(code=ReasonCode.SLOWER, params=params)


def _quantile_s(outcomes: Outcomes, share: float) -> float:
    rank = share * sum(outcomes.first_token.values())
    seen = 0
    for bucket in sorted(outcomes.first_token):
        seen += outcomes.first_token[bucket]
        if seen >= rank:
            return Outcomes.seconds(bucket)
    return 0.0
