"""What people use: the clients of openai and anthropic, httpx, and a websocket, through the router."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from tests.router.kit import DONE, SSE_HEAD, Rig, breaks, event, instance, raw, rig, says, waits
from tests.router.test_engines import MODEL, Process
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio, pytest.mark.process]

QUESTION = [{"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    made = Process(tmp_path_factory.mktemp("engine"), "engine.log")
    yield made
    made.end()


@pytest_asyncio.fixture
async def served(engine: Process) -> AsyncIterator[Rig]:
    async with rig() as router:
        await until(lambda: engine.ready, "the engine is ready")
        router.serve(instance(engine.url))
        yield router


def openai_of(router: Rig, key: str = "none") -> openai.AsyncOpenAI:
    url = f"http://127.0.0.1:{router.port}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=PATIENCE_S)


def anthropic_of(router: Rig, key: str = "none") -> anthropic.AsyncAnthropic:
    url = f"http://127.0.0.1:{router.port}"
    return anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=PATIENCE_S)


def httpx_of(router: Rig) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{router.port}", timeout=PATIENCE_S)


# --- openai


async def test_openai_chat_streams_and_counts(served: Rig) -> None:
    async with openai_of(served) as ai:
        whole = await ai.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=12)
        assert whole._request_id
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 12
        text, usage = "", None
        async for chunk in await ai.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        ):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
        assert text == whole.choices[0].message.content
        assert usage == whole.usage


async def test_openai_models_completions_and_embeddings(served: Rig) -> None:
    async with openai_of(served) as ai:
        assert [model.id async for model in await ai.models.list()] == [MODEL]
        assert (await ai.models.retrieve(MODEL)).id == MODEL
        completion = await ai.completions.create(model=MODEL, prompt="Once", max_tokens=5)
        assert completion.choices[0].text
        pieces = [
            piece.choices[0].text
            async for piece in await ai.completions.create(
                model=MODEL, prompt="Once", max_tokens=5, stream=True
            )
        ]
        assert "".join(pieces) == completion.choices[0].text
        assert len((await ai.embeddings.create(model=MODEL, input=["a", "b"])).data) == 2


async def test_openai_responses_are_found_again(served: Rig) -> None:
    async with openai_of(served) as ai:
        made = await ai.responses.create(model=MODEL, input="Why?", max_output_tokens=5)
        assert made.output_text
        kinds = [
            event.type
            async for event in await ai.responses.create(
                model=MODEL, input="Why?", max_output_tokens=5, stream=True
            )
        ]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


async def test_openai_uploads_audio(served: Rig) -> None:
    async with openai_of(served) as ai:
        for size in (1_000, 3_000_000):
            heard = await ai.audio.transcriptions.create(model=MODEL, file=("a.wav", b"\0" * size))
            assert heard.text


TOOL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Köln"}'},
}


async def test_openai_gets_tool_calls_as_they_are(router: Rig) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL]}
    whole = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "chat",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
    }
    pieces = [
        {"index": 0, "delta": {"tool_calls": [{"index": 0} | TOOL]}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
    ]
    stream = b""
    for piece in pieces:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [piece]}
        data = f"data: {json.dumps(chunk)}\n\n".encode()
        stream += b"%x\r\n%b\r\n" % (len(data), data)
    engine = await router.engine(says(whole), raw(SSE_HEAD + stream + DONE, keep=True))
    router.serve(instance(engine))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    async with openai_of(router) as ai:
        answer = await ai.chat.completions.create(model="chat", messages=QUESTION, tools=tools)
        assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"Köln"}'
        streamed = [
            chunk.choices[0]
            async for chunk in await ai.chat.completions.create(
                model="chat", messages=QUESTION, tools=tools, stream=True
            )
        ]
        assert streamed[0].delta.tool_calls[0].function.name == "weather"
        assert streamed[-1].finish_reason == "tool_calls"
    assert json.loads(engine.asked[0].body)["tools"] == tools


async def test_openai_raises_what_it_should(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me: right\n")
    gate = asyncio.Event()
    async with rig(keys=keys, queue_requests=0) as router:
        bad = says({"error": {"message": "too long", "type": "BadRequestError", "code": 400}}, status=400)
        engine = await router.engine(bad, waits(gate, says({})))
        router.serve(instance(engine, max_concurrency=1))
        async with openai_of(router, "wrong") as ai:
            with pytest.raises(openai.AuthenticationError) as wrong:
                await ai.models.list()
            assert wrong.value.code == "bad_api_key"
        async with openai_of(router, "right") as ai:
            with pytest.raises(openai.BadRequestError, match="too long") as refused:
                await ai.chat.completions.create(model="chat", messages=QUESTION)
            with pytest.raises(openai.NotFoundError) as unknown:
                await ai.chat.completions.create(model="m" * 5000, messages=QUESTION)
            assert unknown.value.code == "model_unknown"
            assert len(str(unknown.value)) < 500
            with pytest.raises(openai.PermissionDeniedError):
                await ai.post("/sleep", cast_to=object)
            first = asyncio.create_task(ai.chat.completions.create(model="chat", messages=QUESTION))
            await until(lambda: len(engine.asked) == 2)
            with pytest.raises(openai.RateLimitError) as full:
                await ai.chat.completions.create(model="chat", messages=QUESTION)
            assert full.value.response.headers["retry-after"]
            for caught in (wrong, refused, unknown, full):
                assert caught.value.request_id
            gate.set()
            await first


async def test_openai_sees_a_stream_that_broke(router: Rig) -> None:
    router.serve(instance(await router.engine(breaks(SSE_HEAD + event("half")))))
    async with openai_of(router) as ai:
        stream = await ai.chat.completions.create(model="chat", messages=QUESTION, stream=True)
        with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError, httpx.ReadError)):
            async for _ in stream:
                pass


async def test_openai_skips_what_waiting_streams_are_told(router: Rig) -> None:
    gate = asyncio.Event()
    chunk = b'data: {"id":"c","object":"x","created":1,"model":"m","choices":[]}\n\n'
    answer = raw(SSE_HEAD + b"%x\r\n%b\r\n" % (len(chunk), chunk) + DONE, keep=True)
    failure = says({"error": {"message": "too long"}}, status=400)
    engine = await router.engine(waits(gate, says({})), answer, failure)
    router.serve(instance(engine, max_concurrency=1))
    async with openai_of(router) as ai:
        first = asyncio.create_task(ai.chat.completions.create(model="chat", messages=QUESTION))
        await until(lambda: engine.asked)

        async def streamed() -> list[object]:
            return [
                chunk
                async for chunk in await ai.chat.completions.create(
                    model="chat",
                    messages=QUESTION,
                    stream=True,
                    extra_headers={"x-queue-updates": "0.02"},
                )
            ]

        tasks = []
        for number in (1, 2):
            tasks.append(asyncio.create_task(streamed()))
            await until(lambda number=number: len(router.lane().line) == number)
        since = router.dispatcher.clock()
        await until(lambda: router.dispatcher.clock() - since > 0.2)
        gate.set()
        assert len(await tasks[0]) == 1
        with pytest.raises(openai.APIError, match="too long"):
            await tasks[1]
        await first


# --- anthropic


async def test_anthropic_messages(served: Rig) -> None:
    async with anthropic_of(served) as ai:
        whole = await ai.messages.create(model=MODEL, max_tokens=10, messages=QUESTION)
        assert whole.content[0].text
        assert whole.usage.output_tokens == 10
        assert whole._request_id
        async with ai.messages.stream(model=MODEL, max_tokens=10, messages=QUESTION) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert text == whole.content[0].text
        assert final.usage.output_tokens == 10
        counted = await ai.messages.count_tokens(model=MODEL, messages=QUESTION)
        assert counted.input_tokens == whole.usage.input_tokens


async def test_anthropic_raises_what_it_should(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me: right\n")
    async with rig(keys=keys, queue_requests=0) as router:
        gate = asyncio.Event()
        engine = await router.engine(waits(gate, says({})))
        router.serve(instance(engine, max_concurrency=1))
        async with anthropic_of(router, "wrong") as ai:
            with pytest.raises(anthropic.AuthenticationError) as wrong:
                await ai.messages.create(model="chat", max_tokens=1, messages=QUESTION)
        async with anthropic_of(router, "right") as ai:
            with pytest.raises(anthropic.NotFoundError, match="does not exist") as unknown:
                await ai.messages.create(model="none", max_tokens=1, messages=QUESTION)
            first = asyncio.create_task(ai.messages.create(model="chat", max_tokens=1, messages=QUESTION))
            await until(lambda: engine.asked)
            with pytest.raises(anthropic.RateLimitError) as full:
                await ai.messages.create(model="chat", max_tokens=1, messages=QUESTION)
            gate.set()
            await first
        for caught in (wrong, unknown, full):
            assert caught.value.request_id
            assert caught.value.body["type"] == "error"


# --- httpx, and a websocket


async def test_httpx_bodies_of_every_kind(served: Rig) -> None:
    body = json.dumps({"model": MODEL, "messages": QUESTION, "max_tokens": 3}).encode()

    async def in_chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    async with httpx_of(served) as client:
        json_type = {"content-type": "application/json"}
        whole = await client.post("/v1/chat/completions", content=body, headers=json_type)
        chunked = await client.post("/v1/chat/completions", content=in_chunks(), headers=json_type)
        expecting = await client.post(
            "/v1/chat/completions", content=body, headers=json_type | {"expect": "100-continue"}
        )
        answers = [answer.json()["choices"] for answer in (whole, chunked, expecting)]
        assert answers == [answers[0]] * 3
        form = await client.post(
            "/v1/audio/transcriptions", data={"model": MODEL}, files={"file": ("a.wav", b"RIFF" * 1000)}
        )
        assert form.status_code == 200
        assert (await client.head("/v1/models")).status_code == 200
        assert (await client.get("/health")).status_code == 200


async def test_httpx_streams_lines(served: Rig) -> None:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 6, "stream": True}
    async with httpx_of(served) as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in answer.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


async def test_a_websocket_to_the_realtime_endpoint(served: Rig) -> None:
    url = f"http://127.0.0.1:{served.port}/v1/realtime?model={MODEL}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        assert (await socket.receive_json())["type"] == "session.created"
        for text in ("one", "two" * 50_000):
            await socket.send_str(text)
            assert (await socket.receive()).data == text
    await until(lambda: not served.inflight)
