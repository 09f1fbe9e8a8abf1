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
    PORT_OF_STRANGER = "port_of_stranger"
    STALLED = "stalled"
    UNRESPONSIVE = "unresponsive"
    START_DEADLINE = "start_deadline"
    STUCK_IN_PHASE = "stuck_in_phase"
    UNKILLABLE = "unkillable"
    REMOVED = "removed"
    HELD = "held"
    ENDED_BY_OPERATOR = "ended_by_operator"
    REPLACED = "replaced"
    RESTART_ASKED = "restart_asked"
    AGENT_STOPS = "agent_stops"
    EXITED = "exited"
    KEEPER_LOST = "keeper_lost"
    BACKOFF = "backoff"
    BACKOFF_OR_CHANGE = "backoff_or_change"
    NODE_SILENT = "node_silent"
    NODE_NOT_HEARD = "node_not_heard"
    NOT_LISTED = "not_listed"
    PROBE_FAILED = "probe_failed"
    RELEASING_MEMORY = "releasing_memory"
    GPU_UNWELL = "gpu_unwell"
    FALLING_ASLEEP = "falling_asleep"
    WAKING = "waking"
    SLEEP_FAILED = "sleep_failed"
    SLEPT_ENOUGH = "slept_enough"
    MEMORY_NEEDED = "memory_needed"
    NOT_NEEDED = "not_needed"
    # why a GPU is not healthy
    GPU_XID = "gpu_xid"
    GPU_ECC = "gpu_ecc"
    GPU_REMAP_PENDING = "gpu_remap_pending"
    GPU_REMAP_FAILED = "gpu_remap_failed"
    GPU_RECOVERY_ACTION = "gpu_recovery_action"
    GPU_RESET_REQUIRED = "gpu_reset_required"
    GPU_LOST = "gpu_lost"
    GPU_SLOWED = "gpu_slowed"
    GPU_NOT_READ = "gpu_not_read"
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
    # what a scaler saw
    TARGET = "target"
    WITHIN_TOLERANCE = "within_tolerance"
    UNREADY_REPLICAS = "unready_replicas"
    NO_TRAFFIC = "no_traffic"
    SIGNAL_MISSING = "signal_missing"
    SIGNAL_STALE = "signal_stale"
    SIGNAL_NAN = "signal_nan"
    STABLE_WINDOW = "stable_window"
    PANIC_WINDOW = "panic_window"
    PANIC_HOLDS = "panic_holds"
    ZERO_GRACE = "zero_grace"
    QUEUE = "queue"
    QUEUE_CLEARS = "queue_clears"
    NO_SLO = "no_slo"
    SCHEDULE = "schedule"
    NO_WALL_CLOCK = "no_wall_clock"
    SCALER_FAILED = "scaler_failed"
    # what the envelope made of it
    POLICY_MIN = "policy_min"
    POLICY_MAX = "policy_max"
    STABILIZED_UP = "stabilized_up"
    STABILIZED_DOWN = "stabilized_down"
    RATE_UP = "rate_up"
    RATE_DOWN = "rate_down"
    SCALING_DISABLED = "scaling_disabled"
    PENDING = "pending"
    SHRINK_UNSAFE = "shrink_unsafe"
    SHRINK_UNKNOWN = "shrink_unknown"
    IDLE_WAIT = "idle_wait"
    WAKE = "wake"
    NOBODY_WAITS = "nobody_waits"
    GPU_SHARE = "gpu_share"
    # why a replica cannot be placed
    NO_NODES = "no_nodes"
    NO_FREE_DEVICE = "no_free_device"
    NO_FREE_MEMORY = "no_free_memory"
    NODE_CONSTRAINT = "node_constraint"
    ENGINE_NOT_ALLOWED = "engine_not_allowed"
    CORDONED = "cordoned"
    # what would have to change for another number
    WITHOUT_MIN = "without_min"
    WITHOUT_MAX = "without_max"
    WITHOUT_POLICY_BOUND = "without_policy_bound"
    WITHOUT_GPU_BUDGET = "without_gpu_budget"
    WITHOUT_GPU_SHARE = "without_gpu_share"
    WITHOUT_RATE = "without_rate"
    WITHOUT_PENDING = "without_pending"
    WITHOUT_SHRINK_CHECK = "without_shrink_check"
    WITHOUT_OVERRIDE = "without_override"
    AFTER_WINDOW = "after_window"
    AFTER_RATE = "after_rate"
    IF_ENABLED = "if_enabled"
    IF_LOAD_BELOW = "if_load_below"
    IF_IDLE = "if_idle"
    IF_FRESH = "if_fresh"
    IF_KNOWN = "if_known"
    # what would have to change for a replica to be placed
    IF_UNCORDONED = "if_uncordoned"
    IF_ANY_NODE = "if_any_node"
    IF_STRANGERS_LEFT = "if_strangers_left"
    IF_GPU_WELL = "if_gpu_well"
    IF_MEMORY_FREE = "if_memory_free"
    IF_ALLOWED = "if_allowed"
    IF_DEVICES_FREE = "if_devices_free"
    IF_NODE_CONNECTS = "if_node_connects"
    # what happens to a place
    NODE_LOST = "node_lost"
    PREEMPTED = "preempted"
    ROLLED_BACK = "rolled_back"
    MORE_ERRORS = "more_errors"
    SLOWER = "slower"
    ROLLING_OUT = "rolling_out"
    ROLLED_OUT = "rolled_out"

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
    ReasonCode.AWAITING_MEMORY: "waiting for {needed} of GPU memory, {free} free; held by {holders}",
    ReasonCode.AWAITING_PORT: "waiting for a free port in {ports}",
    ReasonCode.AWAITING_DEVICE: "waiting for {device}",
    ReasonCode.AWAITING_START_SLOT: "waiting for its turn: this node starts {limit} at a time",
    ReasonCode.AWAITING_LEFTOVERS: "ending what an earlier life left behind: {pids}",
    ReasonCode.REFUSED_BY_POLICY: "the node's own policy refuses this launch: {what}",
    ReasonCode.EXECUTABLE_MISSING: "{executable} cannot be run: {error}",
    ReasonCode.HEALTH_FAILED: "health check answers {status}",
    ReasonCode.HEALTH_TIMEOUT: "health check does not answer",
    ReasonCode.PORT_OF_STRANGER: "on port {port} another process answers: {holder}",
    ReasonCode.STALLED: "{running} requests run, and no iteration or token was counted for {seconds} s",
    ReasonCode.UNRESPONSIVE: "every health check has failed for {seconds} s",
    ReasonCode.START_DEADLINE: "not ready after {seconds} s ({phase})",
    ReasonCode.STUCK_IN_PHASE: "nothing has moved for {seconds} s ({phase}, usually {usual} s)",
    ReasonCode.UNKILLABLE: "process {pid} does not die of SIGKILL",
    ReasonCode.REMOVED: "no longer wanted",
    ReasonCode.HELD: "held stopped by an operator",
    ReasonCode.ENDED_BY_OPERATOR: "ended for good by an operator",
    ReasonCode.REPLACED: "replaced by a new revision",
    ReasonCode.RESTART_ASKED: "restart asked for",
    ReasonCode.AGENT_STOPS: "its agent stops, and its engines with it",
    ReasonCode.EXITED: "exited: {how}",
    ReasonCode.KEEPER_LOST: "its keeper was killed",
    ReasonCode.BACKOFF: "next try in {seconds} s",
    ReasonCode.BACKOFF_OR_CHANGE: "next try in {seconds} s or when deployment, program, model or the node's"
    " configuration change",
    ReasonCode.NODE_NOT_HEARD: "{node} has not reported since central started",
    ReasonCode.NODE_SILENT: "no report from {node} for {seconds} s",
    ReasonCode.NOT_LISTED: "running, but not in the configuration",
    ReasonCode.PROBE_FAILED: "probe failed: {error}",
    ReasonCode.RELEASING_MEMORY: "ended; the driver still holds {held} of the memory of {gpu}",
    ReasonCode.FALLING_ASLEEP: "falling asleep",
    ReasonCode.WAKING: "waking up; ready when it answers as it did before it slept",
    ReasonCode.SLEEP_FAILED: "sleep mode failed: {error}",
    ReasonCode.SLEPT_ENOUGH: "slept for {seconds} s and was not needed",
    ReasonCode.MEMORY_NEEDED: "what it holds in its sleep is needed for {deployment}",
    ReasonCode.NOT_NEEDED: "not needed now; it sleeps",
    ReasonCode.GPU_UNWELL: "its GPU {gpu} is {health}",
    ReasonCode.GPU_XID: "Xid {xid}: {meaning}",
    ReasonCode.GPU_ECC: "{errors} uncorrectable memory errors since the driver was loaded",
    ReasonCode.GPU_REMAP_PENDING: "memory rows wait for a reset of the GPU to be replaced",
    ReasonCode.GPU_REMAP_FAILED: "memory rows could not be replaced: the GPU is worn out",
    ReasonCode.GPU_RECOVERY_ACTION: "the driver asks for: {action}",
    ReasonCode.GPU_RESET_REQUIRED: "the driver refuses work until the GPU is reset",
    ReasonCode.GPU_LOST: "the driver has lost the GPU",
    ReasonCode.GPU_SLOWED: "slowed down: {why}",
    ReasonCode.GPU_NOT_READ: "the driver gives no answer about it",
    ReasonCode.GPUS_NOT_READ_YET: "GPUs are being read for the first time",
    ReasonCode.GPU_DRIVER_SILENT: "the NVIDIA driver does not answer",
    ReasonCode.NO_GPU: "no GPU: {error}",
    ReasonCode.FIXED: "fixed at {replicas}",
    ReasonCode.OVERRIDE: "set to {replicas} by an operator",
    ReasonCode.LEARNED: "{replicas} were found running; `scale {deployment} auto` returns to {configured}",
    ReasonCode.BOUND_MIN: "raised to the minimum of {limit}: {asked}",
    ReasonCode.BOUND_MAX: "lowered to the maximum of {limit}: {asked}",
    ReasonCode.GPU_BUDGET: "lowered to {replicas}: the fleet's GPU budget is {limit}",
    ReasonCode.SETTLING: "waiting for agents to report before anything is started",
    ReasonCode.HOLD: "held: {why}",
    ReasonCode.TARGET: "{signal} is {value}, its target {target}",
    ReasonCode.WITHIN_TOLERANCE: "{signal} is {value}, close enough to its target {target}",
    ReasonCode.UNREADY_REPLICAS: "{signal} is {value}, target {target}; what the others do is assumed",
    ReasonCode.NO_TRAFFIC: "no request is queued, in flight or arriving",
    ReasonCode.SIGNAL_MISSING: "no data: {signal}: {detail}",
    ReasonCode.SIGNAL_STALE: "no data: {signal} is {age} s old",
    ReasonCode.SIGNAL_NAN: "no data: {signal} is not a number",
    ReasonCode.STABLE_WINDOW: "{signal} is {value} over {window} s, {target} per replica",
    ReasonCode.PANIC_WINDOW: "panic: {signal} is {value} over {window} s, {target} per replica",
    ReasonCode.PANIC_HOLDS: "panic: no fewer than {replicas} for {left} s more;"
    " {signal} is {value} over {window} s",
    ReasonCode.ZERO_GRACE: "no traffic; zero replicas in {left} s if none comes",
    ReasonCode.QUEUE: "{queued} tokens wait, {arriving} tokens/s arrive, {capacity} tokens/s per replica",
    ReasonCode.QUEUE_CLEARS: "the queue of {queued} tokens clears before a new replica would be ready",
    ReasonCode.NO_SLO: "no time to first token is asked for",
    ReasonCode.SCHEDULE: "the schedule asks for {min} to {max}",
    ReasonCode.NO_WALL_CLOCK: "the time of day is not known",
    ReasonCode.SCALER_FAILED: "{policy} failed: {error}",
    ReasonCode.POLICY_MIN: "raised to the minimum of {limit} that {policy} sets for now",
    ReasonCode.POLICY_MAX: "lowered to the maximum of {limit} that {policy} sets for now",
    ReasonCode.STABILIZED_UP: "no more than {replicas}: no more were asked for all the last {seconds} s",
    ReasonCode.STABILIZED_DOWN: "no fewer than {replicas}: as many were asked for in the last {seconds} s",
    ReasonCode.RATE_UP: "no more than {replicas} at once, by the rate limits",
    ReasonCode.RATE_DOWN: "no fewer than {replicas} at once, by the rate limits",
    ReasonCode.SCALING_DISABLED: "scaling {direction} is disabled",
    ReasonCode.PENDING: "no more than {replicas}: with {starting} starting they carry {demand} {signal}",
    ReasonCode.SHRINK_UNSAFE: "no fewer than {replicas}: fewer could not carry a load of {load}",
    ReasonCode.SHRINK_UNKNOWN: "no fewer: whether fewer could carry the load is unknown",
    ReasonCode.IDLE_WAIT: "the last replica stays: idle for {idle} of {seconds} s",
    ReasonCode.WAKE: "woken: {queued} requests wait",
    ReasonCode.NOBODY_WAITS: "the start is cancelled: nobody has waited for it for {seconds} s",
    ReasonCode.GPU_SHARE: "lowered to {replicas}: the deployment's share is {limit} GPUs",
    ReasonCode.NO_NODES: "no node is connected",
    ReasonCode.NO_FREE_DEVICE: "no free device: {wanted} needed on one node, at most {free} free",
    ReasonCode.NO_FREE_MEMORY: "no free GPU has the memory: {needed} needed, {free} free on {gpu} of {node}",
    ReasonCode.NODE_CONSTRAINT: "no node matches {nodes}",
    ReasonCode.ENGINE_NOT_ALLOWED: "no node allows {executable}",
    ReasonCode.CORDONED: "every node with room is cordoned",
    ReasonCode.WITHOUT_MIN: "without the minimum of {limit}",
    ReasonCode.WITHOUT_MAX: "without the maximum of {limit}",
    ReasonCode.WITHOUT_POLICY_BOUND: "without the bound that {policy} sets for now",
    ReasonCode.WITHOUT_GPU_BUDGET: "without the fleet's GPU budget",
    ReasonCode.WITHOUT_GPU_SHARE: "without the share of {limit} GPUs",
    ReasonCode.WITHOUT_RATE: "without the rate limits",
    ReasonCode.WITHOUT_PENDING: "if the {starting} that are starting were not counted on",
    ReasonCode.WITHOUT_SHRINK_CHECK: "without the check whether fewer can carry the load",
    ReasonCode.WITHOUT_OVERRIDE: "after `supervisord-cp scale {deployment} auto`",
    ReasonCode.AFTER_WINDOW: "in {seconds} s, when the stabilization window ends, if the same is asked for",
    ReasonCode.AFTER_RATE: "in {seconds} s, when the rate limits allow the next step",
    ReasonCode.IF_ENABLED: "if scaling {direction} were enabled",
    ReasonCode.IF_LOAD_BELOW: "with a load below {value}",
    ReasonCode.IF_IDLE: "after {seconds} s more in which nothing is asked for",
    ReasonCode.IF_FRESH: "if {signal} ({age} s old, at most {limit} s count) were still {value}",
    ReasonCode.IF_KNOWN: "with data for {signal}: {policy} does not know, and so nothing is taken away",
    ReasonCode.IF_UNCORDONED: "on {node}, if it were not cordoned",
    ReasonCode.IF_ANY_NODE: "on {node}, if `nodes` allowed it",
    ReasonCode.IF_STRANGERS_LEFT: "on {node}, if strangers left {gpus}",
    ReasonCode.IF_GPU_WELL: "on {node}, if {gpus} were well",
    ReasonCode.IF_MEMORY_FREE: "on {node}, if {needed} were free on each of {gpus}",
    ReasonCode.IF_ALLOWED: "on {node}, if its [agent.allow] executables had {executable}",
    ReasonCode.IF_DEVICES_FREE: "on {node}, if {devices} more of its {total} devices were free",
    ReasonCode.IF_NODE_CONNECTS: "if a node connected that has {devices} devices",
    ReasonCode.NODE_LOST: "{node} is silent and its engines do not answer",
    ReasonCode.PREEMPTED: "its place goes to {deployment}, which has a higher priority",
    ReasonCode.ROLLED_BACK: "revision {revision} did not come up",
    ReasonCode.MORE_ERRORS: "{now} % of its answers fail, {before} % of its predecessor's",
    ReasonCode.SLOWER: "its first token takes {now} s (median), its predecessor's {before} s",
    ReasonCode.ROLLING_OUT: "revision {revision} replaces {before}",
    ReasonCode.ROLLED_OUT: "revision {revision} is all there is",
}


class _Blank(dict[str, object]):
    """Parameters of a reason of another release may be missing; a question mark says so."""

    def __missing__(self, key: str) -> str:
        return "?"


def render(reason: Reason) -> str:
    """The reason as one line for a person."""
    return _TEXTS[reason.code].format_map(_Blank({key: _plain(one) for key, one in reason.params.items()}))


def code_of(reason: Reason) -> str | None:
    """The code as JSON has it: None for no reason."""
    return None if reason.code is ReasonCode.NONE else reason.code.value


def _plain(value: str | float) -> str | float:
    """A whole number without `.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
