"""vLLM's own metrics: the few figures that supervision, scaling and routing act on."""

import math
from typing import Final

from supervisord_cp.adapters.exposition import samples, values
from supervisord_cp.model.instance import EngineLoad

# Names as exposed, the current one first. They are looked for on the page, not derived from a version:
# both names of a renamed metric are served for some releases, and an old one may be hidden.
RUNNING: Final = ("vllm:num_requests_running",)
WAITING: Final = ("vllm:num_requests_waiting",)
KV_CACHE_USAGE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
PROMPT_TOKENS: Final = ("vllm:prompt_tokens_total",)
GENERATION_TOKENS: Final = ("vllm:generation_tokens_total",)
ITERATIONS: Final = ("vllm:iteration_tokens_total_count",)
TTFT: Final = ("vllm:time_to_first_token_seconds",)
ITL: Final = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
WAITING_BY_REASON: Final = "vllm:num_requests_waiting_by_reason"
SLEEP_STATE: Final = "vllm:engine_sleep_state"
PREEMPTIONS: Final = ("vllm:num_preemptions_total",)
_MOST: Final = 2.0**40
"""No engine has more requests: one that says so is not to be believed."""


def read_load(page: str) -> EngineLoad:
    """The figures of a metrics page; None is what is not on it, or no number.

    With data parallelism each rank has series of its own (label `engine`): counts are summed, ratios
    averaged, and each rank's own counters are told besides. One rank without a number makes the figure
    unknown rather than smaller.
    """
    asleep = _asleep(page)
    return EngineLoad(
        running=_count(_series(page, RUNNING)),
        waiting=_waiting(page),
        kv_cache_usage=_mean(_series(page, KV_CACHE_USAGE)),
        prompt_tokens_total=_sum(_series(page, PROMPT_TOKENS)),
        generation_tokens_total=_sum(_series(page, GENERATION_TOKENS)),
        preemptions_total=_sum(_series(page, PREEMPTIONS)),
        iterations_total=_sum(_series(page, ITERATIONS)),
        ttft_total_s=_sum(_series(page, TTFT, "_sum")),
        ttft_count=_sum(_series(page, TTFT, "_count")),
        itl_total_s=_sum(_series(page, ITL, "_sum")),
        itl_count=_sum(_series(page, ITL, "_count")),
        asleep=asleep,
        ranks=_ranks(page, asleep),
    )


def _ranks(page: str, asleep: bool | None) -> tuple[EngineLoad, ...]:
    """What each rank does, where there are several."""
    if len(values(page, RUNNING[0])) < 2:
        return ()
    running, iterations, prompts, generated = (
        {labels.get("engine", ""): value for labels, value in samples(page, name)}
        for (name, *_) in (RUNNING, ITERATIONS, PROMPT_TOKENS, GENERATION_TOKENS)
    )
    return tuple(
        EngineLoad(
            running=_count([running[rank]]),
            iterations_total=iterations.get(rank),
            prompt_tokens_total=prompts.get(rank),
            generation_tokens_total=generated.get(rank),
            asleep=asleep,
        )
        for rank in sorted(running)
    )


def _asleep(page: str) -> bool | None:
    """Whether any rank sleeps."""
    awake = [value for labels, value in samples(page, SLEEP_STATE) if labels.get("sleep_state") == "awake"]
    return any(value == 0.0 for value in awake) if awake else None


def _waiting(page: str) -> int | None:
    """Requests that wait for room. Those that are deferred for another cause wait with any number of
    replicas; where they are told apart, they do not count."""
    told = [value for labels, value in samples(page, WAITING_BY_REASON) if labels.get("reason") == "capacity"]
    return _count(told or _series(page, WAITING))


def _series(page: str, names: tuple[str, ...], suffix: str = "") -> list[float]:
    for name in names:
        if found := values(page, name + suffix):
            return found
    return []


def _sum(series: list[float]) -> float | None:
    total = sum(series)
    return total if series and math.isfinite(total) else None


def _count(series: list[float]) -> int | None:
    total = _sum(series)
    return None if total is None else round(min(total, _MOST))


def _mean(series: list[float]) -> float | None:
    total = _sum(series)
    return None if total is None else total / len(series)
