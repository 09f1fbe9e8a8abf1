"""Scaling: why are there as many replicas as there are?"""

from typing import Final

from supervisord_cp.model.instance import START_STAGES
from supervisord_cp.obs import catalog as c
from supervisord_cp.obs.dashboards.grafana import (
    RED,
    Annotation,
    Dashboard,
    Panel,
    Query,
    Row,
    Step,
    Variable,
    View,
)
from supervisord_cp.obs.dashboards.promql import DEPLOYMENT, is_, of, total

_DECISIONS: Final = of(c.SCALE_DECISIONS, DEPLOYMENT)
_STARTING: Final = 'state=~"gated|starting"'
_NUMBERS: Final = Row(
    title="Replicas",
    panels=(
        Panel(
            title="Proposed, allowed, wanted, ready",
            description="Scalers propose, limits cut, the result is what is wanted; what is ready follows.",
            width=16,
            height=10,
            queries=(
                Query(expr=of(c.REPLICAS_PROPOSED, DEPLOYMENT), legend="{{deployment}} {{scaler}} proposes"),
                Query(expr=of(c.REPLICAS_WANTED, DEPLOYMENT), legend="{{deployment}} wanted"),
                Query(
                    expr=total(of(c.INSTANCES, is_(state="ready"), DEPLOYMENT), "deployment"),
                    legend="{{deployment}} ready",
                ),
                Query(expr=of(c.REPLICAS_LIMIT, DEPLOYMENT), legend="{{deployment}} {{kind}}"),
            ),
        ),
        Panel(
            title="Instances by state",
            description="Of the chosen deployments.",
            height=10,
            stacked=True,
            queries=(Query(expr=total(of(c.INSTANCES, DEPLOYMENT), "state"), legend="{{state}}"),),
        ),
    ),
)
_WHY: Final = Row(
    title="Decisions",
    panels=(
        Panel(
            title="Changes of the number",
            description="By reason. `supervisord-cp explain deployment NAME` has the inputs.",
            view=View.TABLE,
            width=12,
            queries=(Query(expr=f"sum by (deployment, direction, reason) ({_DECISIONS})"),),
        ),
        Panel(
            title="Held",
            description="1 while no signal can be trusted: the number stays as it is.",
            width=6,
            high=1,
            queries=(
                Query(
                    expr=f"max by (deployment) ({of(c.SCALER_HOLD, DEPLOYMENT)})"
                    f" or max by (deployment) ({of(c.REPLICAS_WANTED, DEPLOYMENT)}) * 0",
                    legend="{{deployment}}",
                ),
            ),
        ),
        Panel(
            title="Without a place",
            description="Wanted replicas for which there is no GPU that would do.",
            width=6,
            steps=(Step(at=None, color="green"), Step(at=1, color=RED)),
            queries=(Query(expr=of(c.UNPLACEABLE_REPLICAS, DEPLOYMENT), legend="{{deployment}}"),),
        ),
    ),
)
_STARTS: Final = Row(
    title="Starts and GPU time",
    panels=(
        Panel(
            title="Replicas that start",
            description="Waiting for their turn or for memory, loading, compiling, warming up.",
            width=12,
            queries=(
                Query(
                    expr=total(of(c.INSTANCES, _STARTING, DEPLOYMENT), "deployment", "state")
                    + f" or max by (deployment) ({of(c.REPLICAS_WANTED, DEPLOYMENT)}) * 0",
                    legend="{{deployment}} {{state}}",
                ),
            ),
        ),
        Panel(
            title="Length of a start",
            description="From the launch to ready, as learned. A request at zero replicas waits as long.",
            unit="s",
            width=12,
            queries=(Query(expr=of(c.INSTANCE_START, DEPLOYMENT), legend="{{deployment}}"),),
        ),
        Panel(
            title="Cold-start stages",
            description="Where the time of a start goes, as learned; gated is the wait before the launch.",
            view=View.STACKS,
            unit="s",
            width=12,
            queries=tuple(
                Query(
                    expr=f"max by (deployment) ({of(c.INSTANCE_START_PHASE, is_(phase=stage), DEPLOYMENT)})",
                    legend=stage,
                )
                for stage in START_STAGES
            ),
        ),
        Panel(
            title="GPU-hours of the last day",
            description="GPUs (or CPU slots) held, over 24 hours.",
            view=View.BARS,
            unit="h",
            width=12,
            queries=(
                Query(
                    expr=total(f"avg_over_time({of(c.DEPLOYMENT_GPUS, DEPLOYMENT)}[1d])", "deployment")
                    + " * 24",
                    legend="{{deployment}}",
                ),
            ),
        ),
        Panel(
            title="Prometheus queries that failed",
            description="While they fail, scalers that need them hold the number.",
            width=24,
            height=5,
            queries=(Query(expr=f"increase({of(c.QUERY_FAILURES)}[5m])", legend="in five minutes"),),
        ),
    ),
)
SCALING: Final = Dashboard(
    uid="supervisord-cp-scaling",
    title="vLLM scaling",
    description="Why are there as many replicas as there are?",
    variables=(Variable(name="deployment", metric=c.REPLICAS_WANTED.full_name, label="deployment"),),
    annotations=(
        Annotation(
            name="Decisions",
            # A series that has just appeared began at zero: its first decision counts as well.
            expr=f"({_DECISIONS} - ({_DECISIONS} offset 1m) > 0)"
            f" or ({_DECISIONS} unless {_DECISIONS} offset 1m)",
            title="{{deployment}}: {{direction}}",
            text="{{reason}}",
        ),
    ),
    rows=(_NUMBERS, _WHY, _STARTS),
)
