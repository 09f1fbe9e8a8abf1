"""Engines that do what a test says, and a control plane in front of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from supervisord_cp.sdk import ControlPlaneManager, ExecutionInstance, RequestMetadata
from tests.router.kit import Asked, Engine, opens, says
from tests.waiting import until

MODEL = "org/model"


class ScriptedEngine(Engine):
    """Answers completions and chats once its gate is open; `health` is the status of its `/health`."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen: list[dict[str, Any]] = []
        """Bodies of the requests that it got, in their order."""
        self.keys: list[str] = []
        """What they had as `Authorization`."""
        self.abandoned = 0
        """Requests whose connection was closed while they waited for the gate."""
        self.error: tuple[int, str] | None = None

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if asked.target == "/metrics":
            return await says({}, 404)(asked, reader, writer)
        self.seen.append(json.loads(asked.body))
        self.keys.append(asked.headers.get("authorization", ""))
        if not await opens(self.gate, reader):
            self.abandoned += 1
            return False
        if self.error is not None:
            status, message = self.error
            return await says({"error": {"message": message}}, status)(asked, reader, writer)
        answer = {
            "model": MODEL,
            "choices": [{"text": "an answer", "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
        return await says(answer)(asked, reader, writer)


class Cluster:
    """A control plane that is started, and its engines by the id of their instance."""

    def __init__(self, plane: ControlPlaneManager) -> None:
        self.plane = plane
        self.engines: dict[str, ScriptedEngine] = {}

    async def add(self, name: str, *, model: str = MODEL, **more: Any) -> ScriptedEngine:
        """One more engine, registered under a name."""
        engine = self.engines[name] = ScriptedEngine()
        await engine.start()
        self.plane.register_instance(ExecutionInstance(name, "127.0.0.1", engine.port, model, **more))
        return engine

    async def submit(self, name: str = "", **more: Any) -> str:
        """Submit a request; `name` is its id."""
        fields = {"prompt": "Hello", **more}
        if name:
            fields["request_id"] = name
        return await self.plane.submit_request(RequestMetadata(**fields))

    async def ask(self, name: str = "", **more: Any) -> str:
        """The instance that answers a request."""
        completion = await self.plane.get_result(await self.submit(name, **more), timeout=10)
        return completion.instance_id

    async def fill(self, name: str) -> str:
        """Close an engine's gate and give it a request; the id of that."""
        self.engines[name].gate.clear()
        before = len(self.engines[name].seen)
        request = await self.submit()
        await until(lambda: len(self.engines[name].seen) > before, f"{name} has a request")
        return request

    def active(self, name: str) -> int:
        """Requests that an instance works on."""
        return {one.instance_id: one.active_requests for one in self.plane.get_instances()}[name]

    def healthy(self) -> set[str]:
        """Instances that get requests."""
        return {one.instance_id for one in self.plane.get_instances() if one.is_healthy}


@asynccontextmanager
async def cluster(scheduling_policy: Any = "fifo", *args: Any, **more: Any) -> AsyncIterator[Cluster]:
    """At the end no task is left behind."""
    before = asyncio.all_tasks()
    made = Cluster(ControlPlaneManager(scheduling_policy, *args, **more))
    await made.plane.start()
    try:
        yield made
    finally:
        await made.plane.stop(drain_timeout_s=0)
        for engine in made.engines.values():
            await engine.stop()
        await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()}, "no task is left")
