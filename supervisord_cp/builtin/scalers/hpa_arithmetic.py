"""The arithmetic of the Kubernetes horizontal pod autoscaler (v2), number by number.

Quantities are whole thousandths, as in Kubernetes, so that quotients fall where they fall there. The
order of the operations matters for what floating point makes of them: it is the original's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from supervisord_cp.policy import InstanceId, ReplicaPhase, ReplicaView, Signal, Tolerance

MOST_REPLICAS: Final = 2**31 - 1
MOST_MILLI: Final = 2**63 - 1

Samples = Mapping[InstanceId, int]


def milli(value: float) -> int:
    """A quantity in thousandths, rounded up, within 64 bits."""
    if abs(value) > MOST_MILLI / 1000:
        return MOST_MILLI if value > 0 else -MOST_MILLI
    return math.ceil(round(value * 1000, 6))


def _count(replicas: float) -> int:
    """A number of replicas, rounded up, within 32 bits."""
    return math.ceil(min(replicas, float(MOST_REPLICAS)))


def by_value(value: int, target: int, *, current: int, ready: int, tolerance: Tolerance) -> int:
    """`Value` of one number for all: the ready replicas times used / target.

    Without any replica: enough for the ratio, without tolerance. With replicas of which none is ready
    the original answers 0; here the number stays, or grows to what it would be from zero.
    """
    ratio = value / target
    if current == 0:
        return _count(ratio)
    if tolerance.covers(ratio):
        return current
    if ready == 0:
        return max(current, _count(ratio))
    return _count(ratio * ready)


def by_average_value(value: int, target: int, *, current: int, tolerance: Tolerance) -> int:
    """`AverageValue` of one number for all: as many replicas as share it at `target` each."""
    if current > 0 and tolerance.covers(value / (target * current)):
        return current
    return _count(value / target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The replicas of a deployment, sorted by what their samples are good for."""

    samples: Samples
    """Thousandths, of those that count."""
    unready: frozenset[InstanceId] = frozenset()
    missing: frozenset[InstanceId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """When a sample still shows the warm-up of its replica."""

    initialization_s: float
    """A replica younger than this counts once it is ready and its sample was taken wholly after that."""
    initial_delay_s: float
    """An older one that became unready within this time of its start was never ready."""

    def unready(self, replica: ReplicaView, sample: Signal) -> bool:
        if replica.changed_s is None:
            return True
        ready = replica.phase is ReplicaPhase.READY
        if replica.age_s < self.initialization_s:
            return not ready or sample.age_s > replica.changed_s - sample.window_s
        return not ready and replica.age_s - replica.changed_s < self.initial_delay_s


def grouped(
    replicas: Sequence[ReplicaView],
    sample_of: Callable[[ReplicaView], Signal],
    readiness: Readiness | None = None,
) -> Groups:
    """The groups of the original. Those that leave or have failed are in none of them."""
    samples: dict[InstanceId, int] = {}
    unready: set[InstanceId] = set()
    missing: set[InstanceId] = set()
    for replica in replicas:
        if replica.phase in (ReplicaPhase.DRAINING, ReplicaPhase.FAILED):
            continue
        sample = sample_of(replica)
        if replica.phase is ReplicaPhase.STARTING:
            unready.add(replica.id)
        elif not sample.known:
            missing.add(replica.id)
        elif readiness is not None and readiness.unready(replica, sample):
            unready.add(replica.id)
        else:
            samples[replica.id] = milli(sample.value)
    return Groups(samples=samples, unready=frozenset(unready), missing=frozenset(missing))


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageTarget:
    """`AverageValue` of single replicas (HPA's Pods metric)."""

    target: int
    """Thousandths."""

    def ratio(self, samples: Samples) -> float:
        return _quotient(sum(samples.values()), len(samples)) / self.target

    @property
    def absent(self) -> int:
        """What a missing replica is taken to use when the others would shrink."""
        return self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilizationTarget:
    """`Utilization` of single replicas (HPA's Resource metric)."""

    percent: int
    full: int
    """Thousandths that are 100 % of one replica."""

    def ratio(self, samples: Samples) -> float:
        return _quotient(sum(samples.values()) * 100, self.full * len(samples)) / self.percent

    @property
    def absent(self) -> int:
        """All of it, or the target where that is more."""
        return self.full * max(100, self.percent) // 100


def by_samples(
    groups: Groups,
    target: AverageTarget | UtilizationTarget,
    *,
    current: int,
    tolerance: Tolerance,
) -> int | None:
    """A target for each replica: what does not report is taken to be what makes the change smaller.

    None when no replica has a sample that counts.
    """
    samples = dict(groups.samples)
    if not samples:
        return None
    ratio = target.ratio(samples)
    grows_over_unready = bool(groups.unready) and ratio > 1.0
    if not grows_over_unready and not groups.missing:
        return current if tolerance.covers(ratio) else _count(ratio * len(samples))
    if ratio < 1.0:
        samples |= dict.fromkeys(groups.missing, target.absent)
    elif ratio > 1.0:
        samples |= dict.fromkeys(groups.missing, 0)
    if grows_over_unready:
        samples |= dict.fromkeys(groups.unready, 0)
    again = target.ratio(samples)
    if tolerance.covers(again) or ratio < 1.0 < again or again < 1.0 < ratio:
        return current
    replicas = _count(again * len(samples))
    if (again < 1.0 and replicas > current) or (again > 1.0 and replicas < current):
        return current
    return replicas


def _quotient(dividend: int, divisor: int) -> int:
    """Division of integers towards zero."""
    return -(-dividend // divisor) if dividend < 0 else dividend // divisor
