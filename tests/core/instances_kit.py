"""Building instances, and driving one through its lifecycle by hand."""

from typing import Any

from msgspec.structs import replace

from supervisord_cp.core.instances import effects as do
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.life import Launch, Life, Stage
from supervisord_cp.core.instances.lifecycle import step
from supervisord_cp.core.instances.show import shown
from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, InstanceId
from supervisord_cp.model.event import Event
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import DesiredInstance, EngineKind, LaunchSpec, RunState, revision_of

START = 1000.0


def desired(
    name: str = "chat-0",
    *,
    model: str = "m",
    run: RunState = RunState.RUNNING,
    devices: tuple[str, ...] = ("slot-0",),
    restart: int = 0,
    draining: bool = False,
    start_timeout_s: float = 600.0,
    stop_grace_s: float = 30.0,
    **spec: Any,
) -> DesiredInstance:
    """An instance of deployment `chat`."""
    launch = LaunchSpec(
        engine=EngineKind.FAKE,
        model=model,
        served_names=(model,),
        start_timeout_s=start_timeout_s,
        stop_grace_s=stop_grace_s,
    )
    launch = replace(launch, **spec)
    return DesiredInstance(
        id=InstanceId(name),
        deployment=DeploymentName(name.rpartition("-")[0]),
        revision=revision_of(launch),
        spec=launch,
        devices=tuple(DeviceId(device) for device in devices),
        run=run,
        restart=restart,
        draining=draining,
    )


class Driver:
    """One life, a clock, and what was asked for."""

    def __init__(self, wanted: DesiredInstance | None = None, **life: Any) -> None:
        self.life = Life(desired=wanted or desired(), **life)
        self.now = START
        self.effects: list[do.Effect] = []
        self.events: list[Event] = []
        self._incarnations = 0

    def feed(self, *events: ev.LifeEvent, after: float = 0.0) -> list[do.Effect]:
        """Deliver events; returns what they asked for, announcements aside."""
        self.now += after
        asked: list[do.Effect] = []
        for event in events:
            outcome = step(self.life, event, now=self.now, chance=1.0)
            self.life = outcome.life
            asked += [effect for effect in outcome.effects if not isinstance(effect, do.Announce)]
            self.events += [effect.event for effect in outcome.effects if isinstance(effect, do.Announce)]
        self.effects += asked
        return asked

    def spawned(self) -> ev.Spawned:
        """The event of the next incarnation."""
        self._incarnations += 1
        return ev.Spawned(incarnation=Incarnation(f"i{self._incarnations}"), pid=100 + self._incarnations)

    def to_starting(self) -> None:
        """Up to a running process."""
        self.feed(ev.Tick(), ev.Admitted(), self.spawned())
        assert self.life.stage is Stage.STARTING

    def to_ready(self) -> None:
        """Up to a serving one."""
        self.to_starting()
        self.feed(ev.ProbeOk())
        assert self.life.stage is Stage.READY

    @property
    def state(self) -> InstanceState:
        """The state that users see."""
        return shown(self.life, self.now)[0]


def adopted(wanted: DesiredInstance, incarnation: str = "old", pid: int = 50) -> ev.Adopted:
    """An incarnation of an earlier agent."""
    return ev.Adopted(incarnation=Incarnation(incarnation), pid=pid, launch=Launch.of(wanted))
