"""Values of the Python API refuse what cannot be."""

from typing import Any

import pytest

from supervisord_cp.sdk.types import ExecutionInstance, PerformanceMetrics, RequestMetadata, RequestStatus


def instance(**more: Any) -> ExecutionInstance:
    return ExecutionInstance(**{"instance_id": "a", "host": "h", "port": 8000, "model_name": "m", **more})


def test_gpus_are_the_product_of_the_sizes_unless_given() -> None:
    assert instance().gpus == 1
    sizes = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2, "data_parallel_size": 3}
    assert instance(**sizes).gpus == 24
    assert instance(**sizes, gpu_count=8).gpus == 8


@pytest.mark.parametrize(
    ("host", "scheme", "url"),
    [
        ("localhost", "http", "http://localhost:8000"),
        ("192.168.1.100", "https", "https://192.168.1.100:8000"),
        ("fe80::1", "http", "http://[fe80::1]:8000"),
    ],
)
def test_address(host: str, scheme: str, url: str) -> None:
    assert instance(host=host, scheme=scheme).url == url


@pytest.mark.parametrize(
    "wrong",
    [
        {"instance_id": ""},
        {"instance_id": "a\r\nb"},
        {"instance_id": "ä"},
        {"host": ""},
        {"host": "http://h"},
        {"host": "user@h"},
        {"port": 0},
        {"port": 65536},
        {"model_name": ""},
        {"scheme": "ftp"},
        {"tensor_parallel_size": 0},
        {"gpu_count": 0},
        {"max_concurrent_requests": -1},
        {"weight": 0.0},
        {"weight": float("nan")},
    ],
)
def test_instances_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("_size").replace("tensor_", "")):
        instance(**wrong)


def test_an_api_key_is_not_shown() -> None:
    assert "geheim" not in repr(instance(api_key="geheim"))


@pytest.mark.parametrize(("limit", "active", "free"), [(0, 5, None), (4, 1, 3), (4, 6, 0)])
def test_free_slots(limit: int, active: int, free: int | None) -> None:
    assert instance(max_concurrent_requests=limit, active_requests=active).free_slots == free


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"prompt": "p", "messages": []},
        {"prompt": "p", "request_id": "two\nlines"},
        {"prompt": "p", "request_id": "x" * 129},
        {"prompt": "p", "request_id": " x"},
        {"prompt": "p", "session_id": "ä"},
        {"prompt": "p", "max_tokens": -1},
        {"prompt": "p", "slo_deadline_ms": -1},
        {"prompt": "p", "cost_budget": float("nan")},
        {"prompt": "p", "extra": {"stream": True}},
    ],
)
def test_requests_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"prompt|_id|_tokens|deadline|budget|stream"):
        RequestMetadata(**wrong)


def test_requests_get_ids_of_their_own() -> None:
    assert RequestMetadata(prompt="p").request_id != RequestMetadata(prompt="p").request_id


def test_deadline_is_on_the_clock_of_submission() -> None:
    assert RequestMetadata(prompt="p", slo_deadline_ms=1500).deadline is None
    assert RequestMetadata(prompt="p", submitted_at=10.0).deadline is None
    assert RequestMetadata(prompt="p", slo_deadline_ms=1500, submitted_at=10.0).deadline == 11.5


def test_statuses_that_are_over() -> None:
    assert {status for status in RequestStatus if status.over} == {"completed", "failed", "cancelled"}


def test_compliance() -> None:
    assert PerformanceMetrics().slo_compliance_rate == 1.0
    assert PerformanceMetrics(slo_requests=4, slo_violations=1).slo_compliance_rate == 0.75
