"""Conditions between the keys of one deployment."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from supervisord_cp.config.findings import Finding
from supervisord_cp.config.masking import looks_secret, secret_flags
from supervisord_cp.config.owned import is_flag, plain_flag, why_owned_flag, why_owned_variable
from supervisord_cp.config.schema import AgentConfig, AllowConfig, AutoscaleConfig, DeploymentConfig
from supervisord_cp.config.sites import Record, Section
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.launch import EngineKind

Deployment = Section[DeploymentConfig]

USELESS: Final[Mapping[str, tuple[str, ...]]] = {
    EngineKind.VLLM: ("command", "ready_path"),
    EngineKind.FAKE: ("command", "executable", "ready_path"),
    EngineKind.COMMAND: ("executable",),
    EngineKind.NONE: (
        "args",
        "command",
        "env",
        "executable",
        "gpus",
        "min_residency_s",
        "nodes",
        "ready_path",
        "sleep",
        "stall_s",
        "start_timeout_s",
        "stop_grace_s",
    ),
}
"""Keys that have no effect with an engine."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARALLEL_FLAGS: Final = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


def engine_needs(deployment: Deployment) -> Iterator[Finding]:
    """What an engine cannot do without."""
    value = deployment.value
    if value.engine in (EngineKind.VLLM, EngineKind.FAKE) and not value.model and deployment.sound("model"):
        yield deployment.error("model", f'is missing: engine "{value.engine}" loads one')
    if value.engine == EngineKind.COMMAND and deployment.sound("command"):
        if not value.command:
            yield deployment.error(
                "command", 'is missing: engine "command" starts one', 'such as ["serve", "--port", "{port}"]'
            )
        elif not any("{port}" in argument for argument in value.command):
            yield deployment.error(
                "command", "has no {port}", "the agent chooses the port, so the program must be told it"
            )


def engine_ignores(deployment: Deployment) -> Iterator[Finding]:
    """What an engine has no use for."""
    value = deployment.value
    if value.engine == EngineKind.NONE:
        hint = "an engine of another kind starts replicas; static_instances serve this one"
        if "replicas" in deployment.written and value.replicas and deployment.sound("replicas"):
            yield deployment.error("replicas", 'cannot be had with engine = "none"', hint)
        if value.autoscale is not None:
            yield deployment.error("autoscale", 'cannot be had with engine = "none"', hint)
    for key in USELESS[value.engine]:
        if key in deployment.written:
            yield deployment.warning(key, f'has no effect with engine = "{value.engine}"')
    if value.engine == EngineKind.COMMAND and value.args:
        yield deployment.error("args", 'cannot be had with engine = "command"', "write them into `command`")
    if value.engine == EngineKind.COMMAND and value.sleep != "none":
        yield deployment.error("sleep", 'cannot be had with engine = "command"', "only vLLM can sleep")


def replicas(deployment: Deployment) -> Iterator[Finding]:
    """Either a number or bounds."""
    both = "replicas" in deployment.written and deployment.value.autoscale is not None
    if both and deployment.value.engine != EngineKind.NONE:
        yield deployment.error(
            "replicas", "and autoscale are both set", "keep one: a fixed number, or bounds and policies"
        )


def shrink_check(deployment: Deployment) -> Iterator[Finding]:
    """What one replica carries must be known from somewhere."""
    scale = deployment.value.autoscale
    check = None if scale is None else scale.shrink_check
    if check is None or check.fill == 0 or check.per_replica is not None:
        return
    if check.signal == "prompt_tokens_per_s":
        return
    if check.signal in ("concurrency", "inflight") and deployment.value.max_concurrency:
        return
    hint = "set it, or max_concurrency of the deployment"
    if check.signal == "requests_per_s":
        hint = "nobody measures it, so it must be set"
    yield deployment.error(("autoscale", "shrink_check", "per_replica"), "is missing", hint)


def gpu_share(deployment: Deployment) -> Iterator[Finding]:
    """A share that holds not even one replica."""
    value = deployment.value
    if 0 < value.gpu_share < value.gpus:
        yield deployment.error(
            "gpu_share",
            f"is {value.gpu_share}, and one replica has {value.gpus}",
            "no replica would ever start",
        )


