"""What vLLM's published dashboards ask of Prometheus, as facts: metrics, labels, variables.

Read in vllm-project/vllm (Apache-2.0), examples/observability: prometheus_grafana/grafana.json and
dashboards/grafana/{performance_statistics,query_statistics,vllm_overview,vllm_instances,vllm_kv_cache,
vllm_service_status}.json, in the state of summer 2026. Rows that vLLM itself shows only with a feature
switched on (LoRA, speculative decoding, KV connectors) are left out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

WINDOW: Final = "10s"
VARIABLES: Final = ("job", "model_name", "instance", "engine")
"""Each is filled with the label's values of `vllm:num_requests_running`, narrowed by those before it."""
_SERVER: Final = ("job", "instance")
"""What metrics of the API server are chosen by: they have no model and no engine."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One metric, the variables it is chosen by, labels that must hold, and those it is grouped by."""

    name: str
    chosen_by: tuple[str, ...] = VARIABLES
    by: tuple[str, ...] = ()
    where: str = ""

    def selector(self, variables: Mapping[str, str], suffix: str = "") -> str:
        """With the variables filled in."""
        matchers = [f'{one}=~"{variables[one]}"' for one in self.chosen_by]
        return f"{self.name}{suffix}{{{','.join([*matchers, *([self.where] if self.where else [])])}}}"

    def grouped(self, inner: str, *more: str) -> str:
        """A sum by its labels."""
        by = (*more, *self.by)
        return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"


_ENGINE: Final = ("instance", "engine")
GAUGES: Final = (
    Fact("vllm:num_requests_running", by=("model_name", "instance")),
    Fact("vllm:num_requests_running", by=_ENGINE),
    Fact("vllm:num_requests_waiting", by=_ENGINE),
    Fact("vllm:num_requests_waiting_by_reason", where='reason="capacity"'),
    Fact("vllm:num_requests_waiting_by_reason", where='reason="deferred"'),
    Fact("vllm:kv_cache_usage_perc", by=_ENGINE),
    Fact("vllm:engine_sleep_state", by=_ENGINE, where='sleep_state="awake"'),
    Fact("vllm:engine_sleep_state", by=_ENGINE, where='sleep_state="discard_all"'),
    Fact("process_start_time_seconds", _SERVER),
    Fact("up", ("job",)),
)
COUNTERS: Final = (
    Fact("vllm:request_success_total", by=("model_name",)),
    Fact("vllm:request_success_total", by=("finished_reason",)),
    Fact("vllm:request_success_total", where='finished_reason="error"'),
    Fact("vllm:prompt_tokens_total"),
    Fact("vllm:prompt_tokens_cached_total"),
    Fact("vllm:generation_tokens_total", by=("model_name", "instance")),
    Fact("vllm:num_preemptions_total", by=_ENGINE),
    Fact("vllm:prefix_cache_hits_total"),
    Fact("vllm:prefix_cache_queries_total"),
    Fact("vllm:estimated_flops_per_gpu_total", by=_ENGINE),
    Fact("vllm:estimated_read_bytes_per_gpu_total", by=_ENGINE),
    Fact("vllm:estimated_write_bytes_per_gpu_total", by=_ENGINE),
    Fact("http_requests_total", _SERVER, by=("status",)),
    Fact("http_requests_total", _SERVER, by=("handler",)),
    # The fake's server counts none of these: they are there, and stand still.
    Fact("http_request_duration_seconds_sum", _SERVER, by=("handler",)),
    Fact("http_request_duration_seconds_count", _SERVER, by=("handler",)),
)
HISTOGRAMS: Final = (
    Fact("vllm:e2e_request_latency_seconds", by=("model_name",)),
    Fact("vllm:time_to_first_token_seconds", by=("model_name", "instance")),
    Fact("vllm:inter_token_latency_seconds", by=("model_name", "instance")),
    Fact("vllm:request_prompt_tokens", by=("model_name",)),
    Fact("vllm:request_generation_tokens", by=("model_name",)),
    Fact("vllm:request_queue_time_seconds"),
    Fact("vllm:request_prefill_time_seconds"),
    Fact("vllm:request_decode_time_seconds"),
    Fact("vllm:request_max_num_generation_tokens"),
)


def variables(ask: Callable[[str], list]) -> dict[str, str]:
    """Their values, one after the other as Grafana finds them; a label that is missing raises KeyError."""
    found: dict[str, str] = {}
    for name in VARIABLES:
        running = Fact("vllm:num_requests_running", tuple(found))
        values = {row["metric"][name] for row in ask(running.selector(found))}
        found[name] = "|".join(sorted(values)).replace(".", "\\\\.")
    return found


def queries(filled: Mapping[str, str]) -> Iterator[str]:
    """What the dashboards ask of each fact: gauges as they are, counters as rates, histograms as averages,
    quantiles and distributions."""
    for fact in GAUGES:
        yield fact.grouped(fact.selector(filled))
    for fact in COUNTERS:
        yield fact.grouped(f"rate({fact.selector(filled)}[{WINDOW}])")
    for fact in HISTOGRAMS:
        count = fact.grouped(f"rate({fact.selector(filled, '_count')}[{WINDOW}])")
        yield fact.grouped(f"rate({fact.selector(filled, '_sum')}[{WINDOW}])") + f" / ({count} > 0)"
        buckets = fact.grouped(f"rate({fact.selector(filled, '_bucket')}[{WINDOW}])", "le")
        yield f"histogram_quantile(0.95, {buckets}) > -1"  # not a number is not data
    running = Fact("vllm:num_requests_running").selector(filled)
    started = Fact("process_start_time_seconds", _SERVER).selector(filled)
    models = f"group by (job, instance, model_name) ({running})"
    yield f"(time() - {started}) * on (job, instance) group_left (model_name) {models}"
