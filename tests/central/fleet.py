"""A small world around a controller: a clock, agents that do what they are told, routers that follow."""

from msgspec.structs import replace

from supervisord_cp.central.controller import Controller
from supervisord_cp.central.events import EventLog
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.routers import Routers
from supervisord_cp.clock import ManualClock
from supervisord_cp.config.schema import CentralConfig, Config, DeploymentConfig
from supervisord_cp.model.fleet import FleetSnapshot, RoutedInstance, apply_delta
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import DesiredNode, RunState, SleepLevel
from supervisord_cp.model.node import NodeInventory, NodeReport
from supervisord_cp.model.router import DeploymentDemand, LeaseCount, Outcomes, OutOfRotation, RouterReport
from supervisord_cp.model.signal import NamedResult
from supervisord_cp.wire import messages as m
from tests.fakes.store import FakeStore


def deployment(name: str = "chat", replicas: int = 2, **fields: object) -> DeploymentConfig:
    return DeploymentConfig(name=name, engine="fake", model="m", replicas=replicas, **fields)


class FakeAgent:
    """Takes over desired state at once, and runs nothing."""

    def __init__(self, world: "World", name: str, slots: int) -> None:
        self.world = world
        self.name = name
        self.inventory = NodeInventory(
            node=name, session=f"s-{name}", device="cpu", slots=tuple(f"slot-{n}" for n in range(slots))
        )
        self.instances: dict[str, InstanceStatus] = {}
        self.desired: DesiredNode | None = None
        self.sequence = 0
        self.spawned = 0
        self.woken = 0
        self.reported: tuple[str, ...] = ()
        self.starts_become = InstanceState.READY

    def connect(self) -> "FakeAgent":
        self.sequence = 0
        self.world.agents[self.name] = self
        self.world.controller.agent_connected(self.inventory)
        self.report(full=True)
        return self

    def disconnect(self) -> None:
        del self.world.agents[self.name]
        self.world.controller.agent_gone(self.name)

    def report(self, *, full: bool = False) -> bool:
        self.sequence += 1
        gone = tuple(name for name in self.reported if name not in self.instances)
        self.reported = tuple(self.instances)
        return self.world.controller.report(
            NodeReport(
                node=self.name,
                sequence=self.sequence,
                full=full,
                generation=self.desired.generation if self.desired else None,
                instances=tuple(self.instances.values()),
                gone=gone,
            )
        )

    def converge(self) -> None:
        desired = self.desired
        if desired is None:
            return
        for gone in desired.removals:
            assert desired.acknowledged
            self.instances.pop(gone, None)
        for wanted in desired.instances:
            have = self.instances.get(wanted.id)
            if wanted.run is RunState.STOPPED:
                self.instances[wanted.id] = self._status(wanted, InstanceState.STOPPED, "")
            elif wanted.run is RunState.SLEEPING:
                if have is not None and have.state is InstanceState.READY:
                    self.instances[wanted.id] = replace(have, state=InstanceState.SLEEPING)
            elif have is not None and have.state is InstanceState.SLEEPING:
                self.instances[wanted.id] = replace(have, state=InstanceState.READY)
                self.woken += 1
            elif have is None or have.restart < wanted.restart or not have.url:
                self.spawned += 1
                self.instances[wanted.id] = self._status(wanted, self.starts_become, f"i{self.spawned}")
        listed = {d.id for d in desired.instances}
        for name, status in self.instances.items():
            self.instances[name] = replace(status, listed=name in listed)

    def _status(self, wanted, state: InstanceState, incarnation: str) -> InstanceStatus:
        return InstanceStatus(
            id=wanted.id,
            deployment=wanted.deployment,
            engine="fake",
            revision=wanted.revision,
            incarnation=f"{wanted.id}.{incarnation}" if incarnation else "",
            state=state,
            url=f"http://127.0.0.1/{wanted.id}" if incarnation else "",
            devices=wanted.devices,
            restart=wanted.restart,
            can_sleep=wanted.spec.sleep is not SleepLevel.NONE,
        )


