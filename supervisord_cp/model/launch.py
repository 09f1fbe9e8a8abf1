"""What is launched: a typed launch specification, and the digest that names its revision."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, Value

ArgValue = bool | int | float | str | list[bool | int | float | str]
"""The value of an engine flag: `True` is the bare flag, `False` its `--no-` form where it has one (else it
is left out), a list gives its values one after the other."""


DEFAULT_MEMORY_SHARE: Final = 0.9
"""vLLM's own default of `gpu-memory-utilization`."""


class EngineKind(StrEnum):
    """What kind of engine a deployment runs."""

    VLLM = "vllm"
    FAKE = "fake"
    COMMAND = "command"
    NONE = "none"


class SleepLevel(StrEnum):
    """What a replica that is not needed keeps before it is stopped."""

    NONE = "none"
    """It is stopped at once."""
    LEVEL1 = "level1"
    """vLLM's sleep mode with the weights in host memory: it wakes in a second or a few."""
    LEVEL2 = "level2"
    """Without the weights: it holds next to nothing, and loads them again when it wakes."""


class LaunchSpec(Value, frozen=True, kw_only=True):
    """Everything that decides how a deployment's engine is started, the same for all its replicas.

    Secrets never travel in it: they come from the node's own environment or files.
    """

    engine: EngineKind
    model: str
    served_names: tuple[str, ...]
    executable: str = ""
    """The program, looked up on the node's PATH when it has no slash; "" is the engine's default."""
    args: dict[str, ArgValue] = {}
    """Engine flags without their leading dashes, in the engine's own spelling."""
    env: dict[str, str] = {}
    gpus: int = 1
    """Devices per replica."""
    command: tuple[str, ...] = ()
    """engine `command` only: argv, with `{port}`, `{host}`, `{model}` and `{devices}` filled in."""
    ready_path: str = "/health"
    start_timeout_s: float = 1800.0
    stop_grace_s: float = 30.0
    stall_s: float = 120.0
    """How long requests may run without any progress; 0: for ever."""
    sleep: SleepLevel = SleepLevel.NONE
    """What its replicas do when they are not needed, where their node allows it."""

    @property
    def memory_share(self) -> float | None:
        """The share of a GPU's whole memory that vLLM wants to be free before it starts; None: unknown."""
        share = self.args.get("gpu-memory-utilization", DEFAULT_MEMORY_SHARE)
        if self.engine is not EngineKind.VLLM or isinstance(share, bool):
            return None
        return share if isinstance(share, int | float) else None


def revision_of(spec: LaunchSpec) -> str:
    """The digest that names a revision: equal specs, equal revisions, on every machine."""
    encoded = msgspec.json.encode(spec, order="sorted")
    return hashlib.blake2b(encoded, digest_size=5).hexdigest()


class RunState(StrEnum):
    """What is wanted of an instance."""

    RUNNING = "running"
    SLEEPING = "sleeping"
    """Kept asleep while its engine lives; nothing is started for it."""
    STOPPED = "stopped"


class DesiredInstance(Value, frozen=True, kw_only=True):
    """One instance that central wants on a node."""

    id: InstanceId
    deployment: DeploymentName
    revision: str
    spec: LaunchSpec
    devices: tuple[DeviceId, ...]
    run: RunState = RunState.RUNNING
    draining: bool = False
    """Routers have been told to send nothing new; the engine runs on until `run` changes."""
    restart: int = 0
    """Raised by one for each restart asked for; the agent restarts when its own count is lower."""
    max_concurrency: int = 0
    """Requests at once that routers send to it; 0 is no limit."""


class Generation(Value, frozen=True, kw_only=True):
    """Which publication of the desired state: counters are compared within an epoch only."""

    epoch: str
    counter: int


class DesiredNode(Value, frozen=True, kw_only=True):
    """The desired state of one node. What it does not mention is kept."""

    node: str
    generation: Generation
    acknowledged: int
    """The sequence number of the full report of this connection that this state takes into account;
    removals are refused without one."""
    instances: tuple[DesiredInstance, ...] = ()
    removals: tuple[InstanceId, ...] = ()


def program_of(spec: LaunchSpec) -> str:
    """The program that a specification runs, as a name or a path; "" for the fake engine, which is ours."""
    match spec.engine:
        case EngineKind.FAKE | EngineKind.NONE:
            return ""
        case EngineKind.COMMAND:
            return spec.command[0] if spec.command else ""
        case EngineKind.VLLM:
            return spec.executable or "vllm"


def allows(executables: Sequence[str], spec: LaunchSpec) -> bool:
    """Whether a node whose `[agent.allow] executables` are these may launch it: its program is listed,
    as it is written there; patterns mean nothing. Our own fake engine may run everywhere."""
    return spec.engine is EngineKind.FAKE or program_of(spec) in executables
