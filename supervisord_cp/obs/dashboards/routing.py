"""Routing: what does the router do with requests, and what does it cost them?"""

from typing import Final

from supervisord_cp.obs import catalog as c
from supervisord_cp.obs.dashboards.grafana import Dashboard, Panel, Query, Row, Variable
from supervisord_cp.obs.dashboards.promql import (
    DEPLOYMENT,
    buckets,
    engine,
    is_,
    of,
    quantile,
    rate,
    ratio,
    total,
)

_WORK: Final = total(of(c.BOOKED_TOKENS, DEPLOYMENT), "deployment", "instance_id")
_IMBALANCE: Final = (
    ratio(f"max by (deployment) ({_WORK})", f"avg by (deployment) ({_WORK})")
    + f" or avg by (deployment) ({_WORK}) * 0 + 1"
)
_REQUESTS: Final = Row(
    title="Requests",
    panels=(
        Panel(
            title="The router's own time",
            description="From a request's last byte to its dispatch, waiting left out.",
            unit="s",
            queries=tuple(
                Query(expr=quantile(share, buckets(c.OVERHEAD, DEPLOYMENT)), legend=f"p{share * 100:g}")
                for share in (0.5, 0.99)
            ),
        ),
        Panel(
            title="Sent again",
            description="Requests that were sent to another instance before their first byte, per second.",
            unit="reqps",
            queries=(Query(expr=f"{rate(of(c.RETRIES), 'reason')} or vector(0)", legend="{{reason}}"),),
        ),
        Panel(
            title="Refused",
            description="Requests that the router answered with an error of its own, per second.",
            unit="reqps",
            stacked=True,
            queries=(Query(expr=f"{rate(of(c.REJECTED), 'reason')} or vector(0)", legend="{{reason}}"),),
        ),
    ),
)
_KNOWN: Final = 'outcome=~"hit|moved"'
_BALANCE: Final = Row(
    title="Balance",
    panels=(
        Panel(
            title="Open requests by instance",
            description="Lines that lie together are an even load.",
            width=6,
            queries=(
                Query(
                    expr=total(of(c.INFLIGHT, DEPLOYMENT), "deployment", "instance_id"),
                    legend="{{instance_id}}",
                ),
            ),
        ),
        Panel(
            title="Imbalance",
            description="The busiest instance's work over the average: 1 is even. "
            "Affinity and prefix routing buy cache hits with some of it.",
            width=6,
            queries=(
                Query(
                    expr=_IMBALANCE,
                    legend="{{deployment}}",
                ),
            ),
        ),
        Panel(
            title="Affinity hits",
            description="Of the requests whose session or prefix was on an instance before: the share that "
            "went there again. The others were moved, by the load bound or because it was full or gone.",
            unit="percentunit",
            high=1,
            width=6,
            queries=(
                Query(
                    expr=ratio(
                        rate(of(c.AFFINITY, is_(outcome="hit"), DEPLOYMENT), "deployment", "policy"),
                        rate(of(c.AFFINITY, _KNOWN, DEPLOYMENT), "deployment", "policy"),
                    ),
                    legend="{{deployment}} {{policy}}",
                ),
            ),
        ),
        Panel(
            title="Prefix cache hits by instance",
            description="What affinity and prefix routing are for: prompt tokens that engines had cached.",
            unit="percentunit",
            high=1,
            width=6,
            queries=(
                Query(
                    expr=ratio(
                        rate(engine("prefix_cache_hits_total", DEPLOYMENT), "instance_id"),
                        rate(engine("prefix_cache_queries_total", DEPLOYMENT), "instance_id"),
                    ),
                    legend="{{instance_id}}",
                ),
            ),
        ),
    ),
)
_POLICIES: Final = Row(
    title="Policies",
    panels=(
        Panel(
            title="Time of a call",
            description="Average of each policy.",
            unit="s",
            queries=(
                Query(
                    expr=ratio(
                        rate(c.POLICY_SECONDS.full_name + "_sum", "policy"),
                        rate(c.POLICY_SECONDS.full_name + "_count", "policy"),
                    ),
                    legend="{{policy}}",
                ),
            ),
        ),
        Panel(
            title="Failures and open breakers",
            description="While a breaker is open, others decide in the policy's place.",
            queries=(
                Query(expr=rate(of(c.POLICY_FAILURES), "policy"), legend="{{policy}} failures per second"),
                Query(expr=f"max by (policy) ({of(c.POLICY_BREAKER)})", legend="{{policy}} breaker"),
            ),
        ),
        Panel(
            title="Shadows that disagree",
            description="Share of decisions that a shadow policy would have made otherwise.",
            unit="percentunit",
            high=1,
            queries=(
                Query(
                    expr=ratio(
                        rate(of(c.SHADOW_DECISIONS, is_(agreed="false"), DEPLOYMENT), "deployment", "policy"),
                        rate(of(c.SHADOW_DECISIONS, DEPLOYMENT), "deployment", "policy"),
                    ),
                    legend="{{deployment}} {{policy}}",
                ),
            ),
        ),
    ),
)
_ROUTERS: Final = Row(
    title="Routers",
    panels=(
        Panel(
            title="Client connections",
            description="Open now.",
            queries=(Query(expr=of(c.CONNECTIONS), legend="{{router}}"),),
        ),
        Panel(
            title="Instances found dead",
            description="Taken out by the router itself, before central knew.",
            queries=(Query(expr=of(c.EJECTED), legend="{{router}}"),),
        ),
        Panel(
            title="Snapshot in use",
            description="Lines that drift apart are a router that central cannot reach.",
            queries=(Query(expr=of(c.SNAPSHOT), legend="{{router}}"),),
        ),
    ),
)
ROUTING: Final = Dashboard(
    uid="supervisord-cp-routing",
    title="vLLM routing",
    description="What does the router do with requests, and what does it cost them?",
    variables=(Variable(name="deployment", metric=c.REPLICAS_WANTED.full_name, label="deployment"),),
    rows=(_REQUESTS, _BALANCE, _POLICIES, _ROUTERS),
)
