"""Named PromQL results, asked for again and again; what fails keeps growing older."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from supervisord_cp.clock import Clock
from supervisord_cp.model.base import Value
from supervisord_cp.model.signal import Signal, SignalSource, measured
from supervisord_cp.ports.prometheus import PrometheusPort, PromFailed, PromSample

log = logging.getLogger(__name__)

PERIOD_S: Final = 2.0
STALE_AFTER_S: Final = 15.0


class Result(Value, frozen=True, kw_only=True):
    """What a query said last."""

    samples: tuple[PromSample, ...] = ()
    at: float | None = None
    """Monotonic time of the last answer; None: never."""
    error: str = ""


def total(result: Result, now: float) -> Signal:
    """A result as one number: its series summed. No series at all is missing, which is not zero."""
    return _signal([s.value for s in result.samples], result, now)


def of_instance(result: Result, instance: str, now: float) -> Signal | None:
    """The part of a result that belongs to an instance; None when its series do not say."""
    values = [s.value for s in result.samples if s.labels.get("instance_id") == instance]
    return _signal(values, result, now) if values else None


def _signal(values: list[float], result: Result, now: float) -> Signal:
    age = 0.0 if result.at is None else now - result.at
    if result.at is None or not values:
        detail = result.error or "the query has no series"
        return measured(None, source=SignalSource.PROMETHEUS, age_s=age, detail=detail)
    return measured(
        sum(values),
        source=SignalSource.PROMETHEUS,
        age_s=age,
        stale_after_s=STALE_AFTER_S,
        detail=result.error,
    )


class Queries:
    """Asks Prometheus for every named query; nobody waits for it."""

    def __init__(self, port: PrometheusPort, queries: Mapping[str, str], clock: Clock) -> None:
        self._port = port
        self._queries = dict(queries)
        self._clock = clock
        self.results: dict[str, Result] = {name: Result() for name in queries}
        self.failures = 0

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            for name, expression in self._queries.items():
                await self.ask(name, expression)
            await asyncio.sleep(PERIOD_S)

    async def ask(self, name: str, expression: str) -> None:
        """Ask once; a failure keeps the last answer, which grows older."""
        before = self.results[name]
        try:
            samples = await self._port.query(expression)
        except PromFailed as error:
            self.failures += 1
            if before.error != str(error):
                log.warning("Prometheus, query %s: %s", name, error)
            self.results[name] = Result(samples=before.samples, at=before.at, error=str(error))
        else:
            if before.error:
                log.info("Prometheus, query %s: answered again", name)
            self.results[name] = Result(samples=samples, at=self._clock.now())