class FakeRouter:
    """Follows snapshots and holds the leases that a test gives it."""

    def __init__(self, world: "World", name: str = "r1") -> None:
        self.world = world
        self.name = name
        self.snapshot: FleetSnapshot | None = None
        self.leases: dict[str, int] = {}
        self.outcomes: dict[str, Outcomes] = {}
        """By instance."""
        self.rotation: tuple[OutOfRotation, ...] = ()
        self.demand: tuple[DeploymentDemand, ...] = ()
        self.keys: dict[str, str] = {}
        self.queries: dict[str, NamedResult] = {}
        self.received: list[m.Message] = []
        world.controller.routers.connected(name, "0", self.take)

    def take(self, message: m.Message) -> bool:
        self.received.append(message)
        match message:
            case m.Snapshot(snapshot=snapshot):
                self.snapshot = snapshot
            case m.Delta(delta=delta):
                assert self.snapshot is not None
                self.snapshot = apply_delta(self.snapshot, delta)
                assert self.snapshot is not None
            case m.EngineKeys(keys=keys):
                self.keys = dict(keys)
            case m.Queries(results=results):
                self.queries = results
        return True

    def report(self) -> None:
        snapshot = self.snapshot
        self.world.controller.router_reported(
            RouterReport(
                router=self.name,
                epoch=snapshot.epoch if snapshot else "",
                version=snapshot.version if snapshot else 0,
                outcomes=self._outcomes(),
                leases=tuple(
                    LeaseCount(incarnation=name, requests=count) for name, count in self.leases.items()
                ),
                rotation=self.rotation,
                demand=self.demand,
            )
        )

    def _outcomes(self) -> tuple[Outcomes, ...]:
        """Of deployments that are compared, as a real router tells them."""
        if self.snapshot is None or not any(d.compared for d in self.snapshot.deployments):
            return ()
        there = self.instances()
        return tuple(
            replace(one, incarnation=there[name].incarnation)
            for name, one in self.outcomes.items()
            if name in there
        )

    def instances(self) -> dict[str, RoutedInstance]:
        assert self.snapshot is not None
        return {i.id: i for part in self.snapshot.parts for i in part.instances}

    def routable(self) -> list[str]:
        return sorted(i.id for i in self.instances().values() if i.routable)


class World:
    """A controller with everything around it; `run()` lets it all settle."""

    def __init__(
        self, *deployments: DeploymentConfig, store: FakeStore | None = None, **central: object
    ) -> None:
        self.clock = ManualClock()
        self.wall = 1_000_000.0
        self.store = store or FakeStore()
        self.agents: dict[str, FakeAgent] = {}
        self.config = Config(central=CentralConfig(**central), deployments=deployments)
        self.start()

    def start(self) -> None:
        """Begin a life of central: what it remembers is in the store."""
        events = EventLog(self.store, lambda: self.wall)
        self.controller = Controller(
            self.config, Memory(self.store), events, Routers(self.clock), self.clock, lambda: self.wall
        )
        self.controller.send_desired = self._desired

    def restart(self, *, wiped: bool = False) -> None:
        """kill -9 of central, and another one."""
        if wiped:
            self.store = FakeStore()
        else:
            self.store._fresh = False
        self.start()
        self.agents = {}

    def _desired(self, node: str, desired: DesiredNode) -> None:
        before = self.agents[node].desired
        if before is not None and before.generation.epoch == desired.generation.epoch:
            assert desired.generation.counter > before.generation.counter
        self.agents[node].desired = desired

    def agent(self, name: str = "a", slots: int = 4) -> FakeAgent:
        return FakeAgent(self, name, slots).connect()

    def router(self, name: str = "r1") -> FakeRouter:
        return FakeRouter(self, name)

    def run(self, seconds: float = 8.0, *routers: FakeRouter) -> None:
        """Let time pass in half seconds: agents converge and report, routers report, central steps."""
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)
            self.wall += 0.5
            self.controller.step()
            for agent in list(self.agents.values()):
                agent.converge()
                if not agent.report():
                    agent.sequence = 0
                    agent.report(full=True)
            for router in routers:
                router.report()
        self.controller.step()

    def kinds(self, subject: str) -> list[str]:
        return [e.event.kind for e in self.controller.events.recent(200, subject)]
