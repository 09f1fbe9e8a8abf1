"""Faults of requests and streams, switched while the engine runs."""

import asyncio
from typing import Any

import pytest

from tests.engines_fake.serving import QUICK, Response, Served, events, request_bytes, served
from tests.waiting import until

pytestmark = pytest.mark.asyncio
CONTROL = {"FAKE_VLLM_CONTROL": "1"}
STREAM = {"prompt": "x", "max_tokens": 9, "stream": True}


async def stream(engine: Served, body: dict[str, Any] | None = None) -> bytes:
    """All that comes over the wire, whether it is complete or not."""
    reader, writer = await engine.open()
    writer.write(request_bytes("POST", "/v1/completions", body or STREAM, {"connection": "close"}))
    data = bytearray()
    try:
        while piece := await reader.read(65_536):
            data += piece
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    return bytes(data)


async def switch(engine: Served, **knobs: Any) -> Response:
    return await engine.post("/fake/faults", knobs)


async def test_faults_are_shown_changed_and_turned_off() -> None:
    async with served(*QUICK, env=CONTROL) as engine:
        changed = await switch(engine, fail_first=1, fail_status=429)
        assert (changed.json["fail_first"], changed.json["itl_ms"]) == (1, 0)
        assert (await engine.get("/fake/faults")).json == changed.json
        assert [(await engine.post("/v1/completions", {"prompt": "x"})).status for _ in range(2)] == [
            429,
            200,
        ]
        for nonsense in ({"load_s": 1}, {"nope": 1}, {"hang": "yes"}):
            assert (await switch(engine, **nonsense)).status == 400
        assert (await engine.post("/fake/faults", "[]")).status == 400


async def test_a_cut_stream_has_its_tokens_and_no_end() -> None:
    async with served(*QUICK, "--fake-cut-after-tokens", "4", env=CONTROL) as engine:
        data = await stream(engine)
        assert data.count(b"data: ") == 4
        assert not data.endswith(b"0\r\n\r\n")
        assert await stream(engine, {"prompt": "x", "max_tokens": 9}) == b""
        assert engine.engine.unfinished == 0
        await switch(engine, cut_after_tokens=None)
        assert (await stream(engine)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_failed_stream_ends_with_an_error_and_done() -> None:
    async with served(*QUICK, "--fake-error-after-tokens", "3") as engine:
        received = events(await engine.post("/v1/completions", STREAM))
        whole = await engine.post("/v1/completions", {"prompt": "x", "max_tokens": 9})
        short = await engine.post("/v1/completions", {"prompt": "x", "max_tokens": 2})
        messages = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "stream": True}
        anthropic = await engine.post("/v1/messages", messages)
    assert len(received) == 5
    assert received[3]["error"]["code"] == 500
    assert received[4] == "[DONE]"
    assert (whole.status, short.status) == (500, 200)
    assert anthropic.chunks[-1].startswith(b"event: error\n")


async def test_a_hung_engine_accepts_and_says_nothing() -> None:
    async with served(*QUICK, "--fake-hang", env=CONTROL) as engine:
        task = asyncio.create_task(stream(engine))
        await until(lambda: len(engine.engine.scheduler.running) == 1)
        before = await engine.get("/metrics")
        assert (await engine.get("/health")).status == 200
        after = await engine.get("/metrics")
        assert before.body == after.body
        assert b'vllm:num_requests_running{engine="0",model_name="models/tiny-llama"} 1.0' in after.body
        await switch(engine, hang=False)
        assert b"[DONE]" in await task


async def test_a_hang_in_the_middle_of_a_stream() -> None:
    async with served(env=CONTROL) as engine:
        task = asyncio.create_task(stream(engine, {**STREAM, "max_tokens": 2000, "ignore_eos": True}))
        await until(lambda: engine.engine.telemetry.generation_tokens > 2)
        await switch(engine, hang=True)
        seen = engine.engine.telemetry.generation_tokens
        for _ in range(3):
            await engine.get("/health")
        assert engine.engine.telemetry.generation_tokens <= seen + 1
        await switch(engine, hang=False, cut_after_tokens=1)
        await task


async def test_a_dead_engine_core_fails_everything() -> None:
    async with served() as engine:
        body = {**STREAM, "max_tokens": 3000, "ignore_eos": True}
        streaming = asyncio.create_task(engine.post("/v1/completions", body))
        whole = asyncio.create_task(engine.post("/v1/completions", {**body, "stream": False}))
        await until(lambda: engine.engine.telemetry.generation_tokens > 2)
        engine.engine.die()
        received = events(await streaming)
        refused = await engine.post("/v1/completions", STREAM)
        health = await engine.get("/health")
    assert received[-2]["error"]["message"].startswith("EngineCore encountered an issue.")
    assert received[-1] == "[DONE]"
    assert ((await whole).status, refused.status, health.status) == (500, 500, 503)


async def test_while_draining_new_requests_end_at_once() -> None:
    async with served() as engine:
        engine.engine.draining = True
        whole = await engine.post("/v1/completions", {"prompt": "x"})
        received = events(
            await engine.post("/v1/chat/completions", {"messages": [{"role": "user"}], "stream": True})
        )
    assert (whole.status, whole.json["choices"][0]["finish_reason"]) == (200, "abort")
    assert received[-2]["choices"][0]["finish_reason"] == "abort"
