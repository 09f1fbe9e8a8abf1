"""What is executed, with which environment, and what is noted of it."""

from itertools import pairwise
from pathlib import Path

import pytest

from supervisord_cp.agent.launch import Refused, internal_ports, notes_of
from supervisord_cp.config.schema import AllowConfig
from supervisord_cp.engines.base import Capabilities
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.launch import EngineKind
from supervisord_cp.model.reason import render
from supervisord_cp.ports.gpu import GpuReading
from tests.agent.fakes import FixedGpus, Parts, assembled, record_of
from tests.core.instances_kit import desired

FOUND = Capabilities(executable="/bin/fake")
ENVIRON = {
    "PATH": "/bin",
    "HF_TOKEN": "hf_of_the_node",
    "NOTIFY_SOCKET": "/run/systemd/notify",
    "SUPERVISORD_CP_TOKEN": "operator",
    "VLLM_API_KEY": "the agent's own",
    "VLLM_PORT": "tcp://10.0.0.1:80",
}


@pytest.mark.asyncio
async def test_the_request_is_complete(tmp_path: Path) -> None:
    with assembled(tmp_path, environ=ENVIRON, log_max_size=7, log_files=2) as parts:
        wanted = desired(env={"FAKE_VLLM": "x"})
        request, notes = parts.launcher.request(wanted, port=105, found=FOUND)
        assert request.argv == ("/bin/fake", "105")
        assert request.env == {"PATH": "/bin", "HF_TOKEN": "hf_of_the_node", "FAKE_VLLM": "x"}
        assert request.log_path == str(tmp_path / "chat-0.log")
        assert (request.log_max_bytes, request.log_files) == (7, 2)
        assert request.incarnation.startswith("chat-0.")
        assert notes.url == "http://127.0.0.1:105"
        assert notes.api_key == ""
        assert notes_of(record_of(request, 1)) == notes
        assert notes.desired == wanted
        other, _ = parts.launcher.request(wanted, port=105, found=FOUND)
        assert other.nonce != request.nonce
        assert other.incarnation != request.incarnation


@pytest.mark.asyncio
async def test_off_loopback_each_incarnation_has_a_key_of_its_own(tmp_path: Path) -> None:
    with assembled(tmp_path, loopback=False, advertise="192.168.1.5") as parts:
        made = [parts.launcher.request(desired(), port=105, found=FOUND) for _ in range(2)]
        keys = [notes.api_key for _, notes in made]
        assert len(set(keys)) == 2
        assert all(len(key) >= 32 for key in keys)
        assert [request.env["VLLM_API_KEY"] for request, _ in made] == keys
        assert all(notes.url == "http://192.168.1.5:105" for _, notes in made)


@pytest.mark.asyncio
async def test_gpus_go_by_their_numbers(tmp_path: Path) -> None:
    gpus = tuple(Gpu(uuid=DeviceId(f"GPU-{name}"), index=index) for index, name in enumerate("abcd"))
    with assembled(tmp_path, device_kind="cuda", gpu=FixedGpus(GpuReading(gpus=gpus))) as parts:
        parts.launcher.request(desired(devices=("GPU-d", "GPU-b")), port=105, found=FOUND)
        (context,) = parts.engine.contexts
        assert (context.devices, context.device_indexes) == (("GPU-d", "GPU-b"), (3, 1))


async def refusal(parts: Parts, **spec: object) -> str:
    with pytest.raises(Refused) as caught:
        await parts.launcher.examine(desired(**spec))  # type: ignore[arg-type]
    return render(caught.value.reason)


@pytest.mark.asyncio
async def test_the_nodes_own_policy_counts_and_can_be_replaced(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        assert "LD_PRELOAD" in await refusal(parts, env={"LD_PRELOAD": "x", "HF_HOME": "/x"})
        await parts.launcher.examine(desired(env={"HF_HOME": "/x"}))
        parts.launcher.allow = AllowConfig(env=())
        assert "HF_HOME" in await refusal(parts, env={"HF_HOME": "/x"})
        assert "no engine of kind vllm" in await refusal(parts, engine=EngineKind.VLLM)


def test_internal_ports_of_neighbours_do_not_touch_and_stay_below_ephemeral_ones() -> None:
    blocks = [internal_ports(port) for port in range(8000, 8700)]
    assert len(set(blocks)) == len(blocks)
    ordered = sorted(blocks)
    assert all(after - before >= 16 for before, after in pairwise(ordered))
    assert ordered[0] >= 20_000
    assert ordered[-1] + 16 <= 32_768
