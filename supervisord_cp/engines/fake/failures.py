"""How vLLM fails to start: the last words on its log, and its exit status."""

from dataclasses import dataclass
from typing import Final

from supervisord_cp.engines.fake.options import Options

CORE_FAILED: Final = (
    "RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {'EngineCore': 1}"
)
_TRACEBACK: Final = (
    "Traceback (most recent call last):",
    '  File "/opt/vllm/bin/vllm", line 6, in <module>',
    "    sys.exit(main())",
    '  File "/opt/vllm/lib/python3.12/site-packages/vllm/entrypoints/cli/main.py", line 120, in main',
    "    args.dispatch_function(args)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailure:
    """One way not to start."""

    phase: str
    """The phase in which it happens: `bind`, `config`, `load`, `kv` or `capture`."""
    cause: str = ""
    """The last lines of the root cause's traceback; "" says nothing."""
    in_engine: bool = False
    """Whether it happens in the engine core, which the API server then reports."""
    code: int = 1
    """Exit status; negative: the signal to die of."""


def failures(options: Options) -> dict[str, StartFailure]:
    """All of them, by the name that the knob `fail_start` has for them."""
    model, length = options.model, options.max_model_len
    return {
        "configuration": StartFailure(
            phase="config",
            cause="pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            f"  Value error, User-specified max_model_len ({length}) is greater than the derived "
            f"max_model_len (max_position_embeddings={length // 2} or model_max_length=None in model's "
            "config.json).",
        ),
        "gated_repo": StartFailure(
            phase="config",
            cause="OSError: You are trying to access a gated repo.\n"
            f"Make sure to have access to it at https://huggingface.co/{model}.\n"
            f"401 Client Error. Access to model {model} is restricted. You must have access to it and be "
            "authenticated to access it. Please log in.",
        ),
        "model_missing": StartFailure(
            phase="config",
            cause=f"OSError: {model} is not a local folder and is not a valid model identifier listed on "
            "'https://huggingface.co/models'",
        ),
        "no_gpu": StartFailure(phase="config", cause="RuntimeError: Failed to infer device type"),
        "port_in_use": StartFailure(phase="bind", cause="OSError: [Errno 98] Address already in use"),
        "cuda_oom": StartFailure(
            phase="load",
            in_engine=True,
            cause="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a "
            "total capacity of 79.18 GiB of which 143.06 MiB is free. Including non-PyTorch memory, this "
            "process has 79.03 GiB memory in use.",
        ),
        "gpu_memory": StartFailure(
            phase="load",
            in_engine=True,
            cause="ValueError: Free memory on device cuda:0 (11.02/79.18 GiB) on startup is less than "
            f"desired GPU memory utilization ({options.gpu_memory_utilization}, 72.85 GiB). Decrease GPU "
            "memory utilization or reduce GPU memory used by other processes.",
        ),
        "nccl": StartFailure(
            phase="load",
            in_engine=True,
            cause="RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        ),
        "kv_cache": StartFailure(
            phase="kv",
            in_engine=True,
            cause=f"ValueError: To serve at least one request with the model's max seq len ({length}), "
            "(16.0 GiB KV cache is needed, which is larger than the available KV cache memory (9.41 GiB). "
            f"Based on the available memory, the estimated maximum model length is {length // 2}. Try "
            "increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or "
            "decreasing `max_model_len` when initializing the engine. See "
            "https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details.",
        ),
        "host_memory": StartFailure(phase="load", code=-9),
        "silent": StartFailure(phase="load"),
    }


def last_words(failure: StartFailure) -> list[str]:
    """What the API server prints on stderr when it gives up, after the engine core's own words."""
    if not failure.cause:
        return []
    final = CORE_FAILED if failure.in_engine else failure.cause
    return [*_TRACEBACK, *final.splitlines()]
