"""What the control API answers, as plain JSON values. Pure."""

from collections.abc import Iterable
from typing import Any

from supervisord_cp.central import devices, ejections, fleet
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.gated import DOWN, failing, gated, last_end, why_not_ready
from supervisord_cp.central.scale_view import configured
from supervisord_cp.model.assignment import Assignment, BadRevision
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.fleet import RoutedInstance
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import EngineKind, RunState, revision_of
from supervisord_cp.model.reason import Reason, ReasonCode, code_of, render
from supervisord_cp.version import __version__

Json = dict[str, Any]


def instances(controller: Controller) -> list[Json]:
    """Observed instances, those assigned but not reported yet, and static ones; by id."""
    observed = controller.statuses()
    out = [observed_instance(controller, view, status) for view, status in observed.values()]
    out += [_awaited(a) for a in controller.memory.assignments.values() if a.id not in observed]
    out += [
        _static(item, controller.probe_error(item.id))
        for item in controller.routers.instances()
        if item.static
    ]
    now = controller.clock.now()
    found = controller.routers.ejections(now)
    live = sum(1 for _ in controller.routers.live_reports(now))
    for item in out:
        item |= ejections.added(item["message"], found.get(item["incarnation"], ()), live)
    return sorted(out, key=lambda item: _natural(str(item["id"])))


def observed_instance(controller: Controller, view: fleet.NodeView, status: InstanceStatus) -> Json:
    """One instance as INTERFACE names its fields."""
    state, reason = fleet.shown_state(status, view, controller.clock.now())
    assignment = controller.memory.assignments.get(status.id)
    if (
        assignment is not None
        and assignment.draining
        and state in (InstanceState.READY, InstanceState.UNLISTED)
    ):
        state, reason = InstanceState.DRAINING, assignment.leaving.reason if assignment.leaving else Reason()
    load, last = status.load, status.last_exit
    eta = status.eta_s
    if eta is None and state is InstanceState.STARTING:
        eta = controller.scaling.start_seconds(status.deployment)
    return {
        "id": status.id,
        "deployment": status.deployment,
        "node": view.name,
        "engine": status.engine,
        "revision": status.revision,
        "incarnation": status.incarnation,
        "state": state,
        "reason": code_of(reason),
        "message": render(reason),
        "phase": status.phase,
        "eta_s": eta,
        "retry_s": retry_s(reason) if state is InstanceState.BACKOFF else None,
        "pid": status.pid,
        "url": status.url,
        "port": _port(status.url),
        "gpus": list(status.devices),
        "generation": None if view.generation is None else view.generation.counter,
        "restarts": status.restarts,
        "uptime_s": round(status.uptime_s, 1),
        "ready": state in (InstanceState.READY, InstanceState.UNLISTED),
        "requests_running": None if load is None else load.running,
        "requests_waiting": None if load is None else load.waiting,
        "kv_cache_usage": None if load is None else load.kv_cache_usage,
        "load_age_ms": None if load is None else load.age_ms,
        "last_exit": None
        if last is None
        else {
            "code": last.code,
            "signal": last.signal,
            "cause": last.cause,
            "age_s": round(last.age_s, 1),
            "detail": last.detail,
        },
        "static": False,
    }


def retry_s(reason: Reason) -> float | None:
    """Seconds until an instance in backoff is tried again, as its agent says."""
    seconds = reason.params.get("seconds")
    return None if seconds is None else float(seconds)


def _blank(identity: str, deployment: str, node: str) -> Json:
    return {
        "id": identity,
        "deployment": deployment,
        "node": node,
        "engine": "",
        "revision": "",
        "incarnation": "",
        "state": InstanceState.UNKNOWN,
        "reason": None,
        "message": "",
        "phase": "",
        "eta_s": None,
        "retry_s": None,
        "pid": None,
        "url": "",
        "port": None,
        "gpus": [],
        "generation": None,
        "restarts": 0,
        "uptime_s": 0.0,
        "ready": False,
        "requests_running": None,
        "requests_waiting": None,
        "kv_cache_usage": None,
        "load_age_ms": None,
        "last_exit": None,
        "static": False,
    }


