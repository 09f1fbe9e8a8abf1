"""Every metric that we export, by the daemon that knows it. `docs/metrics.md` is generated from this."""

from typing import Final

from supervisord_cp.obs.metric import MetricSpec, counter, gauge, histogram, summary

_GPU: Final = ("node", "gpu", "uuid")
_OWN_GPU: Final = ("gpu", "uuid")

# Central knows the fleet.

BUILD_INFO: Final = gauge("build_info", "1, with the release of central.", "version")
INSTANCES: Final = gauge("instances", "Instances by state.", "deployment", "state")
REPLICAS_WANTED: Final = gauge("replicas_wanted", "Replicas decided.", "deployment")
REPLICAS_LIMIT: Final = gauge(
    "replicas_limit", "Configured bounds of the number of replicas, `min` and `max`.", "deployment", "kind"
)
REPLICAS_PROPOSED: Final = gauge(
    "replicas_proposed", "What a scaler thinks is right, before any limit.", "deployment", "scaler"
)
UNPLACEABLE_REPLICAS: Final = gauge("unplaceable_replicas", "Wanted, but there is no place.", "deployment")
SCALE_DECISIONS: Final = counter(
    "scale_decisions", "Changes of the wanted number.", "deployment", "direction", "reason"
)
SCALER_HOLD: Final = gauge(
    "scaler_hold", "1 while no signal can be trusted and the number is held.", "deployment", "reason"
)
INSTANCE_START: Final = gauge(
    "instance_start_seconds", "How long a start takes, as learned.", "deployment", unit="seconds"
)
INSTANCE_START_PHASE: Final = gauge(
    "instance_start_phase_seconds",
    "How long each phase of a start takes, as learned; `gated` is the wait before the launch.",
    "deployment",
    "phase",
    unit="seconds",
)
SLO_TARGET: Final = gauge(
    "slo_target_seconds", "Configured objective, `ttft` or `itl`.", "deployment", "kind", unit="seconds"
)
INSTANCE_RESTARTS: Final = counter(
    "instance_restarts",
    "Ends of engines that nobody asked for, by cause, since central was started.",
    "deployment",
    "cause",
)
INSTANCE_FAILURES: Final = counter(
    "instance_failures",
    "Ends of one instance's engine that nobody asked for.",
    "deployment",
    "instance_id",
    "node",
)
DEPLOYMENT_GPUS: Final = gauge(
    "deployment_gpus", "GPUs (or CPU slots) that a deployment's engines hold.", "deployment", "node"
)
AUTH_FAILURES: Final = counter("auth_failures", "Requests to the control listener that were not let in.")
QUERY_FAILURES: Final = counter("prometheus_query_failures", "Queries that Prometheus did not answer.")
REPORT_AGE: Final = gauge("report_age_seconds", "Since a node's last report.", "node", unit="seconds")
NODE_CORDONED: Final = gauge("node_cordoned", "1 while nothing new is started on a node.", "node")
NODE_CPU: Final = gauge("node_cpu_utilization_ratio", "Of all cores, 0 to 1.", "node", unit="ratio")
NODE_MEMORY: Final = gauge("node_memory_available_bytes", "Host memory to be had.", "node", unit="bytes")
NODE_DISK: Final = gauge(
    "node_disk_free_bytes", "Free where logs and state are written.", "node", unit="bytes"
)
GPU_MEMORY_TOTAL: Final = gauge("gpu_memory_total_bytes", "Memory of a GPU.", *_GPU, unit="bytes")
GPU_MEMORY_USED: Final = gauge("gpu_memory_used_bytes", "GPU memory in use, by anybody.", *_GPU, unit="bytes")
GPU_UTILIZATION: Final = gauge(
    "gpu_utilization_ratio",
    "Share of time in which a GPU works, 0 to 1.",
    "node",
    "gpu",
    "uuid",
    unit="ratio",
)
GPU_TEMPERATURE: Final = gauge("gpu_temperature_celsius", "Temperature of a GPU.", *_GPU, unit="celsius")
GPU_POWER: Final = gauge("gpu_power_watts", "Power that a GPU draws.", *_GPU, unit="watts")
GPU_PROCESSES: Final = gauge(
    "gpu_processes",
    "Processes that hold memory of a GPU, by whether they are ours: engine, stranger.",
    *_GPU,
    "kind",
)
GPU_PROCESS_MEMORY: Final = gauge(
    "gpu_process_memory_bytes",
    "What these hold; left out where the driver does not tell.",
    *_GPU,
    "kind",
    unit="bytes",
)
GPU_HEALTH: Final = gauge("gpu_health", "1 for the state that a GPU is in, 0 for the others.", *_GPU, "state")
GPU_USE: Final = gauge(
    "gpu_use",
    "1 for what a GPU (or CPU slot, `gpu` is empty then) is used for, 0 for the others.",
    *_GPU,
    "use",
)
GPU_SLOWED: Final = gauge("gpu_slowed", "1 while heat or power slows a GPU down, by reason.", *_GPU, "reason")
GPU_ECC: Final = gauge(
    "gpu_ecc_uncorrected_errors",
    "Memory errors that could not be corrected, since the driver was loaded.",
    *_GPU,
)
GPU_XIDS: Final = counter(
    "gpu_xid_errors",
    "Errors that the driver reported since the agent was started.",
    "node",
    "gpu",
    "uuid",
    "xid",
)
GPU_COST: Final = gauge("gpu_cost_per_hour", "Cost of one GPU for an hour, as configured.", "node")

