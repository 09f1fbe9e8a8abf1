"""Commands that show the fleet."""

import json

import pytest

from supervisord_cp.cli import sheets
from supervisord_cp.cli.render import print_sheet
from tests.cli.conftest import Run
from tests.cli.samples import CHAT, CPU_NODE, CRASHED, GPU, GPU_NODE, READY, STALLED, STARTING, STATUS
from tests.cli.stub import StubCentral


def rows(output: str) -> list[list[str]]:
    """Lines as cells: columns stand at least two spaces apart in samples whose cells have single ones."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in output.splitlines()]


def test_status_of_a_healthy_fleet(run: Run, central: StubCentral) -> None:
    central.says("status", STATUS)
    result = run("status")
    assert result.exit_code == 0
    first, _, header, row = result.stdout.splitlines()
    assert first == "fleet OK   1 node, 2 instances (2 ready), 1 router, central 0.1.0 up 1m30s"
    assert header.split() == [
        "DEPLOYMENT",
        "MODEL",
        "READY",
        "WANTED",
        "STARTING",
        "DRAINING",
        "MIN..MAX",
        "SCALER",
        "WHY",
    ]
    assert row.split() == ["chat", "llama-8b", "2", "2", "0", "0", "2..2", "fixed", "fixed", "at", "2"]


@pytest.mark.parametrize("output", ["table", "json"])
def test_status_exits_3_when_something_is_not_healthy(run: Run, central: StubCentral, output: str) -> None:
    central.says("status", STATUS | {"healthy": False, "problems": ["chat: 1 of 2 ready (1 starting)"]})
    result = run("status", "-o", output)
    assert result.exit_code == 3
    assert "chat: 1 of 2 ready (1 starting)" in result.stdout


def test_a_fleet_without_anything_can_be_shown(run: Run, central: StubCentral) -> None:
    central.says("status", {"healthy": True})
    result = run("status")
    assert result.exit_code == 0
    assert result.stdout == "fleet OK   0 nodes, 0 instances, 0 routers, central ? up -\n"


def test_instances(run: Run, central: StubCentral) -> None:
    central.says("instances", [READY, STARTING, CRASHED, STALLED])
    result = run("instances")
    assert result.exit_code == 0
    shown = rows(result.stdout)
    assert shown[0] == [
        "INSTANCE",
        "STATE",
        "NODE:DEVICES",
        "PID",
        "UPTIME",
        "RUN",
        "WAIT",
        "KV",
        "RESTARTS",
        "WHY",
    ]
    place = "gpu-a:GPU-5c1b2d3e"
    assert shown[1] == ["chat-0", "ready", place, "41022", "2h01m", "9", "0", "61%", "0"]
    assert shown[2][-1] == "loading weights, about 41s left"
    assert shown[2][4:8] == ["-", "-", "-", "-"]
    assert shown[3] == [
        "chat-2", "crashed", place, "-", "-", "-", "-", "-", "4", "last exit signal 9 (killed), 12s ago",
    ]  # fmt: skip
    assert shown[4][1] == "degraded(stalled)"
    assert shown[4][-1] == "requests run but no token was made for 30 s"


@pytest.mark.parametrize("what", ["nodes", "gpus", "instances", "deployments"])
def test_json_is_what_central_says(run: Run, central: StubCentral, what: str) -> None:
    value = [{"name": "x", "naïve": [1, None]}]
    central.says(what, value)
    result = run(what, "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == value


@pytest.mark.parametrize("what", ["nodes", "gpus", "instances", "deployments"])
def test_an_empty_list_is_a_message_and_no_table(run: Run, central: StubCentral, what: str) -> None:
    central.says(what, [])
    result = run(what)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("no ")


def test_nodes(run: Run, central: StubCentral) -> None:
    central.says("nodes", [GPU_NODE, CPU_NODE | {"cordoned": True}])
    shown = rows(run("nodes").stdout)
    assert shown == [
        ["NODE", "ZONE", "STATE", "DEVICES", "FREE", "REPORT"],
        ["gpu-a", "rack-1", "connected", "1 GPU", "0", "0.4s ago"],
        ["laptop", "-", "connected, cordoned", "2 slots", "1", "0.4s ago"],
    ]


def test_gpus(run: Run, central: StubCentral) -> None:
    central.says("gpus", [{"node": "gpu-a", **GPU}])
    shown = rows(run("gpus").stdout)
    assert shown[1] == [
        "gpu-a", "0", "GPU-5c1b2d3e", "NVIDIA H200", "75.0 GiB / 150 GiB", "50%", "61 C", "-", "healthy",
        "foreign", "777 alice python train.py 1.0 GiB",
    ]  # fmt: skip


def test_deployments_tell_what_cannot_be_placed(run: Run, central: StubCentral) -> None:
    central.says(
        "deployments", [CHAT | {"cannot_place": [{"reason": "no_free_device", "message": "no free device"}]}]
    )
    assert rows(run("deployments").stdout)[1][-1] == "cannot place: no free device; fixed at 2"


def test_deployments_tell_what_replicas_wait_for(run: Run, central: StubCentral) -> None:
    waits = {
        "reason": "awaiting_port",
        "message": "waiting for a free port",
        "instances": ["chat-1", "chat-2"],
    }
    central.says("deployments", [CHAT | {"gated": [waits]}])
    assert rows(run("deployments").stdout)[1][-1] == "2 not started: waiting for a free port; fixed at 2"


@pytest.mark.parametrize(
    ("item", "state"),
    [
        (CHAT | {"ready": 2}, "ready"),
        (CHAT, "starting"),
        (CHAT | {"cannot_place": [{"message": "full"}]}, "degraded"),
    ],
)
def test_state_of_a_deployment(item: sheets.Json, state: str) -> None:
    assert sheets.deployment_state(item) == state


def test_no_colour_in_a_pipe(run: Run, central: StubCentral) -> None:
    central.says("instances", [READY])
    assert "\x1b" not in run("instances").stdout


def test_no_colour_is_no_bold_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_sheet(sheets.instances_sheet([READY]))
    assert "\x1b" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    print_sheet(sheets.instances_sheet([READY]))
    assert "\x1b" not in capsys.readouterr().out


def test_nobody_knows_how_long_a_static_instance_has_been_up() -> None:
    (row,) = sheets.instances_sheet([READY | {"static": True}]).rows
    assert row[4] == "-"


def test_watching_shows_changes_until_interrupted(
    run: Run, central: StubCentral, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([READY, READY, CRASHED])

    def next_moment(_: float) -> None:
        try:
            central.says("instances", [next(moments)])
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("supervisord_cp.cli.render.time.sleep", next_moment)
    central.says("instances", [STARTING])
    result = run("instances", "-w", "-o", "json")
    assert result.exit_code == 0
    states = [json.loads(line)[0]["state"] for line in result.stdout.splitlines()]
    assert states == ["starting", "ready", "crashed"]
