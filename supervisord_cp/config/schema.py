"""The configuration as typed values: one struct per TOML table, one field per key.

A field's docstring is its documentation: the configuration reference is generated from it.
"""

import ipaddress
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from supervisord_cp.config.forms import (
    Cost,
    Count,
    DeploymentLabel,
    Form,
    InstanceLabel,
    NodeLabel,
    OneOf,
    Origin,
    Positive,
    Program,
    RoutePath,
    Seconds,
    Size,
    Timeout,
)
from supervisord_cp.model.base import Value
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.launch import ArgValue, EngineKind


class Listen(Value, frozen=True, kw_only=True):
    """An address to listen on, parsed from `HOST:PORT` (`[::1]:9000` for IPv6)."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its address for clients."""
        return f"http://{self}"


class CentralConfig(Value, frozen=True, kw_only=True):
    """`[central]`: the daemon that decides."""

    control_listen: Listen = Listen(host="127.0.0.1", port=9001)
    """Where agents, routers, operators and Prometheus connect, and the status page is served."""
    state_dir: Path = Path("/var/lib/supervisord-cp/central")
    """Overrides, placements, decisions and events are kept here."""
    tokens_file: Path | None = None
    """Lines `role: token`, role = agent, operator or viewer; required off loopback."""
    gpu_budget: Count = 0
    """GPUs that all deployments together may use; 0 = all."""
    start_router: bool = True
    """Start a router as a child. false: routers run as units of their own or on other hosts."""
    settle_s: Seconds = 5.0
    """After a start, wait this long for agents to report before new instances are started."""


class RouterConfig(Value, frozen=True, kw_only=True):
    """`[router]`: the data plane."""

    api_listen: Listen = Listen(host="127.0.0.1", port=9000)
    """Where OpenAI clients connect."""
    central: Origin = "http://127.0.0.1:9001"
    """The control listener of central."""
    token_file: Path | None = None
    """The agent token, for a router that reaches central off loopback."""
    api_keys_file: Path | None = None
    """One `name: key` per line; absent: no key is asked for."""
    processes: Positive = 1
    """Router processes that share the listener."""
    max_body: Size = 64 * 1024 * 1024
    """The largest request body, in bytes."""
    queue_requests: Count = 1000
    """Requests that wait per deployment at most."""
    queue_bytes: Size = 256 * 1024 * 1024
    """Bytes of bodies that wait per deployment at most."""
    queue_timeout_s: Timeout = 60.0
    """How long a request waits for an instance with room."""
    queue_updates_s: Seconds = 0.0
    """How often streams that wait are told their position, as comments; 0 = only those that ask for it."""
    hold_timeout_s: Timeout = 600.0
    """How long a request waits for a replica to start."""
    drain_timeout_s: Seconds = 300.0
    """How long a stopping router lets its requests finish."""
    header_timeout_s: Timeout = 30.0
    """How long a client may take for its request's head, and between two pieces of its body; 1 KiB/s."""
    idle_timeout_s: Timeout = 75.0
    """How long an idle client connection is kept."""
    max_connections: Positive = 10_000
    """Client connections at once, of each process."""
    eject_failures: Count = 3
    """Failed answers in a row (broken streams, errors of the engine) that put an instance out; 0 = never."""
    eject_latency_factor: Annotated[float, Meta(ge=0)] = 4.0
    """How much slower than its deployment's others an instance must be to be put out; 0 = never."""
    eject_s: Timeout = 10.0
    """How long such an instance stays out the first time; each further time is twice as long."""
    warmup_s: Seconds = 30.0
    """How long a new instance gets less than its share of the work, growing evenly."""
    rate_limit_rps: Annotated[float, Meta(ge=0)] = 0.0
    """Requests per second of one API key (of one client address without keys); 0 = no limit."""
    otlp_endpoint: Annotated[str, Form.URL] = ""
    """Base address of an OpenTelemetry collector (OTLP over HTTP) that gets a span of each request."""
    otlp_sampling_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the traces that begin here; of those that clients began, clients decide."""
    tls_cert: Path | None = None
    """Certificate chain (PEM) of the api listener."""
    tls_key: Path | None = None
    """Private key (PEM) of the api listener."""


class PrometheusConfig(Value, frozen=True, kw_only=True):
    """`[prometheus]`: where metrics are queried. Absent: built-in signals only."""

    url: Annotated[str, Form.URL] = ""
    """Base address of Prometheus."""
    timeout_s: Timeout = 5.0
    """How long a query may take."""
    queries: dict[str, str] = {}
    """Named PromQL expressions, for scalers and routing policies."""


class PluginsConfig(Value, frozen=True, kw_only=True):
    """`[plugins]`: drop-in policies."""

    paths: tuple[Path, ...] = ()
    """Folders that are searched for policy files."""


class AllowConfig(Value, frozen=True, kw_only=True):
    """`[agent.allow]`: the node's own policy; central cannot widen it."""

    executables: tuple[Program, ...] = ("vllm",)
    """Programs that may be launched besides our own fake engine: names on PATH, or absolute paths,
    as deployments write them. No patterns."""
    model_roots: tuple[Path, ...] = ()
    """Folders that local models may lie in; empty: any."""
    env: tuple[str, ...] = ("HF_*", "VLLM_*")
    """Environment variables that a deployment may set."""
    flags: tuple[str, ...] = ("*",)
    """Flags that a deployment may set, without dashes. Those that run code of others, read files or send
    data elsewhere (`trust-remote-code` among them) must be named, patterns do not cover them."""
    dev_mode: bool = False
    """Allow vLLM's development routes, which sleep mode needs."""