CENTRAL: Final[tuple[MetricSpec, ...]] = (
    BUILD_INFO,
    INSTANCES,
    REPLICAS_WANTED,
    REPLICAS_LIMIT,
    REPLICAS_PROPOSED,
    UNPLACEABLE_REPLICAS,
    SCALE_DECISIONS,
    SCALER_HOLD,
    INSTANCE_START,
    INSTANCE_START_PHASE,
    SLO_TARGET,
    INSTANCE_RESTARTS,
    INSTANCE_FAILURES,
    DEPLOYMENT_GPUS,
    AUTH_FAILURES,
    QUERY_FAILURES,
    REPORT_AGE,
    NODE_CORDONED,
    NODE_CPU,
    NODE_MEMORY,
    NODE_DISK,
    GPU_MEMORY_TOTAL,
    GPU_MEMORY_USED,
    GPU_UTILIZATION,
    GPU_TEMPERATURE,
    GPU_POWER,
    GPU_PROCESSES,
    GPU_PROCESS_MEMORY,
    GPU_HEALTH,
    GPU_USE,
    GPU_SLOWED,
    GPU_ECC,
    GPU_XIDS,
    GPU_COST,
)

# Routers know the requests.

REQUESTS: Final = counter("requests", "Requests, by the status that the client got.", "deployment", "code")
REQUEST_DURATION: Final = histogram(
    "request_duration_seconds", "From a request's last byte to the end of its answer.", "deployment"
)
TIME_TO_FIRST_BYTE: Final = histogram(
    "time_to_first_byte_seconds", "From a request's last byte to its answer's first.", "deployment"
)
OVERHEAD: Final = histogram(
    "overhead_seconds", "From a request's last byte to its dispatch, waiting left out.", "deployment"
)
QUEUE_WAIT: Final = histogram(
    "queue_wait_seconds", "Waiting for an instance; requests that did not wait are left out.", "deployment"
)
QUEUE_LENGTH: Final = gauge("queue_length", "Requests that wait for an instance now.", "deployment")
INFLIGHT: Final = gauge(
    "inflight_requests", "Open requests of this router on an instance.", "deployment", "instance_id"
)
BOOKED_TOKENS: Final = gauge(
    "booked_tokens", "Work of this router on an instance.", "deployment", "instance_id"
)
RETRIES: Final = counter("retries", "Requests sent again to an instance.", "reason")
REJECTED: Final = counter("rejected", "Requests that the router answered with an error of its own.", "reason")
STREAMS_CUT: Final = counter("streams_cut", "Answers that broke off after they had begun.", "deployment")
POLICY_SECONDS: Final = summary("policy_seconds", "Time in the calls of a policy.", "policy")
POLICY_FAILURES: Final = counter(
    "policy_failures", "Calls of a policy that raised, took too long or answered what cannot be.", "policy"
)
POLICY_BREAKER: Final = gauge(
    "policy_breaker_open", "1 while others decide in a policy's place, because it failed too often.", "policy"
)
AFFINITY: Final = counter(
    "affinity_requests",
    "Requests of a policy that keeps requests together, by whether they went where their session, or the "
    "beginning of their prompt, was before: hit, moved, or new.",
    "deployment",
    "policy",
    "outcome",
)
SHADOW_DECISIONS: Final = counter(
    "policy_shadow_decisions",
    "Decisions that a shadow policy made as the one in use did, or otherwise.",
    "deployment",
    "policy",
    "agreed",
)
CONNECTIONS: Final = gauge("router_connections", "Open client connections.")
EJECTED: Final = gauge(
    "router_ejected_instances", "Instances that this router has out of rotation, or on trial."
)
INSTANCE_EJECTED: Final = gauge(
    "instance_ejected", "1 while it is one of them.", "deployment", "instance_id", "cause"
)
EJECTIONS: Final = counter(
    "ejections", "Instances put out: for connection, failures or latency.", "deployment", "cause"
)
SNAPSHOT: Final = gauge("router_snapshot_version", "The snapshot of the fleet in use.")

