"""Every request that was sent to a real vLLM is sent again: same status, same headers, same shape."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines_fake.serving import QUICK, served

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "recorded/vllm_0_32_0.json").read_text()
)
TEXTS = {"content", "text", "delta", "id", "item_id", "system_fingerprint", "prompt"}
"""Fields whose value is the engine's own."""
NUMBERS = {
    "created",
    "created_at",
    "prompt_tokens",
    "total_tokens",
    "input_tokens",
    "original_input_tokens",
    "count",
}


def shape(value: Any, name: str = "") -> Any:
    """A value without what differs from engine to engine; objects keep the order of their keys."""
    if isinstance(value, dict):
        return [(key, shape(inner, key)) for key, inner in value.items()]
    if isinstance(value, list):
        if value and all(isinstance(item, int) for item in value):
            return "ids"
        return [shape(item) for item in value]
    if name in TEXTS and isinstance(value, str):
        return "text" if value else ""
    if name in NUMBERS:
        return "number"
    return value


def event(chunk: str) -> tuple[str, Any]:
    """An event's lines before its data, and its data's shape."""
    before, _, data = chunk.strip().rpartition("data: ")
    return before, data if data == "[DONE]" else shape(json.loads(data))


def unordered(recorded: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return sorted(recorded, key=repr)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", sorted(RECORDED))
async def test_answers_as_the_real_one(name: str) -> None:
    sent = RECORDED[name]
    kind = sent.get("content_type", "application/json")
    flags = ("--served-model-name", "tiny", "--max-model-len", "2048", *QUICK)
    async with served(*flags, env={"VLLM_SERVER_DEV_MODE": "1"}) as engine:
        response = await engine.request(sent["method"], sent["path"], sent["request"], {"content-type": kind})
    assert response.status == sent["status"]
    assert [key for key, _ in response.headers] == sent["headers"]
    if "chunks" not in sent:
        assert shape(response.json) == shape(json.loads(sent["body"]))
        return
    ours = [event(chunk.decode()) for chunk in response.chunks]
    theirs = [event(chunk) for chunk in sent["chunks"]]
    if name == "responses_stream":  # vLLM had put two tokens into one delta
        deltas = [item for item in ours if "output_text.delta" in item[0]]
        assert len(deltas) == 4
        assert {before for before, _ in ours} == {before for before, _ in theirs}
    elif name == "chat_stream_n2":  # the choices' tokens interleave as they come
        assert unordered(ours) == unordered(theirs)
    else:
        assert ours == theirs


@pytest.mark.asyncio
async def test_a_prompt_beyond_the_context_is_refused() -> None:
    async with served("--max-model-len", "2048", *QUICK) as engine:
        response = await engine.post("/v1/completions", {"prompt": "hello " * 4000})
    assert response.status == 400
    error = response.json["error"]
    assert error["message"].startswith("This model's maximum context length is 2048 tokens.")
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", "input_tokens", 400)


@pytest.mark.asyncio
async def test_each_event_is_one_chunk() -> None:
    async with served(*QUICK) as engine:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 7, "stream": True}
        response = await engine.post("/v1/chat/completions", body)
    assert len(response.chunks) == 1 + 7 + 1
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in response.chunks)
    assert response.chunks[-1] == b"data: [DONE]\n\n"
