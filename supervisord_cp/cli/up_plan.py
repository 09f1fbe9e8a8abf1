"""What `up` runs on this host, decided from what was asked for and what is there. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from supervisord_cp.config.schema import Listen
from supervisord_cp.errors import UsageError
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.launch import ArgValue

FAKE_MODEL: Final = "fake-llama"
FAKE_REPLICAS: Final = 2
GPU_MODEL: Final = "Qwen/Qwen2.5-0.5B-Instruct"
"""Small and free to download: something has to answer when no model is named."""
PARALLEL_STARTS: Final = 4
"""Engines that load at the same time on GPUs."""
ROUTER_DRAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line says."""

    model: str = ""
    """A hub id, or the absolute path of a folder."""
    replicas: int | None = None
    engine: str = ""
    vllm: str = ""
    device: str = "auto"
    engine_args: tuple[str, ...] = ()
    """What stood after `--`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What this host has."""

    gpus: tuple[Gpu, ...] = ()
    vllm: str = ""
    """Path of the vLLM found on PATH."""

    @property
    def free_gpus(self) -> int:
        return sum(not gpu.holders and gpu.health is GpuHealth.HEALTHY for gpu in self.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The one deployment, and a line that says why it is this one."""

    engine: str
    device: str
    replicas: int
    model: str
    served_name: str
    note: str
    gpus: int = 1
    """Devices per replica."""
    executable: str = ""
    args: Mapping[str, ArgValue] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The deployment's name: the model's, in the letters that a name may have."""
        words = re.sub(r"[^a-z0-9]+", "-", self.served_name.rpartition("/")[2].lower())
        return words[:40].strip("-") or "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where it all listens and writes."""

    api: Listen
    control: Listen
    agent: Listen | None
    ports: tuple[int, int]
    state_dir: Path


def choose(wish: Wish, host: Host) -> Choice:
    """What to run.

    Raises:
        UsageError: the wish contradicts itself or what the host has.
    """
    if wish.device == "cuda" and not host.gpus:
        raise UsageError("--device cuda: there is no GPU here that NVML can see")
    vllm = wish.vllm or host.vllm
    engine = wish.engine or ("vllm" if wish.vllm or (host.gpus and host.vllm) else "fake")
    if engine == "vllm" and not vllm:
        raise UsageError("vLLM is not on PATH: install it, or name it with --vllm PATH")
    if engine == "command":
        return _command(wish, host)
    return _vllm(wish, host, vllm) if engine == "vllm" else _fake(wish, host)


def _fake(wish: Wish, host: Host) -> Choice:
    replicas = FAKE_REPLICAS if wish.replicas is None else wish.replicas
    what = f"{_number(replicas)} fake engine{'s' if replicas != 1 else ''} with made-up text"
    if wish.engine == "fake":
        note = f"As asked for: {what}."
    elif host.gpus:
        note = f"A GPU, but no vLLM on PATH (install it, or --vllm PATH): {what}."
    else:
        note = f"No GPU here: {what} (a real model on the CPU: --vllm PATH --device cpu)."
    model = wish.model or FAKE_MODEL
    return Choice(
        engine="fake",
        device="cuda" if wish.device == "cuda" else "cpu",
        replicas=replicas,
        model=model,
        served_name=served_name(model),
        args=engine_flags(wish.engine_args),
        note=note,
    )


def _vllm(wish: Wish, host: Host, vllm: str) -> Choice:
    on_gpu = wish.device == "cuda" or (wish.device == "auto" and bool(host.gpus))
    flags = engine_flags(wish.engine_args)
    per_replica = devices_per_replica(flags)
    if on_gpu:
        model = wish.model or GPU_MODEL
        replicas = host.free_gpus // per_replica if wish.replicas is None else wish.replicas
        if not replicas and wish.replicas is None:
            raise UsageError(_no_room(host, per_replica))
        note = f"{host.free_gpus} of {len(host.gpus)} GPUs free: {_engines(replicas)} with {model}."
    elif not wish.model:
        raise UsageError("vLLM on the CPU needs a MODEL: `up MODEL`, a folder or a hub id")
    else:
        model, replicas = wish.model, 1 if wish.replicas is None else wish.replicas
        note = f"{_engines(replicas)} on the CPU with {model}."
        note = note[0].upper() + note[1:] if wish.device == "cpu" else f"No GPU here: {note}"
    return Choice(
        engine="vllm",
        device="cuda" if on_gpu else "cpu",
        replicas=replicas,
        model=model,
        served_name=served_name(model),
        gpus=per_replica,
        executable=vllm,
        args=flags,
        note=note,
    )


def _command(wish: Wish, host: Host) -> Choice:
    if not wish.model or not wish.engine_args:
        raise UsageError(
            "--engine command needs a name and a command: up NAME --engine command -- PROGRAM --port {port}"
        )
    replicas = 1 if wish.replicas is None else wish.replicas
    on_gpu = wish.device == "cuda" or (wish.device == "auto" and bool(host.gpus))
    return Choice(
        engine="command",
        device="cuda" if on_gpu else "cpu",
        replicas=replicas,
        model=wish.model,
        served_name=served_name(wish.model),
        command=wish.engine_args,
        note=f"As asked for: {replicas} of `{wish.engine_args[0]}`.",
    )


def served_name(model: str) -> str:
    """What clients call the model: the folder's name of a path, a hub id as it is."""
    return Path(model).name if model.startswith("/") else model


def engine_flags(words: Sequence[str]) -> dict[str, ArgValue]:
    """Engine flags as the configuration has them: `--max-model-len 8192 --enforce-eager`.

    Raises:
        UsageError: a word that is neither a long flag nor the value of one.
    """
    values: dict[str, list[bool | int | float | str]] = {}
    current: list[bool | int | float | str] | None = None
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("--") and len(word) > 2:
            current = values.setdefault(flag[2:], [])
            if equals:
                current.append(_number_or_text(value))
        elif current is None or re.match(r"-[A-Za-z]", word):
            raise UsageError(f"{word!r} after `--`: write engine flags long, such as --max-model-len 8192")
        else:
            current.append(_number_or_text(word))
    return {
        flag: True if not found else found[0] if len(found) == 1 else found for flag, found in values.items()
    }


def _number_or_text(word: str) -> int | float | str:
    """A number where the configuration's spelling of it is the same."""
    if re.fullmatch(r"-?(0|[1-9]\d*)", word, re.ASCII):
        return int(word)
    if re.fullmatch(r"-?\d+\.\d+", word, re.ASCII) and repr(float(word)) == word:
        return float(word)
    return word


def devices_per_replica(flags: Mapping[str, ArgValue]) -> int:
    """GPUs that one engine needs, as its flags have it.

    Raises:
        UsageError: a size that is no number.
    """
    number = 1
    for flag in ("tensor-parallel-size", "pipeline-parallel-size"):
        size = flags.get(flag, 1)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"--{flag} {size}: not a number of GPUs")
        number *= size
    return number


