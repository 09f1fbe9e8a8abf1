"""Each alert fires on what it is for and is silent on what looks like it; promtool evaluates both."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

RULES = Path(__file__).parents[2] / "packaging" / "prometheus"
P = "supervisord_cp_"

# alert: (series that make it fire, series that do not, minutes to wait)
CASES: dict[str, tuple[dict[str, str], dict[str, str], int]] = {
    "ErrorBudgetBurns": (
        {
            'requests_total{deployment="c",code="200"}': "0+95x90",
            'requests_total{deployment="c",code="503"}': "0+5x90",
        },
        {
            'requests_total{deployment="c",code="200"}': "0+1000x90",
            'requests_total{deployment="c",code="503"}': "0+1x90",
        },
        75,
    ),
    "FirstByteTooSlow": (
        {
            'time_to_first_byte_seconds_bucket{deployment="c",le="1"}': "0+1x30",
            'time_to_first_byte_seconds_bucket{deployment="c",le="5"}': "0+10x30",
            'time_to_first_byte_seconds_bucket{deployment="c",le="+Inf"}': "0+10x30",
            'slo_target_seconds{deployment="c",kind="ttft"}': "2x30",
        },
        {
            'time_to_first_byte_seconds_bucket{deployment="c",le="1"}': "0+10x30",
            'time_to_first_byte_seconds_bucket{deployment="c",le="5"}': "0+10x30",
            'time_to_first_byte_seconds_bucket{deployment="c",le="+Inf"}': "0+10x30",
            'slo_target_seconds{deployment="c",kind="ttft"}': "2x30",
        },
        15,
    ),
    "NoReplicaReady": (
        {'replicas_wanted{deployment="c"}': "2x20", 'instances{deployment="c",state="backoff"}': "2x20"},
        {'replicas_wanted{deployment="c"}': "2x20", 'instances{deployment="c",state="unknown"}': "1x20"},
        5,
    ),
    "CrashLoop": (
        {'instance_failures_total{deployment="c",instance_id="c-0",node="n"}': "0+1x30"},
        {'instance_failures_total{deployment="c",instance_id="c-0",node="n"}': "0 1 1 1 1 1 1 1 1 1 1 1"},
        14,
    ),
    "EngineStalled": (
        {'instances{deployment="c",state="degraded"}': "1x20"},
        {
            'instances{deployment="c",state="degraded"}': "0x20",
            'instances{deployment="c",state="starting"}': "3x20",
        },
        5,
    ),
    "GpuSick": (
        {'gpu_health{node="n",gpu="0",uuid="u",state="quarantined"}': "1x20"},
        {'gpu_health{node="n",gpu="0",uuid="u",state="healthy"}': "1x20"},
        5,
    ),
    "ScalerHolds": (
        {'scaler_hold{deployment="c",reason="query stale"}': "1x20"},
        {'scaler_hold{deployment="c",reason="query stale"}': "1 1 1 _ _ _ _ _ _ _ _ _ _"},
        10,
    ),
    "CannotPlace": (
        {'unplaceable_replicas{deployment="c"}': "1x20"},
        {'unplaceable_replicas{deployment="c"}': "1 1 0 0 0 0 0 0 0 0 0 0 0"},
        10,
    ),
    "QueueGrows": (
        {'queue_length{deployment="c",router="r"}': "0+5x30"},
        {'queue_length{deployment="c",router="r"}': "50-2x30"},
        15,
    ),
    "AgentSilent": (
        {'report_age_seconds{node="n"}': "0+60x10"},
        {'report_age_seconds{node="n"}': "1x10"},
        5,
    ),
    "AuthenticationFails": ({"auth_failures_total": "0+5x20"}, {"auth_failures_total": "0+1x20"}, 10),
    "PolicyBreakerOpen": (
        {'policy_breaker_open{policy="p",router="r"}': "1x20"},
        {'policy_breaker_open{policy="p",router="r"}': "0x20"},
        5,
    ),
    "PrometheusDoesNotAnswer": (
        {"prometheus_query_failures_total": "0+2x20"},
        {"prometheus_query_failures_total": "0 1 1 1 1 1 1 1 1 1 1 1"},
        10,
    ),
}

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here (Debian package prometheus)"
)


def alerts() -> set[str]:
    lines = (RULES / "alerts.yml").read_text().splitlines()
    return {line.split("alert:")[1].strip() for line in lines if "- alert:" in line}


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    assert alerts() == set(CASES)


def run(tmp_path: Path, group: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    document = {
        "rule_files": [str(RULES / "recording.yml"), str(RULES / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", **group}],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(document))  # JSON is YAML
    return subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60
    )


def series(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": P + name, "values": value} for name, value in values.items()]


def firing(tmp_path: Path, alert: str, values: dict[str, str], minutes: int) -> bool:
    """Whether the alert fires: promtool is told that it does not, and objects if it does."""
    expectation = {"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": []}
    ended = run(tmp_path, {"input_series": series(values), "alert_rule_test": [expectation]})
    assert ended.returncode == 0 or f"alertname: {alert}" in ended.stdout + ended.stderr, ended.stderr
    return ended.returncode != 0


@promtool
@pytest.mark.parametrize("alert", sorted(CASES))
def test_alert(tmp_path: Path, alert: str) -> None:
    fires, silent, minutes = CASES[alert]
    assert firing(tmp_path, alert, fires, minutes)
    assert not firing(tmp_path, alert, silent, minutes)


@promtool
def test_the_shipped_configuration_is_valid() -> None:
    for command in (("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml", "recording.yml")):
        ended = subprocess.run(
            ["promtool", *command], cwd=RULES, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