def _awaited(assignment: Assignment) -> Json:
    stopped = assignment.run is RunState.STOPPED
    return {
        **_blank(assignment.id, assignment.deployment, assignment.node),
        "engine": assignment.spec.engine if assignment.spec else "",
        "revision": assignment.revision,
        "state": InstanceState.STOPPED if stopped else InstanceState.GATED,
        "message": "" if stopped else f"its agent on {assignment.node} has not taken it over yet",
        "gpus": list(assignment.devices),
    }


def _static(item: RoutedInstance, error: str) -> Json:
    load = item.load
    return {
        **_blank(item.id, item.deployment, item.node),
        "engine": EngineKind.NONE,
        "incarnation": item.incarnation,
        "state": item.state,
        "reason": ReasonCode.PROBE_FAILED if error else None,
        "message": error,
        "url": item.url,
        "port": _port(item.url),
        "ready": item.state is InstanceState.READY,
        "requests_running": None if load is None else load.running,
        "requests_waiting": None if load is None else load.waiting,
        "kv_cache_usage": None if load is None else load.kv_cache_usage,
        "load_age_ms": None if load is None else load.age_ms,
        "static": True,
    }


def deployments(controller: Controller, observed: list[Json] | None = None) -> list[Json]:
    """Configured deployments, in the order of the file. `observed`: all instances, where they are at hand."""
    by_deployment: dict[str, list[Json]] = {}
    for item in instances(controller) if observed is None else observed:
        by_deployment.setdefault(item["deployment"], []).append(item)
    specs = controller.scaling.specs(controller.config)
    out = []
    for config in controller.config.deployments:
        name = DeploymentName(config.name)
        mine = by_deployment.get(config.name, [])
        decision = controller.scaling.decisions.get(name)
        held = name in controller.memory.holds
        wanted = 0 if held or decision is None else decision.wanted
        spec = specs.get(name)
        revision = "" if spec is None else controller.scaling.revision(spec)
        own = [i for i in mine if not i["static"]]
        bad = controller.memory.bad.get(name)
        if bad is not None:
            revision = revision_of(bad.good)
        current = sum(i["revision"] == revision for i in own)
        scale = config.autoscale
        unplaced = controller.scaling.unplaced.get(name, [])
        reason = Reason() if decision is None else decision.reason
        out.append(
            {
                "name": config.name,
                "served_name": config.served_name or config.model or config.name,
                "aliases": list(config.aliases),
                "engine": config.engine,
                "revision": revision,
                "progress": _progress(current, len(own), revision, bad),
                "wanted": wanted,
                "ready": sum(i["ready"] for i in mine if not i["static"]),
                "static_ready": sum(i["ready"] for i in mine if i["static"]),
                "starting": sum(i["state"] in (InstanceState.STARTING, InstanceState.GATED) for i in own),
                "gated": gated(own),
                "failing": failing(own),
                "draining": sum(i["state"] is InstanceState.DRAINING for i in own),
                "sleeping": sum(i["state"] is InstanceState.SLEEPING for i in own),
                "min": configured(config) if scale is None else scale.min,
                "max": configured(config) if scale is None else scale.max,
                "scaler": "fixed" if scale is None else ",".join(s.use for s in scale.scalers),
                "held": held,
                "reason": "held" if held else code_of(reason),
                "message": "stopped by an operator; `start` lets it run" if held else render(reason),
                "cannot_place": [{"reason": r.code, "message": render(r)} for r in unplaced],
            }
        )
    return out


def _progress(current: int, there: int, revision: str, bad: BadRevision | None) -> str:
    """How far a roll-out has come; "" when there is none."""
    moving = f"{current}/{there} at {revision}" if current != there else ""
    if bad is None:
        return moving
    back = f"{bad.revision} went back to {revision}: {render(bad.reason)}"
    return f"{moving}; {back}" if moving else back


