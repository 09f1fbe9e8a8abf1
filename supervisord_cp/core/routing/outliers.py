"""Instances that are far slower than the others of their deployment.

Robust against single slow answers and against skewed ones: an instance is an outlier when three of four of
its answers took longer than `factor` times the median of its peers' medians, itself left out. Load differs
between instances and prompts differ in length, so a factor well above what these make is needed.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from supervisord_cp.core.routing.vitals import Measure
from supervisord_cp.model.base import Incarnation

LEAST_SAMPLES: Final = 20
"""Of an instance, and of each peer, before anything is said."""
LEAST_EXCESS_S: Final[dict[Measure, float]] = {
    Measure.FIRST_TOKEN: 0.25,
    Measure.TOKEN: 0.02,
    Measure.WHOLE: 0.02,
}
"""Beyond its peers by less than this nobody minds, whatever the factor."""
_NAMES: Final = {
    Measure.FIRST_TOKEN: "first tokens",
    Measure.TOKEN: "tokens",
    Measure.WHOLE: "answers by the token",
}


class Slow(NamedTuple):
    """An outlier."""

    measure: Measure
    quartile_s: float
    """Three of four took longer."""
    peers_s: float
    """The others' median."""

    def __str__(self) -> str:
        return (
            f"three of four {_NAMES[self.measure]} took more than {self.quartile_s:.3g} s; "
            f"the median of its peers is {self.peers_s:.3g} s"
        )


def is_slow(seconds: float, peers_s: float, measure: Measure, factor: float) -> bool:
    """Whether that is far more than what the peers take."""
    return seconds > factor * peers_s and seconds > peers_s + LEAST_EXCESS_S[measure]


def peers_median(
    samples: Mapping[Incarnation, Sequence[float]], but: Incarnation, least: int = LEAST_SAMPLES
) -> float | None:
    """The median of the others' medians; None when nobody else has enough samples."""
    medians = [median(s) for name, s in samples.items() if name != but and len(s) >= least]
    return median(medians) if medians else None


def slowest(
    samples: Mapping[Incarnation, Sequence[float]],
    measure: Measure,
    factor: float,
    least: int = LEAST_SAMPLES,
) -> dict[Incarnation, Slow]:
    """The outliers among instances, by what was measured of each. `factor` 0: none.

    With fewer than two instances that have enough samples nobody can be told from the others.
    """
    found: dict[Incarnation, Slow] = {}
    sorted_samples = {name: sorted(own) for name, own in samples.items() if len(own) >= least}
    if factor <= 0 or len(sorted_samples) < 2:
        return found
    medians = sorted((median(own), name) for name, own in sorted_samples.items())
    for index, (_, name) in enumerate(medians):
        own = sorted_samples[name]
        quartile, peers = own[len(own) // 4], _median_without(medians, index)
        if is_slow(quartile, peers, measure, factor):
            found[name] = Slow(measure, quartile, peers)
    return found


def _median_without(ordered: Sequence[tuple[float, Incarnation]], index: int) -> float:
    """The median of all but one."""
    count = len(ordered) - 1
    middle = [place + (place >= index) for place in ((count - 1) // 2, count // 2)]
    return (ordered[middle[0]][0] + ordered[middle[1]][0]) / 2
