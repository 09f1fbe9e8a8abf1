"""Fleet: is everybody served, and from what?"""

from typing import Final

from supervisord_cp.obs import catalog as c
from supervisord_cp.obs.dashboards.grafana import (
    AMBER,
    GREEN,
    RED,
    Dashboard,
    Panel,
    Query,
    Row,
    Step,
    View,
)
from supervisord_cp.obs.dashboards.promql import buckets, is_, of, quantile, rate, total

USES: Final = (
    (0, "free", "#5a6b7b"),
    (1, "starting", "blue"),
    (2, "serving", "green"),
    (3, "draining", "yellow"),
    (4, "foreign", "purple"),
    (5, "cordoned", "orange"),
    (6, "backoff", "red"),
)
"""As numbers, since a state timeline shows values. The order is that of the metric's documentation."""


def use_as_number(*matchers: str) -> str:
    """What each GPU is used for, as the number in `USES`."""
    parts = [f"{number} * ({of(c.GPU_USE, is_(use=name), *matchers)} == 1)" for number, name, _ in USES]
    return "max by (node, gpu, uuid) (" + " or ".join(parts) + ")"


_FAILED: Final = 'code=~"5.."'
_NOW: Final = Row(
    title="Now",
    panels=(
        Panel(
            title="Answers without an error",
            description="Share of the last five minutes' requests that did not end in 500 or more.",
            view=View.NUMBER,
            unit="percentunit",
            width=4,
            height=5,
            high=1,
            decimals=2,
            steps=(Step(at=None, color=RED), Step(at=0.99, color=AMBER), Step(at=0.999, color=GREEN)),
            queries=(
                Query(
                    expr=f"1 - (sum(rate({of(c.REQUESTS, _FAILED)}[5m])) or vector(0))"
                    f" / (sum(rate({of(c.REQUESTS)}[5m])) > 0)"
                ),
            ),
        ),
        Panel(
            title="Requests",
            description="Requests per second over all deployments.",
            view=View.NUMBER,
            unit="reqps",
            width=4,
            height=5,
            queries=(Query(expr=rate(of(c.REQUESTS))),),
        ),
        Panel(
            title="Waiting",
            description="Requests that wait for an instance.",
            view=View.NUMBER,
            width=4,
            height=5,
            steps=(Step(at=None, color=GREEN), Step(at=1, color=AMBER), Step(at=100, color=RED)),
            queries=(Query(expr=total(of(c.QUEUE_LENGTH))),),
        ),
        Panel(
            title="Replicas ready",
            description="Instances that serve.",
            view=View.NUMBER,
            width=4,
            height=5,
            queries=(Query(expr=total(of(c.INSTANCES, is_(state="ready")))),),
        ),
        Panel(
            title="Replicas missing",
            description="Wanted, and neither ready nor starting, or without a place.",
            view=View.NUMBER,
            width=4,
            height=5,
            steps=(Step(at=None, color=GREEN), Step(at=1, color=RED)),
            queries=(Query(expr=total(of(c.UNPLACEABLE_REPLICAS))),),
        ),
        Panel(
            title="Free GPUs",
            description="GPUs (or CPU slots) on which nothing runs, and that may be used.",
            view=View.NUMBER,
            width=4,
            height=5,
            queries=(Query(expr=total(of(c.GPU_USE, is_(use="free")))),),
        ),
    ),
)
_DEPLOYMENTS: Final = Row(
    title="Deployments",
    panels=(
        Panel(
            title="Replicas wanted",
            description="The number that was decided for each deployment.",
            queries=(Query(expr=of(c.REPLICAS_WANTED), legend="{{deployment}}"),),
        ),
        Panel(
            title="Instances by state",
            description="Everything that is not ready here is on its way, or needs a look.",
            stacked=True,
            queries=(Query(expr=total(of(c.INSTANCES), "state"), legend="{{state}}"),),
        ),
        Panel(
            title="Time to the first byte, p95",
            description="What clients saw, and the objective as configured.",
            unit="s",
            queries=(
                Query(
                    expr=quantile(0.95, buckets(c.TIME_TO_FIRST_BYTE), "deployment"), legend="{{deployment}}"
                ),
                Query(expr=of(c.SLO_TARGET, is_(kind="ttft")), legend="objective of {{deployment}}"),
            ),
        ),
    ),
)
_GPUS: Final = Row(
    title="GPUs and nodes",
    panels=(
        Panel(
            title="What GPUs are used for",
            description="One line for each GPU or CPU slot.",
            view=View.STATES,
            width=16,
            height=10,
            low=None,
            states=USES,
            queries=(Query(expr=use_as_number(), legend="{{node}} {{gpu}} {{uuid}}"),),
        ),
        Panel(
            title="Since the last report",
            description="A node that is silent for three seconds is unknown; its engines stay in use.",
            unit="s",
            height=10,
            queries=(Query(expr=of(c.REPORT_AGE), legend="{{node}}"),),
        ),
    ),
)
FLEET: Final = Dashboard(
    uid="supervisord-cp-fleet",
    title="vLLM fleet",
    description="Is everybody served, and from what?",
    rows=(_NOW, _DEPLOYMENTS, _GPUS),
)
