"""A real vLLM whose processes are killed or stopped: seen, cleared away, started again, reason known."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from supervisord_cp.agent.pulse import PULSE_S
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.launch import EngineKind
from tests.agent.daemon import AgentHost, all_gone, members
from tests.agent.fake_central import FakeCentral
from tests.core.instances_kit import desired

FOLDER = Path(os.environ.get("SUPERVISORD_CP_REAL_VLLM", ""))
LOADING_S = 400.0
NOTICED_S = 30.0
STALL_S = 10.0

pytestmark = [
    pytest.mark.process,
    pytest.mark.real_vllm,
    pytest.mark.timeout(5 * LOADING_S),
    pytest.mark.skipif(not FOLDER.name, reason="SUPERVISORD_CP_REAL_VLLM names no folder with a vLLM"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def central() -> AsyncIterator[FakeCentral]:
    fake = FakeCentral()
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory, central: FakeCentral) -> AsyncIterator[AgentHost]:
    """With an engine that serves."""
    agent = AgentHost(tmp_path_factory.mktemp("host"), central)
    agent.allow = {"executables": [str(FOLDER / "venv/bin/vllm")]}
    await agent.connect()
    engine = desired(
        "vllm-0",
        engine=EngineKind.VLLM,
        model=str(FOLDER / "tiny-llama"),
        served_names=("m",),
        executable=str(FOLDER / "venv/bin/vllm"),
        args={"enforce-eager": True, "max-model-len": 2048},
        stall_s=STALL_S,
        start_timeout_s=LOADING_S,
    )
    await central.desire(engine)
    yield agent
    await agent.clean()


async def serving(central: FakeCentral) -> set[int]:
    """Wait until the engine serves; the processes of it."""
    await central.reached(InstanceState.READY, "vllm-0", patience_s=LOADING_S)
    pid = central.instances["vllm-0"].pid
    assert pid is not None
    return members(pid)


def titled(tree: set[int], title: str) -> int:
    """The process of this title."""
    return next(pid for pid in sorted(tree) if psutil.Process(pid).name().startswith(title))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("victim", "cause"),
    [
        ("", ExitCause.KILLED),
        ("VLLM::EngineCor", ExitCause.ENGINE_DEAD),
        ("VLLM::Worker", ExitCause.ENGINE_DEAD),
    ],
    ids=["the API server", "the engine core", "a worker"],
)
async def test_a_killed_process(host: AgentHost, central: FakeCentral, victim: str, cause: ExitCause) -> None:
    tree = await serving(central)
    before = central.instances["vllm-0"]
    assert len(tree) >= 3
    os.kill(titled(tree, victim) if victim else before.pid or 0, signal.SIGKILL)
    await central.sees(lambda c: c.instances["vllm-0"].state is not InstanceState.READY, NOTICED_S)
    await all_gone(tree, NOTICED_S)
    after_tree = await serving(central)
    after = central.instances["vllm-0"]
    assert not after_tree & tree
    assert after.restarts == before.restarts + 1
    assert after.last_exit is not None
    assert after.last_exit.cause is cause


@pytest.mark.asyncio(loop_scope="module")
async def test_a_hang(host: AgentHost, central: FakeCentral) -> None:
    """Its engine core is stopped while it answers: `/health` goes on to say 200."""
    tree = await serving(central)
    before = central.instances["vllm-0"]
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(stream(session, before.url))
        await central.sees(lambda c: (load := c.instances["vllm-0"].load) and load.running, NOTICED_S)
        os.kill(titled(tree, "VLLM::EngineCor"), signal.SIGSTOP)
        try:
            async with session.get(f"{before.url}/health") as answer:
                assert answer.status == 200
            await central.reached(InstanceState.DEGRADED, "vllm-0", patience_s=STALL_S + NOTICED_S)
            await all_gone(tree, NOTICED_S + 30.0)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    after_tree = await serving(central)
    after = central.instances["vllm-0"]
    assert not after_tree & tree
    assert after.last_exit is not None
    assert after.last_exit.cause is ExitCause.STALLED


@pytest.mark.asyncio(loop_scope="module")
async def test_a_hang_of_an_idle_engine(host: AgentHost, central: FakeCentral) -> None:
    """Nobody asks it for anything: the agent does, and gets no answer."""
    tree = await serving(central)
    os.kill(titled(tree, "VLLM::EngineCor"), signal.SIGSTOP)
    await central.reached(InstanceState.DEGRADED, "vllm-0", patience_s=PULSE_S + STALL_S + NOTICED_S + 60.0)
    await all_gone(tree, NOTICED_S + 90.0)
    assert not await serving(central) & tree
    last = central.instances["vllm-0"].last_exit
    assert last is not None
    assert last.cause is ExitCause.STALLED


async def stream(session: aiohttp.ClientSession, url: str) -> None:
    """Keep it busy."""
    body = {"model": "m", "prompt": "x", "max_tokens": 2000, "ignore_eos": True, "stream": True}
    while True:
        async with session.post(f"{url}/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            async for _ in response.content:
                pass
