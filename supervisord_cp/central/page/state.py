"""What the status page shows, as one tree of values by name: what has not changed looks the same. Pure."""

from collections.abc import Mapping
from typing import Final

from supervisord_cp.central import explain, views
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.page.patch import Json
from supervisord_cp.model.signal import Signal, SignalName

EVENTS: Final = 40
FIGURES: Final[Mapping[str, SignalName]] = {
    "requests_per_s": SignalName.REQUESTS_PER_S,
    "queued": SignalName.QUEUED,
    "tokens_per_s": SignalName.GENERATION_TOKENS_PER_S,
    "ttft_s": SignalName.TTFT_S,
}
"""The sparklines."""
_INSTANCE: Final = (
    "deployment",
    "node",
    "engine",
    "revision",
    "state",
    "message",
    "phase",
    "url",
    "gpus",
    "restarts",
    "requests_running",
    "requests_waiting",
    "static",
)
_DEPLOYMENT: Final = (
    "served_name",
    "progress",
    "wanted",
    "ready",
    "static_ready",
    "starting",
    "draining",
    "min",
    "max",
    "scaler",
    "held",
    "message",
)
_DEVICE: Final = ("index", "name", "health", "health_message", "use", "instance", "memory_total")


def page_state(controller: Controller) -> Json:
    """The whole page but its curves. Numbers that run are rounded, so that most stays equal."""
    instances = views.instances(controller)
    status = views.status(controller, instances)
    figures = figures_of(controller)
    retries = {item["id"]: round(item["retry_s"]) for item in instances if item["retry_s"] is not None}
    return {
        "central": {"version": status["central"]["version"], "settled": status["central"]["settled"]},
        "healthy": status["healthy"],
        "problems": status["problems"],
        "deployments": {
            item["name"]: _chosen(item, _DEPLOYMENT)
            | {
                "cannot_place": [why["message"] for why in item["cannot_place"]],
                "gated": [why["message"] for why in item["gated"] if why["message"]],
                "failing": [why["message"] for why in item["failing"]],
                "figures": figures.get(item["name"], {}),
            }
            for item in status["deployments"]
        },
        "instances": {item["id"]: _instance(item) for item in instances},
        "nodes": {item["name"]: _node(item, retries) for item in views.nodes(controller)},
        "events": {str(one.id): _event(explain.event(one)) for one in controller.events.recent(EVENTS)},
    }


def figures_of(controller: Controller) -> dict[str, dict[str, float]]:
    """The figures of each deployment that are known now."""
    out: dict[str, dict[str, float]] = {}
    for name, record in controller.scaling.records.items():
        signals = {label: record.view.signal(signal) for label, signal in FIGURES.items()}
        out[name] = {label: _rounded(one) for label, one in signals.items() if one.known}
    return out


def fleet_figures(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Those of the fleet: sums; of times the worst."""
    out: dict[str, float] = {}
    for own in figures.values():
        for label, value in own.items():
            before = out.get(label, 0.0)
            out[label] = max(before, value) if label.endswith("_s") and "per" not in label else before + value
    return out


def _rounded(signal: Signal) -> float:
    return float(f"{signal.value:.4g}")


def _chosen(item: Json, names: tuple[str, ...]) -> Json:
    return {name: item[name] for name in names}


def _instance(item: Json) -> Json:
    eta = item["eta_s"]
    usage = item["kv_cache_usage"]
    last = item["last_exit"]
    return _chosen(item, _INSTANCE) | {
        "eta_s": None if eta is None else round(eta),
        "kv_cache_usage": None if usage is None else round(usage, 2),
        "last_exit": None if last is None else _chosen(last, ("cause", "code", "signal", "detail")),
    }


def _node(item: Json, retries: Mapping[str, int]) -> Json:
    devices = {gpu["uuid"]: _gpu(gpu) for gpu in item["gpus"]}
    devices |= {slot["id"]: {"use": slot["use"], "instance": slot["instance"]} for slot in item["slots"]}
    for device in devices.values():
        device["retry_s"] = retries.get(device["instance"])
    return {
        "zone": item["zone"],
        "state": item["state"],
        "cordoned": item["cordoned"],
        "gpu_message": item["gpu_message"],
        "devices": devices,
    }


def _gpu(gpu: Json) -> Json:
    used, busy, heat = gpu["memory_used"], gpu["utilization"], gpu["temperature_c"]
    strangers = [
        f"{h['command']} (PID {h['pid']}, {h['owner']})" for h in gpu["holders"] if not h["instance"]
    ]
    return _chosen(gpu, _DEVICE) | {
        "memory_used": None if used is None else used >> 26 << 26,  # to 64 MiB
        "utilization": None if busy is None else round(busy, 2),
        "temperature_c": heat,
        "strangers": strangers,
    }


def _event(item: Json) -> Json:
    return {name: item[name] for name in ("at", "kind", "subject", "message", "severity", "node")}
