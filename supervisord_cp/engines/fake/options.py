"""The command line: vLLM's own flags, the knobs, and what the fake engine makes of them."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NoReturn

from supervisord_cp.engines.fake import knobs
from supervisord_cp.engines.fake.knobs import KNOBS, Knobs

USAGE: Final = "vllm serve [model_tag] [options]"
TOP_USAGE: Final = """usage: vllm [-h] [-v]
            {chat,complete,serve,launch,bench,collect-env,run-batch}
            ..."""
_EXIT_USAGE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags and environment variables of vLLM that mean something here."""

    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    uds: str
    root_path: str
    api_keys: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    max_batched_tokens: int
    max_queued_requests: int | None
    max_queued_tokens: int | None
    block_size: int
    prefix_caching: bool
    gpu_memory_utilization: float
    workers: int
    tensor_parallel: bool
    shutdown_timeout_s: int
    keep_alive_s: float
    lora_modules: tuple[str, ...]
    enable_lora: bool
    runtime_lora: bool
    dev_mode: bool
    scale_out: bool
    store_responses: bool
    keep_alive_on_death: bool
    request_id_headers: bool
    load_tracking: bool
    force_usage: bool
    cached_token_details: bool
    access_log: bool
    quiet_paths: frozenset[str]
    """Paths without access log lines."""
    control: bool
    eager: bool
    priority_scheduling: bool
    non_default: str
    """What vLLM logs as its non-default arguments; keys masked."""


class _Parser(argparse.ArgumentParser):
    """Fails with vLLM's words: exit status 2."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            sys.stderr.write(f"{TOP_USAGE}\nvllm: error: {message}\n")
        else:
            sys.stderr.write(f"usage: {USAGE}\nvllm serve: error: {message}\n")
        raise SystemExit(_EXIT_USAGE)


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[Options, Knobs]:
    """Read the command line (without the program's name) and the environment.

    Raises:
        SystemExit: with 2 and a message on stderr, as vLLM does, for what neither vLLM nor a knob knows.
    """
    parser = _build_parser()
    if not argv or argv[0] != "serve":
        sys.stderr.write(f"{TOP_USAGE}\nvllm: error: only `serve` is faked\n")
        raise SystemExit(_EXIT_USAGE)
    arguments = vars(parser.parse_args(_normalise(argv[1:])))
    try:
        values = knobs.update(
            Knobs(), knobs.from_environment(environment.get(knobs.ENVIRONMENT, "")), live=False
        )
        flags = {name: arguments[f"fake_{name}"] for name in KNOBS if arguments[f"fake_{name}"] is not None}
        values = knobs.update(values, flags, live=False)
        return _options(arguments, environment), values
    except (knobs.KnobError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))


def _build_parser() -> _Parser:
    parser = _Parser(prog="vllm serve", usage=USAGE, allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    recorded = resources.files("supervisord_cp.engines.fake").joinpath("data/vllm_flags.txt").read_text()
    for line in recorded.splitlines()[1:]:
        kind, *spellings = line.split(" ")
        parser.add_argument(*spellings, **_KINDS[kind])
    for name in KNOBS:
        kind_of = knobs.kind_of(name)
        how = _KINDS["switch"] if kind_of is bool else {"type": kind_of}
        parser.add_argument(f"--fake-{name.replace('_', '-')}", dest=f"fake_{name}", **how)
    return parser


_KINDS: Final[Mapping[str, dict[str, Any]]] = {
    "switch": {"action": argparse.BooleanOptionalAction},
    "flag": {"action": "store_true", "default": None},
    "int": {"type": int},
    "float": {"type": float},
    "str": {},
    "list": {"nargs": "+"},
    "optional": {"nargs": "?"},
}


def _normalise(argv: Sequence[str]) -> list[str]:
    """vLLM's freedoms: `_` for `-` in flags, `--some-config.key value`, `-O3`."""
    result = []
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if flag.startswith("-O") and flag[2:].isdigit():
            result.append(f"--optimization-level={flag[2:]}")
        elif flag.startswith("-") and not _is_number(flag):
            flag = flag.partition(".")[0]
            result.append(f"{flag.replace('_', '-')}{equals}{value}")
        else:
            result.append(argument)
    return result


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(name: str, value: Any) -> Any:
    return "***" if name in ("api_key", "hf_token") else value


def _tokens(text: str) -> int:
    """A count as vLLM reads it: `8k` is 8000, `8K` is 8192."""
    units = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
    try:
        return int(float(text[:-1]) * units[text[-1]]) if text[-1:] in units else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid number of tokens: {text!r}") from None


def _options(given: Mapping[str, Any], environment: Mapping[str, str]) -> Options:
    model = given["model_tag"] or given["model"] or "Qwen/Qwen3-0.6B"
    keys = given["api_key"] or [environment.get("VLLM_API_KEY", "")]
    length = given["max_model_len"]
    tensor = given["tensor_parallel_size"] or 1
    queued, queued_tokens = given["max_num_queued_reqs"], given["max_num_queued_tokens"]

    def switched(name: str) -> bool:
        return environment.get(name, "0").lower() in ("1", "true")

    return Options(
        model=model,
        served_names=tuple(given["served_model_name"] or [model]),
        host=given["host"] or "",
        port=8000 if given["port"] is None else given["port"],
        uds=given["uds"] or "",
        root_path=(given["root_path"] or "").rstrip("/"),
        api_keys=tuple(key for key in keys if key),
        max_model_len=_tokens(length) if length and length not in ("auto", "-1") else 8192,
        max_num_seqs=given["max_num_seqs"] or 256,
        max_batched_tokens=_tokens(given["max_num_batched_tokens"] or "8192"),
        max_queued_requests=None if queued is None else _tokens(queued),
        max_queued_tokens=None if queued_tokens is None else _tokens(queued_tokens),
        block_size=given["block_size"] or 16,
        prefix_caching=given["enable_prefix_caching"] is not False,
        gpu_memory_utilization=given["gpu_memory_utilization"] or 0.92,
        workers=tensor * (given["pipeline_parallel_size"] or 1),
        tensor_parallel=tensor > 1,
        shutdown_timeout_s=given["shutdown_timeout"] or 0,
        keep_alive_s=float(environment.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE") or 5),
        lora_modules=tuple(module.partition("=")[0] for module in given["lora_modules"] or ()),
        enable_lora=bool(given["enable_lora"]),
        runtime_lora=switched("VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        dev_mode=switched("VLLM_SERVER_DEV_MODE"),
        scale_out=bool(given["enable_scale_out"]),
        store_responses=switched("VLLM_ENABLE_RESPONSES_API_STORE"),
        keep_alive_on_death=switched("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"),
        request_id_headers=bool(given["enable_request_id_headers"]),
        load_tracking=bool(given["enable_server_load_tracking"]),
        force_usage=bool(given["enable_force_include_usage"]),
        cached_token_details=bool(given["enable_prompt_tokens_details"]),
        access_log=not given["disable_uvicorn_access_log"],
        quiet_paths=frozenset((given["disable_access_log_for_endpoints"] or "").split(",")),
        control=environment.get(knobs.CONTROL) == "1",
        priority_scheduling=given["scheduling_policy"] == "priority",
        eager=bool(given["enforce_eager"]),
        non_default=str({key: _shown(key, value) for key, value in given.items() if value is not None}),
    )
