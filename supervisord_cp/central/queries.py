"""Named PromQL results, asked for again and again; what fails keeps growing older."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from supervisord_cp.clock import Clock
from supervisord_cp.config.schema import PrometheusConfig
from supervisord_cp.model.base import InstanceId, Value
from supervisord_cp.model.signal import NamedResult, Signal, SignalSource, measured
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


def named(result: Result, now: float) -> NamedResult:
    """A result as policies see it: the sum, and what its series say of single instances."""
    by_instance: dict[InstanceId, list[float]] = {}
    for sample in result.samples:
        if instance := sample.labels.get("instance_id"):
            by_instance.setdefault(InstanceId(instance), []).append(sample.value)
    instances = {instance: _signal(values, result, now) for instance, values in by_instance.items()}
    return NamedResult(total=total(result, now), instances=instances)


def fresh(result: Result, now: float) -> NamedResult:
    """A result as scalers see it: missing when the last attempt failed.

    The same sample over and over would fill a window that is there to outvote a single one.
    """
    return named(result if not result.error else replace(result, samples=()), now)


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

    def __init__(
        self,
        config: Callable[[], PrometheusConfig],
        connect: Callable[[PrometheusConfig], PrometheusPort],
        clock: Clock,
        *,
        tell: Callable[[Mapping[str, NamedResult]], None] = lambda results: None,
    ) -> None:
        """`config` is looked at before each round; `tell` is told after each what all queries say."""
        self._config = config
        self._connect = connect
        self._clock = clock
        self._tell = tell
        self._port: PrometheusPort | None = None
        self._followed = PrometheusConfig()
        self.results: dict[str, Result] = {}
        self.failures = 0

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                await self.round()
                await asyncio.sleep(PERIOD_S)
        finally:
            self._disconnect()

    async def round(self) -> None:
        """Ask every query once."""
        before = self.results
        self._follow(self._config())
        port = self._port
        if port is not None:
            for name, expression in self._followed.queries.items():
                await self._ask(port, name, expression)
        if before or self.results:
            now = self._clock.now()
            self._tell({name: named(result, now) for name, result in self.results.items()})

    def _follow(self, config: PrometheusConfig) -> None:
        """Take over a changed configuration: what was said to another expression is forgotten."""
        before, self._followed = self._followed, config
        same = (config.url, config.timeout_s) == (before.url, before.timeout_s)
        if not same:
            self._disconnect()
        if not config.url:
            self.results = {}
            return
        if self._port is None:
            self._port = self._connect(config)
        self.results = {
            name: self.results.get(name, Result())
            if config.url == before.url and before.queries.get(name) == expression
            else Result()
            for name, expression in config.queries.items()
        }

    def _disconnect(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    async def _ask(self, port: PrometheusPort, name: str, expression: str) -> None:
        """Ask once; a failure keeps the last answer, which grows older."""
        before = self.results[name]
        try:
            samples = await port.query(expression)
        except PromFailed as error:
            self.failures += 1
            if before.error != str(error):
                log.warning("Prometheus, query %s: %s", name, error)
            self.results[name] = Result(samples=before.samples, at=before.at, error=str(error))
        else:
            if before.error:
                log.info("Prometheus, query %s: answered again", name)
            self.results[name] = Result(samples=samples, at=self._clock.now())
