"""What the control API says, as rows of text: pure functions from JSON values to sheets.

Fields that an older or newer central leaves out show as unknown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from supervisord_cp.cli import text

Json = Mapping[str, Any]

GOOD: Final = frozenset({"ready", "healthy", "connected", "serving"})
WARM: Final = frozenset(
    {"gated", "starting", "draining", "stopping", "releasing", "sleeping", "unlisted", "cordoned", "suspect"}
)
BAD: Final = frozenset(
    {"degraded", "crashed", "backoff", "unknown", "lost", "quarantined", "silent", "foreign"}
)

ENDED: Final = ("crashed", "backoff")
"""States in which the last end is what matters."""
_QUALIFIED: Final = frozenset({"degraded", "stopping", "unknown"})


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    states: tuple[str, ...] = ()
    """For each row the word that decides its colour."""
    coloured: int = 0
    """The column that carries the colour."""
    empty: str = ""
    """What to say when there are no rows."""


def instances_sheet(instances: Sequence[Json]) -> Sheet:
    """`instances`."""
    return Sheet(
        ("INSTANCE", "STATE", "NODE:DEVICES", "PID", "UPTIME", "RUN", "WAIT", "KV", "RESTARTS", "WHY"),
        tuple(_instance_row(item) for item in instances),
        tuple(str(item.get("state", "")) for item in instances),
        coloured=1,
        empty="no instances",
    )


def _instance_row(item: Json) -> tuple[str, ...]:
    return (
        str(item["id"]),
        state_of(item),
        place_of(item),
        str(item.get("pid") or text.UNKNOWN),
        text.duration(item.get("uptime_s")) if item.get("ready") and not item.get("static") else text.UNKNOWN,
        text.number(item.get("requests_running")),
        text.number(item.get("requests_waiting")),
        text.percent(item.get("kv_cache_usage")),
        str(item.get("restarts", 0)),
        why_of(item),
    )


def state_of(item: Json) -> str:
    """The state; with its reason's code where the state alone says too little: `degraded(stalled)`."""
    state, reason = str(item.get("state", "unknown")), item.get("reason")
    return f"{state}({reason})" if reason and state in _QUALIFIED else state


def why_of(item: Json) -> str:
    """Phase and time left while starting, the reason, and how the last life ended."""
    parts = []
    if item.get("state") == "starting":
        if phase := item.get("phase"):
            parts.append(str(phase))
        if (eta := item.get("eta_s")) is not None and eta >= text.SHORTEST_LEFT_S:
            parts.append(f"about {text.duration(eta)} left")
    if message := item.get("message"):
        parts.append(str(message))
    down = item.get("state") in ENDED
    if (last := item.get("last_exit")) and last.get("cause") != "requested" and (down or not message):
        detail = f": {last['detail']}" if down and last.get("detail") else ""
        parts.append(f"last exit {exit_of(last)}, {text.duration(last.get('age_s'))} ago{detail}")
    return ", ".join(parts)


def exit_of(last: Json) -> str:
    """`signal 9 (killed)`."""
    how = f"signal {last['signal']}" if last.get("signal") is not None else f"code {last.get('code', '?')}"
    return f"{how} ({last['cause']})" if last.get("cause") else how


def place_of(item: Json) -> str:
    """`gpu-a:GPU-5c1b2d3e`; the address of one that is on no node of ours."""
    node = str(item.get("node") or "")
    if not node:
        return str(item.get("url") or text.UNKNOWN)
    return f"{node}:{text.devices([str(device) for device in item.get('gpus') or ()])}"


def deployments_sheet(deployments: Sequence[Json]) -> Sheet:
    """`deployments`, and the middle of `status`."""
    return Sheet(
        ("DEPLOYMENT", "MODEL", "READY", "WANTED", "STARTING", "DRAINING", "MIN..MAX", "SCALER", "WHY"),
        tuple(_deployment_row(item) for item in deployments),
        tuple(deployment_state(item) for item in deployments),
        coloured=2,
        empty="no deployments",
    )


def deployment_state(item: Json) -> str:
    """`ready` when it has what it wants, `starting` on the way, `degraded` when it cannot get there."""
    if item.get("cannot_place"):
        return "degraded"
    return "ready" if item.get("ready", 0) >= item.get("wanted", 0) else "starting"


