"""vLLM's OpenAI server: `vllm serve`, any version from 0.9 on."""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from supervisord_cp.engines.arguments import by_flag, command_line, not_a_flag
from supervisord_cp.engines.base import (
    Capabilities,
    EngineCall,
    LaunchContext,
    LaunchRefused,
    PreparedLaunch,
    local_model,
)
from supervisord_cp.engines.environment import check_variables, decided_environment
from supervisord_cp.engines.exits import diagnose
from supervisord_cp.engines.vllm_metrics import read_load
from supervisord_cp.engines.vllm_phases import announced_phase
from supervisord_cp.engines.vllm_probe import is_python, probe_vllm
from supervisord_cp.engines.vllm_sleep import FLAG, is_loopback, sleep_mode
from supervisord_cp.model.instance import EngineLoad, ExitCause, Phase
from supervisord_cp.model.launch import ArgValue, LaunchSpec

OWNED_FLAGS: Final[Mapping[str, str]] = {
    "host": "the agent's `advertise` decides it",
    "port": "the agent's `ports` decide it",
    "uds": "engines listen on a port",
    "api-key": "the agent makes one for each incarnation",
    "model": "set the deployment's `model`",
    "model-tag": "set the deployment's `model`",
    "served-model-name": "set the deployment's `served_name` and `aliases`",
    "device-ids": "placement decides it",
    "config": "its content would be unknown to the revision; put its keys into `args`",
    "headless": "an engine without a server cannot be routed to",
    "grpc": "an engine without an HTTP server cannot be routed to",
    "data-parallel-multi-port-external-lb": "it opens ports that the agent has not given out",
    "ssl-keyfile": "routers and agents speak plain HTTP to engines",
    "ssl-certfile": "routers and agents speak plain HTTP to engines",
    "ssl-ca-certs": "routers and agents speak plain HTTP to engines",
}
"""Flags that a deployment cannot set, and why."""
PREFIXES_IN_USE: Final = frozenset({"device"})
"""Flags of vLLM's whose names are the beginning of one of ours; any other beginning is an abbreviation."""

WORLD_SIZES: Final = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
KEEP_ALIVE_S: Final = 3600
"""Longer than any router keeps an idle connection: vLLM's own 5 s makes it close them under the router."""
POLLED_PATHS: Final = "/health,/metrics"
TEARDOWN_S: Final = 10.0
"""What vLLM needs to end after its requests are done; it gives its own processes 5 s."""


class VllmEngine:
    """The engine `vllm`."""

    sleeps_on: tuple[str, ...] = ("cuda",)
    """Kinds of device on which it has a sleep mode; a vLLM for CPUs refuses to start with it."""

    @property
    def kind(self) -> str:
        return "vllm"

    @property
    def metrics_path(self) -> str:
        return "/metrics"

    @property
    def rest_paths(self) -> tuple[str, ...]:
        """They answer 404 outside development mode, where nothing can make it rest."""
        return ("/is_sleeping", "/is_paused")

    def probe(self, executable: str) -> Capabilities:
        """See `vllm_probe`."""
        return probe_vllm(executable)

    def launcher(self, found: Capabilities) -> tuple[str, ...]:
        """What comes before `serve`."""
        if is_python(found.executable):
            return (found.executable, "-m", "vllm.entrypoints.cli.main")
        return (found.executable,)

    def prepare(self, spec: LaunchSpec, context: LaunchContext, found: Capabilities) -> PreparedLaunch:
        """`vllm serve MODEL`, our flags, the deployment's flags."""
        flags = by_flag(spec.args)
        _refuse_owned(flags)
        check_variables(spec.env)
        mode = sleep_mode(spec, context, flags, self.sleeps_on)
        if mode is not None:
            flags = {**flags, FLAG: True}
        argv = [
            *self.launcher(found),
            "serve",
            not_a_flag("model", spec.model),
            "--host",
            context.host,
            "--port",
            str(context.port),
            *_served_names(spec.served_names, flags),
            *command_line(_defaults(spec, context, found, flags), found.switches),
            *command_line(flags, found.switches),
        ]
        return PreparedLaunch(
            argv=tuple(argv),
            env=_environment(spec, context, dev_mode=mode is not None),
            secrets=frozenset({"VLLM_API_KEY"} if context.api_key else ()),
            sleep_mode=mode,
        )

    def ready_path(self, spec: LaunchSpec) -> str:
        """vLLM answers there only once it serves."""
        return "/health"

    def pulse(self, spec: LaunchSpec) -> EngineCall | None:
        """One token. What cannot complete a text answers with an error, which says nothing."""
        name = spec.served_names[0] if spec.served_names else spec.model
        return EngineCall(path="/v1/completions", body={"model": name, "prompt": "1", "max_tokens": 1})

    def load(self, page: str) -> EngineLoad:
        """See `vllm_metrics`."""
        return read_load(page)

    def phase(self, line: str) -> Phase | None:
        """See `vllm_phases`."""
        return announced_phase(line)

    def classify(self, code: int | None, signal: int | None, log_tail: str, was_ready: bool) -> ExitCause:
        """See `exits`."""
        return diagnose(code, signal, log_tail, was_ready).cause


