"""Scrape targets for Prometheus (http_sd): central, agents and engines, with the fleet's labels."""

from typing import Any
from urllib.parse import urlsplit

from supervisord_cp.central.controller import Controller
from supervisord_cp.model.launch import EngineKind


def targets(controller: Controller) -> list[dict[str, Any]]:
    """The whole list, as Prometheus wants it at every refresh. Engines that have no metrics are left out."""
    out = [_target(str(controller.config.central.control_listen), {"job": "supervisord-cp-central"})]
    for view in controller.nodes.values():
        if view.inventory.metrics_url:
            agent = urlsplit(view.inventory.metrics_url).netloc
            out.append(_target(agent, {"job": "supervisord-cp-agent", "node": view.name}))
    for instance in controller.routers.instances():
        if instance.engine == EngineKind.COMMAND or not instance.url:
            continue
        where = urlsplit(instance.url)
        labels = {
            "job": "vllm",
            "deployment": instance.deployment,
            "instance_id": instance.id,
            "node": instance.node,
            "__scheme__": where.scheme,
        }
        out.append(_target(where.netloc, labels))
    return out


def _target(where: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"targets": [where], "labels": labels}
