"""The `/metrics` page: a recorded page of vLLM 0.32 with this engine's figures in it.

A figure's key is its sample's name of 0.32 and its labels without `engine` and `model_name`, such as
`vllm:request_success_total{finished_reason="stop"}`.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import inf
from typing import Final

RECORDED_VERSION: Final = "0.32.0"
CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"

_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_COMMON_LABELS: Final = re.compile(r'(?:engine|model_name)="[^"]*",?')
_BOUND: Final = re.compile(r'le="([^"]+)"')
_OLD_NAMES: Final = {
    "vllm:kv_cache_usage_perc": "vllm:gpu_cache_usage_perc",
    "vllm:prefix_cache_hits": "vllm:gpu_prefix_cache_hits",
    "vllm:prefix_cache_queries": "vllm:gpu_prefix_cache_queries",
    "vllm:inter_token_latency_seconds": "vllm:time_per_output_token_seconds",
}


class Histogram:
    """Counts of observations by upper bound."""

    __slots__ = ("_counts", "bounds", "count", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.sum += value

    def samples(self, name: str) -> Iterator[tuple[str, float]]:
        """Keys and figures of the exposition, buckets cumulated."""
        total = 0
        for bound, count in zip((*map(float, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}}', total
        yield f"{name}_count", self.count
        yield f"{name}_sum", self.sum


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """What a page says about the engine that never changes."""

    version: str
    model_name: str
    created: float
    """Wall-clock seconds at which the engine started."""
    cache_config: Mapping[str, str]
    """Labels of `vllm:cache_config_info` that differ from the recorded ones."""


class MetricsPage:
    """A page of one engine, ready to take figures."""

    def __init__(self, facts: PageFacts) -> None:
        self._pieces: list[tuple[str, str]] = []
        """Text and the key of the figure that follows it; the last key is ""."""
        pending: list[str] = []
        for text, key in _lines(facts):
            pending.append(text)
            if key:
                self._pieces.append(("".join(pending), key))
                pending = []
        self._tail = "".join(pending)

    @property
    def keys(self) -> frozenset[str]:
        """The figures that the page can show."""
        return frozenset(key for _, key in self._pieces)

    def render(self, figures: Mapping[str, float]) -> str:
        """The page; a figure that is not given is 0."""
        parts = []
        for text, key in self._pieces:
            parts.append(text)
            parts.append(f"{float(figures.get(key, 0.0))!r}\n")
        parts.append(self._tail)
        return "".join(parts)


def recorded_bounds() -> dict[str, tuple[float, ...]]:
    """The finite bucket bounds of each of vLLM's histograms on the recorded page, by its name."""
    bounds: dict[str, dict[float, None]] = {}
    for line in _data("metrics_page.txt"):
        name, bucket, labels = line.partition("_bucket{")
        if bucket and name.startswith("vllm:") and (match := _BOUND.search(labels)):
            bounds.setdefault(name, {})[float(match.group(1))] = None
    return {name: tuple(bound for bound in found if bound != inf) for name, found in bounds.items()}


def parse_version(text: str) -> tuple[int, ...]:
    """`0.9.2` as (0, 9, 2); what is not a number ends it."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _lines(facts: PageFacts) -> Iterator[tuple[str, str]]:
    """Lines of the page with their line ends, or the beginning of a sample and the key of its figure."""
    keep = _Families(facts.version)
    for line in _data("metrics_page.txt"):
        match = _SAMPLE.match(line)
        family = line.split(" ")[2] if match is None else match.group(1)
        for name in keep.names(family):
            renamed = line.replace(family, name, 1)
            if match is None:
                yield f"{renamed}\n", ""
            else:
                yield _sample(renamed, match, facts)


def _sample(line: str, match: re.Match[str], facts: PageFacts) -> tuple[str, str]:
    name, labels, _ = match.groups()
    text = line.rpartition(" ")[0].replace('model_name="MODEL"', f'model_name="{_escaped(facts.model_name)}"')
    if name == "vllm:cache_config_info":
        for label, value in facts.cache_config.items():
            text = re.sub(f'(?<=[{{,]){label}="[^"]*"', f'{label}="{value}"', text)
        return f"{text} 1.0\n", ""
    if name.endswith("_created") or name == "process_start_time_seconds":
        return f"{text} {facts.created!r}\n", ""
    if name.startswith("vllm:"):
        own = _COMMON_LABELS.sub("", labels or "").rstrip(",")
        return f"{text} ", f"{name}{{{own}}}" if own else name
    return f"{line}\n", ""


class _Families:
    """Which names of the recorded page a release has, and under which older names besides."""

    def __init__(self, version: str) -> None:
        self._version = parse_version(version)
        self._is_recorded = self._version[:2] >= parse_version(RECORDED_VERSION)[:2]
        rows = (line.split(" ") for line in _data("metric_versions.txt")[1:])
        self._ranges = {name: (parse_version(first), parse_version(last)) for name, first, last in rows}

    def names(self, family: str) -> tuple[str, ...]:
        if self._is_recorded or not family.startswith("vllm:"):
            return (family,)
        base = next((name for name in self._bases(family) if name in self._ranges), family)
        suffix = family.removeprefix(base)
        candidates = (base, _OLD_NAMES.get(base, base))
        return tuple(dict.fromkeys(f"{name}{suffix}" for name in candidates if self._has(name)))

    @staticmethod
    def _bases(family: str) -> Iterator[str]:
        yield family
        for suffix in ("_bucket", "_count", "_sum", "_created", "_total"):
            if family.endswith(suffix):
                yield family.removesuffix(suffix)

    def _has(self, name: str) -> bool:
        first, last = self._ranges.get(name, ((), (9999,)))
        return first <= self._version <= last


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _data(name: str) -> list[str]:
    return resources.files("supervisord_cp.engines.fake").joinpath("data", name).read_text().splitlines()
