"""An agent's parts in one process: engines in memory, messages in a list."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from supervisord_cp.adapters.oom import OomWatch
from supervisord_cp.agent.capsules import Capsules
from supervisord_cp.agent.gate import Gate
from supervisord_cp.agent.gpu_timeline import GpuTimeline
from supervisord_cp.agent.incarnation import Watcher
from supervisord_cp.agent.instance import Tools
from supervisord_cp.agent.launch import Launcher
from supervisord_cp.agent.node import Node
from supervisord_cp.agent.post_mortem import Coroner
from supervisord_cp.agent.report import Reporter
from supervisord_cp.agent.roster import Identity, Roster
from supervisord_cp.agent.starts import Starts
from supervisord_cp.agent.state import StateDir
from supervisord_cp.clock import Clock, SystemClock
from supervisord_cp.config.schema import AgentConfig
from supervisord_cp.engines.base import (
    Capabilities,
    EngineCall,
    LaunchContext,
    LaunchRefused,
    PreparedLaunch,
    SleepMode,
)
from supervisord_cp.model.base import DeviceId, Incarnation, InstanceId
from supervisord_cp.model.instance import EngineLoad, ExitCause, InstanceState, Phase
from supervisord_cp.model.launch import DesiredInstance, DesiredNode, Generation, LaunchSpec
from supervisord_cp.model.node import HostLoad, NodeReport
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode
from supervisord_cp.ports.gpu import GpuReading
from supervisord_cp.ports.process import ExitStatus, ProcessRecord, SpawnRequest
from supervisord_cp.wire import messages as m

BOOT = "this-boot"
REFUSED = Reason(code=ReasonCode.PROBE_FAILED, params={"error": "refused"})


SLEEP_MODE = SleepMode(
    sleep=(EngineCall(path="/sleep"),),
    wake=(EngineCall(path="/wake"),),
    state_path="/is_sleeping",
    canary=EngineCall(path="/completion"),
)


class FakeProcess:
    """A process that ends when a test says so, or when it is stopped and `polite`."""

    def __init__(self, record: ProcessRecord, *, polite: bool = True) -> None:
        self.record = record
        self.exited: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.tree_gone = asyncio.Event()
        self.stops: list[float] = []
        self.polite = polite
        self.closed = False
        self.log_lost_bytes = 0

    async def stop(self, *, grace_s: float) -> None:
        self.stops.append(grace_s)
        if self.polite:
            self.end(ExitStatus(code=0, requested=True))

    async def gone(self) -> None:
        await self.tree_gone.wait()

    def survivors(self) -> list[int]:
        return [] if self.tree_gone.is_set() else [self.record.pid, self.record.pid + 1]

    def close(self) -> None:
        self.closed = True

    def end(self, status: ExitStatus, *, leftovers: bool = False) -> None:
        if not self.exited.done():
            self.exited.set_result(status)
        if not leftovers:
            self.tree_gone.set()


class FakeBackend:
    """Starts fake processes; refuses a second one while a first is not gone."""

    def __init__(self) -> None:
        self.requests: list[SpawnRequest] = []
        self.found: list[FakeProcess] = []
        """What `find` returns."""
        self.failure: Exception | None = None
        self.processes: dict[InstanceId, FakeProcess] = {}
        self.forgotten: list[InstanceId] = []
        self.closed = False
        self._pids = iter(range(1000, 9000, 10))

    async def spawn(self, request: SpawnRequest) -> FakeProcess:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        old = self.processes.get(request.instance)
        assert old is None or old.tree_gone.is_set(), "two incarnations at once"
        self.requests.append(request)
        process = FakeProcess(record_of(request, next(self._pids)))
        self.processes[request.instance] = process
        return process

    async def find(self) -> list[FakeProcess]:
        for process in self.found:
            self.processes[process.record.instance] = process
        return self.found

    def forget(self, instance: InstanceId) -> None:
        process = self.processes.get(instance)
        if process is not None and not process.tree_gone.is_set():
            raise ValueError("not gone yet")
        self.forgotten.append(instance)

    def close(self) -> None:
        self.closed = True


def record_of(request: SpawnRequest, pid: int, boot_id: str = BOOT) -> ProcessRecord:
    return ProcessRecord(
        instance=request.instance,
        incarnation=request.incarnation,
        nonce=request.nonce,
        boot_id=boot_id,
        pid=pid,
        start_ticks=1,
        keeper_pid=pid + 5,
        keeper_start_ticks=1,
        meta=request.meta,
    )


class FakeEngine:
    """Kind `fake`; what it says of pages and logs is what a test puts in."""

    kind = "fake"
    metrics_path = "/metrics"
    rest_paths = ("/is_paused",)

    def __init__(self) -> None:
        self.missing = ""
        self.contexts: list[LaunchContext] = []
        self.broken_pages = 0
        self.bad_flag = ""
        self.cause: ExitCause | None = None

    def probe(self, executable: str) -> Capabilities:
        if self.missing:
            raise LaunchRefused(self.missing)
        return Capabilities(executable="/bin/fake")

    def prepare(self, spec: LaunchSpec, context: LaunchContext, found: Capabilities) -> PreparedLaunch:
        if self.bad_flag:
            raise LaunchRefused(self.bad_flag)
        self.contexts.append(context)
        env = {"VLLM_API_KEY": context.api_key} if context.api_key else {}
        argv = (found.executable, str(context.port))
        return PreparedLaunch(argv=argv, env={**spec.env, **env}, sleep_mode=SLEEP_MODE)

    def ready_path(self, spec: LaunchSpec) -> str:
        return "/health"

    def pulse(self, spec: LaunchSpec) -> EngineCall | None:
        return EngineCall(path="/pulse")

    def load(self, page: str) -> EngineLoad:
        if self.broken_pages:
            self.broken_pages -= 1
            raise ValueError("a page that nobody has seen before")
        running, *steps = map(int, page.split())
        return EngineLoad(running=running, iterations_total=float(steps[0]) if steps else None)

    def phase(self, line: str) -> Phase | None:
        return Phase.LOADING if "loading" in line else None

    def classify(self, code: int | None, signal: int | None, log_tail: str, was_ready: bool) -> ExitCause:
        return self.cause or (ExitCause.ENGINE_DEAD if was_ready else ExitCause.CONFIGURATION)


class FakeHttp:
    """Answers for engines by their addresses."""

    def __init__(self) -> None:
        self.health_of: dict[str, Reason] = {}
        self.running: dict[str, int] = {}
        self.steps_of: dict[str, Callable[[], int]] = {}
        """Iterations counted by an engine; not counted at all when it is not in here."""
        self.resting: set[str] = set()
        self.asleep: set[str] = set()
        self.keys: set[str] = set()
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.probes: Counter[str] = Counter()
        """How often each was asked for its health."""

    async def health(self, url: str, path: str, key: str) -> Reason:
        await asyncio.sleep(0)
        self.keys.add(key)
        self.probes[url] += 1
        return self.health_of.get(url, NO_REASON)

    async def page(self, url: str, path: str, key: str) -> str | None:
        await asyncio.sleep(0)
        if path == "/is_sleeping":
            return json.dumps({"is_sleeping": url in self.asleep})
        running = self.running.get(url, 0)
        return f"{running} {self.steps_of[url]()}" if url in self.steps_of else str(running)

    async def call(self, url: str, call: EngineCall, key: str, timeout_s: float) -> bytes:
        await asyncio.sleep(0)
        if call.path == "/pulse":
            self.asked += 1
            await self.answers.wait()
            return b"{}"
        if call.path == "/completion":
            return b'{"choices": [{"text": "Paris"}]}'
        (self.asleep.add if call.path == "/sleep" else self.asleep.discard)(url)
        return b""

    async def rests(self, url: str, paths: tuple[str, ...], key: str) -> bool:
        await asyncio.sleep(0)
        return url in self.resting


class FixedGpus:
    """GPUs that a test sets."""

    def __init__(self, reading: GpuReading | None = None) -> None:
        self.reading = reading or GpuReading(gpus=())

    async def start(self) -> None:
        pass

    def read(self) -> GpuReading:
        return self.reading

    async def stop(self) -> None:
        pass


class FixedHost:
    def read(self) -> HostLoad:
        return HostLoad(cpu_count=2)


@dataclass(kw_only=True)
class Parts:
    """An agent without its daemon."""

    node: Node
    roster: Roster
    reporter: Reporter
    backend: FakeBackend
    engine: FakeEngine
    http: FakeHttp
    gpu: FixedGpus
    launcher: Launcher
    state: StateDir
    capsules: Capsules
    timeline: GpuTimeline
    starts: Starts
    sent: list[m.Message]
    refused: list[m.Message]
    refusing: asyncio.Event
    """While set, messages are not taken."""
    taken_ports: set[int] = field(default_factory=set)
    """Ports that are not free when a start is admitted."""
    stranger_ports: set[int] = field(default_factory=set)
    """Ports on which somebody else answers than the engine."""
    counter: int = 0

    @property
    def reports(self) -> list[NodeReport]:
        return [message.report for message in self.sent if isinstance(message, m.Report)]

    def take(self, *instances: DesiredInstance, removals: tuple[str, ...] = ()) -> None:
        """A desired state from central."""
        self.counter += 1
        self.node.take(
            DesiredNode(
                node="n",
                generation=Generation(epoch="e", counter=self.counter),
                acknowledged=1,
                instances=instances,
                removals=tuple(map(InstanceId, removals)),
            )
        )

    def state_of(self, name: str) -> InstanceState | None:
        instance = self.roster.instances.get(InstanceId(name))
        return None if instance is None else instance.status().state

    def url_of(self, name: str) -> str:
        return self.roster.instances[InstanceId(name)].status().url


@contextmanager
def assembled(
    folder: Path,
    *,
    backend: FakeBackend | None = None,
    loopback: bool = True,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    gpu: FixedGpus | None = None,
    device_kind: str = "cpu",
    engine_kind: str = "fake",
    **config: Any,
) -> Iterator[Parts]:
    """Parts put together as the daemon does, with `keep` running."""
    config = {"state_dir": folder, "log_dir": folder, "ports": (100, 109), "max_parallel_starts": 4, **config}
    agent = AgentConfig(**config)
    clock = clock or SystemClock()
    gpu = gpu or FixedGpus()
    backend, engine, http = backend or FakeBackend(), FakeEngine(), FakeHttp()
    slots = tuple(DeviceId(f"slot-{number}") for number in range(4)) if device_kind == "cpu" else ()
    roster = Roster(Identity(name="n", device_kind=device_kind, slots=slots), gpu)
    state = StateDir(folder, boot_id=BOOT)
    launcher = Launcher(
        agent,
        engines={engine_kind: engine},
        loopback=loopback,
        device_kind=device_kind,
        device_indexes=roster.device_indexes,
        environ=environ or {"PATH": "/bin"},
    )
    timeline, capsules, starts = GpuTimeline(gpu, clock), Capsules(folder), Starts(state)
    taken_ports: set[int] = set()
    stranger_ports: set[int] = set()
    gate = Gate(
        roster,
        ports=agent.ports,
        max_loading=agent.max_parallel_starts,
        port_free=lambda port: port not in taken_ports,
    )
    tools = Tools(
        clock=clock,
        random=Random(1),
        backend=backend,
        launcher=launcher,
        gate=gate,
        watcher=Watcher(
            http=http,  # type: ignore[arg-type]
            clock=clock,
            boot_id=BOOT,
            oom=OomWatch(clock, folder / "vmstat"),
            listens=lambda pids, port: None if port not in stranger_ports else False,
            timeline=timeline,
            coroner=Coroner(capsules, launcher.secrets),
            starts=starts,
        ),
        state=state,
    )
    sent: list[m.Message] = []
    refused: list[m.Message] = []
    refusing = asyncio.Event()

    def send(message: m.Message) -> bool:
        (refused if refusing.is_set() else sent).append(message)
        return not refusing.is_set()

    reporter = Reporter(roster, gpu=gpu, host=FixedHost(), clock=clock, send=send)
    node = Node(roster, tools, reporter)
    parts = Parts(
        node=node,
        roster=roster,
        reporter=reporter,
        backend=backend,
        engine=engine,
        http=http,
        gpu=gpu,
        launcher=launcher,
        state=state,
        capsules=capsules,
        timeline=timeline,
        starts=starts,
        sent=sent,
        refused=refused,
        refusing=refusing,
        taken_ports=taken_ports,
        stranger_ports=stranger_ports,
    )
    keep = asyncio.get_running_loop().create_task(node.keep())
    try:
        yield parts
    finally:
        keep.cancel()
        reporter.close()
        node.close()


def incarnation(parts: Parts, name: str) -> Incarnation:
    """The present one of an instance."""
    return parts.roster.instances[InstanceId(name)].status().incarnation
