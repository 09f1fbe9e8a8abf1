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


def test_one_host(fleet: Fleet) -> None:
    program = CODE["One host"] + USE_ALL.format(setup="setup_local_cluster", requests=40)
    used = json.loads(run(fleet.patched(program)))
    assert set(used) == {f"local-gpu-{number}" for number in range(4)}


def test_several_hosts(fleet: Fleet) -> None:
    program = CODE["Several hosts"] + USE_ALL.format(setup="setup_multi_machine_cluster", requests=80)
    used = json.loads(run(fleet.patched(program)))
    assert set(used) == {f"machine-{name}-gpu-{number}" for name in "ab" for number in range(4)}


def test_a_request(fleet: Fleet) -> None:
    """Its five seconds are not waited for: the end lets the request finish."""
    before = finished(fleet)
    assert run(fleet.patched(CODE["A request"]).replace("asyncio.sleep(5)", "asyncio.sleep(0)")) == ""
    assert finished(fleet) == before + 1


def test_tensor_parallel(fleet: Fleet) -> None:
    setup = (
        "from control_plane import ControlPlaneManager, ExecutionInstance\n"
        + CODE["Tensor parallel"]
        + "async def setup():\n"
        + "    cp = ControlPlaneManager()\n"
        + "    cp.register_instance(instance)\n"
        + "    await cp.start()\n"
        + "    return cp\n"
    )
    program = setup + USE_ALL.format(setup="setup", requests=2)
    assert json.loads(run(fleet.patched(program))) == ["tp4-instance", "tp4-instance"]


def finished(fleet: Fleet) -> int:
    """Requests that the first engine has finished."""
    count: int = json.loads(get(HOSTS[0], fleet.base, "/fake/stats")[1])["finished"]
    return count
