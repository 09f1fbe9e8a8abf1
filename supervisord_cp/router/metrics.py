"""The router's figures: plain numbers while requests run, Prometheus text when asked."""

from collections.abc import Iterable, Mapping
from typing import Final

from supervisord_cp.model.base import DeploymentName
from supervisord_cp.obs import catalog
from supervisord_cp.obs.metric import MetricSpec
from supervisord_cp.plugin_host.binding import PolicyBook
from supervisord_cp.router.fleet import Fleet

_Ends = tuple[float, ...]
_SECONDS: Final[_Ends] = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    20,
    40,
    80,
    160,
    320,
    640,
)
_OVERHEAD: Final[_Ends] = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5)


class Histogram:
    """Counts by upper bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: _Ends) -> None:
        self._bounds = tuple(map(float, bounds))
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        bounds = self._bounds
        least, most = 0, len(bounds)
        while least < most:
            middle = (least + most) >> 1
            bound = bounds[middle]
            if bound < value:
                least = middle + 1
            else:
                most = middle
        self._counts[least] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """Its text; `labels` as `a="b"` without braces."""
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'{name}_bucket{{{labels},le="{edge}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self._sum:.9g}"
        yield f"{name}_count{{{labels}}} {total}"


class DeploymentFigures:
    """One deployment's."""

    __slots__ = ("codes", "cut", "duration", "first_byte", "overhead", "queue_wait")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.cut = 0
        self.duration = Histogram(_SECONDS)
        self.first_byte = Histogram(_SECONDS)
        self.overhead = Histogram(_OVERHEAD)
        self.queue_wait = Histogram(_SECONDS)

    def code(self, status: int) -> None:
        """Count an answer."""
        self.codes[status] = self.codes.get(status, 0) + 1


class RouterMetrics:
    """All of them. Deployments that are gone stay: counters do not go backwards."""

    def __init__(self) -> None:
        self._deployments: dict[str, DeploymentFigures] = {}
        self.rejected: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.ejections: dict[tuple[str, str], int] = {}
        """By deployment and cause."""
        self.connections = 0

    def of(self, deployment: DeploymentName | str) -> DeploymentFigures:
        """A deployment's figures; "" for requests that belong to none."""
        figures = self._deployments.get(deployment)
        if figures is None:
            figures = self._deployments[deployment] = DeploymentFigures()
        return figures

    def reject(self, reason: str) -> None:
        """Count an answer of our own."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def retry(self, reason: str) -> None:
        """Count a request that is sent again."""
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def ejected(self, deployment: DeploymentName, cause: str) -> None:
        """Count an instance that went out of rotation."""
        self.ejections[deployment, cause] = self.ejections.get((deployment, cause), 0) + 1

    def render(self, fleet: Fleet) -> str:
        """Prometheus text."""
        lines: list[str] = []
        self._counters(lines)
        self._histograms(lines)
        _gauges(lines, fleet)
        lines += _metric(catalog.CONNECTIONS, {"": self.connections})
        _policies(lines, fleet.binder.book)
        return "\n".join(lines) + "\n"

    def _counters(self, lines: list[str]) -> None:
        codes = {
            _labels(deployment=name, code=str(code)): count
            for name, figures in self._deployments.items()
            for code, count in sorted(figures.codes.items())
        }
        lines += _metric(catalog.REQUESTS, codes)
        cut = {_labels(deployment=name): figures.cut for name, figures in self._deployments.items()}
        lines += _metric(catalog.STREAMS_CUT, cut)
        retries = {_labels(reason=reason): count for reason, count in self.retries.items()}
        lines += _metric(catalog.RETRIES, retries)
        ejections = {
            _labels(deployment=deployment, cause=cause): count
            for (deployment, cause), count in self.ejections.items()
        }
        lines += _metric(catalog.EJECTIONS, ejections)
        rejected = {_labels(reason=reason): count for reason, count in self.rejected.items()}
        lines += _metric(catalog.REJECTED, rejected)

    def _histograms(self, lines: list[str]) -> None:
        for metric, attribute in (
            (catalog.REQUEST_DURATION, "duration"),
            (catalog.TIME_TO_FIRST_BYTE, "first_byte"),
            (catalog.OVERHEAD, "overhead"),
            (catalog.QUEUE_WAIT, "queue_wait"),
        ):
            lines += metric.head
            for deployment, figures in self._deployments.items():
                if deployment:
                    histogram: Histogram = getattr(figures, attribute)
                    lines += histogram.lines(metric.full_name, _labels(deployment=deployment))


def _gauges(lines: list[str], fleet: Fleet) -> None:
    queued = {_labels(deployment=name): len(lane.line) for name, lane in fleet.lanes.items()}
    lines += _metric(catalog.QUEUE_LENGTH, queued)
    inflight = {
        _labels(deployment=account.instance.deployment, instance_id=account.instance.id): account.inflight
        for account in fleet.ledger.accounts()
    }
    lines += _metric(catalog.INFLIGHT, inflight)
    booked = {
        _labels(deployment=account.instance.deployment, instance_id=account.instance.id): account.tokens
        for account in fleet.ledger.accounts()
    }
    lines += _metric(catalog.BOOKED_TOKENS, booked)
    lines += _metric(catalog.EJECTED, {"": len(fleet.ejections.incarnations)})
    out = {
        _labels(
            deployment=account.instance.deployment, instance_id=account.instance.id, cause=ejected.cause
        ): 1
        for ejected in fleet.ejections.all()
        if (account := fleet.ledger.get(ejected.incarnation)) is not None
    }
    lines += _metric(catalog.INSTANCE_EJECTED, out)
    lines += _metric(catalog.SNAPSHOT, {"": fleet.table.version})


def _policies(lines: list[str], book: PolicyBook) -> None:
    failures = {_labels(policy=name): figures.failures for name, figures in book.figures.items()}
    lines += _metric(catalog.POLICY_FAILURES, failures)
    blown = {_labels(policy=name): int(figures.open > 0) for name, figures in book.figures.items()}
    lines += _metric(catalog.POLICY_BREAKER, blown)
    lines += catalog.POLICY_SECONDS.head
    for policy, figures in book.figures.items():
        labels = _labels(policy=policy)
        lines.append(f"{catalog.POLICY_SECONDS.full_name}_sum{{{labels}}} {figures.seconds:.9g}")
        lines.append(f"{catalog.POLICY_SECONDS.full_name}_count{{{labels}}} {figures.calls}")
    affinities = {
        _labels(deployment=deployment, policy=policy, outcome=outcome): count
        for (deployment, policy), counts in book.affinities.items()
        if any(counts.values())
        for outcome, count in counts.items()
    }
    lines += _metric(catalog.AFFINITY, affinities)
    shadows = {
        _labels(deployment=deployment, policy=policy, agreed=word): count
        for (deployment, policy), agreement in book.agreements.items()
        for word, count in (
            ("true", agreement.agreed),
            ("false", agreement.decisions - agreement.agreed),
        )
    }
    lines += _metric(catalog.SHADOW_DECISIONS, shadows)


def _metric(metric: MetricSpec, values: Mapping[str, int]) -> list[str]:
    name = metric.full_name
    return metric.head + [
        f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in values.items()
    ]


def _labels(**labels: str) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