def _deployment_row(item: Json) -> tuple[str, ...]:
    reasons = Counter(str(one.get("message")) for one in item.get("cannot_place") or ())
    why = [f"cannot place{f' {n}' if n > 1 else ''}: {reason}" for reason, n in reasons.items()]
    why += [
        f"{len(one.get('instances') or ())} not started: {one['message']}"
        for one in item.get("gated") or ()
        if one.get("message")
    ]
    why += [str(one["message"]) for one in item.get("failing") or ()]
    why += [str(item[key]) for key in ("message", "progress") if item.get(key)]
    return (
        str(item["name"]),
        str(item.get("served_name") or text.UNKNOWN),
        _ready(item),
        str(item.get("wanted", 0)),
        str(item.get("starting", 0)),
        str(item.get("draining", 0)),
        f"{item.get('min', '?')}..{item.get('max', '?')}",
        str(item.get("scaler") or text.UNKNOWN),
        "; ".join(why),
    )


def _ready(item: Json) -> str:
    """`2`, or `2+3` with three static instances beside."""
    static = item.get("static_ready", 0)
    return f"{item.get('ready', 0)}+{static}" if static else str(item.get("ready", 0))


def nodes_sheet(nodes: Sequence[Json]) -> Sheet:
    """`nodes`."""
    return Sheet(
        ("NODE", "ZONE", "STATE", "DEVICES", "FREE", "REPORT"),
        tuple(_node_row(item) for item in nodes),
        tuple(str(item.get("state", "")) for item in nodes),
        coloured=2,
        empty="no node is connected",
    )


def _node_row(item: Json) -> tuple[str, ...]:
    gpus, slots = item.get("gpus"), item.get("slots") or ()
    devices = list(gpus or ()) + list(slots)
    noun = "slot" if slots and not gpus else "GPU"
    state = str(item.get("state", "unknown"))
    return (
        str(item["name"]),
        str(item.get("zone") or text.UNKNOWN),
        f"{state}, cordoned" if item.get("cordoned") and state != "cordoned" else state,
        "unknown" if gpus is None and not slots else text.count(len(devices), noun),
        str(sum(1 for device in devices if device.get("use") == "free")),
        f"{text.duration(item.get('report_age_s'))} ago",
    )


def gpus_sheet(gpus: Sequence[Json]) -> Sheet:
    """`gpus`."""
    return Sheet(
        ("NODE", "GPU", "UUID", "NAME", "MEMORY", "UTIL", "TEMP", "POWER", "HEALTH", "USE", "HELD BY"),
        tuple(_gpu_row(item) for item in gpus),
        tuple(str(item.get("health", "")) for item in gpus),
        coloured=8,
        empty="no GPUs; the slots of cpu nodes are counted in `supervisord-cp nodes`",
    )


def _gpu_row(item: Json) -> tuple[str, ...]:
    return (
        str(item.get("node", "")),
        str(item.get("index", text.UNKNOWN)),
        text.devices([str(item.get("uuid", ""))]),
        str(item.get("name") or text.UNKNOWN),
        f"{text.size(item.get('memory_used'))} / {text.size(item.get('memory_total'))}",
        text.percent(item.get("utilization")),
        text.number(item.get("temperature_c"), " C"),
        text.number(item.get("power_w"), " W"),
        _health(item),
        str(item.get("use", text.UNKNOWN)),
        _holders(item.get("holders") or ()),
    )


def _health(item: Json) -> str:
    """How well it is, and why it is not."""
    health, why = str(item.get("health", "unknown")), item.get("health_message")
    return f"{health}: {why}" if why else health


def _holders(holders: Iterable[Json]) -> str:
    return ", ".join(f"{one.get('pid')} {_holder(one)}" for one in holders)


def _holder(one: Json) -> str:
    """Ours by the instance, a stranger by owner, command and size."""
    if instance := one.get("instance"):
        return str(instance)
    words = (one.get("owner") or "?", str(one.get("command", ""))[:24], text.size(one.get("bytes")))
    return " ".join(str(word) for word in words if word)


def headline(status: Json) -> str:
    """The first line of `status`."""
    central = status.get("central") or {}
    states = status.get("instances") or {}
    total = sum(states.values())
    shown = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    connected = sum(1 for router in status.get("routers") or () if router.get("connected"))
    parts = (
        text.count(_length(status.get("nodes")), "node"),
        f"{text.count(total, 'instance')} ({shown})" if shown else text.count(total, "instance"),
        text.count(connected, "router"),
        f"central {central.get('version', '?')} up {text.duration(central.get('uptime_s'))}",
    )
    return f"fleet {'OK' if status.get('healthy') else 'NOT HEALTHY'}   " + ", ".join(parts)


def _length(value: object) -> int:
    return value if isinstance(value, int) else len(value) if isinstance(value, list) else 0
