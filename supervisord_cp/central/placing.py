"""Which placer chooses the nodes of each deployment's replicas."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.config.schema import Config
from supervisord_cp.model.base import DeploymentName, NodeName
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.plugin_host.catalog import builtin_specs
from supervisord_cp.policy import PlaceView, PolicyKind, PolicySpec
from supervisord_cp.policy.answers import chosen_node
from supervisord_cp.policy.params import ParamsError, read_params
from supervisord_cp.policy.placing import Placer

log = logging.getLogger(__name__)


class Placing:
    """The placers that deployments name. `spread` stands in for one that there is not, or that fails."""

    def __init__(self) -> None:
        self._known: Mapping[str, PolicySpec] = builtin_specs()
        self._bound: dict[DeploymentName, tuple[PolicyUse, Callable[[PlaceView], Any]]] = {}

    def use_policies(self, known: Mapping[str, PolicySpec]) -> None:
        """Ask these from now on."""
        self._known = known
        self._bound.clear()

    def placer(self, config: Config) -> Placer:
        """Asks the placer of the deployment that a replica is of."""
        uses = {DeploymentName(d.name): d.placer for d in config.deployments}
        self._bound = {name: bound for name, bound in self._bound.items() if uses.get(name) == bound[0]}

        def place(view: PlaceView) -> NodeName:
            try:
                return chosen_node(self._of(view.deployment, uses)(view), view)
            except Exception as error:
                # Debug: its guard counts this, and says so when it happens often.
                log.debug("placer of %s: %s; spread places in its stead", view.deployment, error)
                return spread(view)

        return place

    def _of(
        self, deployment: DeploymentName, uses: Mapping[DeploymentName, PolicyUse]
    ) -> Callable[[PlaceView], Any]:
        bound = self._bound.get(deployment)
        if bound is None:
            use = uses[deployment]
            bound = self._bound[deployment] = use, self._bind(deployment, use)
        return bound[1]

    def _bind(self, deployment: DeploymentName, use: PolicyUse) -> Callable[[PlaceView], Any]:
        spec = self._known.get(use.use)
        if spec is None or spec.kind is not PolicyKind.PLACER:
            log.warning('%s: no placer is called "%s"; spread places in its stead', deployment, use.use)
            return spread
        try:
            params = read_params(use.params, spec.params)
        except ParamsError as error:
            log.error('%s: placer "%s" %s; spread places in its stead', deployment, use.use, error)
            return spread
        return spec.target if spec.params is None else partial(spec.target, params=params)
