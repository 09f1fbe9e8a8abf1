"""The reference of all metrics, generated from the catalogue: `python -m supervisord_cp.obs.reference`."""

import sys
from collections.abc import Iterable
from typing import Final

from supervisord_cp.obs.catalog import AGENT, CENTRAL, ROUTER
from supervisord_cp.obs.metric import MetricSpec

_INTRODUCTION: Final = """\
# Metrics

Prometheus finds everything to scrape at `GET /api/v1/prometheus/targets` of the control listener (http_sd):

```yaml
scrape_configs:
  - job_name: supervisord-cp
    http_sd_configs:
      - url: http://127.0.0.1:9001/api/v1/prometheus/targets
```

Engines keep their own `vllm:*` names; discovery adds the labels `deployment`, `instance_id` and `node`, so
vLLM's published dashboards work as they are. Our own metrics begin with `supervisord_cp_`, have base units,
and counters end in `_total`.

No label has a value that a client may choose freely: `deployment` is one of the configuration's, "" for
requests that belong to none, and `code` a status of HTTP.
"""
_ROUTERS: Final = """\
A scrape of central asks every connected router, so it never depends on which process answers. With 1,000
engines, 20 deployments and four routers it costs central 140 ms of CPU, and the page has 3.1 MB
([measured](../benchmarks/README.md))."""
_SECTIONS: Final[tuple[tuple[str, str, tuple[MetricSpec, ...]], ...]] = (
    ("Central (`/metrics` of the control listener)", "", CENTRAL),
    (
        "Routers (through central, with the label `router`)",
        _ROUTERS,
        ROUTER,
    ),
    ("Agents (`/metrics` of `[agent] listen`)", "There when central is not.", AGENT),
)


def reference() -> str:
    """The whole document, in Markdown."""
    parts = [_INTRODUCTION]
    for heading, text, metrics in _SECTIONS:
        parts.append("\n".join([f"## {heading}", "", *([text, ""] if text else []), *_rows(metrics)]) + "\n")
    return "\n".join(parts)


def _rows(metrics: Iterable[MetricSpec]) -> Iterable[str]:
    yield "| metric | type | labels | what |"
    yield "|---|---|---|---|"
    for metric in metrics:
        yield f"| `{metric.full_name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
