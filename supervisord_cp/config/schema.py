"""The configuration as typed values: one struct per TOML table, one field per key.

A field's docstring is its documentation: the configuration reference is generated from it.
"""

from pathlib import Path

from supervisord_cp.model.base import Value
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.launch import ArgValue


class Listen(Value, frozen=True, kw_only=True):
    """An address to listen on, parsed from `HOST:PORT` (`[::1]:9000` for IPv6)."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self}"


class CentralConfig(Value, frozen=True, kw_only=True):
    """`[central]`: the daemon that decides."""

    control_listen: Listen = Listen(host="127.0.0.1", port=9001)
    """Where agents, routers, operators and Prometheus connect, and the status page is served."""
    state_dir: Path = Path("/var/lib/supervisord-cp/central")
    """Overrides, placements, decisions and events are kept here."""
    tokens_file: Path | None = None
    """Lines `role: token`, role = agent, operator or viewer; required off loopback."""
    gpu_budget: int = 0
    """GPUs that all deployments together may use; 0 = all."""
    start_router: bool = True
    """Start a router as a child. false: routers run as units of their own or on other hosts."""
    settle_s: float = 5.0
    """After a start, wait this long for agents to report before new instances are started."""


class RouterConfig(Value, frozen=True, kw_only=True):
    """`[router]`: the data plane."""

    api_listen: Listen = Listen(host="127.0.0.1", port=9000)
    """Where OpenAI clients connect."""
    central: str = "http://127.0.0.1:9001"
    """The control listener of central."""
    token_file: Path | None = None
    """The agent token, for a router that reaches central off loopback."""
    api_keys_file: Path | None = None
    """One `name: key` per line; absent: no key is asked for."""
    processes: int = 1
    """Router processes that share the listener."""
    max_body: int = 64 * 1024 * 1024
    """The largest request body, in bytes."""
    queue_requests: int = 1000
    """Requests that wait per deployment at most."""
    queue_bytes: int = 256 * 1024 * 1024
    """Bytes of bodies that wait per deployment at most."""
    queue_timeout_s: float = 60.0
    """How long a request waits for an instance with room."""
    hold_timeout_s: float = 600.0
    """How long a request waits for a replica to start."""
    drain_timeout_s: float = 300.0
    """How long a stopping router lets its requests finish."""
    header_timeout_s: float = 30.0
    """How long a client may take to send its request's head, and between two pieces of its body."""
    idle_timeout_s: float = 75.0
    """How long an idle client connection is kept."""
    rate_limit_rps: float = 0.0
    """Requests per second of one API key (of one client address without keys); 0 = no limit."""
    tls_cert: Path | None = None
    """Certificate chain (PEM) of the api listener."""
    tls_key: Path | None = None
    """Private key (PEM) of the api listener."""


class PrometheusConfig(Value, frozen=True, kw_only=True):
    """`[prometheus]`: where metrics are queried. Absent: built-in signals only."""

    url: str = ""
    """Base address of Prometheus."""
    timeout_s: float = 5.0
    """How long a query may take."""
    queries: dict[str, str] = {}
    """Named PromQL expressions, for scalers and routing policies."""


class PluginsConfig(Value, frozen=True, kw_only=True):
    """`[plugins]`: drop-in policies."""

    paths: tuple[Path, ...] = ()
    """Folders that are searched for policy files."""


class AllowConfig(Value, frozen=True, kw_only=True):
    """`[agent.allow]`: the node's own policy; central cannot widen it."""

    executables: tuple[str, ...] = ("vllm",)
    """Programs that may be launched besides our own fake engine: names on PATH, or absolute paths."""
    model_roots: tuple[Path, ...] = ()
    """Folders that local models may lie in; empty: any."""
    env: tuple[str, ...] = ("HF_*", "VLLM_*")
    """Environment variables that a deployment may set."""
    dev_mode: bool = False
    """Allow vLLM's development routes, which sleep mode needs."""


class AgentConfig(Value, frozen=True, kw_only=True):
    """`[agent]`: the supervisor of one host."""

    name: str = ""
    """The node's name; default: the host name."""
    zone: str = ""
    """Rack, room or region; routing policies may prefer the same."""
    central: str = "http://127.0.0.1:9001"
    """The control listener of central."""
    token_file: Path | None = None
    """The agent token."""
    advertise: str = "127.0.0.1"
    """The address that engines bind, exactly, and routers use."""
    listen: Listen | None = Listen(host="127.0.0.1", port=9002)
    """The agent's own /metrics and /healthz; "" for none."""
    tokens_file: Path | None = None
    """Lines `role: token`; required when `listen` is not loopback."""
    state_dir: Path = Path("/var/lib/supervisord-cp/agent")
    """Records of engines, which let a restarted agent take over."""
    log_dir: Path = Path("/var/log/supervisord-cp")
    """Engine logs."""
    log_max_size: int = 64 * 1024 * 1024
    """Size at which an engine's log is rotated, in bytes."""
    log_files: int = 5
    """Rotated logs that are kept per engine."""
    backend: str = "direct"
    """How keepers are started: `direct` or `systemd`."""
    engine_user: str = ""
    """systemd back end: the user that engines run as."""
    device: str = "auto"
    """`cuda`, `cpu`, or `auto`: cuda when the host has a GPU."""
    slots: int = 1
    """Engines at once on a cpu node."""
    ports: tuple[int, int] = (8000, 8099)
    """First and last port that engines may get, written `8000-8099`."""
    gpu_cost_per_hour: float | dict[str, float] | None = None
    """Cost of one GPU for an hour, or a table by GPU name."""
    max_parallel_starts: int = 1
    """Engines that load at the same time."""
    allow: AllowConfig = AllowConfig()


