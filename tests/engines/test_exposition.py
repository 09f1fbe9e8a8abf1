"""The scan finds on any page what a full parse finds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from supervisord_cp.adapters.exposition import samples, values
from tests.engines.samples import recorded

# Names that are beginnings, ends and middles of each other.
NAMES = ("vllm:a", "vllm:a_b", "a", "vllm:a_total", "m:vllm:a", "a_bucket")
LABELS = ("engine", "model_name", "vllm_a")
TEXTS = st.text(st.sampled_from('vllm:a{}=,"\\\n# 0é'), max_size=12)
NUMBERS = st.floats() | st.integers(-(2**53), 2**53).map(float)

Families = list[tuple[str, str, str, list[tuple[list[str], float]]]]


class OneOfEach(Collector):
    """Given families of metrics, one of each kind."""

    def __init__(self, families: Families) -> None:
        self.families = families

    def collect(self):  # type: ignore[no-untyped-def]
        for name, kind, documentation, series in self.families:
            if kind == "histogram":
                family = HistogramMetricFamily(name, documentation, labels=LABELS)
                for labels, value in series:
                    family.add_metric(labels, [("1.0", 1.0), ("+Inf", 2.0)], value)
                yield family
                continue
            shape = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
            plain = shape(name, documentation, labels=LABELS)
            for labels, value in series:
                plain.add_metric(labels, value)
            yield plain


families = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["gauge", "counter", "histogram"]),
        TEXTS,
        st.lists(st.tuples(st.lists(TEXTS, min_size=3, max_size=3), NUMBERS), max_size=3),
    ),
    max_size=5,
)


def same(found: list[float], wanted: list[float]) -> bool:
    return len(found) == len(wanted) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(found, wanted, strict=True)
    )


@given(families)
def test_finds_what_a_full_parse_finds(given_families: Families) -> None:
    registry = CollectorRegistry()
    registry.register(OneOfEach(given_families))
    page = generate_latest(registry).decode()
    parsed = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    for name in {sample.name for sample in parsed} | set(NAMES):
        wanted = [sample for sample in parsed if sample.name == name]
        assert same(values(page, name), [sample.value for sample in wanted])
        assert [labels for labels, _ in samples(page, name)] == [sample.labels for sample in wanted]


@given(st.text(st.sampled_from('ab{}=,"\\\n# 0.1e')), st.text(st.sampled_from("ab"), min_size=1))
def test_any_text_is_survived(page: str, name: str) -> None:
    assert len(values(page, name)) == len(samples(page, name))


def test_every_sample_of_a_real_page() -> None:
    page = recorded("metrics-0.32.txt")
    parsed = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    assert len(parsed) > 400
    for name in {sample.name for sample in parsed}:
        wanted = [(sample.labels, sample.value) for sample in parsed if sample.name == name]
        assert samples(page, name) == wanted


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("a 1", [1.0]),
        ("a 1 1395066363000\n", [1.0]),
        ("a\t1\r\n", [1.0]),
        ("  a{} 1\n", [1.0]),
        ('x 0\na{e="0"} 1\na{e="1",} 2e+06\n', [1.0, 2e6]),
        ('a_total{e="0"} 1 # {trace_id="x"} 0.5\n', []),
        ('a{e="0"} 1 # {trace_id="x"} 0.5\n', [1.0]),
        ('b{e="\\na 1"} 2\n', []),
        ("# HELP a text\n# TYPE a gauge\n", []),
        ("a_b 1\nba 2\na:b 3\n", []),
        ("a +Inf\n", [math.inf]),
        ('a{e="open} 1\n', []),
        ("a\n", []),
        ("a", []),
        ("", []),
    ],
)
def test_lines(page: str, found: list[float]) -> None:
    assert values(page, "a") == found


@pytest.mark.parametrize("text", ["NaN", "nan", "-", "1,5", "zero"])
def test_a_value_that_is_no_number_is_there_and_unknown(text: str) -> None:
    (value,) = values(f"a {text}\n", "a")
    assert math.isnan(value)