def nodes(controller: Controller) -> list[Json]:
    """Known nodes, by name."""
    now = controller.clock.now()
    lost = {a.node for a in controller.memory.assignments.values() if a.lost}
    out = []
    for view in sorted(controller.nodes.values(), key=lambda v: v.name):
        age = view.age_s(now)
        inventory, host = view.inventory, view.host
        out.append(
            {
                "name": view.name,
                "zone": inventory.zone,
                "state": "lost" if view.name in lost else _node_state(view, now),
                "report_age_s": None if age is None else round(age, 2),
                "cordoned": controller.memory.cordoned(view.name),
                "advertise": inventory.advertise,
                "device": inventory.device,
                "version": inventory.version,
                "instances": len(view.instances),
                "gpus": [devices.gpu(controller, view, gpu) for gpu in view.gpus],
                "gpu_message": render(view.gpu_reason),
                "slots": [devices.slot(controller, view, slot) for slot in inventory.slots],
                "host": None
                if host is None
                else {
                    "cpu_count": host.cpu_count,
                    "cpu_utilization": host.cpu_utilization,
                    "memory_total": host.memory_total,
                    "memory_available": host.memory_available,
                    "disk_free": host.disk_free,
                },
            }
        )
    return out


def _node_state(view: fleet.NodeView, now: float) -> str:
    if view.silent(now):
        return "silent"
    return "connected" if view.connected else "disconnected"


def gpus(controller: Controller) -> list[Json]:
    """All GPUs with their nodes."""
    return [{"node": node["name"], **gpu} for node in nodes(controller) for gpu in node["gpus"]]


def status(controller: Controller, observed: list[Json] | None = None) -> Json:
    """The one-screen answer. `observed`: all instances, where they are at hand."""
    all_instances = instances(controller) if observed is None else observed
    all_deployments = deployments(controller, all_instances)
    counts: dict[str, int] = {}
    for item in all_instances:
        counts[item["state"]] = counts.get(item["state"], 0) + 1
    problems = list(_problems(controller, all_deployments, all_instances))
    now = controller.clock.now()
    return {
        "healthy": not problems,
        "problems": problems,
        "central": {
            "version": __version__,
            "epoch": controller.epoch,
            "uptime_s": round(now - controller.started_at, 1),
            "settled": controller.settled,
            "snapshot_version": 0
            if controller.routers.snapshot is None
            else controller.routers.snapshot.version,
        },
        "nodes": len(controller.nodes),
        "routers": [
            {
                "id": view.id,
                "connected": view.connected,
                "version": view.report.version if view.report else 0,
                "release": view.version,
                "api_url": view.report.api_url if view.report else "",
                "pid": view.report.pid if view.report else None,
            }
            for view in controller.routers.views.values()
        ],
        "deployments": all_deployments,
        "instances": counts,
    }


def _problems(
    controller: Controller, all_deployments: Iterable[Json], all_instances: Iterable[Json]
) -> Iterable[str]:
    now = controller.clock.now()
    for view in controller.nodes.values():
        if view.silent(now):
            yield f"{view.name}: no report; its engines stay in rotation as long as they answer"
        if view.inventory.device == "cuda" and not view.gpus_known:
            yield f"{view.name}: {render(view.gpu_reason)}"
        for gpu in view.gpus:
            if gpu.health is not GpuHealth.HEALTHY:
                why = render(gpu.health_reason)
                yield f"{view.name}: GPU {gpu.index} is {gpu.health}" + (f" ({why})" if why else "")
    if not any(view.connected for view in controller.routers.views.values()):
        yield "no router is connected"
    if not controller.settled:
        yield render(Reason(code=ReasonCode.SETTLING))
    for item in all_deployments:
        if item["ready"] + item["static_ready"] < item["wanted"]:
            why = why_not_ready(item, all_instances)
            yield f"{item['name']}: {item['ready']} of {item['wanted']} ready ({why})"
    for item in all_instances:
        down = item["state"] in DOWN
        if (
            down
            or item["state"] is InstanceState.DEGRADED
            or (item["ejected"] or (item["static"] and not item["ready"]))
        ):
            why = "; ".join(part for part in (last_end(item) if down else "", item["message"]) if part)
            yield f"{item['id']}: {item['state']}" + (f" ({why})" if why else "")


def _port(url: str) -> int | None:
    tail = url.rstrip("/").rpartition(":")[2]
    return int(tail) if tail.isdigit() else None


def _natural(name: str) -> tuple[str, int]:
    head, _, tail = name.rpartition("-")
    return (head, int(tail)) if tail.isdigit() else (name, -1)