def tables(choice: Choice, places: Places) -> dict[str, Any]:
    """The configuration file's tables: what differs from the defaults, so that it reads as a start."""
    program = choice.command[0] if choice.command else choice.executable
    deployment: dict[str, Any] = {
        "engine": choice.engine,
        "model": choice.model,
        "served_name": choice.served_name,
        "aliases": [choice.model] if choice.model != choice.served_name else [],
        "executable": choice.executable,
        "command": list(choice.command),
        "gpus": choice.gpus,
        "replicas": choice.replicas,
        "args": dict(choice.args),
    }
    here = _origin(places.control)
    return {
        "central": {
            "control_listen": str(places.control),
            "state_dir": str(places.state_dir / "central"),
            "start_router": False,
            "settle_s": 0.0,
        },
        "router": {"api_listen": str(places.api), "central": here, "drain_timeout_s": ROUTER_DRAIN_S},
        "agent": {
            "central": here,
            "listen": "" if places.agent is None else str(places.agent),
            "state_dir": str(places.state_dir / "agent"),
            "log_dir": str(places.state_dir / "logs" / "engines"),
            "device": choice.device,
            "slots": max(1, choice.replicas * choice.gpus),
            "ports": f"{places.ports[0]}-{places.ports[1]}",
            "max_parallel_starts": _parallel_starts(choice),
            "allow": {"executables": [program] if program else []},
        },
        "deployments": {
            choice.name: {key: value for key, value in deployment.items() if value not in ("", [], {})}
        },
    }


def curl_line(api: str, model: str) -> str:
    """A command that asks for a short completion, to be pasted into any shell."""
    name = model.replace("\\", "\\\\").replace('"', '\\"').replace("'", "'\\''")
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}], "max_tokens": 32}}'
    return f"curl {api}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def _parallel_starts(choice: Choice) -> int:
    if choice.engine == "fake":
        return max(1, choice.replicas)
    return min(PARALLEL_STARTS, max(1, choice.replicas)) if choice.device == "cuda" else 1


def _origin(listen: Listen) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return Listen(host=host, port=listen.port).url


def _no_room(host: Host, per_replica: int) -> str:
    held = "; ".join(
        f"GPU {gpu.index}: "
        + (", ".join(f"pid {one.pid} ({one.owner})" for one in gpu.holders) or f"{gpu.health}")
        for gpu in host.gpus
        if gpu.holders or gpu.health is not GpuHealth.HEALTHY
    )
    return (
        f"{host.free_gpus} of {len(host.gpus)} GPUs are free and an engine needs {per_replica}"
        f"{f' ({held})' if held else ''}: --replicas N waits for room, --engine fake does without"
    )


def _engines(replicas: int) -> str:
    return f"{_number(replicas)} vLLM engine{'s' if replicas != 1 else ''}"


def _number(count: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(count, str(count))
