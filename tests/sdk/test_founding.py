"""The code of the founding document runs as it is written, addresses of this machine in place of its own."""

import json
import re
from pathlib import Path

import pytest

from tests.sdk.programs import HOSTS, Fleet, get, run

pytestmark = pytest.mark.process

TEXT = (Path(__file__).parent / "founding.txt").read_text()
CODE = dict(re.findall(r"^## (.+?)\n\n```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))

USE_ALL = """
import asyncio
import json
from control_plane import RequestMetadata

async def use_all():
    cp = await {setup}()
    requests = [RequestMetadata(prompt="Hello, how are you?", max_tokens=50) for _ in range({requests})]
    names = [await cp.submit_request(request) for request in requests]
    print(json.dumps([(await cp.get_result(name, timeout=30)).instance_id for name in names]))
    await cp.stop()

asyncio.run(use_all())
"""

SETUP_TENSOR_PARALLEL = """
from control_plane import ControlPlaneManager, ExecutionInstance
{instance}
async def setup():
    cp = ControlPlaneManager()
    cp.register_instance(instance)
    await cp.start()
    return cp
"""


def programs() -> dict[str, str]:
    """The document's code, each as a program that ends."""
    tensor_parallel = SETUP_TENSOR_PARALLEL.format(instance=CODE["Tensor parallel"])
    return {
        "One host": CODE["One host"] + USE_ALL.format(setup="setup_local_cluster", requests=40),
        "Several hosts": CODE["Several hosts"]
        + USE_ALL.format(setup="setup_multi_machine_cluster", requests=80),
        "A request": CODE["A request"].replace("asyncio.sleep(5)", "asyncio.sleep(0)"),
        "Tensor parallel": tensor_parallel + USE_ALL.format(setup="setup", requests=2),
    }


def test_one_host(fleet: Fleet) -> None:
    used = json.loads(run(fleet.patched(programs()["One host"])))
    assert set(used) == {f"local-gpu-{number}" for number in range(4)}


def test_several_hosts(fleet: Fleet) -> None:
    used = json.loads(run(fleet.patched(programs()["Several hosts"])))
    assert set(used) == {f"machine-{name}-gpu-{number}" for name in "ab" for number in range(4)}


def test_a_request(fleet: Fleet) -> None:
    """Its five seconds are not waited for: the end lets the request finish."""
    before = finished(fleet)
    assert run(fleet.patched(programs()["A request"])) == ""
    assert finished(fleet) == before + 1


def test_tensor_parallel(fleet: Fleet) -> None:
    assert json.loads(run(fleet.patched(programs()["Tensor parallel"]))) == ["tp4-instance", "tp4-instance"]


def finished(fleet: Fleet) -> int:
    """Requests that the first engine has finished."""
    count: int = json.loads(get(HOSTS[0], fleet.base, "/fake/stats")[1])["finished"]
    return count
