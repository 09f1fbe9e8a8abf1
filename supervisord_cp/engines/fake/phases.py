"""The phases of a start: how long each takes, and the log lines that announce it."""

from collections.abc import Iterator
from dataclasses import dataclass

from supervisord_cp.engines.fake.knobs import Knobs
from supervisord_cp.engines.fake.options import Options


@dataclass(frozen=True, slots=True)
class Line:
    """A log line of one of the processes."""

    process: str
    place: str
    """File and line of vLLM's sources."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of a start."""

    name: str
    """What a start failure names."""
    seconds: float = 0.0
    before: tuple[Line, ...] = ()
    after: tuple[Line, ...] = ()


def phases(options: Options, knobs: Knobs) -> Iterator[Phase]:
    """The phases from the engine core's first line on, in order."""
    yield _loading(options, knobs)
    if not options.eager:
        yield _compiling(knobs)
    yield _allocating(options, knobs)
    if not options.eager:
        yield _capturing(knobs)
    took = knobs.compile_s + knobs.kv_s + knobs.capture_s
    text = f"init engine (profile, create kv cache, warmup model) took {took:.2f} s"
    yield Phase(name="initialised", after=(Line("EngineCore", "core.py:402", text),))


def _loading(options: Options, knobs: Knobs) -> Phase:
    config = f"Initializing a V1 LLM engine (v{knobs.version}) with config: model='{options.model}'"
    took = f"Model loading took 14.99 GiB memory and {knobs.load_s:.6f} seconds"
    return Phase(
        name="load",
        seconds=knobs.load_s,
        before=(
            Line("EngineCore", "core.py:133", config),
            Line("Worker", "gpu_model_runner.py:5040", f"Starting to load model {options.model}..."),
        ),
        after=(
            Line("Worker", "default_loader.py:501", f"Loading weights took {knobs.load_s:.2f} seconds"),
            Line("Worker", "gpu_model_runner.py:5150", took),
        ),
    )


def _compiling(knobs: Knobs) -> Phase:
    cache = "Using cache directory: /root/.cache/vllm/torch_compile_cache/fake for vLLM's torch.compile"
    took = f"torch.compile took {knobs.compile_s:.2f} s in total"
    return Phase(
        name="compile",
        seconds=knobs.compile_s,
        before=(Line("EngineCore", "backends.py:1080", cache),),
        after=(Line("EngineCore", "monitor.py:20", took),),
    )


def _allocating(options: Options, knobs: Knobs) -> Phase:
    available = f"Available KV cache memory: {knobs.kv_tokens / 8192:.2f} GiB"
    ratio = knobs.kv_tokens / options.max_model_len
    concurrency = f"Maximum concurrency for {options.max_model_len:,} tokens per request: {ratio:.2f}x"
    size = f"GPU KV cache size: {knobs.kv_tokens:,} tokens, {concurrency}"
    return Phase(
        name="kv",
        seconds=knobs.kv_s,
        before=(Line("Worker", "gpu_worker.py:760", available),),
        after=(Line("EngineCore", "kv_cache_utils.py:2327", size),),
    )


def _capturing(knobs: Knobs) -> Phase:
    begin = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)"
    end = f"Graph capturing finished in {knobs.capture_s:.0f} secs, took 0.61 GiB"
    return Phase(
        name="capture",
        seconds=knobs.capture_s,
        before=(Line("Worker", "gpu_model_runner.py:6657", begin),),
        after=(Line("Worker", "gpu_model_runner.py:6582", end),),
    )
