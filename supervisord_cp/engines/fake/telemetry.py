"""What the engine counts, for `/metrics` and `/fake/stats`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from supervisord_cp.engines.fake.metrics import Histogram, recorded_bounds
from supervisord_cp.engines.fake.scheduler import Job, Scheduler

_HISTOGRAMS: Final = (
    "iteration_tokens_total",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
    "request_params_max_tokens",
    "request_params_n",
    "request_num_preemptions",
    "request_prefill_kv_computed_tokens",
)


@dataclass(slots=True, kw_only=True)
class RequestTimes:
    """When a sequence reached which point, in monotonic seconds."""

    arrived: float
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None


class Telemetry:
    """Counters and histograms since the start."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.cached_tokens = 0
        self.finished: Counter[str] = Counter()
        """Sequences by finish reason."""
        self.rejected: Counter[str] = Counter()
        self.seen = 0
        """Sequences that were ever accepted."""
        self.max_running = 0
        bounds = recorded_bounds()
        self.histograms: Final = {name: Histogram(bounds[f"vllm:{name}"]) for name in _HISTOGRAMS}

    def observe(self, name: str, value: float) -> None:
        self.histograms[name].observe(value)

    def prompt(self, job: Job) -> None:
        """A sequence's prompt was computed."""
        self.prompt_tokens += job.prompt_tokens
        self.cached_tokens += job.cached
        self.observe("request_prompt_tokens", job.prompt_tokens)
        self.observe("request_prefill_kv_computed_tokens", job.prompt_tokens - job.cached)

    def token(self, times: RequestTimes, now: float) -> None:
        """A sequence got a token."""
        self.generation_tokens += 1
        if times.first_token is None:
            times.first_token = now
            self.observe("time_to_first_token_seconds", now - times.arrived)
        elif times.last_token is not None:
            self.observe("inter_token_latency_seconds", now - times.last_token)
        times.last_token = now

    def finish(self, reason: str, times: RequestTimes, generated: int, now: float) -> None:
        """A sequence ended, whatever the reason."""
        self.finished[reason] += 1
        self.observe("e2e_request_latency_seconds", now - times.arrived)
        self.observe("request_generation_tokens", generated)
        self.observe("request_max_num_generation_tokens", generated)
        if times.admitted is None:
            return
        self.observe("request_queue_time_seconds", times.admitted - times.arrived)
        self.observe("request_inference_time_seconds", now - times.admitted)
        if times.first_token is None or times.last_token is None:
            return
        decoding = times.last_token - times.first_token
        self.observe("request_prefill_time_seconds", times.first_token - times.admitted)
        self.observe("request_decode_time_seconds", decoding)
        self.observe("request_time_per_output_token_seconds", decoding / max(1, generated - 1))

    def figures(self, scheduler: Scheduler, sleep_level: int | None) -> dict[str, float]:
        """The figures of the metrics page; `sleep_level` is None when awake."""
        return dict(self._figures(scheduler, sleep_level))

    def _figures(self, scheduler: Scheduler, sleep_level: int | None) -> Iterator[tuple[str, float]]:
        waiting = len(scheduler.waiting)
        yield "vllm:num_requests_running", len(scheduler.running)
        yield "vllm:num_requests_waiting", waiting
        yield 'vllm:num_requests_waiting_by_reason{reason="capacity"}', waiting
        yield 'vllm:engine_sleep_state{sleep_state="awake"}', sleep_level is None
        yield 'vllm:engine_sleep_state{sleep_state="weights_offloaded"}', sleep_level == 1
        yield 'vllm:engine_sleep_state{sleep_state="discard_all"}', sleep_level == 2
        yield "vllm:kv_cache_usage_perc", scheduler.usage
        yield "vllm:prefix_cache_queries_total", scheduler.cache.queries
        yield "vllm:prefix_cache_hits_total", scheduler.cache.hits
        yield "vllm:num_preemptions_total", scheduler.preemptions
        yield "vllm:prompt_tokens_total", self.prompt_tokens
        yield (
            'vllm:prompt_tokens_by_source_total{source="local_compute"}',
            self.prompt_tokens - self.cached_tokens,
        )
        yield 'vllm:prompt_tokens_by_source_total{source="local_cache_hit"}', self.cached_tokens
        yield "vllm:prompt_tokens_cached_total", self.cached_tokens
        yield 'vllm:prompt_tokens_cached_by_source_total{source="device"}', self.cached_tokens
        yield "vllm:generation_tokens_total", self.generation_tokens
        for reason, count in self.finished.items():
            yield f'vllm:request_success_total{{finished_reason="{reason}"}}', count
        for reason, count in self.rejected.items():
            yield f'vllm:admission_rejections_total{{reason="{reason}"}}', count
        for name, histogram in self.histograms.items():
            yield from histogram.samples(f"vllm:{name}")