class SloConfig(Value, frozen=True, kw_only=True):
    """`slo` of a deployment."""

    ttft_ms: float | None = None
    """Time to first token that requests should see."""
    itl_ms: float | None = None
    """Time between two tokens that requests should see."""


class ScalingPolicy(Value, frozen=True, kw_only=True):
    """One rate limit, as in HPA v2."""

    type: str
    """`Pods` or `Percent`."""
    value: int
    """How many replicas, or how many percent of them."""
    period_s: float = 60.0
    """Within how many seconds."""


class ScalingRules(Value, frozen=True, kw_only=True):
    """Behaviour in one direction, as in HPA v2."""

    stabilization_window_s: float | None = None
    """How long the most careful proposal counts."""
    select_policy: str = "Max"
    """`Max`, `Min` or `Disabled`."""
    policies: tuple[ScalingPolicy, ...] = ()
    """Rate limits."""
    tolerance: float | None = None
    """Ratio of change that is ignored."""


class BehaviorConfig(Value, frozen=True, kw_only=True):
    """`autoscale.behavior`, in the words of HPA v2."""

    scale_up: ScalingRules = ScalingRules()
    scale_down: ScalingRules = ScalingRules()


class AutoscaleConfig(Value, frozen=True, kw_only=True):
    """`[deployments.NAME.autoscale]`."""

    min: int = 1
    """Fewest replicas; 0 allows sleep."""
    max: int = 1
    """Most replicas."""
    idle_s: float = 600.0
    """How long a deployment is idle before it goes to zero."""
    scalers: tuple[PolicyUse, ...] = ()
    """Scaling policies; the largest valid proposal wins."""
    behavior: BehaviorConfig = BehaviorConfig()


class DeploymentConfig(Value, frozen=True, kw_only=True):
    """`[deployments.NAME]`: what the operator wants of one model."""

    name: str
    engine: str = "vllm"
    """`vllm`, `fake`, `command`, or `none` (only static instances)."""
    model: str = ""
    """What the engine loads: a Hugging Face id or a folder."""
    served_name: str = ""
    """What clients put in `model`; default: `model`."""
    aliases: tuple[str, ...] = ()
    """More names, LoRA adapters among them."""
    executable: str = ""
    """The engine's program; default: the engine's own."""
    command: tuple[str, ...] = ()
    """engine = "command": argv with {port}, {host}, {model} and {devices}."""
    ready_path: str = "/health"
    """engine = "command": the path that answers 200 when the engine is ready."""
    args: dict[str, ArgValue] = {}
    """Engine flags without leading dashes."""
    env: dict[str, str] = {}
    """Environment of the engine, within what the node allows."""
    gpus: int = 1
    """GPUs (or CPU slots) per replica; the engine's tensor-parallel-size unless args say otherwise."""
    replicas: int = 1
    """A fixed number of replicas; or the table `autoscale`."""
    max_concurrency: int = 0
    """Requests at once per replica, over all routers; 0 = no limit."""
    priority: int = 0
    """Between deployments, when GPUs are short; higher goes first."""
    min_residency_s: float = 300.0
    """How long a replica stays at least once it is ready."""
    start_timeout_s: float = 1800.0
    """How long a start may take before it counts as failed."""
    stop_grace_s: float = 30.0
    """How long an engine has between SIGTERM and SIGKILL."""
    slo: SloConfig = SloConfig()
    scheduler: PolicyUse = PolicyUse(use="fifo")
    """Orders the waiting requests."""
    router: tuple[PolicyUse, ...] = (PolicyUse(use="load_balanced"),)
    """Picks the instance: a name, or a list of steps."""
    shadow: str = ""
    """A candidate router or scheduler, decided beside, never applied."""
    allow_paths: tuple[str, ...] = ()
    """Engine control routes that clients may reach."""
    nodes: tuple[str, ...] = ()
    """Placement constraint: patterns of node names; empty: any."""
    sleep: str = "none"
    """`none`, `level1` or `level2`: what idle replicas do before they stop."""
    autoscale: AutoscaleConfig | None = None


class StaticInstanceConfig(Value, frozen=True, kw_only=True):
    """`[[static_instances]]`: an engine that someone else started."""

    id: str
    """Its name."""
    deployment: str
    """The deployment it serves."""
    url: str
    """Its base address."""
    api_key_file: Path | None = None
    """A file with its API key."""
    zone: str = ""
    """Where it stands."""
    gpus: int = 1
    """GPUs it uses."""
    weight: float = 1.0
    """Its share next to others; 2.0 takes twice the work."""
    max_concurrency: int = 0
    """Requests at once; 0 = the deployment's."""
    cost_per_gpu_hour: float | None = None
    """Cost of one of its GPUs for an hour."""


class Config(Value, frozen=True, kw_only=True):
    """A whole configuration file."""

    path: Path | None = None
    central: CentralConfig = CentralConfig()
    router: RouterConfig = RouterConfig()
    prometheus: PrometheusConfig = PrometheusConfig()
    plugins: PluginsConfig = PluginsConfig()
    agent: AgentConfig = AgentConfig()
    deployments: tuple[DeploymentConfig, ...] = ()
    static_instances: tuple[StaticInstanceConfig, ...] = ()
    tables: tuple[str, ...] = ()
    """The top-level tables that the file has."""
