"""Node and GPU: is the hardware well, and who uses it?"""

from typing import Final

from supervisord_cp.obs import catalog as c
from supervisord_cp.obs.dashboards.fleet import USES, use_as_number
from supervisord_cp.obs.dashboards.grafana import Dashboard, Panel, Query, Row, Variable, View
from supervisord_cp.obs.dashboards.promql import NODE, is_, of, rate, total

_HEALTH: Final = (
    (0, "healthy", "green"),
    (1, "suspect", "yellow"),
    (2, "quarantined", "orange"),
    (3, "lost", "red"),
    (4, "unknown", "#5a6b7b"),
)
_GPU: Final = "{{node}} GPU {{gpu}}"


def _health_as_number() -> str:
    parts = [f"{number} * ({of(c.GPU_HEALTH, is_(state=name), NODE)} == 1)" for number, name, _ in _HEALTH]
    return "max by (node, gpu, uuid) (" + " or ".join(parts) + ")"


_STATES: Final = Row(
    title="States",
    panels=(
        Panel(
            title="Health of GPUs",
            description="Nothing starts on a quarantined or lost GPU. `supervisord-cp gpus` says why.",
            view=View.STATES,
            width=12,
            low=None,
            states=_HEALTH,
            queries=(Query(expr=_health_as_number(), legend=_GPU),),
        ),
        Panel(
            title="Use of GPUs",
            description="GPUs and CPU slots.",
            view=View.STATES,
            width=12,
            low=None,
            states=USES,
            queries=(Query(expr=use_as_number(NODE), legend="{{node}} {{gpu}} {{uuid}}"),),
        ),
    ),
)
_FIGURES: Final = Row(
    title="GPU",
    panels=(
        Panel(
            title="Memory in use",
            description="By anybody, ours or not.",
            unit="percentunit",
            high=1,
            queries=(
                Query(expr=f"{of(c.GPU_MEMORY_USED, NODE)} / {of(c.GPU_MEMORY_TOTAL, NODE)}", legend=_GPU),
            ),
        ),
        Panel(
            title="Utilization",
            description="Share of time in which a kernel ran.",
            unit="percentunit",
            high=1,
            queries=(Query(expr=of(c.GPU_UTILIZATION, NODE), legend=_GPU),),
        ),
        Panel(
            title="Temperature",
            description="Of the chip.",
            unit="celsius",
            low=None,
            queries=(Query(expr=of(c.GPU_TEMPERATURE, NODE), legend=_GPU),),
        ),
        Panel(
            title="Power",
            description="Drawn by the board.",
            unit="watt",
            queries=(Query(expr=of(c.GPU_POWER, NODE), legend=_GPU),),
        ),
        Panel(
            title="Slowed down",
            description="By heat or by the power supply: 1 while it lasts.",
            high=1,
            queries=(
                Query(
                    expr=f"max by (node, gpu, reason) ({of(c.GPU_SLOWED, NODE)})",
                    legend=_GPU + " {{reason}}",
                ),
            ),
        ),
        Panel(
            title="Xid and memory errors",
            description="What the driver reported, and memory errors that could not be corrected.",
            queries=(
                Query(expr=total(of(c.GPU_XIDS, NODE), "node", "gpu", "xid"), legend=_GPU + " Xid {{xid}}"),
                Query(expr=total(of(c.GPU_ECC, NODE), "node", "gpu"), legend=_GPU + " uncorrected"),
            ),
        ),
    ),
)
_PROCESSES: Final = Row(
    title="Who holds GPU memory",
    panels=(
        Panel(
            title="Processes by GPU",
            description="Of our engines, and of strangers, which we never end: `supervisord-cp gpus` "
            "names them.",
            width=12,
            queries=(
                Query(
                    expr=total(of(c.GPU_PROCESSES, NODE), "node", "gpu", "kind"), legend=_GPU + " {{kind}}"
                ),
            ),
        ),
        Panel(
            title="Their memory",
            description="What an engine holds after it ended, or a stranger, is missing at the next start.",
            unit="bytes",
            width=12,
            queries=(
                Query(
                    expr=total(of(c.GPU_PROCESS_MEMORY, NODE), "node", "gpu", "kind"),
                    legend=_GPU + " {{kind}}",
                ),
            ),
        ),
    ),
)
_HOST: Final = Row(
    title="Host and processes",
    panels=(
        Panel(
            title="CPU",
            description="Of all cores.",
            unit="percentunit",
            high=1,
            width=6,
            queries=(Query(expr=of(c.NODE_CPU, NODE), legend="{{node}}"),),
        ),
        Panel(
            title="Memory to be had",
            description="Engines are killed when it runs out.",
            unit="bytes",
            width=6,
            queries=(Query(expr=of(c.NODE_MEMORY, NODE), legend="{{node}}"),),
        ),
        Panel(
            title="Disk to be had",
            description="Where logs and state are written.",
            unit="bytes",
            width=6,
            queries=(Query(expr=of(c.NODE_DISK, NODE), legend="{{node}}"),),
        ),
        Panel(
            title="Since the last report",
            description="More than three seconds: the node is silent.",
            unit="s",
            width=6,
            queries=(Query(expr=of(c.REPORT_AGE, NODE), legend="{{node}}"),),
        ),
        Panel(
            title="Engines that ended unasked",
            description="By instance, in a quarter of an hour.",
            width=12,
            queries=(
                Query(
                    expr=total(f"increase({of(c.INSTANCE_FAILURES, NODE)}[15m])", "node", "instance_id"),
                    legend="{{node}} {{instance_id}}",
                ),
            ),
        ),
        Panel(
            title="Ends by cause",
            description="Of the fleet, per second. `supervisord-cp explain instance ID` has the last crash.",
            width=12,
            stacked=True,
            queries=(Query(expr=rate(of(c.INSTANCE_RESTARTS), "cause"), legend="{{cause}}"),),
        ),
    ),
)
NODE_BOARD: Final = Dashboard(
    uid="supervisord-cp-node",
    title="vLLM nodes and GPUs",
    description="Is the hardware well, and who uses it?",
    variables=(Variable(name="node", metric=c.REPORT_AGE.full_name, label="node"),),
    rows=(_STATES, _FIGURES, _PROCESSES, _HOST),
)
