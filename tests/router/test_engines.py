"""The router in front of real processes: fake engines, which behave as vLLM does."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import psutil
import pytest
import pytest_asyncio

from tests.ports import free_ports
from tests.router.kit import Rig, instance, rig
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio, pytest.mark.process]

MODEL = "chat"


class Process:
    """One engine with its tree."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_ports(1)
        argv = [sys.executable, "-m", "supervisord_cp.engines.fake", "serve", MODEL]
        argv += ["--host", "127.0.0.1", "--port", str(self.port), "--fake-output-tokens", "20"]
        self._log = folder / name
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "--max-num-seqs", "4", "--max-num-queued-reqs", "4"],
                stdout=log,
                stderr=log,
                env=os.environ | {"FAKE_VLLM_CONTROL": "1"},
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            return self.get("/health") == b""
        except OSError:
            return False

    def get(self, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return bytes(answer.read())

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.get("/fake/stats"))
        return found

    def core(self) -> psutil.Process:
        """The engine core, whose death the API server outlives for a while."""
        return psutil.Process(self.process.pid).children()[0]

    def end(self) -> None:
        """Its children outlive an API server that was killed: the whole group is."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Process]]:
    made = [Process(tmp_path, f"engine-{number}.log") for number in range(2)]
    yield made
    for engine in made:
        engine.end()


@pytest_asyncio.fixture
async def served(engines: list[Process]) -> AsyncIterator[Rig]:
    async with rig() as router:
        for engine in engines:
            await until(lambda engine=engine: engine.ready, "the engine is ready")
        router.serve(*(instance(engine.url, number) for number, engine in enumerate(engines)))
        yield router


def client(router: Rig) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{router.port}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S
    )


async def text_of(ai: openai.AsyncOpenAI, number: int, *, stream: bool) -> str:
    messages = [{"role": "user", "content": f"question {number}"}]
    if not stream:
        answer = await ai.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        return str(answer.choices[0].message.content)
    text = ""
    async for event in await ai.chat.completions.create(model=MODEL, messages=messages, stream=True):  # type: ignore[arg-type]
        text += event.choices[0].delta.content or "" if event.choices else ""
    return text


async def test_the_openai_client_gets_what_the_engine_says(served: Rig, engines: list[Process]) -> None:
    async with client(served) as ai:
        texts = [await text_of(ai, 1, stream=stream) for stream in (False, True, False, True)]
        assert len(set(texts)) == 1
        question = {"model": MODEL, "messages": [{"role": "user", "content": "question 1"}]}
        direct = json.loads(engines[0].get("/v1/chat/completions", question))
        assert texts[0] == direct["choices"][0]["message"]["content"]
        completion = await ai.completions.create(model=MODEL, prompt="Once", max_tokens=5)
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 5
        assert [model.id async for model in await ai.models.list()] == [MODEL]
        embedded = await ai.embeddings.create(model=MODEL, input=["a", "b"])
        assert len(embedded.data) == 2
        with pytest.raises(openai.NotFoundError) as caught:
            await ai.chat.completions.create(model="none", messages=[])
        assert caught.value.code == "model_unknown"


async def test_more_than_all_engines_take_at_once_waits_and_is_answered(
    served: Rig, engines: list[Process]
) -> None:
    async with client(served) as ai:
        asked = [text_of(ai, number, stream=number % 2 == 0) for number in range(80)]
        texts = await asyncio.gather(*asked)
    assert all(texts)
    assert served.ejected_log == []
    stats = [engine.stats() for engine in engines]
    assert sum(each["finished"] for each in stats) == 80
    assert min(each["finished"] for each in stats) >= 20


@pytest.mark.parametrize("what", ["server", "core"])
async def test_an_engine_that_is_killed_costs_only_the_streams_that_it_had_begun(
    served: Rig, engines: list[Process], what: str
) -> None:
    outcomes: Counter[str] = Counter()
    engines[0].get("/fake/faults", {"itl_ms": 20})

    async def ask(ai: openai.AsyncOpenAI, number: int) -> None:
        stream = number % 2 == 0
        try:
            outcomes["good" if await text_of(ai, number, stream=stream) else "empty"] += 1
        except openai.APIError as error:
            outcomes["cut" if stream else f"failed: {error}"] += 1
        except Exception as error:  # a broken stream is httpx's to report
            outcomes["cut" if stream else f"failed: {error!r}"] += 1

    async with client(served) as ai:
        tasks = [asyncio.create_task(ask(ai, number)) for number in range(60)]
        await until(lambda: sum(outcomes.values()) >= 8, "some are answered")
        begun = sum(flow.started for flow in served.dispatcher.flows)
        if what == "server":
            os.kill(engines[0].process.pid, signal.SIGKILL)
        else:
            engines[0].core().kill()
        await asyncio.gather(*tasks)
    assert set(outcomes) <= {"good", "cut"}, outcomes
    assert outcomes["cut"] <= begun
    assert served.ejected_log == ["chat-0.a"]


async def test_a_client_that_leaves_ends_the_work(served: Rig, engines: list[Process]) -> None:
    for engine in engines:
        engine.get("/fake/faults", {"itl_ms": 50, "output_tokens": 100_000})
    async with client(served) as ai:
        streams = [
            await ai.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
            )
            for _ in range(4)
        ]
        await until(lambda: sum(engine.stats()["running"] for engine in engines) == 4)
        for stream in streams:
            await stream.close()
        await until(lambda: sum(engine.stats()["aborted"] for engine in engines) == 4)
    assert served.inflight == 0
