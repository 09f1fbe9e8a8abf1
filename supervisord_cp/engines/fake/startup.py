"""The start of an engine: phases that take their time, log lines that announce them, and failures."""

from collections.abc import Iterator
from dataclasses import dataclass

from supervisord_cp.engines.fake.failures import StartFailure, failures, last_words
from supervisord_cp.engines.fake.knobs import Knobs
from supervisord_cp.engines.fake.log import log, log_http, log_lines
from supervisord_cp.engines.fake.options import Options


class StartFailed(Exception):
    """The engine does not start; everything has been said on the log."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
        """The exit status; negative: the signal to die of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of a start."""

    name: str
    seconds: float
    before: tuple[tuple[str, str, str], ...] = ()
    """Process, place and text of the lines printed when it begins."""
    after: tuple[tuple[str, str, str], ...] = ()


class Startup:
    """The phases of one start."""

    def __init__(self, options: Options, knobs: Knobs, api_pid: int) -> None:
        self._options = options
        self._knobs = knobs
        self._pids = {"APIServer": api_pid}
        table = failures(options)
        if not knobs.fail_start and knobs.kv_tokens < options.max_model_len:
            self._failure: StartFailure | None = table["kv_cache"]
        else:
            self._failure = table.get(knobs.fail_start)

    def announce(self) -> None:
        """The lines before the port is bound.

        Raises:
            StartFailed: as the knobs say.
        """
        self._say(
            "APIServer", "api_utils.py:347", f"version {self._knobs.version}  model   {self._options.model}"
        )
        self._say("APIServer", "api_utils.py:286", f"non-default args: {self._options.non_default}")
        self._fail_in("bind")

    def configure(self) -> None:
        """The model's configuration, before there is an engine core.

        Raises:
            StartFailed: as the knobs say.
        """
        self._say("APIServer", "model.py:2152", f"Using max model len {self._options.max_model_len}")
        self._fail_in("config")

    async def load(self, engine_pid: int) -> None:
        """The phases with an engine core, up to the listening socket.

        Raises:
            StartFailed: as the knobs say.
        """
        import asyncio  # not before the engine core is forked

        self._pids |= {"EngineCore": engine_pid, "Worker": engine_pid}
        for phase in self._phases():
            for line in phase.before:
                self._say(*line)
            await asyncio.sleep(phase.seconds)
            self._fail_in(phase.name)
            for line in phase.after:
                self._say(*line)
        while self._knobs.never_ready:
            await asyncio.sleep(3600)

    def _phases(self) -> Iterator[Phase]:
        options, knobs = self._options, self._knobs
        core, worker = "EngineCore", "Worker"
        model = f"model='{options.model}'"
        yield Phase(
            name="load",
            seconds=knobs.load_s,
            before=(
                (
                    core,
                    "core.py:133",
                    f"Initializing a V1 LLM engine (v{knobs.version}) with config: {model}",
                ),
                (worker, "gpu_model_runner.py:5040", f"Starting to load model {options.model}..."),
            ),
            after=(
                (worker, "default_loader.py:501", f"Loading weights took {knobs.load_s:.2f} seconds"),
                (
                    worker,
                    "gpu_model_runner.py:5150",
                    f"Model loading took 14.99 GiB memory and {knobs.load_s:.1f} s",
                ),
            ),
        )
        if not options.eager:
            line = (
                "Using cache directory: /root/.cache/vllm/torch_compile_cache/fake for vLLM's torch.compile"
            )
            took = f"torch.compile took {knobs.compile_s:.2f} s in total"
            yield Phase(
                name="compile",
                seconds=knobs.compile_s,
                before=((core, "backends.py:1080", line),),
                after=((core, "monitor.py:20", took),),
            )
        most = knobs.kv_tokens / options.max_model_len
        available = f"Available KV cache memory: {knobs.kv_tokens / 8192:.2f} GiB"
        concurrency = f"Maximum concurrency for {options.max_model_len:,} tokens per request: {most:.2f}x"
        size = f"GPU KV cache size: {knobs.kv_tokens:,} tokens, {concurrency}"
        yield Phase(
            name="kv",
            seconds=knobs.kv_s,
            before=((worker, "gpu_worker.py:760", available),),
            after=((core, "kv_cache_utils.py:2327", size),),
        )
        took_all = knobs.compile_s + knobs.kv_s + knobs.capture_s
        after = (
            (
                core,
                "core.py:402",
                f"init engine (profile, create kv cache, warmup model) took {took_all:.2f} s",
            ),
        )
        if options.eager:
            yield Phase(name="capture", seconds=0.0, after=after)
            return
        begin = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)"
        end = f"Graph capturing finished in {knobs.capture_s:.0f} secs, took 0.61 GiB"
        yield Phase(
            name="capture",
            seconds=knobs.capture_s,
            before=((worker, "gpu_model_runner.py:6657", begin),),
            after=((worker, "gpu_model_runner.py:6582", end), *after),
        )

    def _fail_in(self, phase: str) -> None:
        failure = self._failure
        if failure is None or failure.phase != phase:
            return
        if failure.in_engine and failure.cause:
            self._say("EngineCore", "core.py:1478", "EngineCore failed to start.", "ERROR")
            for line in ("Traceback (most recent call last):", *failure.cause.splitlines()):
                self._say("EngineCore", "core.py:1478", line, "ERROR")
        log_lines(last_words(failure))
        code = self._knobs.fail_code
        raise StartFailed(failure.code if code is None else code)

    def _say(self, process: str, place: str, message: str, level: str = "INFO") -> None:
        log(process, self._pids[process], place, message, level)


def announce_ready(address: str, pid: int) -> None:
    """The last lines of a start."""
    log("APIServer", pid, "entry.py:140", f"Starting vLLM server on {address}")
    log_http(f"Started server process [{pid}]")
    log_http("Waiting for application startup.")
    log_http("Application startup complete.")
