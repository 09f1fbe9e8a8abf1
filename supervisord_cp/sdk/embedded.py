"""The router's core in this process: dispatch, probes and health checks, without a listener."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from supervisord_cp.clock import SystemClock
from supervisord_cp.config.schema import RouterConfig, StaticInstanceConfig
from supervisord_cp.core.routing.lane_policies import Here
from supervisord_cp.core.routing.leases import Account
from supervisord_cp.engines.registry import all_engines
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.fleet import FleetPart, RoutedInstance
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.prober.prober import Probe, Prober
from supervisord_cp.router.auth import ApiKeys
from supervisord_cp.router.dispatch import Dispatcher
from supervisord_cp.router.exchange import MemoryExchange
from supervisord_cp.router.health import HealthChecks
from supervisord_cp.sdk.fleet import HERE, Incarnations, snapshot, static_config
from supervisord_cp.sdk.policies import Policies
from supervisord_cp.sdk.types import ExecutionInstance

log = logging.getLogger(__name__)

TICK_S: Final = 0.1


class EmbeddedRouter:
    """To be made on a running event loop, and closed on it."""

    def __init__(self, config: RouterConfig, policies: Policies, *, zone: str = "") -> None:
        """`zone` is where this process runs."""
        loop = asyncio.get_running_loop()
        self._instances: Mapping[str, ExecutionInstance] = {}
        self._probed: tuple[RoutedInstance, ...] = ()
        self._incarnations = Incarnations()
        self._policies = policies
        self._version = 0
        self._dispatcher = Dispatcher(
            config,
            keys=ApiKeys(None),
            clock=time.monotonic,
            call_later=lambda delay, call: loop.call_later(delay, call).cancel,
            created=int(time.time()),
            rng=Random(),
            watcher=self,
            binder=Binder(registry=policies.registry),
            here=Here(node=HERE, zone=zone),
        )
        self._health = HealthChecks(self._dispatcher)
        self._prober = Prober(all_engines()["vllm"], SystemClock(), self._changed, _probed)
        self._ticking = loop.create_task(self._tick())

    def serve(self, exchange: MemoryExchange) -> None:
        """Take a request. Its exchange is told how it ends, maybe before this returns."""
        self._dispatcher.serve(exchange)

    def use(self, instances: Mapping[str, ExecutionInstance]) -> None:
        """Serve from exactly these, by their ids, from now on."""
        self._instances = dict(instances)
        self._incarnations.keep(instances)
        self._prober.update([static_config(instance) for instance in instances.values()])

    def use_policies(self, policies: Policies) -> None:
        """Decide by these from now on."""
        self._policies = policies
        self._dispatcher.fleet.binder.registry = policies.registry
        self._publish()

    def queued(self, exchange: MemoryExchange) -> bool:
        """Whether a request waits for an instance."""
        return any(
            flow.exchange is exchange for lane in self._dispatcher.fleet.lanes.values() for flow in lane.line
        )

    def waiting(self, model: str) -> list[str]:
        """Ids of the requests that wait for a model's instances."""
        lane = self._dispatcher.fleet.lanes.get(DeploymentName(model))
        return [] if lane is None else [flow.request.id for flow in lane.line]

    def count_queued(self) -> int:
        """Requests that wait for an instance."""
        return sum(len(lane.line) for lane in self._dispatcher.fleet.lanes.values())

    def healthy(self) -> frozenset[str]:
        """Ids of the instances that get requests, full ones and those on trial included."""
        out = {e.incarnation for e in self._dispatcher.fleet.ejections.all() if not e.on_trial}
        return frozenset(
            instance.id
            for instances in self._dispatcher.fleet.table.instances.values()
            for instance in instances
            if instance.routable and instance.incarnation not in out
        )

    def active(self) -> dict[str, int]:
        """Requests in flight, by instance."""
        counts: dict[str, int] = {}
        for account in self._dispatcher.fleet.ledger.accounts():
            counts[account.instance.id] = counts.get(account.instance.id, 0) + account.inflight
        return counts

    async def close(self) -> None:
        """End everything; requests that are still open break off."""
        self._ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticking
        await self._prober.close()
        await self._health.close()
        self._dispatcher.cut_all()
        await self._dispatcher.pools.close()

    # --- what the dispatcher tells

    def ejected(self, account: Account, why: str, request: str) -> None:
        told = {"request_id": request} if request else None
        log.warning("%s is out of rotation: %s", account.instance.id, why, extra=told)

    def doubted(self, account: Account, told: Callable[[str], None]) -> None:
        self._health.ask_about(account, told)

    def missed(self) -> None:
        pass

    def released(self, account: Account) -> None:
        pass

    def restored(self, account: Account) -> None:
        log.info("%s is in rotation again", account.instance.id)

    # --- inside

    def _changed(self, part: FleetPart) -> None:
        self._probed = part.instances
        self._publish()

    def _publish(self) -> None:
        self._version += 1
        view = snapshot(self._version, self._instances, self._probed, self._incarnations, self._policies)
        self._dispatcher.use_keys(
            {
                one.incarnation: key
                for part in view.parts
                for one in part.instances
                if (key := self._instances[one.id].api_key)
            }
        )
        self._dispatcher.apply(view)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self._dispatcher.tick()
                self._health.tick(time.monotonic())
            except Exception:
                log.exception("a tick failed; requests go on")


def _probed(config: StaticInstanceConfig, probe: Probe) -> None:
    if probe.state is InstanceState.READY:
        log.info("%s is ready", config.id)
    else:
        log.warning("%s is %s: %s", config.id, probe.state, probe.error)