ROUTER: Final[tuple[MetricSpec, ...]] = (
    REQUESTS,
    REQUEST_DURATION,
    TIME_TO_FIRST_BYTE,
    OVERHEAD,
    QUEUE_WAIT,
    QUEUE_LENGTH,
    INFLIGHT,
    BOOKED_TOKENS,
    RETRIES,
    REJECTED,
    STREAMS_CUT,
    POLICY_SECONDS,
    POLICY_FAILURES,
    POLICY_BREAKER,
    AFFINITY,
    SHADOW_DECISIONS,
    CONNECTIONS,
    EJECTED,
    INSTANCE_EJECTED,
    EJECTIONS,
    SNAPSHOT,
)

# Agents know one node, and are there when central is not.

AGENT_INSTANCES: Final = gauge("agent_instances", "Instances of this node by state.", "state")
AGENT_FAILURES: Final = counter(
    "agent_instance_failures",
    "Ends of an engine that nobody asked for, failed starts among them.",
    "deployment",
    "instance_id",
)
AGENT_REPORTS: Final = counter("agent_reports", "Reports sent to central.")
AGENT_CONNECTED: Final = gauge("agent_connected", "1 while central is connected.")
AGENT_GPU_MEMORY_TOTAL: Final = gauge(
    "agent_gpu_memory_total_bytes", "Memory of a GPU.", *_OWN_GPU, unit="bytes"
)
AGENT_GPU_MEMORY_USED: Final = gauge(
    "agent_gpu_memory_used_bytes", "GPU memory in use, by anybody.", *_OWN_GPU, unit="bytes"
)
AGENT_GPU_UTILIZATION: Final = gauge(
    "agent_gpu_utilization_ratio", "Share of time in which a GPU works, 0 to 1.", *_OWN_GPU, unit="ratio"
)
AGENT_GPU_TEMPERATURE: Final = gauge(
    "agent_gpu_temperature_celsius", "Temperature of a GPU.", *_OWN_GPU, unit="celsius"
)
AGENT_GPU_POWER: Final = gauge("agent_gpu_power_watts", "Power that a GPU draws.", *_OWN_GPU, unit="watts")
AGENT_GPU_SAMPLE_AGE: Final = gauge(
    "agent_gpu_sample_age_seconds", "Age of a GPU's figures.", *_OWN_GPU, unit="seconds"
)
AGENT_GPU_HEALTH: Final = gauge(
    "agent_gpu_health", "1 for the state that a GPU is in, 0 for the others.", *_OWN_GPU, "state"
)
AGENT_GPU_XIDS: Final = counter(
    "agent_gpu_xid_errors",
    "Errors that the driver reported since the agent was started.",
    "gpu",
    "uuid",
    "xid",
)

AGENT: Final[tuple[MetricSpec, ...]] = (
    AGENT_INSTANCES,
    AGENT_FAILURES,
    AGENT_REPORTS,
    AGENT_CONNECTED,
    AGENT_GPU_MEMORY_TOTAL,
    AGENT_GPU_MEMORY_USED,
    AGENT_GPU_UTILIZATION,
    AGENT_GPU_TEMPERATURE,
    AGENT_GPU_POWER,
    AGENT_GPU_SAMPLE_AGE,
    AGENT_GPU_HEALTH,
    AGENT_GPU_XIDS,
)