class AgentConfig(Value, frozen=True, kw_only=True):
    """`[agent]`: the supervisor of one host."""

    name: NodeLabel = ""
    """The node's name; default: the host name."""
    zone: str = ""
    """Rack, room or region; routing policies may prefer the same."""
    central: Origin = "http://127.0.0.1:9001"
    """The control listener of central."""
    token_file: Path | None = None
    """The agent token."""
    advertise: Annotated[str, Form.HOST] = "127.0.0.1"
    """The address that engines bind, exactly, and routers use."""
    listen: Listen | None = Listen(host="127.0.0.1", port=9002)
    """The agent's own /metrics and /healthz; "" for none."""
    tokens_file: Path | None = None
    """Lines `role: token`; required when `listen` is not loopback."""
    state_dir: Path = Path("/var/lib/supervisord-cp/agent")
    """Records of engines, which let a restarted agent take over."""
    log_dir: Path = Path("/var/log/supervisord-cp")
    """Engine logs."""
    log_max_size: Size = 64 * 1024 * 1024
    """Size at which an engine's log is rotated, in bytes."""
    log_files: Count = 5
    """Rotated logs that are kept per engine."""
    backend: Annotated[str, OneOf(("direct", "systemd"))] = "direct"
    """How keepers are started: `direct` or `systemd`."""
    engine_user: str = ""
    """systemd back end: the user that engines run as."""
    device: Annotated[str, OneOf(("auto", "cuda", "cpu"))] = "auto"
    """`cuda`, `cpu`, or `auto`: cuda when the host has a GPU."""
    slots: Positive = 1
    """Engines at once on a cpu node."""
    ports: tuple[int, int] = (8000, 8099)
    """First and last port that engines may get, written `8000-8099`."""
    gpu_cost_per_hour: Cost | dict[str, Cost] | None = None
    """Cost of one GPU for an hour, or a table by GPU name."""
    max_parallel_starts: Positive = 1
    """Engines that load at the same time."""
    allow: AllowConfig = AllowConfig()
    """The node's own policy."""


class SloConfig(Value, frozen=True, kw_only=True):
    """`slo` of a deployment."""

    ttft_ms: Timeout | None = None
    """Time to first token that requests should see."""
    itl_ms: Timeout | None = None
    """Time between two tokens that requests should see."""


