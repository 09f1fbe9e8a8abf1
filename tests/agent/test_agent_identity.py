"""Who a node says it is, what it offers, and where the direct back end has no place."""

import asyncio
import socket
from pathlib import Path

import pytest

from supervisord_cp.agent import devices
from supervisord_cp.agent.devices import NoGpus, identify
from supervisord_cp.agent.inventory import inventory_of, metrics_url, on_loopback
from supervisord_cp.agent.roster import Identity
from supervisord_cp.agent.unit import check_unit
from supervisord_cp.config.schema import AgentConfig, Listen
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.ports.gpu import GpuReading
from tests.agent.fakes import FixedGpus

ONE_GPU = GpuReading(gpus=(Gpu(uuid=DeviceId("GPU-1"), index=0, name="H100"),))
UNKNOWN = GpuReading(gpus=None)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("device", "reading", "kind"),
    [
        ("auto", ONE_GPU, "cuda"),
        ("auto", GpuReading(gpus=()), "cpu"),
        ("auto", UNKNOWN, "cuda"),
        ("cpu", ONE_GPU, "cpu"),
        ("cuda", UNKNOWN, "cuda"),
    ],
)
async def test_the_kind_of_devices(
    device: str, reading: GpuReading, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "FIRST_READING_S", 0.1)
    identity = await identify(AgentConfig(device=device, slots=2), FixedGpus(reading))
    assert identity.device_kind == kind
    assert identity.slots == (("slot-0", "slot-1") if kind == "cpu" else ())
    assert identity.name == socket.gethostname()


@pytest.mark.asyncio
async def test_the_first_reading_is_waited_for() -> None:
    gpu = FixedGpus(UNKNOWN)
    identity = asyncio.create_task(identify(AgentConfig(name="a"), gpu))
    await asyncio.sleep(0)
    assert not identity.done()
    gpu.reading = GpuReading(gpus=())
    assert await identity == Identity(name="a", device_kind="cpu", slots=(DeviceId("slot-0"),))


@pytest.mark.asyncio
async def test_no_gpus_are_none_and_not_unknown() -> None:
    gpu = NoGpus()
    await gpu.start()
    assert gpu.read().gpus == ()
    await gpu.stop()


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(None, None), (2.5, 2.5), ({"A100": 1.0, "H100": 3.0}, 3.0), ({"A100": 1.0}, None)],
)
def test_the_inventory(cost: float | dict[str, float] | None, expected: float | None) -> None:
    config = AgentConfig(zone="rack-1", gpu_cost_per_hour=cost, advertise="127.0.0.2")
    identity = Identity(name="a", device_kind="cuda", slots=())
    inventory = inventory_of(
        config, identity, boot_id="b", session="s", executables=("vllm",), gpus=ONE_GPU.gpus or ()
    )
    assert (inventory.node, inventory.zone, inventory.boot_id, inventory.session) == ("a", "rack-1", "b", "s")
    assert (inventory.advertise, inventory.device, inventory.executables) == ("127.0.0.2", "cuda", ("vllm",))
    assert inventory.gpu_cost_per_hour == expected
    assert inventory.metrics_url == "http://127.0.0.1:9002/metrics"


@pytest.mark.parametrize(
    ("listen", "advertise", "url"),
    [
        (None, "127.0.0.1", ""),
        (Listen(host="127.0.0.1", port=1), "192.168.1.5", ""),
        (Listen(host="192.168.1.5", port=1), "192.168.1.5", "http://192.168.1.5:1/metrics"),
        (Listen(host="0.0.0.0", port=1), "192.168.1.5", "http://192.168.1.5:1/metrics"),
        (Listen(host="::", port=1), "fd00::5", "http://[fd00::5]:1/metrics"),
    ],
)
def test_where_others_find_the_metrics(listen: Listen | None, advertise: str, url: str) -> None:
    assert metrics_url(AgentConfig(listen=listen, advertise=advertise)) == url


def test_which_addresses_are_this_machines_alone() -> None:
    def loopback(advertise: str) -> bool:
        return on_loopback(AgentConfig(advertise=advertise))

    assert [loopback(one) for one in ("127.0.0.1", "127.0.0.2", "::1", "localhost")] == [True] * 4
    assert [loopback(one) for one in ("192.168.1.5", "fd00::5", "gpu-a")] == [False] * 3
    for every in ("0.0.0.0", "::"):
        with pytest.raises(UsageError, match="every address"):
            loopback(every)


class TestUnit:
    @pytest.fixture
    def cgroup(self, tmp_path: Path) -> Path:
        path = tmp_path / "cgroup"
        path.write_text("0::/system.slice/scp-agent.service\n")
        return path

    @pytest.mark.parametrize("mode", ["control-group", "mixed"])
    def test_one_that_would_kill_the_engines_is_refused(self, cgroup: Path, mode: str) -> None:
        asked: list[str] = []

        def kill_mode(unit: str) -> str:
            asked.append(unit)
            return mode

        with pytest.raises(UsageError, match=f"KillMode={mode}"):
            check_unit({"SYSTEMD_EXEC_PID": "7"}, pid=7, cgroup=cgroup, kill_mode=kill_mode)
        assert asked == ["scp-agent.service"]

    @pytest.mark.parametrize(
        ("environ", "mode"),
        [
            ({"SYSTEMD_EXEC_PID": "7"}, "process"),
            ({"SYSTEMD_EXEC_PID": "7"}, ""),
            ({"SYSTEMD_EXEC_PID": "8"}, "control-group"),
            ({}, "control-group"),
        ],
    )
    def test_others_are_not(self, cgroup: Path, environ: dict[str, str], mode: str) -> None:
        check_unit(environ, pid=7, cgroup=cgroup, kill_mode=lambda _: mode)

    def test_what_is_no_unit_is_not(self, tmp_path: Path) -> None:
        session = tmp_path / "session"
        session.write_text("0::/user.slice/user-0.slice/session-1.scope\n")
        for cgroup in (session, tmp_path / "nothing"):
            check_unit({"SYSTEMD_EXEC_PID": "7"}, pid=7, cgroup=cgroup, kill_mode=lambda _: "mixed")
