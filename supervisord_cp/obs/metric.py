"""One metric that we export: the value that exporters, the reference page and dashboards read alike."""

from enum import StrEnum
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from supervisord_cp.model.base import Value

PREFIX: Final = "supervisord_cp_"


class Kind(StrEnum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


class MetricSpec(Value, frozen=True, kw_only=True):
    """A metric family. `name` has no prefix, and a counter's ends in `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """Base unit of its values: seconds, bytes, ratio, celsius, watts; "" is a plain number."""

    @property
    def full_name(self) -> str:
        """As Prometheus stores it."""
        return PREFIX + self.name

    @property
    def head(self) -> list[str]:
        """Its two lines of the exposition format."""
        return [f"# HELP {self.full_name} {self.help}", f"# TYPE {self.full_name} {self.kind}"]

    def gauge(self) -> GaugeMetricFamily:
        """An empty family to fill in."""
        assert self.kind is Kind.GAUGE, self.name
        return GaugeMetricFamily(self.full_name, self.help, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        """An empty family to fill in."""
        assert self.kind is Kind.COUNTER, self.name
        return CounterMetricFamily(self.full_name, self.help, labels=self.labels)


def gauge(name: str, text: str, *labels: str, unit: str = "") -> MetricSpec:
    """A value that goes up and down."""
    return MetricSpec(name=name, kind=Kind.GAUGE, help=text, labels=labels, unit=unit)


def counter(name: str, text: str, *labels: str) -> MetricSpec:
    """A number that only grows; `_total` is added."""
    return MetricSpec(name=f"{name}_total", kind=Kind.COUNTER, help=text, labels=labels)


def histogram(name: str, text: str, *labels: str) -> MetricSpec:
    """A distribution of seconds."""
    return MetricSpec(name=name, kind=Kind.HISTOGRAM, help=text, labels=labels, unit="seconds")


def summary(name: str, text: str, *labels: str) -> MetricSpec:
    """A sum of seconds and how many there were."""
    return MetricSpec(name=name, kind=Kind.SUMMARY, help=text, labels=labels, unit="seconds")
