"""PromQL that panels share."""

from typing import Final

from supervisord_cp.obs.metric import MetricSpec

DEPLOYMENT: Final = 'deployment=~"$deployment"'
NODE: Final = 'node=~"$node"'
WINDOW: Final = "$__rate_interval"


def of(metric: MetricSpec, *matchers: str) -> str:
    """A selector."""
    return f"{metric.full_name}{{{','.join(matchers)}}}" if matchers else metric.full_name


def is_(**labels: str) -> str:
    """A matcher of exact values."""
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def total(inner: str, *by: str) -> str:
    """A sum over all other labels."""
    return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"


def rate(selector: str, *by: str) -> str:
    """A counter's increase per second."""
    return total(f"rate({selector}[{WINDOW}])", *by)


def quantile(share: float, bucket: str, *by: str) -> str:
    """Of a histogram's buckets: `bucket` is a selector whose name ends in `_bucket`."""
    return f"histogram_quantile({share:g}, {rate(bucket, 'le', *by)})"


def buckets(metric: MetricSpec, *matchers: str) -> str:
    """A selector of a histogram's buckets."""
    return f"{metric.full_name}_bucket{{{','.join(matchers)}}}"


def engine(name: str, *matchers: str) -> str:
    """A selector of one of vLLM's own metrics."""
    return f"vllm:{name}{{{','.join(matchers)}}}"


def either(*selectors: str) -> str:
    """The first that has data: vLLM renames metrics."""
    return " or ".join(f"({one})" for one in selectors)


def ratio(part: str, whole: str) -> str:
    """Nothing, rather than NaN, where the whole is zero."""
    return f"{part} / ({whole} > 0)"
