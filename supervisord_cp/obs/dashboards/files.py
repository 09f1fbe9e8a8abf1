"""All dashboards, and the files that Grafana's provisioning reads."""

import json
from typing import Final

from supervisord_cp.obs.dashboards.deployment import DEPLOYMENT_BOARD
from supervisord_cp.obs.dashboards.fleet import FLEET
from supervisord_cp.obs.dashboards.grafana import Dashboard, render
from supervisord_cp.obs.dashboards.node import NODE_BOARD
from supervisord_cp.obs.dashboards.routing import ROUTING
from supervisord_cp.obs.dashboards.scaling import SCALING

DASHBOARDS: Final[tuple[Dashboard, ...]] = (FLEET, DEPLOYMENT_BOARD, SCALING, ROUTING, NODE_BOARD)


def files() -> dict[str, str]:
    """File names and their text."""
    return {
        f"{dashboard.uid}.json": json.dumps(render(dashboard), indent=2) + "\n" for dashboard in DASHBOARDS
    }
