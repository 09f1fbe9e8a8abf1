"""Why something is as it is: the data of `explain` and `events`. Pure."""

from supervisord_cp.central import views
from supervisord_cp.central.capacity import capacities
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.events import Logged
from supervisord_cp.central.views import Json
from supervisord_cp.config.launch import launch_spec
from supervisord_cp.core.scaling.ways import ways
from supervisord_cp.model.assignment import Leave
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.reason import code_of, render


def event(logged: Logged) -> Json:
    """One event."""
    what = logged.event
    return {
        "id": logged.id,
        "at": round(logged.at, 3),
        "kind": what.kind,
        "subject": what.subject,
        "message": what.message or render(what.reason),
        "severity": what.severity,
        "node": what.node,
        "reason": code_of(what.reason),
        "data": what.data,
    }


def explain_deployment(controller: Controller, name: str) -> Json | None:
    """A deployment, who has set it by hand, and what happened to it."""
    shown = next((d for d in views.deployments(controller) if d["name"] == name), None)
    if shown is None:
        return None
    override = controller.memory.overrides.get(DeploymentName(name))
    shown["cannot_place"] = [one | {"ways": _ways(controller, name)} for one in shown["cannot_place"][:1]]
    return {
        "deployment": shown,
        "override": None
        if override is None
        else {"replicas": override.replicas, "learned": override.learned, "expires_at": override.expires_at},
        "events": [event(e) for e in controller.events.recent(20, name)],
    }


def _ways(controller: Controller, name: str) -> list[str]:
    """What would have to change for one more replica to be placed."""
    config = next(d for d in controller.config.deployments if d.name == name)
    nodes = capacities(controller.nodes, controller.memory, controller.clock.now())
    placer = controller.placing.placer(controller.config)
    return [
        render(way) for way in ways(DeploymentName(name), launch_spec(config), config.nodes, nodes, placer)
    ]


def explain_instance(controller: Controller, name: str) -> Json | None:
    """What is known of an instance, and what happened to it."""
    shown = next((i for i in views.instances(controller) if i["id"] == name), None)
    if shown is None:
        return None
    assignment = next((a for a in controller.memory.assignments.values() if a.id == name), None)
    leaving = assignment.leaving if assignment else None
    return {
        "instance": shown,
        "assigned": None
        if assignment is None
        else {
            "node": assignment.node,
            "gpus": list(assignment.devices),
            "revision": assignment.revision,
            "run": assignment.run,
            "leaving": None
            if leaving is None
            else {"to": leaving.to, "message": render(leaving.reason), "waiting": leaving.waiting},
            "removing": leaving is not None and leaving.to is Leave.REMOVE,
        },
        "events": [event(e) for e in controller.events.recent(20, name)],
    }
