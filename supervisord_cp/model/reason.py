"""Why something is as it is: a code with parameters. Text is produced only where it is shown."""

from enum import StrEnum
from typing import Final

from supervisord_cp.model.base import Value


class ReasonCode(StrEnum):
    """The closed vocabulary of reasons."""

    NONE = "none"
    # why an instance is in its state
    STARTING = "starting"
    AWAITING_MEMORY = "awaiting_memory"
    AWAITING_PORT = "awaiting_port"
    AWAITING_DEVICE = "awaiting_device"
    AWAITING_START_SLOT = "awaiting_start_slot"
    AWAITING_LEFTOVERS = "awaiting_leftovers"
    REFUSED_BY_POLICY = "refused_by_policy"
    EXECUTABLE_MISSING = "executable_missing"
    HEALTH_FAILED = "health_failed"
    HEALTH_TIMEOUT = "health_timeout"
    STALLED = "stalled"
    START_DEADLINE = "start_deadline"
    UNKILLABLE = "unkillable"
    REMOVED = "removed"
    HELD = "held"
    REPLACED = "replaced"
    RESTART_ASKED = "restart_asked"
    AGENT_STOPS = "agent_stops"
    EXITED = "exited"
    KEEPER_LOST = "keeper_lost"
    BACKOFF = "backoff"
    NODE_SILENT = "node_silent"
    NOT_LISTED = "not_listed"
    PROBE_FAILED = "probe_failed"
    # why GPUs are unknown, or none
    GPUS_NOT_READ_YET = "gpus_not_read_yet"
    GPU_DRIVER_SILENT = "gpu_driver_silent"
    NO_GPU = "no_gpu"
    # why a number of replicas is what it is
    FIXED = "fixed"
    OVERRIDE = "override"
    LEARNED = "learned"
    BOUND_MIN = "bound_min"
    BOUND_MAX = "bound_max"
    GPU_BUDGET = "gpu_budget"
    SETTLING = "settling"
    HOLD = "hold"
    # why a replica cannot be placed
    NO_NODES = "no_nodes"
    NO_FREE_DEVICE = "no_free_device"
    NODE_CONSTRAINT = "node_constraint"
    ENGINE_NOT_ALLOWED = "engine_not_allowed"
    CORDONED = "cordoned"

    @classmethod
    def _missing_(cls, value: object) -> "ReasonCode":
        return cls.NONE


class Reason(Value, frozen=True, kw_only=True):
    """A code and what it needs to be told to a person."""

    code: ReasonCode = ReasonCode.NONE
    params: dict[str, str | int | float] = {}


NO_REASON: Final = Reason()

_TEXTS: Final[dict[ReasonCode, str]] = {
    ReasonCode.NONE: "",
    ReasonCode.STARTING: "starting",
    ReasonCode.AWAITING_MEMORY: "waiting for {needed} of GPU memory, {free} free",
    ReasonCode.AWAITING_PORT: "waiting for a free port in {ports}",
    ReasonCode.AWAITING_DEVICE: "waiting for {device}",
    ReasonCode.AWAITING_START_SLOT: "waiting: {limit} starts at a time on this node",
    ReasonCode.AWAITING_LEFTOVERS: "ending what an earlier life left behind: {pids}",
    ReasonCode.REFUSED_BY_POLICY: "the node's own policy refuses this launch: {what}",
    ReasonCode.EXECUTABLE_MISSING: "{executable} cannot be run: {error}",
    ReasonCode.HEALTH_FAILED: "health check answers {status}",
    ReasonCode.HEALTH_TIMEOUT: "health check does not answer",
    ReasonCode.STALLED: "requests run but no token was made for {seconds} s",
    ReasonCode.START_DEADLINE: "not ready after {seconds} s",
    ReasonCode.UNKILLABLE: "process {pid} does not die of SIGKILL",
    ReasonCode.REMOVED: "no longer wanted",
    ReasonCode.HELD: "held stopped by an operator",
    ReasonCode.REPLACED: "replaced by a new revision",
    ReasonCode.RESTART_ASKED: "restart asked for",
    ReasonCode.AGENT_STOPS: "its agent stops, and its engines with it",
    ReasonCode.EXITED: "exited: {how}",
    ReasonCode.KEEPER_LOST: "its keeper was killed",
    ReasonCode.BACKOFF: "next try in {seconds} s, after {restarts} restarts; last exit: {how}",
    ReasonCode.NODE_SILENT: "no report from {node} for {seconds} s",
    ReasonCode.NOT_LISTED: "running, but not in the configuration",
    ReasonCode.PROBE_FAILED: "probe failed: {error}",
    ReasonCode.GPUS_NOT_READ_YET: "GPUs are being read for the first time",
    ReasonCode.GPU_DRIVER_SILENT: "the NVIDIA driver does not answer",
    ReasonCode.NO_GPU: "no GPU: {error}",
    ReasonCode.FIXED: "fixed at {replicas}",
    ReasonCode.OVERRIDE: "set to {replicas} by an operator",
    ReasonCode.LEARNED: "{replicas} were found running; `scale {deployment} auto` returns to {configured}",
    ReasonCode.BOUND_MIN: "raised to the minimum of {limit}",
    ReasonCode.BOUND_MAX: "lowered to the maximum of {limit}",
    ReasonCode.GPU_BUDGET: "lowered to {replicas}: the fleet's GPU budget is {limit}",
    ReasonCode.SETTLING: "waiting for agents to report before anything is started",
    ReasonCode.HOLD: "held: {why}",
    ReasonCode.NO_NODES: "no node is connected",
    ReasonCode.NO_FREE_DEVICE: "no free device: {wanted} needed on one node, at most {free} free",
    ReasonCode.NODE_CONSTRAINT: "no node matches {nodes}",
    ReasonCode.ENGINE_NOT_ALLOWED: "no node allows {executable}",
    ReasonCode.CORDONED: "every node with room is cordoned",
}


class _Blank(dict[str, object]):
    """Parameters of a reason of another release may be missing; a question mark says so."""

    def __missing__(self, key: str) -> str:
        return "?"


def render(reason: Reason) -> str:
    """The reason as one line for a person."""
    return _TEXTS[reason.code].format_map(_Blank(reason.params))