class ScalingPolicy(Value, frozen=True, kw_only=True):
    """One rate limit, as in HPA v2."""

    type: Annotated[str, OneOf(("Pods", "Percent"))]
    """`Pods` or `Percent`."""
    value: Positive
    """How many replicas, or how many percent of them."""
    period_s: Annotated[float, Meta(gt=0, le=1800)] = 60.0
    """Within how many seconds."""


class ScalingRules(Value, frozen=True, kw_only=True):
    """Behaviour in one direction, as in HPA v2."""

    stabilization_window_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    """How long the most careful proposal counts."""
    select_policy: Annotated[str, OneOf(("Max", "Min", "Disabled"))] = "Max"
    """`Max`, `Min` or `Disabled`."""
    policies: tuple[ScalingPolicy, ...] = ()
    """Rate limits."""
    tolerance: Annotated[float, Meta(ge=0)] | None = None
    """Ratio of change that is ignored."""


class BehaviorConfig(Value, frozen=True, kw_only=True):
    """`autoscale.behavior`, in the words of HPA v2."""

    scale_up: ScalingRules = ScalingRules()
    """When replicas are added."""
    scale_down: ScalingRules = ScalingRules()
    """When replicas are taken away."""


class ShrinkCheckConfig(Value, frozen=True, kw_only=True):
    """`autoscale.shrink_check`: whether fewer replicas could carry the load, looked at before any goes."""

    signal: Annotated[str, OneOf(("concurrency", "inflight", "requests_per_s", "prompt_tokens_per_s"))] = (
        "concurrency"
    )
    """The load: `concurrency` (queued and in flight), `inflight`, `requests_per_s`, `prompt_tokens_per_s`."""
    per_replica: Positive | None = None
    """What one replica carries of it; default: `max_concurrency`, or the prompt tokens/s measured."""
    fill: Annotated[float, Meta(ge=0, le=1)] = 0.8
    """How full those that stay may become; 0 = no check."""


class AutoscaleConfig(Value, frozen=True, kw_only=True):
    """`[deployments.NAME.autoscale]`."""

    min: Count = 1
    """Fewest replicas; 0 allows sleep."""
    max: Positive = 1
    """Most replicas."""
    idle_s: Seconds = 600.0
    """How long a deployment is idle before it goes to zero."""
    scalers: tuple[PolicyUse, ...] = ()
    """Scaling policies; the largest valid proposal wins."""
    behavior: BehaviorConfig = BehaviorConfig()
    """How fast replicas come and go."""
    shrink_check: ShrinkCheckConfig | None = None
    """Whether fewer could carry the load; default: by `max_concurrency`, where that is set."""