def drain_s(stop_grace_s: float) -> int:
    """How long vLLM may finish its requests after SIGTERM, so that it has ended before SIGKILL comes."""
    return int(max(stop_grace_s - TEARDOWN_S, stop_grace_s / 2))


def _refuse_owned(flags: Mapping[str, ArgValue]) -> None:
    for flag in flags:
        head = flag.partition(".")[0].rstrip("+")  # --flag.key makes vLLM set --flag
        # argparse takes any unambiguous beginning of a flag for the flag.
        for owned, why in OWNED_FLAGS.items():
            if head == owned or (owned.startswith(head) and head not in PREFIXES_IN_USE):
                raise LaunchRefused(f"args: --{owned} cannot be set: {why}")


def _served_names(names: tuple[str, ...], flags: Mapping[str, ArgValue]) -> list[str]:
    """The names that the base model answers to; an adapter's name among them would hide the adapter."""
    adapters = set(_adapter_names(flags.get("lora-modules")))
    base = [not_a_flag("served name", name) for name in names if name not in adapters]
    return ["--served-model-name", *base] if base else []


def _adapter_names(modules: ArgValue | None) -> Iterator[str]:
    """The names in `lora-modules`: `name=path` or a JSON object with `name`."""
    for module in modules if isinstance(modules, list) else [modules]:
        if not isinstance(module, str):
            continue
        if not module.lstrip().startswith("{"):
            yield module.partition("=")[0]
            continue
        try:
            name = json.loads(module).get("name")
        except ValueError:
            continue  # vLLM says what is wrong with it
        if isinstance(name, str):
            yield name


def _defaults(
    spec: LaunchSpec, context: LaunchContext, found: Capabilities, flags: Mapping[str, ArgValue]
) -> dict[str, ArgValue]:
    """Flags that we set unless the deployment does."""
    ours: dict[str, ArgValue] = {}
    _check_world_size(flags, len(context.devices))
    if spec.gpus > 1 and not any(flag in flags for flag in WORLD_SIZES):
        ours["tensor-parallel-size"] = spec.gpus
    if "shutdown-timeout" in found.flags:
        longest = drain_s(spec.stop_grace_s)
        asked = flags.get("shutdown-timeout")
        if isinstance(asked, int | float) and asked > longest:
            raise LaunchRefused(
                f"args: --shutdown-timeout {asked} is too long: with stop_grace_s = {spec.stop_grace_s:g} the"
                f" engine is killed while it drains; at most {longest}, or raise stop_grace_s"
            )
        if asked is None and longest > 0:
            ours["shutdown-timeout"] = longest
    if "disable-access-log-for-endpoints" in found.flags and "disable-uvicorn-access-log" not in flags:
        # We poll them every second; what the log is read for would drown in that.
        ours["disable-access-log-for-endpoints"] = POLLED_PATHS
    if context.device_kind == "cpu" and not any(
        flag in flags for flag in ("no-enforce-eager", "compilation-config", "optimization-level")
    ):
        ours["enforce-eager"] = True
    return {flag: value for flag, value in ours.items() if flag not in flags}


def _check_world_size(flags: Mapping[str, ArgValue], devices: int) -> None:
    needed = 1
    for flag in WORLD_SIZES:
        size = flags.get(flag, 1)
        needed *= size if isinstance(size, int) else 1
    if needed > max(devices, 1):
        sizes = ", ".join(f"--{flag} {flags[flag]}" for flag in WORLD_SIZES if flag in flags)
        raise LaunchRefused(f"args: {sizes}: {needed} devices are needed, `gpus` gives {devices}")


def _environment(spec: LaunchSpec, context: LaunchContext, *, dev_mode: bool) -> dict[str, str]:
    """Our defaults, over them the deployment's variables, over them what the agent decides."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S),
        # An engine lives on one node: what its processes tell each other need not leave it.
        "VLLM_HOST_IP": context.host if is_loopback(context.host) else "127.0.0.1",
    }
    if local_model(spec.model) is not None:
        defaults["HF_HUB_OFFLINE"] = "1"
    if context.device_kind == "cpu":
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    decided = decided_environment(context)
    if context.internal_ports:
        decided["VLLM_PORT"] = str(context.internal_ports)
    if dev_mode:
        decided["VLLM_SERVER_DEV_MODE"] = "1"
    if context.api_key:
        decided["VLLM_API_KEY"] = context.api_key
    return {**defaults, **spec.env, **decided}
