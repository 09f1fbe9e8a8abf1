"""A real vLLM on the CPU, from nothing to two replicas and back, without a request that fails."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.e2e.local import Up, configured, running
from tests.waiting import eventually

FOLDER = os.environ.get("SUPERVISORD_CP_REAL_VLLM", "")
LOADING_S = 300.0
AT_ONCE = 8

AGENT = """slots = 2
[agent.allow]
executables = ["{vllm}"]
dev_mode = true
env = ["OMP_*"]
"""
DEPLOYMENT = """
[deployments.tiny]
engine = "vllm"
model = "{model}"
served_name = "tiny"
executable = "{vllm}"
args = {{ max-model-len = 512, max-num-seqs = 8 }}
env = {{ OMP_NUM_THREADS = "1" }}          # the load on one leaves a core for the start of the other
sleep = "level1"                          # a vLLM for CPUs has no sleep mode: it starts and stops without
[deployments.tiny.autoscale]
min = 0
max = 2
idle_s = 3
scalers = [{{ use = "hpa", params = {{ signal = "concurrency", target_average_value = 2 }} }}]
[deployments.tiny.autoscale.behavior.scale_down]
stabilization_window_s = 10
"""

pytestmark = [
    pytest.mark.process,
    pytest.mark.real_vllm,
    pytest.mark.timeout(3 * LOADING_S),
    pytest.mark.skipif(not FOLDER, reason="SUPERVISORD_CP_REAL_VLLM names no folder with a vLLM"),
]


class Clients:
    """Some that ask, one request after the other, until they are told to end."""

    def __init__(self, api: str) -> None:
        self._url = f"{api}/v1/completions"
        self.answered: Counter[str] = Counter()
        """Answers by instance."""
        self.failed: list[str] = []
        self.ended = False

    async def one(self, client: httpx.AsyncClient) -> None:
        body = {"model": "tiny", "prompt": "def main():", "max_tokens": 128, "ignore_eos": True}
        answer = await client.post(self._url, json=body)
        if answer.status_code != 200 or not answer.json()["choices"][0]["text"]:
            self.failed.append(f"{answer.status_code}: {answer.text}")
        self.answered[answer.headers.get("x-supervisord-cp-instance", "")] += 1

    async def many(self) -> None:
        async with httpx.AsyncClient(timeout=2 * LOADING_S) as client:

            async def ask() -> None:
                while not self.ended:
                    await self.one(client)

            await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


def deployment(up: Up) -> dict[str, object]:
    (found,) = up.look("deployments")
    assert isinstance(found, dict)
    return found


def knows(api: str) -> bool:
    try:
        models = httpx.get(f"{api}/v1/models").json().get("data", ())
    except httpx.ConnectError:
        return False
    return any(model["id"] == "tiny" for model in models)


async def until_second_answers(up: Up, clients: Clients) -> None:
    async with asyncio.timeout(LOADING_S):
        while len(clients.answered) < 2:
            await asyncio.sleep(0.2)
    assert (await asyncio.to_thread(deployment, up))["ready"] == 2
    clients.ended = True


@pytest.mark.asyncio
async def test_a_request_wakes_one_load_brings_the_second_and_idleness_takes_them_away(
    tmp_path: Path,
) -> None:
    vllm = Path(FOLDER) / "venv/bin/vllm"
    deployments = DEPLOYMENT.format(vllm=vllm, model=Path(FOLDER) / "tiny-llama")
    file = configured(tmp_path, deployments, AGENT.format(vllm=vllm))
    with running(tmp_path, "-c", str(file)) as up:
        clients = Clients(up.api)
        await asyncio.to_thread(eventually, lambda: knows(up.api), "the router knows the deployment")
        assert deployment(up)["wanted"] == 0
        async with httpx.AsyncClient(timeout=2 * LOADING_S) as client:
            await clients.one(client)
        assert clients.failed == []
        assert clients.answered == {"tiny-0": 1}, "the request that woke it"
        await asyncio.gather(clients.many(), until_second_answers(up, clients))
        assert clients.failed == []
        assert set(clients.answered) == {"tiny-0", "tiny-1"}
        await asyncio.to_thread(
            eventually,
            lambda: not up.instances(),
            "idleness takes them away",
            120.0,
            lambda: str(deployment(up)),
        )
        assert not [p.name() for p in up.processes() if p.name().startswith("VLLM::")]
        assert deployment(up)["wanted"] == 0
