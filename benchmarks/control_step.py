"""What one control step of central costs, and what the reports of many agents cost it.

    python benchmarks/control_step.py [--nodes 1000] [--deployments 200]

Central's own code with a store in memory; reports are decoded from JSON as they come over the wire.
Bounds: a step within 250 ms on one core; reports of 1,000 agents each second within one core.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from supervisord_cp.adapters.sqlite import SqliteStore
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.events import EventLog
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.routers import Routers
from supervisord_cp.clock import ManualClock
from supervisord_cp.config.schema import AutoscaleConfig, CentralConfig, Config, DeploymentConfig
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.instance import EngineLoad, InstanceState, InstanceStatus
from supervisord_cp.model.launch import DesiredNode
from supervisord_cp.model.node import HostLoad, NodeInventory, NodeReport
from supervisord_cp.wire.codec import decode, encode
from supervisord_cp.wire.messages import Report

GPUS = 8


class World:
    """A controller with agents that do at once what they are told."""

    def __init__(self, nodes: int, deployments: int, store: SqliteStore) -> None:
        self.clock = ManualClock()
        replicas = nodes * GPUS // deployments
        scale = AutoscaleConfig(
            min=replicas,
            max=replicas,
            scalers=(PolicyUse(use="kpa", params={"target": 8}), PolicyUse(use="queue_slo")),
        )
        config = Config(
            central=CentralConfig(settle_s=0.0),
            deployments=tuple(
                DeploymentConfig(name=f"d{n}", engine="fake", model="m", autoscale=scale)
                for n in range(deployments)
            ),
        )
        self.controller = Controller(
            config,
            Memory(store),
            EventLog(store, time.time),
            Routers(self.clock),
            self.clock,
            time.time,
        )
        self.desired: dict[str, DesiredNode] = {}
        self.controller.send_desired = self.desired.__setitem__
        self.sequence = 0
        self.names = [f"node-{n}" for n in range(nodes)]
        for name in self.names:
            self.controller.agent_connected(NodeInventory(node=name, device="cuda", executables=("vllm",)))

    def frames(self, *, full: bool) -> list[str]:
        """The reports of all agents, as they travel."""
        self.sequence += 1
        return [encode(Report(report=self._report(name, full))) for name in self.names]

    def _report(self, name: str, full: bool) -> NodeReport:
        desired = self.desired.get(name)
        instances = tuple(
            InstanceStatus(
                id=wanted.id,
                deployment=wanted.deployment,
                engine="fake",
                revision=wanted.revision,
                incarnation=f"{wanted.id}.1",
                state=InstanceState.READY,
                url=f"http://10.0.0.1:{8000 + place}",
                devices=wanted.devices,
                uptime_s=100.0 + self.sequence,
                load=EngineLoad(
                    running=3, waiting=0, kv_cache_usage=0.4, generation_tokens_total=1e6 + self.sequence
                ),
            )
            for place, wanted in enumerate(desired.instances if desired else ())
        )
        gpus = tuple(
            Gpu(uuid=f"GPU-{name}-{n}", index=n, memory_total=80 << 30, memory_used=1 << 30)
            for n in range(GPUS)
        )
        return NodeReport(
            node=name,
            sequence=self.sequence,
            full=full,
            generation=desired.generation if desired else None,
            instances=instances,
            gpus=gpus,
            host=HostLoad(cpu_count=64),
        )

    def take(self, frames: list[str]) -> None:
        for frame in frames:
            message = decode(frame)
            assert isinstance(message, Report)
            self.controller.report(message.report)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--deployments", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    path = Path(__file__).parent / ".build" / "control_step.db"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    store = SqliteStore(path)
    world = World(options.nodes, options.deployments, store)
    world.take(world.frames(full=True))
    placing = []
    while len(world.controller.statuses()) < options.nodes * GPUS:
        placing.append(cpu(world.controller.step))
        world.take(world.frames(full=False))
    steps, reports = [], []
    for _ in range(options.rounds):
        world.clock.advance(1.0)
        frames = world.frames(full=False)
        reports.append(cpu(lambda frames=frames: world.take(frames)))
        steps.append(cpu(world.controller.step))
    instances = len(world.controller.statuses())
    print(f"{platform.node()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
    print(f"{options.nodes} nodes x {GPUS} GPUs, {options.deployments} deployments, {instances} instances")
    print(f"a step that places 64       {statistics.median(placing) * 1000:8.0f} ms   (bound 250)")
    print(f"one step                    {statistics.median(steps) * 1000:8.0f} ms   (bound 250)")
    print(f"one second of reports       {statistics.median(reports) * 1000:8.0f} ms   (bound 1000)")
    store.close()


if __name__ == "__main__":
    main()
