"""An engine served in the test's own event loop, and raw requests to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from supervisord_cp.engines.fake.app import build_app
from supervisord_cp.engines.fake.connection import Connection, ServerState
from supervisord_cp.engines.fake.engine import Engine
from supervisord_cp.engines.fake.faults import Faults
from supervisord_cp.engines.fake.generate import Service
from supervisord_cp.engines.fake.metrics import MetricsPage, PageFacts
from supervisord_cp.engines.fake.options import parse
from supervisord_cp.engines.fake.scheduler import Limits
from tests.waiting import until

QUICK = ("--fake-itl-ms", "0", "--fake-itl-per-sequence-ms", "0")


@dataclass(frozen=True)
class Response:
    """A response as it came over the wire."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    """Without chunk framing."""
    chunks: tuple[bytes, ...] = ()

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A served engine."""

    def __init__(self, port: int, engine: Engine, faults: Faults, state: ServerState) -> None:
        self.port = port
        self.engine = engine
        self.faults = faults
        self.state = state

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """One request on a connection of its own. Texts and bytes are sent as they are, the rest as JSON."""
        reader, writer = await self.open()
        try:
            writer.write(request_bytes(method, path, body, headers))
            return await read_response(reader)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def get(self, path: str) -> Response:
        return await self.request("GET", path)

    async def post(self, path: str, body: object = None, **headers: str) -> Response:
        return await self.request("POST", path, body, headers)


def request_bytes(
    method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A request with `content-type: application/json` unless the headers say otherwise."""
    if isinstance(body, bytes):
        data = body
    elif isinstance(body, str):
        data = body.encode()
    else:
        data = b"" if body is None else json.dumps(body).encode()
    given = {"host": "engine", "content-type": "application/json", **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    if data or method == "POST":
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join((*lines, "", "")).encode() + data


async def read_response(reader: asyncio.StreamReader) -> Response:
    """The next response.

    Raises:
        asyncio.IncompleteReadError: the connection ended before it was complete.
    """
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines[1:]))
    status, known = int(lines[0].split(" ")[1]), dict(headers)
    if known.get("transfer-encoding") != "chunked":
        return Response(status, headers, await reader.readexactly(int(known.get("content-length", 0))))
    chunks = []
    while chunk := await read_chunk(reader):
        chunks.append(chunk)
    return Response(status, headers, b"".join(chunks), tuple(chunks))


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk's data; empty for the last one."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]


@asynccontextmanager
async def served(*flags: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Served]:
    """Serve an engine with these flags on a free port of the loopback."""
    options, knobs = parse(["serve", "models/tiny-llama", "--disable-uvicorn-access-log", *flags], env or {})
    faults = Faults(knobs)
    limits = Limits(
        max_seqs=options.max_num_seqs,
        max_batched_tokens=options.max_batched_tokens,
        block_size=options.block_size,
        capacity_tokens=knobs.kv_tokens,
        prefix_caching=options.prefix_caching,
    )
    engine = Engine(
        limits, faults, max_queued=options.max_queued_requests, max_queued_tokens=options.max_queued_tokens
    )
    facts = PageFacts(version=knobs.version, model_name=options.served_names[0], created=1.5, cache_config={})
    service = Service(options, engine, faults, knobs.version)
    state = ServerState(
        handler=build_app(service, faults, MetricsPage(facts)),
        keep_alive_s=options.keep_alive_s,
        access_log=options.access_log,
    )
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", 0)
    computing = asyncio.create_task(engine.run())
    try:
        yield Served(server.sockets[0].getsockname()[1], engine, faults, state)
    finally:
        server.close()
        for connection in list(state.connections):
            connection.abort()
        computing.cancel()
        await asyncio.gather(computing, return_exceptions=True)
        await until(lambda: not state.connections)


def events(response: Response) -> list[Any]:
    """The JSON values of a stream's events; `[DONE]` as it is."""
    values = []
    for chunk in response.chunks:
        data = chunk.decode().strip().rpartition("data: ")[2]
        values.append(data if data == "[DONE]" else json.loads(data))
    return values
