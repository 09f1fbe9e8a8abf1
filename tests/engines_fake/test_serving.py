"""What clients see: limits, keys, stops, aborts, control routes, sockets and forms."""

import asyncio
import base64
import os
from typing import Any

import pytest
from openai import AsyncOpenAI

from supervisord_cp.engines.fake.multipart import parse_form
from supervisord_cp.engines.fake.websocket import frame
from tests.engines_fake.serving import QUICK, Served, events, read_response, request_bytes, served
from tests.waiting import until

pytestmark = pytest.mark.asyncio


def chat(content: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


async def stats(engine: Served) -> dict[str, Any]:
    return dict((await engine.get("/fake/stats")).json)


async def text_of(engine: Served, **fields: Any) -> str:
    return str((await engine.post("/v1/completions", fields)).json["choices"][0]["text"])


async def test_replicas_give_the_same_text_streamed_or_not() -> None:
    answers = []
    for _ in range(2):
        async with served(*QUICK) as engine:
            whole = await engine.post("/v1/chat/completions", chat("tell me", max_tokens=60, seed=1))
            stream = await engine.post("/v1/chat/completions", chat("tell me", max_tokens=60, stream=True))
        answers.append(whole.json["choices"][0]["message"]["content"])
        deltas = [event["choices"][0]["delta"] for event in events(stream)[:-1]]
        answers.append("".join(delta["content"] for delta in deltas))
    assert len(set(answers)) == 1
    assert not answers[0].isascii() or len(answers[0]) > 100


async def test_an_answer_ends_by_length_by_itself_or_by_a_stop_string() -> None:
    async with served(*QUICK, "--fake-output-tokens", "30") as engine:
        for fields, reason, tokens in (
            ({"max_tokens": 10}, "length", 10),
            ({"max_tokens": 100}, "stop", 30),
            ({"max_tokens": 100, "ignore_eos": True}, "length", 100),
        ):
            response = (await engine.post("/v1/completions", {"prompt": "x", **fields})).json
            assert response["choices"][0]["finish_reason"] == reason
            assert response["usage"]["completion_tokens"] == tokens
        whole = await text_of(engine, prompt="x", max_tokens=30)
        stop = whole[40:46]
        body = {"prompt": "x", "max_tokens": 30, "stop": [stop, "never"], "stream": True}
        stream = events(await engine.post("/v1/completions", body))
    choices = [event["choices"][0] for event in stream[:-1]]
    assert "".join(choice["text"] for choice in choices) == whole[: whole.index(stop)]
    assert (choices[-1]["finish_reason"], choices[-1]["stop_reason"]) == ("stop", stop)


async def test_token_ids_continue_an_answer_as_text_does() -> None:
    async with served(*QUICK) as engine:
        body = {"prompt": "once", "max_tokens": 20, "return_token_ids": True}
        choice = (await engine.post("/v1/completions", body)).json["choices"][0]
        ids = choice["prompt_token_ids"] + choice["token_ids"][:8]
        rest = await text_of(engine, prompt=ids, max_tokens=12)
        begun = (await engine.post("/detokenize", {"tokens": choice["token_ids"][:8]})).json["prompt"]
    assert begun + rest == choice["text"]


async def test_the_key_guards_the_api_and_nothing_else() -> None:
    async with served(*QUICK, env={"VLLM_API_KEY": "k"}) as engine:
        for path, key, status in (
            ("/v1/models", None, 401),
            ("/v1/models", "Bearer x", 401),
            ("/v1/models", "Basic k", 401),
            ("/v1/models", "Bearer k", 200),
            ("/v1/nothing", None, 401),
            ("/inference/v1/generate", None, 401),
            ("/health", None, 200),
            ("/metrics", None, 200),
            ("/nothing", None, 404),
        ):
            headers = {} if key is None else {"authorization": key}
            response = await engine.request("GET", path, None, headers)
            assert response.status == (405 if status == 200 and path.startswith("/inference") else status), (
                path
            )
        refused = await engine.get("/v1/models")
    assert (refused.body, refused.header("vary")) == (b'{"error":"Unauthorized"}', None)


async def test_a_request_id_becomes_the_answers_id_and_comes_back_when_asked_for() -> None:
    async with served(*QUICK) as engine:
        response = await engine.post("/v1/completions", {"prompt": "x"}, **{"x-request-id": "r1"})
    assert (response.json["id"], response.header("x-request-id")) == ("cmpl-r1", None)
    async with served(*QUICK, "--enable-request-id-headers") as engine:
        given = await engine.post("/v1/completions", {"prompt": "x"}, **{"x-request-id": "r1"})
        made = await engine.get("/health")
    assert given.header("x-request-id") == "r1"
    assert len(made.header("x-request-id") or "") == 32


async def test_beyond_the_running_requests_wait_and_beyond_the_queue_they_are_refused() -> None:
    flags = (
        "--max-num-seqs",
        "2",
        "--max-num-queued-reqs",
        "1",
        "--enable-server-load-tracking",
        "--fake-hang",
    )
    async with served(*flags) as engine:
        tasks = [asyncio.create_task(engine.post("/v1/completions", {"prompt": "x"})) for _ in range(3)]
        await until(lambda: engine.engine.unfinished == 3)
        await until(lambda: len(engine.engine.scheduler.running) == 2)
        refused = await engine.post("/v1/completions", {"prompt": "x"})
        load = (await engine.get("/load")).json
        health = await engine.get("/health")
        now = await stats(engine)
        engine.faults.change({"hang": False, "itl_ms": 0})
        engine.engine.touch()
        served_ones = await asyncio.gather(*tasks)
    assert (refused.status, refused.json["error"]["type"]) == (503, "Service Unavailable")
    assert (load, health.status) == ({"server_load": 3}, 200)
    assert (now["running"], now["waiting"], now["generation_tokens"], now["rejected"]) == (2, 1, 0, 1)
    assert [response.status for response in served_ones] == [200] * 3


async def test_queued_tokens_are_limited() -> None:
    async with served("--max-num-seqs", "1", "--max-num-queued-tokens", "50", "--fake-hang") as engine:
        body = {"prompt": "word " * 30}
        tasks = [asyncio.create_task(engine.post("/v1/completions", body))]
        await until(lambda: len(engine.engine.scheduler.running) == 1)
        tasks.append(asyncio.create_task(engine.post("/v1/completions", body)))
        await until(lambda: len(engine.engine.scheduler.waiting) == 1)
        refused = await engine.post("/v1/completions", body)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert refused.status == 503
    assert "prefill token backlog" in refused.json["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
async def test_a_client_that_leaves_ends_its_work(path: str, stream: bool) -> None:
    async with served() as engine:
        body = chat(max_tokens=5000, prompt="x", input="x", stream=stream, ignore_eos=True)
        body["n"] = 1 if path in ("/v1/messages", "/v1/responses") else 2
        _, writer = await engine.open()
        writer.write(request_bytes("POST", path, body))
        await until(lambda: engine.engine.telemetry.generation_tokens > 4)
        writer.close()
        await until(lambda: engine.engine.unfinished == 0)
        now = await stats(engine)
    assert (now["aborted"], now["running"], now["kv_cache_usage"]) == (body["n"], 0, 0)


async def test_a_client_that_ends_its_half_is_gone() -> None:
    async with served() as engine:
        reader, writer = await engine.open()
        writer.write(
            request_bytes("POST", "/v1/completions", {"prompt": "x", "max_tokens": 8000, "stream": True})
        )
        await until(lambda: engine.engine.telemetry.generation_tokens > 4)
        writer.write_eof()
        await until(lambda: engine.engine.unfinished == 0)
        await reader.read()
        writer.close()


async def test_connections_are_kept_pipelined_and_closed_when_idle() -> None:
    async with served(*QUICK, env={"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "0.05"}) as engine:
        reader, writer = await engine.open()
        one = request_bytes("POST", "/v1/completions", {"prompt": "x", "max_tokens": 2, "stream": True})
        writer.write(one + request_bytes("GET", "/version") + one)
        first, second, third = [await read_response(reader) for _ in range(3)]
        assert (first.chunks[-1], second.json, third.status) == (
            b"data: [DONE]\n\n",
            {"version": "0.32.0"},
            200,
        )
        assert await reader.read() == b""
        writer.close()


async def test_http_1_0_and_connection_close_end_the_connection() -> None:
    async with served(*QUICK) as engine:
        for request in (
            b"GET /health HTTP/1.0\r\n\r\n",
            b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n",
        ):
            reader, writer = await engine.open()
            writer.write(request)
            assert b"connection: close\r\n" in await reader.read()
            writer.close()
        reader, writer = await engine.open()
        writer.write(b"NONSENSE\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"Invalid HTTP request received.")


async def test_a_slow_reader_holds_back_its_own_stream_only() -> None:
    async with served(*QUICK, "--max-model-len", "200000") as engine:
        reader, writer = await engine.open()
        body = {"prompt": "x", "max_tokens": 100_000, "ignore_eos": True, "stream": True}
        writer.write(request_bytes("POST", "/v1/completions", body))
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: engine.engine.telemetry.generation_tokens > 2000)
        other = await engine.post("/v1/completions", {"prompt": "y", "max_tokens": 3})
        writer.close()
        await until(lambda: engine.engine.unfinished == 0)
    assert other.json["usage"]["completion_tokens"] == 3


async def test_the_prefix_is_taken_off_the_path() -> None:
    async with served(*QUICK, "--root-path", "/engine", "--api-key", "k") as engine:
        assert (await engine.get("/engine/health")).status == 200
        assert (await engine.get("/engine/v1/models")).status == 401
        assert (await engine.request("GET", "/v1/models", None, {"authorization": "Bearer k"})).status == 200


async def test_control_routes_open_under_vllms_conditions() -> None:
    closed = (
        "/sleep",
        "/wake_up",
        "/pause",
        "/resume",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/abort_requests",
    )
    async with served(*QUICK) as engine:
        for path in (*closed, "/v1/load_lora_adapter", "/fake/faults"):
            assert (await engine.post(path, {})).status == 404, path
        assert (await engine.get("/is_sleeping")).status == 404
        assert (await engine.post("/inference/v1/abort_requests", {})).status == 403
        assert (await engine.get("/v1/completions")).header("allow") == "POST"
    async with served(*QUICK, "--enable-scale-out") as engine:
        assert (await engine.post("/inference/v1/abort_requests", {})).json == {
            "status": "aborted",
            "aborted": 0,
        }


@pytest.mark.parametrize(("path", "back"), [("/sleep?level=2", "/wake_up"), ("/pause", "/resume")])
async def test_sleep_and_pause_abort_what_runs_and_keep_what_comes(path: str, back: str) -> None:
    async with served(env={"VLLM_SERVER_DEV_MODE": "1"}) as engine:
        body = {"prompt": "x", "max_tokens": 5000, "ignore_eos": True}
        running = asyncio.create_task(engine.post("/v1/completions", body))
        await until(lambda: engine.engine.telemetry.generation_tokens > 2)
        assert (await engine.post(path)).status == 200
        assert (await running).json["choices"][0]["finish_reason"] == "abort"
        assert (await engine.get("/is_paused")).json == {"is_paused": True}
        assert (await engine.get("/is_sleeping")).json == {"is_sleeping": True}
        asleep = b'sleep_state="discard_all"} 1.0' in (await engine.get("/metrics")).body
        waiting = asyncio.create_task(engine.post("/v1/completions", {"prompt": "x", "max_tokens": 2}))
        await until(lambda: engine.engine.unfinished == 1)
        assert (await engine.post(back)).status == 200
        assert (await waiting).json["choices"][0]["finish_reason"] == "length"
        assert (await engine.get("/is_sleeping")).json == {"is_sleeping": False}
    assert asleep == path.startswith("/sleep")


async def test_pause_can_wait_or_freeze() -> None:
    async with served(env={"VLLM_SERVER_DEV_MODE": "1"}) as engine:
        body = {"prompt": "x", "max_tokens": 40}
        running = asyncio.create_task(engine.post("/v1/completions", body))
        await until(lambda: engine.engine.telemetry.generation_tokens > 0)
        await engine.post("/pause?mode=keep")
        frozen = engine.engine.telemetry.generation_tokens
        await engine.get("/health")
        assert engine.engine.telemetry.generation_tokens <= frozen + 1
        assert not running.done()
        await engine.post("/pause?mode=wait")
        assert (await running).json["usage"]["completion_tokens"] == 40
        assert (await engine.post("/pause?mode=never")).status == 400


async def test_requests_are_aborted_by_id() -> None:
    async with served(env={"VLLM_SERVER_DEV_MODE": "1"}) as engine:
        body = {"prompt": "x", "max_tokens": 5000, "ignore_eos": True}
        tasks = [
            asyncio.create_task(engine.post("/v1/completions", body, **{"x-request-id": name}))
            for name in ("a", "b")
        ]
        await until(lambda: engine.engine.unfinished == 2)
        assert (await engine.post("/abort_requests", {"request_ids": ["cmpl-a"]})).json["aborted"] == 1
        assert (await tasks[0]).json["choices"][0]["finish_reason"] == "abort"
        assert (await engine.post("/abort_requests", {})).json["aborted"] == 1
        await tasks[1]


async def test_adapters_are_loaded_served_and_unloaded() -> None:
    lora = {"lora_name": "sql", "lora_path": "/adapters/sql"}
    env = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    async with served(*QUICK, env=env) as engine:
        assert (
            "LoRA is not enabled"
            in (await engine.post("/v1/load_lora_adapter", lora)).json["error"]["message"]
        )
    async with served(*QUICK, "--enable-lora", env=env) as engine:
        assert (await engine.post("/v1/load_lora_adapter", {"lora_name": "sql"})).status == 400
        loaded = await engine.post("/v1/load_lora_adapter", lora)
        assert loaded.body == b"Success: LoRA adapter 'sql' added successfully."
        assert (await engine.post("/v1/load_lora_adapter", lora)).status == 400
        cards = (await engine.get("/v1/models")).json["data"]
        assert [(card["id"], card["parent"]) for card in cards][1:] == [("sql", "models/tiny-llama")]
        assert (await engine.post("/v1/completions", {"model": "sql", "prompt": "x"})).json["model"] == "sql"
        assert (await engine.post("/v1/unload_lora_adapter", lora)).status == 200
        assert (await engine.post("/v1/completions", {"model": "sql", "prompt": "x"})).status == 404
        assert (await engine.post("/v1/unload_lora_adapter", lora)).status == 404


async def test_responses_are_stored_found_and_cancelled_here() -> None:
    async with served(env={"VLLM_ENABLE_RESPONSES_API_STORE": "1"}) as engine:
        done = (await engine.post("/v1/responses", {"input": "hello", "max_output_tokens": 3})).json
        assert (await engine.get(f"/v1/responses/{done['id']}")).json == done
        late = {"input": "hello", "max_output_tokens": 5000, "ignore_eos": True, "background": True}
        queued = (await engine.post("/v1/responses", late)).json
        assert queued["status"] == "queued"
        assert (await engine.get(f"/v1/responses/{queued['id']}")).json["status"] == "in_progress"
        cancelled = await engine.post(f"/v1/responses/{queued['id']}/cancel")
        assert cancelled.json["status"] == "cancelled"
        await until(lambda: engine.engine.unfinished == 0)
        assert (await engine.post(f"/v1/responses/{done['id']}/cancel")).status == 400
        follow = {"input": "and?", "previous_response_id": done["id"], "max_output_tokens": 3}
        fresh = {"input": "and?", "max_output_tokens": 3}
        texts = [(await engine.post("/v1/responses", body)).json["output"] for body in (follow, fresh)]
    assert texts[0][0]["content"][0]["text"] != texts[1][0]["content"][0]["text"]


async def test_embeddings_depend_on_the_text_alone() -> None:
    async with served(*QUICK) as engine:
        data = (await engine.post("/v1/embeddings", {"input": ["a", "b", "a"]})).json
    vectors = [item["embedding"] for item in data["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    assert data["usage"]["total_tokens"] == 3


async def test_an_upload_is_transcribed_to_its_size_and_digest() -> None:
    audio = os.urandom(70_000)
    form = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nmodels/tiny-llama\r\n'
    form += (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + audio
        + b"\r\n--B--\r\n"
    )
    async with served(*QUICK) as engine:
        headers = {"content-type": "multipart/form-data; boundary=B"}
        response = await engine.request("POST", "/v1/audio/transcriptions", form, headers)
        wrong = form.replace(b"tiny-llama", b"huge-llama")
        missing = await engine.request("POST", "/v1/audio/transcriptions", wrong, headers)
    assert response.json["text"].startswith("70000 bytes with digest ")
    assert response.json["usage"] == {"type": "duration", "seconds": 3}
    assert missing.status == 404


async def test_a_form_is_taken_apart_at_its_boundary_only() -> None:
    content = b"\r\n--not the boundary\r\n\r\n--B"[:-3] + b"x"
    body = (
        b'--B\r\ncontent-disposition: form-data; filename="f"; name="file"\r\n\r\n' + content + b"\r\n--B--"
    )
    assert parse_form('multipart/form-data; boundary="B"', body) == {"file": content}
    assert parse_form("application/json", body) == {}


@pytest.mark.parametrize("size", [0, 5, 200, 70_000])
async def test_the_websocket_greets_and_echoes(size: int) -> None:
    handshake = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(bytes(16)).decode(),
    }
    message = os.urandom(size).hex()[:size].encode()
    async with served(*QUICK) as engine:
        reader, writer = await engine.open()
        writer.write(request_bytes("GET", "/v1/realtime?model=x", None, handshake))
        head = await reader.readuntil(b"\r\n\r\n")
        greeting = await read_frame(reader)
        half = size // 2
        for piece in (masked(0x01, message[:half]), masked(0x89, b"ping"), masked(0x80, message[half:])):
            for start in range(0, len(piece), 9999):
                writer.write(piece[start : start + 9999])
                await writer.drain()
        pong, echo = await read_frame(reader), await read_frame(reader)
        writer.write(masked(0x88, b"\x03\xe8"))
        closing = await reader.read()
        writer.close()
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"sec-websocket-accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=" in head
    assert b'"type":"session.created"' in greeting[1]
    assert (pong, echo) == ((0x8A, b"ping"), (0x81, message))
    assert closing == frame(8, b"\x03\xe8")


def masked(first: int, payload: bytes) -> bytes:
    """A frame as clients send it."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else b""
    if size >= 126:
        wide = size > 0xFFFF
        head = bytes((first, 0xFF if wide else 0xFE)) + size.to_bytes(8 if wide else 2, "big")
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first, await reader.readexactly(size)


async def test_openais_client_understands_it() -> None:
    async with (
        served(*QUICK) as engine,
        AsyncOpenAI(base_url=f"http://127.0.0.1:{engine.port}/v1", api_key="none", max_retries=0) as client,
    ):
        model = (await client.models.list()).data[0].id
        messages: Any = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        whole = await client.chat.completions.create(model=model, messages=messages, max_tokens=9)
        stream = await client.chat.completions.create(
            model=model, messages=messages, max_tokens=9, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        response = await client.responses.create(model=model, input="hi", max_output_tokens=4)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == text
    assert chunks[-1].usage == whole.usage or (chunks[-1].usage and chunks[-1].usage.completion_tokens == 9)
    assert response.output_text
