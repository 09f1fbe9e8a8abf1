"""The metrics page has the recorded names and labels and the engine's own figures."""

import asyncio
import re
from importlib import resources

import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisord_cp.engines.fake.metrics import MetricsPage, PageFacts, recorded_bounds
from supervisord_cp.engines.fake.scheduler import Job, Limits, Scheduler
from supervisord_cp.engines.fake.telemetry import Telemetry
from tests.engines_fake.serving import QUICK, served

RECORDED = resources.files("supervisord_cp.engines.fake").joinpath("data/metrics_page.txt").read_text()


def page(version: str = "0.32.0", model: str = "MODEL", **cache_config: str) -> MetricsPage:
    return MetricsPage(PageFacts(version=version, model_name=model, created=1.5, cache_config=cache_config))


def names(text: str) -> list[str]:
    return [line.rpartition(" ")[0] for line in text.splitlines()]


def sample(text: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name == name and labels.items() <= found.labels.items():
                return found.value
    raise AssertionError(f"no {name} {labels}")


def test_the_page_has_every_line_of_the_recorded_one() -> None:
    assert names(page().render({})) == names(RECORDED)
    assert len(RECORDED) > 70_000


def test_every_figure_has_its_place() -> None:
    figures = Telemetry().figures(Scheduler(Limits()), None)
    assert not {key for key in figures if key not in page().keys}


def test_figures_and_labels_are_rendered() -> None:
    telemetry, scheduler = Telemetry(), Scheduler(Limits(block_size=16, capacity_tokens=160))
    scheduler.add(Job(prompt_tokens=70))
    scheduler.begin_step()
    telemetry.generation_tokens = 12
    telemetry.observe("time_to_first_token_seconds", 0.03)
    text = page(model='a"b\\', block_size="7").render(telemetry.figures(scheduler, 1))
    assert sample(text, "vllm:num_requests_running", model_name='a"b\\', engine="0") == 1
    assert sample(text, "vllm:kv_cache_usage_perc") == 0.5
    assert sample(text, "vllm:generation_tokens_total") == 12
    assert sample(text, "vllm:time_to_first_token_seconds_bucket", le="0.02") == 0
    assert sample(text, "vllm:time_to_first_token_seconds_bucket", le="0.04") == 1
    assert sample(text, "vllm:time_to_first_token_seconds_bucket", le="+Inf") == 1
    assert sample(text, "vllm:time_to_first_token_seconds_sum") == 0.03
    assert sample(text, "vllm:engine_sleep_state", sleep_state="weights_offloaded") == 1
    assert sample(text, "vllm:cache_config_info", block_size="7") == 1
    assert sample(text, "process_start_time_seconds") == 1.5


@pytest.mark.parametrize(
    ("version", "there", "missing"),
    [
        ("0.8.5", ["gpu_cache_usage_perc", "time_per_output_token_seconds"], ["kv_cache_usage_perc"]),
        (
            "0.9.1",
            ["gpu_cache_usage_perc", "gpu_prefix_cache_hits"],
            ["kv_cache_usage_perc", "inter_token_latency"],
        ),
        ("0.10.2", ["gpu_cache_usage_perc", "kv_cache_usage_perc"], ["num_requests_waiting_by_reason"]),
        (
            "0.28.0",
            ["kv_cache_usage_perc", "inter_token_latency_seconds"],
            ["gpu_cache", "time_per_output_token"],
        ),
        ("0.33.1", ["kv_cache_usage_perc", "num_requests_waiting_by_reason"], ["gpu_cache"]),
    ],
)
def test_older_releases_have_their_names(version: str, there: list[str], missing: list[str]) -> None:
    scheduler = Scheduler(Limits(block_size=16, capacity_tokens=160))
    scheduler.add(Job(prompt_tokens=70))
    scheduler.begin_step()
    text = page(version).render(Telemetry().figures(scheduler, None))
    assert all(re.search(rf"^vllm:{name}", text, re.MULTILINE) for name in there)
    assert not any(re.search(rf"^vllm:{name}", text, re.MULTILINE) for name in missing)
    assert sample(text, f"vllm:{next(name for name in there if 'cache_usage' in name)}") == 0.5
    for name in (
        "num_requests_running",
        "prompt_tokens_total",
        "generation_tokens_total",
        "num_preemptions_total",
    ):
        assert re.search(rf"^vllm:{name}{{", text, re.MULTILINE)


def test_bounds_are_the_recorded_ones() -> None:
    bounds = recorded_bounds()
    assert bounds["vllm:time_to_first_token_seconds"][:3] == (0.001, 0.005, 0.01)
    assert all(tuple(sorted(found)) == found for found in bounds.values())


@pytest.mark.asyncio
async def test_the_figures_follow_the_requests() -> None:
    async with served("--served-model-name", "tiny", *QUICK) as engine:
        prompt = " ".join(["word"] * 40)
        for _ in range(2):
            await engine.post("/v1/completions", {"prompt": prompt, "max_tokens": 5})
        await asyncio.gather(
            engine.post("/v1/completions", {"prompt": "x", "max_tokens": 500, "n": 2}),
            engine.post("/v1/completions", {"prompt": "x", "stop": [" the"], "max_tokens": 500}),
        )
        response = await engine.get("/metrics")
    text = response.body.decode()
    assert response.header("content-type") == "text/plain; version=1.0.0; charset=utf-8"
    tokens = sample(text, "vllm:generation_tokens_total")
    assert sample(text, "vllm:request_success_total", finished_reason="length") == 2
    assert sample(text, "vllm:request_success_total", finished_reason="stop") == 3
    assert sample(text, "vllm:e2e_request_latency_seconds_count") == 5
    assert sample(text, "vllm:time_to_first_token_seconds_count") == 5
    assert sample(text, "vllm:inter_token_latency_seconds_count") == tokens - 5
    assert (
        sample(text, "vllm:prompt_tokens_total") == sample(text, "vllm:prefix_cache_queries_total") == 80 + 3
    )
    assert sample(text, "vllm:prefix_cache_hits_total") == 32
    assert sample(text, "vllm:iteration_tokens_total_count") > 10
    assert sample(text, "vllm:num_requests_running") == sample(text, "vllm:kv_cache_usage_perc") == 0