class DeploymentConfig(Value, frozen=True, kw_only=True):
    """`[deployments.NAME]`: what the operator wants of one model."""

    name: Annotated[DeploymentLabel, Form.IMPLIED]
    """The key of its table."""
    engine: Annotated[str, OneOf(tuple(EngineKind))] = "vllm"
    """`vllm`, `fake`, `command`, or `none` (only static instances)."""
    model: Program = ""
    """What the engine loads: a Hugging Face id or a folder."""
    served_name: str = ""
    """What clients put in `model`; default: `model`."""
    aliases: tuple[str, ...] = ()
    """More names, LoRA adapters among them."""
    executable: Program = ""
    """The engine's program; default: the engine's own."""
    command: tuple[Program, ...] = ()
    """engine = "command": argv with {port}, {host}, {model} and {devices}."""
    ready_path: RoutePath = "/health"
    """engine = "command": the path that answers 200 when the engine is ready."""
    args: dict[str, ArgValue] = {}
    """Engine flags without leading dashes."""
    env: dict[str, str] = {}
    """Environment of the engine, within what the node allows."""
    gpus: Positive = 1
    """GPUs (or CPU slots) per replica; the engine's tensor-parallel-size unless args say otherwise."""
    replicas: Count = 1
    """A fixed number of replicas; or the table `autoscale`."""
    max_concurrency: Count = 0
    """Requests at once per replica, over all routers; 0 = no limit."""
    priority: int = 0
    """Between deployments, when GPUs are short; higher goes first."""
    gpu_share: Count = 0
    """GPUs that all its replicas together may use; 0 = as many as the fleet's budget leaves."""
    min_residency_s: Seconds = 300.0
    """How long a replica stays at least once it is ready."""
    start_timeout_s: Timeout = 1800.0
    """How long a start may take before it counts as failed."""
    stop_grace_s: Seconds = 30.0
    """How long an engine has between SIGTERM and SIGKILL."""
    stall_s: Seconds = 120.0
    """How long requests may run without progress, or health checks fail, before a restart; 0 = for ever."""
    slo: SloConfig = SloConfig()
    """What requests should see; goals of scalers and dashboards."""
    scheduler: PolicyUse = PolicyUse(use="fifo")
    """Orders the waiting requests."""
    router: Annotated[tuple[PolicyUse, ...], Form.ONE_OR_MORE] = (PolicyUse(use="load_balanced"),)
    """Picks the instance: a name, or a list of steps."""
    shadow: str = ""
    """A candidate router or scheduler, decided beside, never applied."""
    allow_paths: tuple[RoutePath, ...] = ()
    """Engine control routes that clients may reach."""
    nodes: tuple[str, ...] = ()
    """Placement constraint: patterns of node names; empty: any."""
    placer: PolicyUse = PolicyUse(use="spread")
    """Chooses the node of each replica among those with room: `spread`, `pack`, or a plugin's name."""
    sleep: Annotated[str, OneOf(("none", "level1", "level2"))] = "none"
    """`none`, `level1` or `level2`: what idle replicas do before they stop."""
    sleep_s: Seconds = 3600.0
    """How long a replica sleeps before it is stopped; 0: until its memory is needed."""
    autoscale: AutoscaleConfig | None = None
    """Bounds and policies, in place of a fixed number of replicas."""

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may put in `model`: the served name first, then the aliases."""
        return (self.served_name or self.model or self.name, *self.aliases)


class StaticInstanceConfig(Value, frozen=True, kw_only=True):
    """`[[static_instances]]`: an engine that someone else started."""

    id: InstanceLabel
    """Its name."""
    deployment: str
    """The deployment it serves."""
    url: Origin
    """Its base address."""
    api_key_file: Path | None = None
    """A file with its API key."""
    zone: str = ""
    """Where it stands."""
    gpus: Positive = 1
    """GPUs it uses."""
    weight: Annotated[float, Meta(gt=0)] = 1.0
    """Its share next to others; 2.0 takes twice the work."""
    max_concurrency: Count = 0
    """Requests at once; 0 = the deployment's."""
    cost_per_gpu_hour: Cost | None = None
    """Cost of one of its GPUs for an hour."""


class Config(Value, frozen=True, kw_only=True):
    """A whole configuration file."""

    path: Annotated[Path | None, Form.IMPLIED] = None
    """The file."""
    central: CentralConfig = CentralConfig()
    """The daemon that decides."""
    router: RouterConfig = RouterConfig()
    """The data plane."""
    prometheus: PrometheusConfig = PrometheusConfig()
    """Where metrics are queried."""
    plugins: PluginsConfig = PluginsConfig()
    """Drop-in policies."""
    agent: AgentConfig = AgentConfig()
    """The supervisor of one host."""
    deployments: Annotated[tuple[DeploymentConfig, ...], Form.BY_NAME] = ()
    """What the operator wants of each model."""
    static_instances: tuple[StaticInstanceConfig, ...] = ()
    """Engines that someone else started."""
    tables: Annotated[tuple[str, ...], Form.IMPLIED] = ()
    """The top-level tables that the file has."""
