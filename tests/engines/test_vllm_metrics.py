"""The figures of an engine, over vLLM's releases."""

import pytest

from supervisord_cp.engines.vllm_metrics import read_load
from supervisord_cp.model.instance import EngineLoad
from tests.engines.samples import recorded


def test_a_real_page() -> None:
    assert read_load(recorded("metrics-0.32.txt")) == EngineLoad(
        running=0,
        waiting=0,
        kv_cache_usage=0.0,
        prompt_tokens_total=24.0,
        generation_tokens_total=120.0,
        preemptions_total=0.0,
        iterations_total=120.0,
        ttft_total_s=pytest.approx(0.0423, abs=1e-4),
        ttft_count=3.0,
        itl_total_s=pytest.approx(0.3271, abs=1e-4),
        itl_count=117.0,
        asleep=False,
    )


def test_nothing_is_unknown_and_not_zero() -> None:
    assert read_load("") == EngineLoad()
    assert read_load("# HELP vllm:num_requests_running Number of requests.\n") == EngineLoad()


@pytest.mark.parametrize(
    ("page", "usage"),
    [
        ('vllm:gpu_cache_usage_perc{model_name="m"} 0.25\n', 0.25),  # up to 0.9
        (
            'vllm:gpu_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="0"} 0.5\n',
            0.5,
        ),  # 0.9 to 0.11: both
        ('vllm:kv_cache_usage_perc{engine="0"} 0.5\n', 0.5),
        ('vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 1.0\n', 0.75),
        ('vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} NaN\n', None),
        ("vllm:cpu_cache_usage_perc 0.5\n", None),
    ],
)
def test_kv_cache_usage(page: str, usage: float | None) -> None:
    assert read_load(page).kv_cache_usage == usage


@pytest.mark.parametrize(
    ("series", "running"),
    [
        (["3.0"], 3),
        (["3.0", "4.0", "0.0"], 7),  # ranks of data parallelism
        (["3.0", "NaN"], None),
        (["NaN"], None),
        (["+Inf"], None),
        (["many"], None),
        (["1e+30"], 1 << 40),  # more than there can be
    ],
)
def test_counts_are_summed_over_ranks(series: list[str], running: int | None) -> None:
    page = "".join(
        f'vllm:num_requests_running{{engine="{rank}",model_name="m"}} {value}\n'
        for rank, value in enumerate(series)
    )
    assert read_load(page).running == running


def test_names_that_begin_alike_are_not_added() -> None:
    page = (
        'vllm:num_requests_waiting{engine="0"} 2.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0\n'
        'vllm:prompt_tokens_total{engine="0"} 5.0\n'
        'vllm:prompt_tokens_by_source_total{engine="0",source="local_compute"} 5.0\n'
        'vllm:request_generation_tokens_sum{engine="0"} 7.0\n'
    )
    load = read_load(page)
    assert (load.waiting, load.prompt_tokens_total, load.generation_tokens_total) == (2, 5.0, None)


def test_each_rank_of_data_parallelism_is_told_apart() -> None:
    names = ("num_requests_running", "iteration_tokens_total_count", "prompt_tokens_total")
    page = "".join(
        f'vllm:{name}{{engine="{rank}",model_name="m"}} {rank + 10 * number}\n'
        for number, name in enumerate(names)
        for rank in (1, 0)
    )
    first, second = read_load(page).ranks
    assert (first.running, first.iterations_total, first.prompt_tokens_total) == (0, 10.0, 20.0)
    assert (second.running, second.iterations_total, second.generation_tokens_total) == (1, 11.0, None)
    assert read_load(recorded("metrics-0.32.txt")).ranks == ()


# What releases expose: (release, KV cache, time between tokens, requests that wait told by reason).
RELEASES = [
    ("0.9.2", ("gpu_cache_usage_perc", "kv_cache_usage_perc"), ("time_per_output_token_seconds",), False),
    (
        "0.10.2",
        ("gpu_cache_usage_perc", "kv_cache_usage_perc"),
        ("time_per_output_token_seconds", "inter_token_latency_seconds"),
        False,
    ),
    (
        "0.11.2",
        ("gpu_cache_usage_perc", "kv_cache_usage_perc"),
        ("time_per_output_token_seconds", "inter_token_latency_seconds"),
        False,
    ),
    (
        "0.14.1",
        ("kv_cache_usage_perc",),
        ("time_per_output_token_seconds", "inter_token_latency_seconds"),
        False,
    ),
    ("0.19.1", ("kv_cache_usage_perc",), ("inter_token_latency_seconds",), False),
    ("0.22.1", ("kv_cache_usage_perc",), ("inter_token_latency_seconds",), True),
    ("0.33.0", ("kv_cache_usage_perc",), ("inter_token_latency_seconds",), True),
]


@pytest.mark.parametrize(("release", "cache", "between", "by_reason"), RELEASES)
def test_every_release_says_the_same(release, cache, between, by_reason) -> None:
    labels = '{engine="0",model_name="m"}'
    lines = [
        f"vllm:num_requests_running{labels} 3.0",
        f"vllm:num_requests_waiting{labels} 7.0",
        f"vllm:prompt_tokens_total{labels} 1000.0",
        f"vllm:generation_tokens_total{labels} 500.0",
        f"vllm:num_preemptions_total{labels} 2.0",
        f"vllm:time_to_first_token_seconds_bucket{labels} 5.0",
        f"vllm:time_to_first_token_seconds_sum{labels} 4.5",
        f"vllm:time_to_first_token_seconds_count{labels} 5.0",
        *(f"vllm:{name}{labels} 0.25" for name in cache),
        *(f"vllm:{name}_sum{labels} 10.0" for name in between),
        *(f"vllm:{name}_count{labels} 495.0" for name in between),
    ]
    if by_reason:
        for reason, value in (("capacity", 5.0), ("deferred", 2.0)):
            lines.append(
                f'vllm:num_requests_waiting_by_reason{{engine="0",model_name="m",reason="{reason}"}} {value}'
            )
    load = read_load("\n".join(lines) + "\n")
    assert load == EngineLoad(
        running=3,
        waiting=5 if by_reason else 7,
        kv_cache_usage=0.25,
        prompt_tokens_total=1000.0,
        generation_tokens_total=500.0,
        preemptions_total=2.0,
        ttft_total_s=4.5,
        ttft_count=5.0,
        itl_total_s=10.0,
        itl_count=495.0,
    ), release
