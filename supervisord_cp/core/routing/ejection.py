"""Who is out of rotation, why, and how it comes back: out, on trial with one request at a time, in again.

After Envoy's outlier detection and circuit breakers. What is different: an instance that takes no
connection is out whatever the share of the others, as nothing is lost there; and the way back goes through
real requests.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from supervisord_cp.model.base import Incarnation, Value

FIRST_PROBE_S: Final = 0.1
PROBE_EVERY_S: Final = 1.0
MOST_HOLD_S: Final = 300.0
CALM_S: Final = 600.0
"""In rotation for this long, an instance's record is clean."""


class Cause(StrEnum):
    """What has put an instance out."""

    CONNECTION = "connection"
    """No connection could be made, or it broke before an answer: it is as good as dead."""
    FAILURES = "failures"
    """Answers in a row that broke off or were errors of the engine's."""
    LATENCY = "latency"
    """It is far slower than its deployment's other instances."""


TRIALS: Final[dict[Cause, int]] = {Cause.CONNECTION: 1, Cause.FAILURES: 3, Cause.LATENCY: 3}
"""Requests that must go well, one after the other, before it is in rotation again."""


class Ejected(Value, frozen=True, kw_only=True):
    """One incarnation that is out, or on trial."""

    incarnation: Incarnation
    cause: Cause
    why: str = ""
    since: float
    """When it went out, this time."""
    times: int = 1
    """How often it did without having been in rotation for `CALM_S` in between."""
    until: float
    """Before this it is not tried."""
    probe_at: float
    """When its health is asked for next; means nothing on trial."""
    on_trial: bool = False
    passed: int = 0
    """Trials that went well."""

    @property
    def trials_left(self) -> int:
        return TRIALS[self.cause] - self.passed


def hold_s(cause: Cause, times: int, first_s: float) -> float:
    """How long it stays out at least. `first_s` is for what is judged by its answers, the first time; each
    further time is twice as long. What lost its connection may be back at once."""
    if cause is Cause.CONNECTION:
        return FIRST_PROBE_S if times <= 1 else min(MOST_HOLD_S, PROBE_EVERY_S * 2.0 ** min(times - 2, 20))
    return min(MOST_HOLD_S, first_s * 2.0 ** min(times - 1, 20))


def may_eject(cause: Cause, routable: int, out: int) -> bool:
    """Whether one more of `routable` instances may go out when `out` of them are: on suspicion never more
    than half, as it is rather us who are wrong then. That it takes no connection is no suspicion."""
    return cause is Cause.CONNECTION or 2 * (out + 1) <= routable


class Ejections:
    """All of them. A new incarnation is never among them."""

    def __init__(self, first_hold_s: float = 10.0) -> None:
        self._first_hold_s: Final = first_hold_s
        self._out: dict[Incarnation, Ejected] = {}
        self._record: dict[Incarnation, tuple[int, float]] = {}
        """Of those that are in again: how often they were out, and since when they are in."""

    def __contains__(self, incarnation: object) -> bool:
        return incarnation in self._out

    def __len__(self) -> int:
        return len(self._out)

    @property
    def incarnations(self) -> tuple[Incarnation, ...]:
        """All that are out or on trial."""
        return tuple(self._out)

    def all(self) -> tuple[Ejected, ...]:
        """The same, with all that is known of them."""
        return tuple(self._out.values())

    def get(self, incarnation: Incarnation) -> Ejected | None:
        """One of them."""
        return self._out.get(incarnation)

    def eject(
        self, incarnation: Incarnation, now: float, cause: Cause = Cause.CONNECTION, why: str = ""
    ) -> bool:
        """Take it out at once, from rotation or from its trial. False when it was out already."""
        before = self._out.get(incarnation)
        if before is not None and not before.on_trial:
            return False
        times = 1 if before is None else before.times + 1
        if before is None and (record := self._record.pop(incarnation, None)) is not None:
            times = record[0] + 1 if now - record[1] < CALM_S else 1
        until = now + hold_s(cause, times, self._first_hold_s)
        self._out[incarnation] = Ejected(
            incarnation=incarnation,
            cause=cause,
            why=why,
            since=now,
            times=times,
            until=until,
            probe_at=until,
        )
        return True

    def try_out(self, incarnation: Incarnation, now: float) -> bool:
        """It says that it is well: requests may show it. False when it was not out, is on trial already, or
        its time has not come."""
        out = self._out.get(incarnation)
        if out is None or out.on_trial or now < out.until:
            return False
        self._out[incarnation] = replace(out, on_trial=True)
        return True

    def passed(self, incarnation: Incarnation, now: float) -> bool:
        """A trial went well. True when it was the last one: the incarnation is in rotation again."""
        out = self._out.get(incarnation)
        if out is None or not out.on_trial:
            return False
        if out.trials_left > 1:
            self._out[incarnation] = replace(out, passed=out.passed + 1)
            return False
        del self._out[incarnation]
        self._record[incarnation] = (out.times, now)
        return True

    def revived(self, incarnation: Incarnation) -> bool:
        """Whether it has been taken for bad before and came back, or tries to."""
        out = self._out.get(incarnation)
        return incarnation in self._record or (out is not None and (out.on_trial or out.times > 1))

    def keep(self, present: Collection[Incarnation]) -> None:
        """Forget incarnations that the fleet no longer has."""
        self._out = {i: out for i, out in self._out.items() if i in present}
        self._record = {i: record for i, record in self._record.items() if i in present}

    def due(self, now: float) -> list[Incarnation]:
        """Those whose health is to be asked for now; each is due again after `PROBE_EVERY_S`."""
        due = [i for i, out in self._out.items() if not out.on_trial and out.probe_at <= now]
        for incarnation in due:
            self._out[incarnation] = replace(self._out[incarnation], probe_at=now + PROBE_EVERY_S)
        return due