def flags(deployment: Deployment) -> Iterator[Finding]:
    """Flags are the engine's, except those that we set; none is a place for secrets."""
    seen: set[str] = set()
    for name, value in deployment.value.args.items():
        key, flag = ("args", name), plain_flag(name)
        if not is_flag(name):
            bare = name.lstrip("-")
            hint = f"without dashes: `{bare}`" if is_flag(bare) else ""
            yield deployment.bad_name(key, "is not the name of a flag", hint)
        elif why := why_owned_flag(name):
            yield deployment.bad_name(key, "cannot be set", why)
        elif flag in seen:
            yield deployment.bad_name(key, "is set twice", "dashes and underscores are the same")
        elif isinstance(value, str) and value and looks_secret(name):
            yield deployment.warning(key, "is a secret that every user of the host can see", _INSTEAD)
        seen.add(flag)
    for _, secret in secret_flags(deployment.value.command):
        what = f"has a secret after {secret}, which every user of the host can see"
        yield deployment.warning("command", what, _INSTEAD)


def environment(deployment: Deployment) -> Iterator[Finding]:
    """Variables have proper names, are not ours, and hold no secrets."""
    for name, value in deployment.value.env.items():
        if not _VARIABLE.fullmatch(name):
            yield deployment.bad_name(
                ("env", name), "is no name of a variable", "letters, digits and _, no digit first"
            )
        elif why := why_owned_variable(name):
            yield deployment.bad_name(("env", name), "cannot be set", why)
        elif "\0" in value:
            yield deployment.error(("env", name), "has a NUL character")
        elif value and looks_secret(name):
            yield deployment.warning(("env", name), "is a secret in the configuration", _INSTEAD)


def parallel_size(deployment: Deployment) -> Iterator[Finding]:
    """Flags that divide a model over GPUs fit the GPUs of a replica."""
    args = {name.replace("_", "-"): value for name, value in deployment.value.args.items()}
    sizes = [args[name] for name in _PARALLEL_FLAGS if name in args]
    if not sizes or not deployment.sound("gpus", "args"):
        return
    whole = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool)]
    gpus = deployment.value.gpus
    if len(whole) == len(sizes) and (needed := math.prod(whole)) != gpus:
        yield deployment.warning("args", f"use {needed} GPUs per replica, but gpus = {gpus}")


def bounds(record: Record) -> Iterator[Finding]:
    """Bounds are in order."""
    for autoscale in record.of(AutoscaleConfig):
        scale = autoscale.value
        if scale.min > scale.max and autoscale.sound("min", "max"):
            yield autoscale.error("min", f"is {scale.min}, more than max = {scale.max}")


def policies(deployment: Deployment) -> Iterator[Finding]:
    """A request goes somewhere."""
    if not deployment.value.router and deployment.sound("router"):
        yield deployment.error("router", "has no step", 'such as "load_balanced"')


def named_policies(record: Record) -> Iterator[Finding]:
    """A policy is used by its name."""
    for policy in record.of(PolicyUse):
        if not policy.value.use and policy.sound("use"):
            yield policy.error("use", "must be the name of a policy")


def sleep_needs_routes(record: Record) -> Iterator[Finding]:
    """Where the file has the node's own policy too, it allows the routes that sleep needs."""
    if next(record.of(AgentConfig), None) is None or record.one(AllowConfig, "agent", "allow").value.dev_mode:
        return
    for deployment in record.of(DeploymentConfig):
        if deployment.value.sleep != "none":
            yield deployment.warning("sleep", "needs agent.allow.dev_mode = true")


_EACH: Final[tuple[Callable[[Deployment], Iterator[Finding]], ...]] = (
    replicas,
    flags,
    environment,
    parallel_size,
    policies,
    gpu_share,
    shrink_check,
)
_EACH_WITH_ITS_ENGINE: Final[tuple[Callable[[Deployment], Iterator[Finding]], ...]] = (
    engine_needs,
    engine_ignores,
)
_INSTEAD: Final = "put it in the agent's environment, or in a file that only the agent can read"


def each_deployment(record: Record) -> Iterator[Finding]:
    """The conditions of each deployment for itself."""
    for deployment in record.of(DeploymentConfig):
        if deployment.sound("engine"):
            for check in _EACH_WITH_ITS_ENGINE:
                yield from check(deployment)
        for check in _EACH:
            yield from check(deployment)


CHECKS: Final = (each_deployment, bounds, named_policies, sleep_needs_routes)
