"""Deployment: is it fast enough, and if not, why?"""

from typing import Final

from supervisord_cp.obs import catalog as c
from supervisord_cp.obs.dashboards.grafana import Dashboard, Panel, Query, Row, Variable
from supervisord_cp.obs.dashboards.promql import (
    DEPLOYMENT,
    buckets,
    either,
    engine,
    is_,
    of,
    quantile,
    rate,
    ratio,
    total,
)

_TTFT: Final = engine("time_to_first_token_seconds_bucket", DEPLOYMENT)
_ITL: Final = (
    engine("inter_token_latency_seconds_bucket", DEPLOYMENT),
    engine("time_per_output_token_seconds_bucket", DEPLOYMENT),
)
_E2E: Final = engine("e2e_request_latency_seconds_bucket", DEPLOYMENT)
_KV: Final = (
    engine("kv_cache_usage_perc", DEPLOYMENT),
    engine("gpu_cache_usage_perc", DEPLOYMENT),
)


def _percentiles(*bucket: str) -> tuple[Query, ...]:
    """p50, p95 and p99; the first of the metrics that is there."""
    return tuple(
        Query(
            expr=either(*(quantile(share, one, "deployment") for one in bucket)),
            legend=f"{{{{deployment}}}} p{share * 100:g}",
        )
        for share in (0.5, 0.95, 0.99)
    )


_LATENCY: Final = Row(
    title="Latency",
    panels=(
        Panel(
            title="Time to the first token",
            description="By the engines' own clocks, with the objective `slo.ttft_ms`.",
            unit="s",
            queries=(
                *_percentiles(_TTFT),
                Query(expr=of(c.SLO_TARGET, is_(kind="ttft"), DEPLOYMENT), legend="{{deployment}} objective"),
            ),
        ),
        Panel(
            title="Time between tokens",
            description="By the engines' own clocks, with the objective `slo.itl_ms`.",
            unit="s",
            queries=(
                *_percentiles(*_ITL),
                Query(expr=of(c.SLO_TARGET, is_(kind="itl"), DEPLOYMENT), legend="{{deployment}} objective"),
            ),
        ),
        Panel(
            title="Whole requests",
            description="From a request's arrival at the router to the end of its answer.",
            unit="s",
            queries=_percentiles(buckets(c.REQUEST_DURATION, DEPLOYMENT)),
        ),
        Panel(
            title="Whole requests, in the engines",
            description="What of it the engines took; the rest is waiting and the router.",
            unit="s",
            queries=_percentiles(_E2E),
        ),
        Panel(
            title="Time to the first byte",
            description="As clients saw it, waiting in the router's queue included.",
            unit="s",
            queries=_percentiles(buckets(c.TIME_TO_FIRST_BYTE, DEPLOYMENT)),
        ),
        Panel(
            title="Waiting for an instance",
            description="Of the requests that had to wait in the router's queue.",
            unit="s",
            queries=_percentiles(buckets(c.QUEUE_WAIT, DEPLOYMENT)),
        ),
    ),
)
_LOAD: Final = Row(
    title="Load",
    panels=(
        Panel(
            title="Requests by status",
            description="Requests per second by the status that clients got.",
            unit="reqps",
            stacked=True,
            queries=(Query(expr=rate(of(c.REQUESTS, DEPLOYMENT), "code"), legend="{{code}}"),),
        ),
        Panel(
            title="Waiting in the router",
            description="Requests that wait for an instance.",
            queries=(
                Query(expr=total(of(c.QUEUE_LENGTH, DEPLOYMENT), "deployment"), legend="{{deployment}}"),
            ),
        ),
        Panel(
            title="Running and waiting in the engines",
            description="A queue inside an engine that stays is too high a concurrency, or too few replicas.",
            queries=(
                Query(
                    expr=total(engine("num_requests_running", DEPLOYMENT), "deployment"),
                    legend="{{deployment}} running",
                ),
                Query(
                    expr=total(engine("num_requests_waiting", DEPLOYMENT), "deployment"),
                    legend="{{deployment}} waiting",
                ),
            ),
        ),
        Panel(
            title="Tokens",
            description="Prompt tokens taken in and tokens generated, per second.",
            queries=(
                Query(
                    expr=rate(engine("prompt_tokens_total", DEPLOYMENT), "deployment"),
                    legend="{{deployment}} prompt",
                ),
                Query(
                    expr=rate(engine("generation_tokens_total", DEPLOYMENT), "deployment"),
                    legend="{{deployment}} generated",
                ),
            ),
        ),
        Panel(
            title="Broken answers",
            description="Answers that broke off after they had begun, per second.",
            unit="reqps",
            queries=(Query(expr=rate(of(c.STREAMS_CUT, DEPLOYMENT), "deployment"), legend="{{deployment}}"),),
        ),
        Panel(
            title="Preemptions",
            description="Requests that an engine put back for want of KV cache, per second.",
            queries=(
                Query(
                    expr=rate(engine("num_preemptions_total", DEPLOYMENT), "deployment"),
                    legend="{{deployment}}",
                ),
            ),
        ),
    ),
)
_CACHE: Final = Row(
    title="Cache and cost",
    panels=(
        Panel(
            title="KV cache in use",
            description="Of each instance. Near 100 % requests are preempted.",
            unit="percentunit",
            high=1,
            queries=(Query(expr=f"max by (instance_id) ({either(*_KV)})", legend="{{instance_id}}"),),
        ),
        Panel(
            title="Prefix cache hits",
            description="Share of prompt tokens that were in the cache already.",
            unit="percentunit",
            high=1,
            queries=(
                Query(
                    expr=ratio(
                        rate(engine("prefix_cache_hits_total", DEPLOYMENT), "deployment"),
                        rate(engine("prefix_cache_queries_total", DEPLOYMENT), "deployment"),
                    ),
                    legend="{{deployment}}",
                ),
            ),
        ),
        Panel(
            title="Cost per hour",
            description="GPUs that are held, at `gpu_cost_per_hour` of their nodes.",
            unit="currencyUSD",
            queries=(
                Query(
                    expr=total(
                        f"{of(c.DEPLOYMENT_GPUS, DEPLOYMENT)}"
                        f" * on (node) group_left () max by (node) ({of(c.GPU_COST)})",
                        "deployment",
                    ),
                    legend="{{deployment}}",
                ),
            ),
        ),
    ),
)
DEPLOYMENT_BOARD: Final = Dashboard(
    uid="supervisord-cp-deployment",
    title="vLLM deployment",
    description="Is it fast enough, and if not, why?",
    variables=(Variable(name="deployment", metric=c.REPLICAS_WANTED.full_name, label="deployment"),),
    rows=(_LATENCY, _LOAD, _CACHE),
)
